"""The memory of tensors that the forward pass saves for the backward pass, in bytes, as torch saves them.

The numbers of saved tensors were counted with `torch.autograd.graph.saved_tensors_hooks` on the models
themselves (torch 2.13, transformers 5.23, sdpa attention); `tests/training/test_memory_estimate.py` counts
them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medchat.api import SFTOptions
from medchat.training.fused_loss import chunk_rows
from medchat.training.measured_step import HeldBytes, StepSize
from medchat.training.optimizers import Precision

# The dimensions of a decoder that determine its memory: plain numbers from a configuration, no tensors.

#: The architecture of a block. `gated`: RMS norms, a gated feed-forward (LLaMA). `plain`: layer norms, two
#: linears (ChatGLM). `alibi`: as `plain`, and attention saves its scores (Bloom in transformers).
Block = Literal["gated", "plain", "alibi"]


@dataclass(frozen=True, slots=True)
class ModelDims:
    """A decoder's dimensions. `parameters` counts tied ones once.

    `trainable` are the parameters that each method but `full` trains. `tied`: the output head is the
    embedding. `packed` are those `qlora` keeps in 4 bits: the decoder's linear layers, 0 if none of them can
    be packed. `measured`, in place of all that counts tensors here, returns what a
    step of a micro batch holds, by method and precision.
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
    measured: Callable[[str, Precision, StepSize], HeldBytes] | None = None

    @property
    def methods(self) -> frozenset[str]:
        """Return the methods that can train the model."""
        return frozenset(("full", *self.trainable)) - (frozenset() if self.packed else {"qlora"})

    @property
    def checkpoints(self) -> bool:
        """Say whether the model has gradient checkpointing: all of transformers have."""
        return self.measured is None

    @property
    def unsharded(self) -> int:
        """Return how many parameters a process of several has whole at a time: two blocks and the head, or all."""
        return self.parameters if self.measured else self.packed // self.layers * 2 + self.embedding

    @property
    def embedding(self) -> int:
        """Return the elements of the embedding, the largest tensor of all these models."""
        return self.vocabulary * self.hidden

    def trained(self, method: str) -> int:
        """Return how many parameters `method` trains."""
        return self.parameters if method == "full" else self.trainable[method]


def model_dims(
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
) -> ModelDims:
    """Return the dimensions of a model from its configuration.

    `targets` are (inputs, outputs) of each linear layer of one block that LoRA changes. `parameters` is the
    number of parameters if known from the files' headers; by default it is computed from the dimensions.
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
    return ModelDims(
        layers, hidden, inner, heads, vocabulary, block, tied, parameters, layers * matrices, trainable
    )


#: Gradients of inner and of hidden width that one block holds at once in its backward pass.
_BACK_INNER, _BACK_HIDDEN = 3, 4
#: Copies of the attention scores held at once by a model that computes them outside a fused kernel.
_BACK_SCORES = 3


@dataclass(frozen=True, slots=True)
class SavedTensors:
    """Tensors a block saves: `wide` of hidden width in float32, `hidden` and `inner` in the compute dtype."""

    wide: int
    hidden: int
    inner: int


#: Keyed by block, by whether all weights or parts beside a frozen base are trained, and by precision.
KEPT: Mapping[tuple[Block, bool, str], SavedTensors] = {
    ("gated", True, "float32"): SavedTensors(0, 10, 4),
    ("gated", True, "mixed"): SavedTensors(4, 9, 4),
    ("gated", True, "bfloat16"): SavedTensors(2, 8, 4),
    ("gated", False, "float32"): SavedTensors(0, 10, 3),
    ("gated", False, "mixed"): SavedTensors(4, 6, 3),
    ("gated", False, "bfloat16"): SavedTensors(2, 8, 3),
    ("plain", True, "float32"): SavedTensors(0, 10, 2),
    ("plain", True, "mixed"): SavedTensors(2, 8, 2),
    ("plain", True, "bfloat16"): SavedTensors(0, 10, 2),
    ("plain", False, "float32"): SavedTensors(0, 10, 1),
    ("plain", False, "mixed"): SavedTensors(1, 9, 1),
    ("plain", False, "bfloat16"): SavedTensors(0, 10, 1),
    ("alibi", True, "float32"): SavedTensors(0, 8, 2),
    ("alibi", True, "mixed"): SavedTensors(2, 6, 2),
    ("alibi", True, "bfloat16"): SavedTensors(0, 8, 2),
    ("alibi", False, "float32"): SavedTensors(0, 7, 1),
    ("alibi", False, "mixed"): SavedTensors(1, 6, 1),
    ("alibi", False, "bfloat16"): SavedTensors(0, 7, 1),
}


def block_bytes(shape: ModelDims, *, full: bool, precision: str, rows: int, length: int) -> int:
    """Return the bytes that one block saves for a batch of `rows` x `length` tokens, padding included."""
    kept = KEPT[shape.block, full, precision]
    wide, size = 4, 4 if precision == "float32" else 2
    token = shape.hidden * (kept.wide * wide + kept.hidden * size) + shape.inner * kept.inner * size
    if shape.block == "alibi":
        # The softmax's result in float32 and, where it computes in another dtype, once more.
        token += shape.heads * length * (wide + (size if size != wide else 0))
    else:
        # The mask as numbers, one table for all heads; the softmax's denominators.
        token += length * size + shape.heads * wide
    return rows * length * token


def working_bytes(shape: ModelDims, *, precision: str, rows: int, length: int) -> int:
    """Return the bytes that one block needs in addition during its backward pass."""
    size = 4 if precision == "float32" else 2
    token = (shape.inner * _BACK_INNER + shape.hidden * _BACK_HIDDEN) * size
    if shape.block == "alibi":
        token += shape.heads * length * 4 * _BACK_SCORES
    return rows * length * token


def kept_bytes(
    shape: ModelDims, *, full: bool, precision: str, checkpointing: bool, rows: int, length: int
) -> int:
    """Return the bytes that all blocks save: everything, or with gradient checkpointing each block's input.

    With checkpointing one block at a time is recomputed, and its saved tensors exist for that time.
    """
    block = block_bytes(shape, full=full, precision=precision, rows=rows, length=length)
    # With float32 weights the hidden state between blocks is float32.
    stream = 2 if precision == "bfloat16" or (precision == "mixed" and not full) else 4
    between = rows * length * shape.hidden * stream
    # Outside the blocks: the embedding's output, the last norm's input and output.
    ends = 3 * between
    return (shape.layers * between + block if checkpointing else shape.layers * block) + ends


def logit_bytes(shape: ModelDims, *, full: bool, precision: str, labels: int) -> int:
    """Return the bytes of head and loss besides the head's gradient: a chunk of logits (see `label_loss`)."""
    # float32 logits; if computed in bfloat16, a bfloat16 copy of them or of their gradient exists as well.
    chunk = (
        min(labels, chunk_rows(shape.vocabulary)) * shape.vocabulary * (4 if precision == "float32" else 6)
    )
    # With float32 weights there is a bfloat16 copy of the head, and of each chunk's part of its gradient.
    return chunk + (2 * shape.embedding * (2 if full else 0) if precision == "mixed" else 0)
