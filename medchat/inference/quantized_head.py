"""The output head among the quantised linears, for the native engine: it is read for every token, like a layer.

Where it is tied to the embedding, that stays as it is, to be looked up in, and the head is made from the same stored
tensor. The published int8 and int4 files have a head in float16, which stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import Tensor, nn

from medchat.inference.group_scales import GroupedLinear
from medchat.inference.load_weights import Conversion, Placement
from medchat.inference.stored_linear import StoredLinear


def pack_head(model: nn.Module, replaced: Collection[str] = ()) -> None:
    """Put a `GroupedLinear`, still without values, in place of a plain head; its width is that of the layers.

    Not where its weight is among those that are `replaced`: an adapter brings that whole.
    """
    name, head = _head(model)
    bits = next((layer.bits for layer in model.modules() if isinstance(layer, GroupedLinear)), 0)
    if type(head) is nn.Linear and bits and f"{name}.weight" not in replaced:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, GroupedLinear.of_linear(head, bits))


def with_own_head(placement: Placement, model: nn.Module) -> Placement:
    """Return `placement` for a `model` whose head, if it is packed, no longer shares the embedding's memory."""
    name, head = _head(model)
    weight = f"{name}.weight"
    source = placement.tied.get(weight)
    if source is None or type(head) not in (GroupedLinear, StoredLinear):
        return placement
    tied = {tied: to for tied, to in placement.tied.items() if tied != weight}
    conversions = dict(placement.conversions)
    own = conversions.pop(weight, None)
    if own is None:
        return replace(placement, tied=tied)

    def embedding_and_head(rows: Tensor) -> Mapping[str, Tensor]:
        return {source: rows, **own.run(rows)}

    conversions[source] = Conversion(own.shape, (source, *own.makes), embedding_and_head)
    return replace(placement, tied=tied, derived={weight: source}, conversions=conversions)


def _head(model: nn.Module) -> tuple[str, nn.Module | None]:
    """Return the name and the module of the head; "" and None where `model` has none."""
    find = getattr(model, "get_output_embeddings", None)
    head = find() if callable(find) else None
    return next(((name, module) for name, module in model.named_modules() if module is head), ("", None))
