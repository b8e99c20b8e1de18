"""The loss of the label tokens fused with the output head: logits exist only for some rows at a time.

A row of logits is as wide as the vocabulary; with 130k tokens the logits, their softmax and its gradient take
more memory than everything else of a small micro batch (docs/specs/training.md, "Throughput"). Here the
gradients are computed from each chunk's logits, in one buffer, and the logits are freed before the backward
pass begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medchat.inference.net_chat_model import takes_ids_alone

# An embedding lookup that adds its gradient to `.grad` row by row, without a dense copy of the table.
#
# autograd allocates a dense gradient as large as the vocabulary for the few rows that a batch uses, and then
# adds it to `.grad`: with a large vocabulary this is most of a backward pass's memory traffic, and a memory
# peak.


def plain_embedding(model: Any) -> nn.Embedding | None:
    """Return the model's input embedding if it is trained and `look_up` can replace it; else None."""
    found = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    if type(found) is not nn.Embedding or not found.weight.requires_grad:
        return None
    special = found.max_norm is not None or found.scale_grad_by_freq or found.sparse
    return None if special else found


def look_up(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    """Return the rows of `ids` [...] as [..., H]; their gradients are added to `embedding.weight.grad` directly."""
    apply: Callable[..., Tensor] = _LookUp.apply
    return apply(ids, embedding.weight, embedding.padding_idx)


def gradient_of(weight: Tensor) -> Tensor:
    """Return the gradient of a weight, initialised to zeros if there is none yet.

    Shape and dtype are the weight's.
    """
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


class _LookUp(torch.autograd.Function):
    """Rows of `weight` [V, H]; their gradients are added to its `.grad`, except for the rows of `padding`."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        """Return the rows."""
        ctx.ids, ctx.weight, ctx.padding = ids, weight, padding
        return nn.functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        """Add each row's gradient to the weight's `.grad`."""
        into = gradient_of(ctx.weight)
        ids, rows = ctx.ids.flatten(), grad.flatten(0, -2)
        if ctx.padding is not None:
            learned = ids != ctx.padding
            ids, rows = ids[learned], rows[learned]
        # On each device the operation that adds in a fixed order: a resumed run must give the same weights.
        if rows.is_cuda:
            into.index_put_((ids,), rows, accumulate=True)
        else:
            into.index_add_(0, ids, rows)
        return None, None, None


#: Ignored by the loss, as in torch's cross entropy.
NO_LABEL = -100
#: The number of float32 logits in memory at once; at least one row. With fewer, the gradient of a wide head
#: is read and written too often.
CHUNK_BYTES = 1 << 27
#: The number of label positions on which `label_head` compares the model's logits with its head's output.
_PROBED = 4


def logits_at(model: Any, inputs: Mapping[str, Tensor], keep: Tensor) -> Tensor:
    """Return the logits [N, V] of the positions where `keep` [B, T] is true.

    A model of transformers computes only these. Any other module is called with `input_ids` [B, T] alone and
    returns the logits [B, T, V] of all; it sees nothing to the right of a position, so padding there changes
    none.
    """
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    if takes_ids_alone(inner):
        every: Tensor = model(inputs["input_ids"])
        return every[keep]
    # A model of transformers, or a wrapper such as peft's, which forwards all arguments.
    logits: Tensor = model(**inputs, use_cache=False, logits_to_keep=keep).logits
    return logits


def label_head(model: Any, batch: Mapping[str, Tensor]) -> nn.Linear | None:
    """Return the head that `label_loss` may compute in, or None if the model needs its logits whole.

    `batch` is any input with `shift_labels`. The head must be a plain matrix, and the model must return its
    output unchanged (some scale or cap their logits), which is checked on a few positions. The head's weight
    has shape [V, hidden].
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if type(head) is not nn.Linear or head.bias is not None:
        return None
    inputs = {name: tensor.to(head.weight.device) for name, tensor in batch.items()}
    keep = inputs.pop("shift_labels") != NO_LABEL
    keep &= keep.flatten().cumsum(0).view_as(keep) <= _PROBED
    seen: list[Tensor] = []
    hook = head.register_forward_hook(lambda module, given, made: seen.append(made))
    was_training = model.training
    model.eval()  # no dropout: this check must not change the random numbers of a run
    try:
        with torch.no_grad():
            logits = logits_at(model, inputs, keep)
    finally:
        model.train(was_training)
        hook.remove()
    unchanged = len(seen) == 1 and seen[0].shape == logits.shape and torch.equal(seen[0], logits)
    return head if unchanged else None


def label_loss(
    model: Any,
    head: nn.Linear | None,
    inputs: Mapping[str, Tensor],
    shift_labels: Tensor,
    items: Tensor | int | None = None,
    *,
    in_place: bool = False,
) -> Tensor:
    """Return the summed loss of the labels divided by `items`, or their mean if that is None.

    `inputs` are those of `model`, without labels; `shift_labels` [B, T] has each position's next token, or
    `NO_LABEL`. `head` is from `label_head`; with None the logits of all label positions are computed at once.
    Computed in float32 at least, whatever the model's dtype.

    `in_place` adds the gradients of head and input embedding, tables as large as the vocabulary, to their
    `.grad` and returns none to autograd: no copies. Only valid if the backward pass starts at this loss, in
    one process, and the update comes after it.
    """
    keep = shift_labels != NO_LABEL
    labels = shift_labels[keep]
    scale = 1 / (labels.numel() if items is None else items)
    if head is None:
        return summed_loss(logits_at(model, inputs, keep), labels) * scale
    # Inside the forward, where wrappers (DDP, FSDP) have gathered the head's weight and track its
    # use.
    compute: Callable[..., Tensor] = _HeadLoss.apply
    learning = torch.is_grad_enabled()
    into = gradient_of(head.weight) if in_place and head.weight.requires_grad else None
    embedding = plain_embedding(model) if in_place else None
    with ExitStack() as forwards:
        forwards.enter_context(
            _forward_of(
                head,
                # Looked up at call time: FSDP has the full weight only then. Without gradients (evaluation)
                # no buffer is allocated for them.
                lambda states: compute(
                    states, head.weight if learning else head.weight.detach(), labels, scale, into
                ),
            )
        )
        if embedding is not None:
            forwards.enter_context(_forward_of(embedding, partial(look_up, embedding)))
        loss: Tensor = logits_at(model, inputs, keep)
    return loss


def summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the summed loss of `labels` [N] from logits [N, V], in float32 at least."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return nn.functional.cross_entropy(logits.to(wide), labels, reduction="sum")


def chunk_rows(vocabulary: int) -> int:
    """Return the number of label positions whose logits are in memory at once."""
    return max(1, CHUNK_BYTES // (4 * vocabulary))


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


class _HeadLoss(torch.autograd.Function):
    """Cross entropy of `states` [N, H] times `weight` [V, H], summed and scaled; computes its gradients too.

    The weight's gradient is added to `into` [V, H] if given.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        labels: Tensor,
        scale: Tensor | float,
        into: Tensor | None,
    ) -> Tensor:
        """Return the loss, a scalar, in float32 or wider."""
        device = states.device.type
        computed = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        rows, matrix = states.to(computed), weight.to(computed)
        wide = torch.promote_types(computed, torch.float32)
        for_states, for_weight = ctx.needs_input_grad[:2]
        ctx.states = torch.empty_like(states) if for_states else None
        ctx.in_place = into is not None
        for_head = into if into is not None else torch.zeros_like(weight) if for_weight else None
        ctx.weight = None if ctx.in_place else for_head
        learning = for_states or for_head is not None
        total = torch.zeros((), dtype=wide, device=states.device)
        size = chunk_rows(len(weight))
        for start in range(0, len(rows), size):
            chunk = slice(start, start + size)
            gradient = (rows[chunk] @ matrix.T).to(wide)
            total += _loss_in_place(gradient, labels[chunk], scale if learning else None)
            if not learning:
                continue
            gradient = gradient.to(computed)
            if for_states:
                ctx.states[chunk] = gradient @ matrix
            if for_head is not None:
                add_product(for_head, gradient.T, rows[chunk])
        return total * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Return the gradients computed by `forward`; there is one copy, so a second call is an error."""
        if ctx.in_place and float(grad) != 1.0:
            raise RuntimeError("a loss whose gradients are added in place cannot be scaled")
        found = []
        for name in ("states", "weight"):
            gradient = getattr(ctx, name)
            if gradient is not None and (grad.device.type != "cpu" or float(grad) != 1.0):
                gradient *= grad.to(gradient.dtype)
            found.append(gradient)
        del ctx.states, ctx.weight
        return found[0], found[1], None, None, None


def _loss_in_place(logits: Tensor, labels: Tensor, scale: Tensor | float | None) -> Tensor:
    """Return the summed loss, unscaled; `logits` [n, V] become the gradient of `scale` times it, unless None."""
    wanted = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    largest = logits.amax(1)
    sums = logits.sub_(largest.unsqueeze(1)).exp_().sum(1)
    loss = (sums.log() + largest - wanted).sum()
    if scale is not None:
        logits.mul_((scale / sums).unsqueeze(1))
        one = torch.as_tensor(scale, dtype=logits.dtype, device=logits.device)
        logits.scatter_add_(1, labels.unsqueeze(1), -one.expand(len(labels), 1))
    return loss


def add_product(target: Tensor, left: Tensor, right: Tensor) -> None:
    if target.dtype is right.dtype:
        target.addmm_(left, right)
    else:
        target += left @ right
