"""Linears and embeddings that keep their weights as int8 or int4, and multiply without a dense copy.

What runs where: on a CPU, few rows in bfloat16 (decoding) go through torch's own int8 kernel; all
else expands one matrix at a time and multiplies as usual. On the GPUs that cpm-kernels was compiled
for, its kernel does the expanding (see `cpm`). Results agree up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from medchat.api import QUANTIZE
from medchat.errors import UsageError
from medchat.inference import cpm
from medchat.inference.interrupt import decoder_layers
from medchat.inference.load_weights import Conversion
from medchat.language import say

# Integer weights in the layout of the published int8 and int4 checkpoints
# (docs/specs/models.md, "Quantized weights").
#
# Symmetric, one float16 scale an output row, no zero point: `weight = integer * scale`. Int4 puts two
# columns in a byte, column 2j in the high nibble and 2j + 1 in the low one, each in two's complement.

#: Bit widths the original knows, and the largest integer of each.
LARGEST = {8: 127, 4: 7}


def packed_columns(columns: int, bits: int) -> int:
    """Return how many bytes a row of `columns` weights takes. Raises UsageError for any width but 8 and 4."""
    if bits not in LARGEST or columns * bits % 8:
        raise UsageError(
            say(
                f"无法把 {columns} 列权重量化为 {bits} 位", f"cannot pack {columns} columns into {bits} bits"
            ),
            say("请使用 int8 或 int4", "use int8 or int4"),
        )
    return columns * bits // 8


def quantize_rows(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Quantise [out, in] to packed int8 [out, in * bits / 8] and scales float16 [out].

    Computed in the dtype of `weight`; float16 weights give the bytes of the published files. Rows of
    zeros get scale 0 (the original divides 0 by 0 there).
    """
    packed_columns(weight.shape[-1], bits)
    scale = (weight.abs().amax(-1) / LARGEST[bits]).half()
    divisor = torch.where(scale == 0, 1, scale).to(weight.dtype)
    integers = (weight / divisor.unsqueeze(-1)).round_().clamp_(-LARGEST[bits] - 1, LARGEST[bits])
    return pack_rows(integers.to(torch.int8), bits), scale


def pack_rows(integers: Tensor, bits: int) -> Tensor:
    """Pack int8 [out, in], already in range, into bytes."""
    if bits == 8:
        return integers
    return (integers[..., 0::2] << 4) | (integers[..., 1::2] & 0x0F)


def column_parts(packed: Tensor, bits: int) -> list[tuple[slice, Tensor]]:
    """Split packed weights into int8 matrices and the columns each stands for: one for int8, two for int4.

    Multiplying part by part spares interleaving the nibbles, which costs more than the product itself.
    `packed` is int8 of shape [rows, columns], two columns in a byte for int4.
    """
    if bits == 8:
        return [(slice(None), packed)]
    return [(slice(0, None, 2), packed >> 4), (slice(1, None, 2), (packed << 4) >> 4)]


def unpack_rows(packed: Tensor, bits: int) -> Tensor:
    """Return the int8 integers [..., in] of packed rows."""
    if bits == 8:
        return packed
    return torch.stack([part for _, part in column_parts(packed, bits)], dim=-1).flatten(-2)


