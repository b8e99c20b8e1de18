"""A linear layer of torch whose product the native engine computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medchat.inference.cpu_engine.packed_matrix import PackedMatrix, group_count
from medchat.inference.quantization import QuantizedLinear, unpack_rows


class NativeLinear(nn.Linear):
    """A linear layer with frozen int8 or int4 weights in the layout of the native engine, on the CPU.

    It is an `nn.Linear` so that adapters can be attached to it; `weight` holds packed bytes, in one row.
    """

    def __init__(self, packed: PackedMatrix, bias: Tensor | None) -> None:
        """`bias` is [rows] of any float dtype."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = packed.columns, packed.rows
        self.packed = packed
        self.weight = nn.Parameter(torch.from_numpy(packed.data), requires_grad=False)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))

    @classmethod
    def of_quantized(cls, layer: QuantizedLinear) -> NativeLinear:
        """Return the same layer for the engine: its weights exactly, with scales of rows or of groups."""
        integers = unpack_rows(layer.weight.detach(), layer.bits).numpy()
        scales = layer.weight_scale.detach()
        if scales.dim() == 1:
            scales = scales[:, None].expand(-1, group_count(layer.in_features))
        return cls(PackedMatrix.pack(integers, scales.numpy(), layer.bits), layer.bias)

    def dense_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights [rows, columns]; exact in float32."""
        return torch.from_numpy(self.packed.dense()).to(dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out] in the dtype of `input`; the product itself is float32."""
        if torch.is_grad_enabled() and input.requires_grad:
            return functional.linear(input, self.dense_weight(input.dtype), self.bias)
        rows = input.reshape(-1, self.in_features).float().numpy()
        bias = None if self.bias is None else self.bias.float().numpy()
        product = self.packed.multiply(rows, bias=bias, threads=torch.get_num_threads())
        return torch.from_numpy(product).to(input.dtype).view(*input.shape[:-1], self.out_features)
