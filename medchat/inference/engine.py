"""Which engine computes the products of quantised weights, the native one or torch, and the native one's layer."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from medchat.api import ENGINES
from medchat.errors import UsageError
from medchat.inference.cpu_engine.library import EngineUnavailableError, chosen_instructions, open_library
from medchat.inference.cpu_engine.packed_matrix import PackedMatrix, group_count, packed_bytes
from medchat.inference.group_scales import GroupedLinear
from medchat.inference.quantization import QuantizedEmbedding, QuantizedLinear, replace_modules, unpack_rows
from medchat.inference.quantized_head import pack_head
from medchat.inference.stored_linear import StoredLinear
from medchat.language import say


def takes_native(wanted: str, model: nn.Module, device: torch.device) -> bool:
    """Say whether the native engine is to compute the quantised linears of `model`, which may be without values.

    `wanted` is one of ENGINES; "auto" takes the native engine for quantised weights on a CPU where it can be used.
    Raises UsageError for any other word, and for "native" where nothing is quantised or the device is no CPU;
    EngineUnavailableError for "native" where the library is missing.
    """
    if wanted not in ENGINES:
        raise UsageError(
            say(f"--engine 的值“{wanted}”无效", f"--engine {wanted!r} is not valid"),
            say(f"可用的值：{'|'.join(ENGINES)}", f"valid values: {'|'.join(ENGINES)}"),
        )
    if wanted == "torch":
        return False
    fits = device.type == "cpu" and any(
        isinstance(module, QuantizedLinear | StoredLinear) for module in model.modules()
    )
    if not fits:
        if wanted == "native":
            raise _does_not_serve(device)
        return False
    try:
        chosen_instructions(open_library())
    except EngineUnavailableError:
        if wanted == "native":
            raise
        return False
    return True


def prepare_for_engine(
    wanted: str, model: nn.Module, device: torch.device, *, quantising: bool, replaced: Collection[str] = ()
) -> int:
    """Make the quantised linears of `model`, still without values, as their engine takes them from the files.

    `quantising` says that the files hold dense weights: the native engine then gets a scale for every group, and the
    head quantised too unless its weight is `replaced` (`with_own_head` says so to the placement). Returns
    how many bytes more the engine's own layout takes than what was made. Raises as `takes_native`.
    """
    if not takes_native(wanted, model, device):
        return 0
    if quantising:
        make_grouped(model, replaced)
    # A head that shares the packed embedding's memory gets a layout of its own, and the embedding stays.
    shared = getattr(model, "_tied_weights_keys", None) or ()
    return sum(
        packed_bytes(layer.out_features, layer.in_features, layer.bits)
        - (0 if f"{name}.weight" in shared and type(layer) is QuantizedLinear else _stored_bytes(layer))
        for name, layer in model.named_modules()
        if isinstance(layer, QuantizedLinear)
    )


def make_grouped(model: nn.Module, replaced: Collection[str] = ()) -> None:
    """Give the quantised linears of `model`, still without values, scales for groups, and its head the same.

    The head stays where its weight is among those that are `replaced`.
    """
    for _ in replace_modules(model, QuantizedLinear, GroupedLinear.like):
        pass
    pack_head(model, replaced)


def give_to_engine(wanted: str, model: nn.Module, device: torch.device) -> None:
    """Lay out the quantised linears of `model`, filled, for their engine: in place, one matrix at a time.

    Raises as `takes_native`.
    """
    if not takes_native(wanted, model, device):
        for _ in replace_modules(model, StoredLinear, lambda layer: layer.unpacked().to(device)):
            pass
        return
    for kind in (QuantizedLinear, GroupedLinear):
        for _ in replace_modules(model, kind, NativeLinear.of_quantized):
            pass
    for _ in replace_modules(model, StoredLinear, NativeLinear.of_stored):
        pass


def engine_of(model: nn.Module) -> str:
    """Return which engine computes the linears of `model`: "torch", or "native" with its instructions."""
    if any(isinstance(module, NativeLinear) for module in model.modules()):
        return f"native {chosen_instructions(open_library())}"
    return "torch"


def quantization_of(model: nn.Module) -> str:
    """Return what the linears of `model` are quantised to, one of QUANTIZE."""
    bits = [
        module.packed.bits if isinstance(module, NativeLinear) else module.bits
        for module in model.modules()
        if isinstance(module, QuantizedLinear | NativeLinear)
    ]
    return f"int{min(bits)}" if bits else "none"


def bytes_per_token(model: nn.Module) -> int:
    """Return the bytes of weights that computing one token reads: all but an embedding that is not the head too."""
    read = {part.data_ptr(): part.nbytes for part in (*model.parameters(), *model.buffers())}
    embedding, head = (getattr(model, f"get_{end}_embeddings", lambda: None)() for end in ("input", "output"))
    if embedding is not None and (head is None or head.weight.data_ptr() != embedding.weight.data_ptr()):
        read.pop(embedding.weight.data_ptr(), None)
    return sum(read.values())


def _stored_bytes(layer: QuantizedLinear) -> int:
    return sum(part.numel() * part.element_size() for part in (layer.weight, layer.weight_scale))


def _does_not_serve(device: torch.device) -> UsageError:
    if device.type != "cpu":
        return UsageError(
            say(
                f"--engine native 只在 CPU 上计算，不支持 {device}",
                f"--engine native runs on the CPU only, not on {device}",
            ),
            say("请加上 --device cpu，或去掉 --engine", "use --device cpu, or leave --engine out"),
        )
    return UsageError(
        say("--engine native 只计算量化的权重", "--engine native takes quantised weights only"),
        say(
            "请加上 --quantize int8 或 int4，或去掉 --engine",
            "use --quantize int8 or int4, or leave --engine out",
        ),
    )


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
        weight, scales = layer.weight.detach(), layer.weight_scale.detach()
        if scales.dim() == 1:
            scales = scales[:, None].expand(-1, group_count(layer.in_features))
        packed = PackedMatrix.pack_in_parts(
            layer.out_features,
            layer.in_features,
            layer.bits,
            lambda rows: (unpack_rows(weight[rows], layer.bits).numpy(), scales[rows].numpy()),
        )
        return cls(packed, layer.bias)

    @classmethod
    def of_stored(cls, layer: StoredLinear) -> NativeLinear:
        """Return the same layer for the engine, its weights where `layer` has them: a mapped file as a rule."""
        return cls(
            PackedMatrix(layer.packed_bytes(), layer.out_features, layer.in_features, layer.bits), layer.bias
        )

    def dense_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights [rows, columns]; exact in float32."""
        return torch.from_numpy(self.packed.dense()).to(dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out] in the dtype of `input`; the product itself is float32."""
        if torch.is_grad_enabled() and input.requires_grad:
            return functional.linear(input, self.dense_weight(input.dtype), self.bias)
        rows = input.reshape(-1, self.in_features).float().numpy()
        bias = None if self.bias is None else self.bias.float().numpy()
        precise = input.dtype == torch.float32
        product = self.packed.multiply(rows, bias=bias, threads=torch.get_num_threads(), precise=precise)
        return torch.from_numpy(product).to(input.dtype).view(*input.shape[:-1], self.out_features)


def parameter_count(model: nn.Module) -> int:
    """Return how many weights a model has: those of a quantised matrix by its entries, shared ones once, no scales.

    A head that was quantised on its own, though the original shares the embedding's memory, is not counted again.
    """
    entries: dict[int, int] = {}
    shared = getattr(model, "all_tied_weights_keys", None) or ()
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear | NativeLinear):
            own = isinstance(module, NativeLinear | GroupedLinear) and f"{name}.weight" in shared
            entries[id(module.weight)] = 0 if own else module.in_features * module.out_features
        elif isinstance(module, QuantizedEmbedding):
            entries[id(module.weight)] = module.weight.numel() * 8 // module.bits
        if isinstance(module, QuantizedLinear | QuantizedEmbedding):
            entries[id(module.weight_scale)] = 0
    return sum(entries.get(id(parameter), parameter.numel()) for parameter in model.parameters())