def dequantize_rows(packed: Tensor, scale: Tensor, bits: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the weights [..., in]; exact in float32, rounded once in any other dtype."""
    return (unpack_rows(packed, bits).float() * scale.float().unsqueeze(-1)).to(dtype)


#: Up to how many rows torch's int8 kernel beats expanding, by dtype (measured: one core, 4096 x 4096).
#: Float16 is left out: its kernel is scalar.
_KERNEL_ROWS = {torch.bfloat16: 32, torch.float32: 1}

#: The kernel reads rows in vectors of this length: on any other width it computes nonsense or ends the process.
_KERNEL_COLUMNS = 16

#: Bytes of int4 weights widened at a time: they must still be in the cache when the product reads them.
_WIDENED_BYTES = 2**18


def _few_rows_product(rows: Tensor, packed: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Return rows [N, in] times the weights by torch's int8 kernel, N small, on a CPU."""
    scale = scale.to(rows.dtype)
    if bits == 8:
        return torch._weight_int8pack_mm(rows.contiguous(), packed, scale)
    # A nibble left in the high half of its byte is 16 times itself: one operation widens it.
    rows, scale, width = torch.cat((rows[:, 0::2], rows[:, 1::2]), dim=-1), scale / 16, packed.shape[1]
    step = max(1, _WIDENED_BYTES // width)
    scratch = torch.empty(step, 2 * width, dtype=torch.int8)
    products = []
    for start in range(0, len(packed), step):
        block = packed[start : start + step]
        widened = scratch[: len(block)]
        torch.bitwise_and(block, -16, out=widened[:, :width])
        torch.bitwise_left_shift(block, 4, out=widened[:, width:])
        products.append(torch._weight_int8pack_mm(rows, widened, scale[start : start + step]))
    return torch.cat(products, dim=-1)


def _product(rows: Tensor, integers: Tensor, scale: Tensor) -> Tensor:
    """Return rows [N, in] times (integers * scale)ᵀ [in, out], expanding the whole matrix."""
    if rows.dtype == torch.float16:
        # Unscaled sums would leave float16's range.
        return functional.linear(rows, cpm.expand(integers, scale))
    return functional.linear(rows, integers.to(rows.dtype)) * scale.to(rows.dtype)


class _PackedProduct(torch.autograd.Function):
    """The product with frozen packed weights: backward expands them again instead of keeping them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, packed: Tensor, scale: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(packed, scale)
        ctx.bits = bits
        fits = rows.device.type == "cpu" and rows.shape[1] % _KERNEL_COLUMNS == 0
        if fits and len(rows) <= _KERNEL_ROWS.get(rows.dtype, 0):
            return _few_rows_product(rows, packed, scale, bits)
        parts = [_product(rows[:, columns], part, scale) for columns, part in column_parts(packed, bits)]
        return parts[0] if len(parts) == 1 else parts[0].add_(parts[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        packed, scale = ctx.saved_tensors
        return gradients[0] @ dequantize_rows(packed, scale, ctx.bits, gradients[0].dtype), None, None, None


class _Packed(nn.Module):
    """Packed integers `weight` and their `weight_scale`, named as in the published files."""

    weight: Tensor
    weight_scale: Tensor
    #: What makes both of dense rows.
    quantizer = staticmethod(quantize_rows)

    def __init__(self, rows: int, columns: int, bits: int) -> None:
        nn.Module.__init__(self)
        self.bits = bits
        empty = torch.zeros(rows, packed_columns(columns, bits), dtype=torch.int8)
        self.weight = nn.Parameter(empty, requires_grad=False)
        self.weight_scale = nn.Parameter(torch.zeros(rows, dtype=torch.float16), requires_grad=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        # `model.to(bfloat16)` must not round the scales: they belong to the stored weights.
        kept = self.weight_scale.detach()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.weight_scale.dtype != kept.dtype:
            moved = kept.to(self.weight_scale.device)
            self.weight_scale = nn.Parameter(moved, requires_grad=False)
        return self

    def set_dense(self, weight: Tensor) -> None:
        """Quantise `weight` [rows, columns] into this module, on the device of `weight`."""
        packed, scale = self.quantizer(weight.detach(), self.bits)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.weight_scale = nn.Parameter(scale, requires_grad=False)

    def dense_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights [rows, columns]; exact in float32."""
        return dequantize_rows(self.weight, self.weight_scale, self.bits, dtype)


class QuantizedLinear(_Packed, nn.Linear):
    """A linear layer with frozen int8 or int4 weights. Activations keep their precision.

    It is an `nn.Linear` so that peft can attach LoRA to it.
    """

    def __init__(self, inputs: int, outputs: int, bits: int, bias: bool = True) -> None:
        super().__init__(outputs, inputs, bits)
        self.in_features, self.out_features = inputs, outputs
        self.register_parameter("bias", nn.Parameter(torch.zeros(outputs)) if bias else None)

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out] in the dtype of `input`."""
        rows = input.reshape(-1, self.in_features)
        product: Tensor = _PackedProduct.apply(  # type: ignore[no-untyped-call]
            rows, self.weight, self.weight_scale, self.bits
        )
        if self.bias is not None:
            product = product + self.bias
        return product.view(*input.shape[:-1], self.out_features)


class QuantizedEmbedding(_Packed):
    """The embedding of a checkpoint with `quantization_embeddings` ("int4-qe"): packed rows and scales."""

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of `ids`, [..., hidden] in float32; the model casts them to what it computes in."""
        return dequantize_rows(self.weight[ids], self.weight_scale[ids], self.bits)


def bits_of(wanted: str) -> int:
    """Return the width that `--quantize` asks for, 0 for none. Raises UsageError for any other word."""
    if wanted not in QUANTIZE:
        raise UsageError(
            say(f"--quantize 的值“{wanted}”无效", f"--quantize {wanted!r} is not valid"),
            say(f"可用的值：{'|'.join(QUANTIZE)}", f"valid values: {'|'.join(QUANTIZE)}"),
        )
    return {"int8": 8, "int4": 4}.get(wanted, 0)


def insert_quantized_linears(model: nn.Module, bits: int, names: tuple[str, ...]) -> int:
    """Put quantised linears, still without values, in place of those called `names`; return how many.

    For a model on the meta device, before `conversions` and `load.assign` fill it.
    """
    return sum(1 for _ in replace_modules(model, nn.Linear, lambda dense: _empty(dense, bits), names))


def pack_linears(model: PreTrainedModel, bits: int) -> None:
    """Put quantised linears, still without values, in place of those of the layers of `model`.

    Norms, embedding and head stay as they are. Raises UsageError if no layer has a plain linear.
    """
    if not insert_quantized_linears(model, bits, quantisable_linears(model)):
        raise not_quantisable(say("去掉 --quantize", "leave --quantize out"))


def quantisable_linears(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the plain linears of the layers of `model`, sorted; none where it has others (GPT-2)."""
    return tuple(sorted({name for layer in decoder_layers(model) for name in _plain_linears(layer)}))


def not_quantisable(remedy: str) -> UsageError:
    """Return the refusal of a model without such linears; `remedy` is what to type instead."""
    return UsageError(
        say("这种结构的模型不支持量化", "a model of this architecture cannot be quantised"), remedy
    )


def _plain_linears(layer: nn.Module) -> Iterator[str]:
    for path, module in layer.named_modules():
        if type(module) is nn.Linear:
            yield path.rpartition(".")[2]


def conversions(model: nn.Module) -> dict[str, Conversion]:
    """Return what quantises a dense checkpoint, tensor by tensor, into the quantised linears of `model`."""
    found = {}
    for path, layer in model.named_modules():
        if isinstance(layer, QuantizedLinear):
            name = f"{path}.weight"
            run = partial(_quantised_rows, name, layer)
            found[name] = Conversion((layer.out_features, layer.in_features), (name, f"{name}_scale"), run)
    return found


def quantize_linears(model: nn.Module, bits: int, names: tuple[str, ...]) -> int:
    """Quantise the linears called `names` in place, one at a time; return how many were.

    Linears already quantised stay as they are.
    """
    return sum(1 for _ in replace_modules(model, nn.Linear, lambda dense: _quantised(dense, bits), names))


def dequantize_linears(model: nn.Module, names: tuple[str, ...], dtype: torch.dtype = torch.float32) -> int:
    """Turn quantised linears back into dense ones in place (trainable again); return how many were."""
    return sum(1 for _ in replace_modules(model, QuantizedLinear, lambda layer: _dense(layer, dtype), names))


def _quantised_rows(name: str, layer: QuantizedLinear, rows: Tensor) -> dict[str, Tensor]:
    # float16 gives the bytes of the published files; bfloat16 is too coarse to divide in.
    exact = rows if rows.dtype == torch.float16 else rows.float()
    packed, scale = layer.quantizer(exact, layer.bits)
    return {name: packed, f"{name}_scale": scale}


def replace_modules(
    model: nn.Module,
    kind: type[nn.Module],
    make: Callable[[Any], nn.Module],
    names: Collection[str] | None = None,
) -> Iterator[None]:
    """Put what `make` makes of each module of that very kind in its place, one at a time; only those called `names`."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if (names is None or name in names) and type(child) is kind:
                setattr(parent, name, make(child))
                yield


def _empty(dense: nn.Linear, bits: int) -> QuantizedLinear:
    with torch.device("meta"):
        return QuantizedLinear(dense.in_features, dense.out_features, bits, dense.bias is not None)


def _quantised(dense: nn.Linear, bits: int) -> QuantizedLinear:
    layer = _empty(dense, bits)
    layer.set_dense(dense.weight)
    layer.bias = dense.bias
    return layer


def _dense(layer: QuantizedLinear, dtype: torch.dtype) -> nn.Linear:
    with torch.device("meta"):
        dense = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    dense.weight = nn.Parameter(layer.dense_weight(dtype))
    dense.bias = layer.bias if layer.bias is None else nn.Parameter(layer.bias.detach().to(dtype))
    return dense
