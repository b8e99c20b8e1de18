"""What the forward pass keeps for the backward pass, in bytes, as torch really keeps it.

The numbers of kept tensors were counted with `torch.autograd.graph.saved_tensors_hooks` on the models
themselves (torch 2.13, transformers 5.23, sdpa attention); `tests/test_sft_memory.py` counts them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medchat.torchside.sft.label_loss import chunk_rows
from medchat.torchside.sft.shape import Block, ModelShape

#: Inner-width and hidden-width gradients that one block holds at once while it goes back.
_BACK_INNER, _BACK_HIDDEN = 3, 4
#: Copies of the attention scores at once, where a model computes them outside a fused kernel.
_BACK_SCORES = 3


@dataclass(frozen=True, slots=True)
class Kept:
    """Tensors a block keeps: `wide` of hidden width in float32, `hidden` and `inner` in the compute dtype."""

    wide: int
    hidden: int
    inner: int


#: By block, by whether all is trained or something beside a frozen base, by precision.
KEPT: Mapping[tuple[Block, bool, str], Kept] = {
    ("gated", True, "float32"): Kept(0, 10, 4),
    ("gated", True, "mixed"): Kept(4, 9, 4),
    ("gated", True, "bfloat16"): Kept(2, 8, 4),
    ("gated", False, "float32"): Kept(0, 10, 3),
    ("gated", False, "mixed"): Kept(4, 6, 3),
    ("gated", False, "bfloat16"): Kept(2, 8, 3),
    ("plain", True, "float32"): Kept(0, 10, 2),
    ("plain", True, "mixed"): Kept(2, 8, 2),
    ("plain", True, "bfloat16"): Kept(0, 10, 2),
    ("plain", False, "float32"): Kept(0, 10, 1),
    ("plain", False, "mixed"): Kept(1, 9, 1),
    ("plain", False, "bfloat16"): Kept(0, 10, 1),
    ("alibi", True, "float32"): Kept(0, 8, 2),
    ("alibi", True, "mixed"): Kept(2, 6, 2),
    ("alibi", True, "bfloat16"): Kept(0, 8, 2),
    ("alibi", False, "float32"): Kept(0, 7, 1),
    ("alibi", False, "mixed"): Kept(1, 6, 1),
    ("alibi", False, "bfloat16"): Kept(0, 7, 1),
}


def block_bytes(shape: ModelShape, *, full: bool, precision: str, rows: int, length: int) -> int:
    """Return what one block keeps of a batch of `rows` x `length` tokens, padding included."""
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


def working_bytes(shape: ModelShape, *, precision: str, rows: int, length: int) -> int:
    """Return what one block needs beside that while gradients pass back through it."""
    size = 4 if precision == "float32" else 2
    token = (shape.inner * _BACK_INNER + shape.hidden * _BACK_HIDDEN) * size
    if shape.block == "alibi":
        token += shape.heads * length * 4 * _BACK_SCORES
    return rows * length * token


def kept_bytes(
    shape: ModelShape, *, full: bool, precision: str, checkpointing: bool, rows: int, length: int
) -> int:
    """Return what all blocks keep: everything, or with gradient checkpointing each block's input.

    With checkpointing one block at a time is computed again, so that its own are kept for a while.
    """
    block = block_bytes(shape, full=full, precision=precision, rows=rows, length=length)
    # Weights in float32 hand their dtype on from block to block.
    stream = 2 if precision == "bfloat16" or (precision == "mixed" and not full) else 4
    between = rows * length * shape.hidden * stream
    # Around the blocks: the embedding's output, the last norm's input and output.
    ends = 3 * between
    return (shape.layers * between + block if checkpointing else shape.layers * block) + ends


def logit_bytes(shape: ModelShape, *, full: bool, precision: str, labels: int) -> int:
    """Return what head and loss hold beside the head's gradient: a chunk of logits (see `label_loss`)."""
    # float32 logits; computed in bfloat16 they, or their gradient, exist in that as well.
    chunk = (
        min(labels, chunk_rows(shape.vocabulary)) * shape.vocabulary * (4 if precision == "float32" else 6)
    )
    # Beside float32 weights the head is copied to bfloat16, and so is each chunk's share of its gradient.
    return chunk + (2 * shape.embedding * (2 if full else 0) if precision == "mixed" else 0)
