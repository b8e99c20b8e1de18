"""The measures of a decoder that its memory follows from. Plain figures of a configuration; no tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medchat.api import SFTOptions

#: What a block is made of. `gated`: RMS norms, a gated feed-forward (LLaMA). `plain`: layer norms, two
#: linears (ChatGLM). `alibi`: as `plain`, and attention keeps its scores (Bloom in transformers).
Block = Literal["gated", "plain", "alibi"]


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder's measures. `parameters` counts tied ones once.

    `trainable` are the parameters that each method but `full` trains. `tied`: the output head is the
    embedding. `packed` are those `qlora` keeps in 4 bits: the decoder's linears.
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    vocabulary: int
    block: Block
    tied: bool
    parameters: int
    packed: int
    trainable: Mapping[str, int]

    @property
    def embedding(self) -> int:
        """Return the elements of the embedding, the largest tensor of all these models."""
        return self.vocabulary * self.hidden

    def trained(self, method: str) -> int:
        """Return how many parameters `method` trains."""
        return self.parameters if method == "full" else self.trainable[method]


def model_shape(
    options: SFTOptions,
    *,
    layers: int,
    hidden: int,
    inner: int,
    heads: int,
    vocabulary: int,
    block: Block,
    tied: bool,
    targets: Sequence[tuple[int, int]],
    parameters: int = 0,
) -> ModelShape:
    """Return the shape of a model from its configuration.

    `targets` are (inputs, outputs) of each linear of one layer that LoRA changes. `parameters` is their
    number where the files' headers tell it, else it follows from the measures.
    """
    matrices = 4 * hidden * hidden + (3 if block == "gated" else 2) * hidden * inner
    if not parameters:
        small = 2 * hidden if block == "gated" else 4 * hidden + 5 * hidden + inner
        ends = (1 if tied else 2) * vocabulary * hidden + {"gated": 1, "plain": 2, "alibi": 4}[block] * hidden
        parameters = layers * (matrices + small) + ends
    lora = layers * options.lora_r * sum(inputs + outputs for inputs, outputs in targets)
    size = options.adapter_size
    prefix = options.pre_seq_len * 2 * layers * hidden
    if options.prefix_projection:
        # An embedding and two linears instead of the table itself.
        prefix = options.pre_seq_len * hidden + hidden * (hidden + 1) + 2 * layers * hidden * (hidden + 1)
    trainable = {
        "lora": lora,
        "qlora": lora,
        "adapter": layers * 2 * (2 * hidden * size + size + hidden),
        "ptuning": prefix,
    }
    return ModelShape(
        layers, hidden, inner, heads, vocabulary, block, tied, parameters, layers * matrices, trainable
    )
