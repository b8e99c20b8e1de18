"""Packed int8 and int4 weights: exactness, the products over them, training on top, cpm-kernels' guarded role."""

from __future__ import annotations

import copy
import ctypes
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import torch
from child_process import TORCH, child_environment, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from medchat_chatglm.quantised import dequantize_blocks, quantize_blocks
from torch import nn

from medchat.errors import UsageError
from medchat.inference import cpm
from medchat.inference.quantization import (
    LARGEST,
    QuantizedLinear,
    dequantize_rows,
    pack_rows,
    quantize_rows,
    unpack_rows,
)

pytestmark = pytest.mark.torch

BITS = pytest.mark.parametrize("bits", [8, 4])
IDS = torch.tensor([[5, 6, 7, 8, 91, 94]])


def build(**keys: object) -> ChatGLMForConditionalGeneration:
    torch.manual_seed(7)
    config = ChatGLMConfig(
        vocab_size=99, hidden_size=32, inner_hidden_size=64, num_layers=2, num_attention_heads=2,
        bos_token_id=94, pad_token_id=3, initializer_range=0.2, **keys,
    )  # fmt: skip
    return ChatGLMForConditionalGeneration(config).eval()


# ---------------------------------------------------------------- packing


@BITS
@given(data=st.data())
def test_every_integer_survives_packing(bits: int, data: st.DataObject) -> None:
    low = -LARGEST[bits] - 1
    values = data.draw(st.lists(st.integers(low, -low - 1), min_size=2, max_size=40))
    integers = torch.tensor([values[: len(values) // 2 * 2]], dtype=torch.int8)
    packed = pack_rows(integers, bits)
    assert packed.shape[1] * 8 == integers.shape[1] * bits
    assert torch.equal(unpack_rows(packed, bits), integers)


@BITS
@given(seed=st.integers(0, 10_000), size=st.sampled_from([1e-3, 1.0, 300.0]))
def test_quantised_weights_are_off_by_half_a_step_at_most(bits: int, seed: int, size: float) -> None:
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(seed)) * size
    packed, scale = quantize_rows(weight, bits)
    error = (dequantize_rows(packed, scale, bits) - weight).abs()
    # Half a step, and what rounding the scale to float16 moves the largest integer by.
    allowed = scale.float() * (0.5 + LARGEST[bits] * 2**-10)
    assert (error <= allowed.unsqueeze(-1)).all()


@BITS
def test_a_row_too_small_for_a_scale_becomes_zeros(bits: int) -> None:
    packed, scale = quantize_rows(torch.stack((torch.zeros(8), torch.full((8,), 1e-9), torch.ones(8))), bits)
    assert not packed[:2].any() and not scale[:2].any()
    assert torch.allclose(dequantize_rows(packed, scale, bits)[2], torch.ones(8), rtol=1e-3)


@pytest.mark.parametrize(("columns", "bits"), [(7, 4), (8, 3)])
def test_what_cannot_be_packed_is_refused(columns: int, bits: int) -> None:
    with pytest.raises(UsageError, match=str(columns)):
        quantize_rows(torch.ones(2, columns), bits)


# ---------------------------------------------------------------- products


@BITS
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
)
@pytest.mark.parametrize("rows", [1, 3, 70])
@pytest.mark.parametrize("columns", [64, 172, 200])
def test_the_product_equals_the_dense_one(
    bits: int, dtype: torch.dtype, tolerance: float, rows: int, columns: int
) -> None:
    """Of any width: torch's kernel ends the process on those that are no multiple of 16."""
    torch.manual_seed(0)
    layer = QuantizedLinear(columns, 32, bits)
    layer.set_dense(torch.randn(32, columns))
    nn.init.normal_(layer.bias)
    states = torch.randn(rows, columns)
    exact = states @ layer.dense_weight().T + layer.bias
    product = layer.to(dtype)(states.to(dtype))
    assert product.dtype == dtype
    assert (product.float() - exact).abs().max() <= tolerance * exact.abs().max()


@BITS
def test_gradients_flow_through_packed_weights_exactly(bits: int) -> None:
    torch.manual_seed(0)
    layer = QuantizedLinear(16, 8, bits)
    layer.set_dense(torch.randn(8, 16))
    states = torch.randn(2, 3, 16, requires_grad=True)
    layer(states).square().sum().backward()
    reference = states.detach().clone().requires_grad_()
    nn.functional.linear(reference, layer.dense_weight(), layer.bias).square().sum().backward()
    assert torch.allclose(states.grad, reference.grad, rtol=1e-4, atol=1e-5)
    assert layer.weight.grad is None and layer.weight_scale.grad is None


def test_casting_the_model_never_rounds_the_scales() -> None:
    model = build()
    quantize_blocks(model, 8)
    scale = model.transformer.layers[0].mlp.dense_h_to_4h.weight_scale.clone()
    cast = model.bfloat16().transformer.layers[0].mlp.dense_h_to_4h
    assert cast.weight.dtype == torch.int8
    assert cast.bias.dtype == torch.bfloat16
    assert torch.equal(cast.weight_scale, scale) and cast.weight_scale.dtype == torch.float16


# ---------------------------------------------------------------- whole models


@BITS
def test_quantising_a_model_replaces_the_block_linears_only(bits: int) -> None:
    model, dense = build(), build()
    assert quantize_blocks(model, bits) == 8
    assert quantize_blocks(model, bits) == 0
    assert model.config.quantization_bit == bits
    packed = {name for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}
    assert all(name.startswith("transformer.layers.") for name in packed) and len(packed) == 8
    assert isinstance(model.lm_head, nn.Linear) and not isinstance(model.lm_head, QuantizedLinear)
    assert not torch.equal(model(IDS).logits, dense(IDS).logits)
    logits = model(IDS).logits
    assert dequantize_blocks(model) == 8
    assert torch.allclose(model(IDS).logits, logits, atol=1e-4)


@BITS
def test_a_quantised_model_saves_and_loads_in_the_published_layout(bits: int, tmp_path: Path) -> None:
    model = build()
    quantize_blocks(model, bits)
    model.save_pretrained(tmp_path)
    again, report = ChatGLMForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert torch.equal(again.eval()(IDS).logits, model(IDS).logits)
    state = again.state_dict()
    name = "transformer.layers.0.mlp.dense_h_to_4h.weight"
    assert state[name].shape == (64, 32 * bits // 8) and state[name].dtype == torch.int8
    assert state[f"{name}_scale"].shape == (64,)


def test_a_packed_embedding_serves_as_the_head_too() -> None:
    dense = build()
    packed, scale = quantize_rows(dense.transformer.word_embeddings.weight.detach(), 4)
    quantize_blocks(dense, 4)
    model = build(quantization_bit=4, quantization_embeddings=True)
    state = dense.state_dict() | {
        "transformer.word_embeddings.weight": packed,
        "transformer.word_embeddings.weight_scale": scale,
        "lm_head.weight": packed,
        "lm_head.weight_scale": scale,
    }
    model.load_state_dict(state)
    assert model.lm_head.weight is model.transformer.word_embeddings.weight
    dense.transformer.word_embeddings.weight.data = dequantize_rows(packed, scale, 4)
    assert torch.allclose(model(IDS).logits, dense(IDS).logits, atol=1e-3)
    assert model.bfloat16()(IDS).logits.dtype == torch.bfloat16


def test_lora_trains_over_packed_weights() -> None:
    model = build()
    quantize_blocks(model, 4)
    before = copy.deepcopy(model.state_dict())
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query_key_value"]))
    adapted(input_ids=IDS, labels=IDS).loss.backward()
    trained = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert trained and all("lora" in name for name in trained)
    after = adapted.unload().state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


# ---------------------------------------------------------------- cpm-kernels


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What was learned about cpm-kernels is asked again in the test and after it."""
    cpm.kernels.cache_clear()
    cpm.serves.cache_clear()
    yield
    cpm.kernels.cache_clear()
    cpm.serves.cache_clear()


class EmulatedGemm:
    """`gemm_scale_x` as cpm-kernels documents it, on memory of this process."""

    def __init__(self, spoil: float = 1.0) -> None:
        self.calls = 0
        self.spoil = spoil

    def gemm_scale_x(self, batch: int, n: int, m: int, mat: int, scale_x: int, out: int, stream: int) -> None:
        assert batch == 1
        self.calls += 1
        integers = torch.frombuffer((ctypes.c_int32 * (n * m)).from_address(mat), dtype=torch.int32)
        scale = torch.frombuffer((ctypes.c_int16 * n).from_address(scale_x), dtype=torch.float16)
        target = torch.frombuffer((ctypes.c_int16 * (n * m)).from_address(out), dtype=torch.float16)
        target.copy_((integers.view(n, m) * scale.float()[:, None] * self.spoil).half().flatten())


@pytest.fixture
def old_gpu(monkeypatch: pytest.MonkeyPatch, forgotten: None) -> EmulatedGemm:
    """A CPU that says it is an sm_75 card, with the kernel emulated."""
    gemm = EmulatedGemm()
    monkeypatch.setattr(cpm, "kernels", _cached(gemm))
    monkeypatch.setattr(cpm, "compute_capability", lambda device: (7, 5))
    monkeypatch.setattr(cpm, "launch_stream", lambda device: nullcontext(0))
    return gemm


def _cached(gemm: EmulatedGemm | None) -> object:
    def kernels() -> EmulatedGemm | None:
        return gemm

    kernels.cache_clear = lambda: None  # type: ignore[attr-defined]
    return kernels


@settings(max_examples=20)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), block=st.integers(1, 4000))
def test_the_kernel_is_given_the_rows_and_scales_it_asks_for(rows: int, columns: int, block: int) -> None:
    integers = torch.randint(-128, 128, (rows, columns), dtype=torch.int8)
    scale = torch.rand(rows).half()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpm, "kernels", _cached(EmulatedGemm()))
        patch.setattr(cpm, "launch_stream", lambda device: nullcontext(0))
        patch.setattr(cpm, "BLOCK_BYTES", block)
        expanded = cpm.expand_with_kernel(integers, scale)
    assert torch.equal(expanded, (integers.float() * scale.float()[:, None]).half())


def test_an_old_gpu_is_served_by_the_kernel(old_gpu: EmulatedGemm) -> None:
    integers, scale = torch.ones(3, 4, dtype=torch.int8), torch.ones(3).half()
    cpm.expand(integers, scale)
    assert old_gpu.calls == 2, "once to check the kernel, once for the weights"


def test_a_kernel_that_computes_wrongly_is_not_used(old_gpu: EmulatedGemm) -> None:
    old_gpu.spoil = 1.5
    assert cpm.expand(torch.ones(3, 4, dtype=torch.int8), torch.ones(3).half()).eq(1).all()


def test_a_kernel_that_fails_is_not_used(old_gpu: EmulatedGemm, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(old_gpu, "gemm_scale_x", broken)
    assert cpm.expand(torch.ones(3, 4, dtype=torch.int8), torch.ones(3).half()).eq(1).all()


@pytest.mark.parametrize("capability", [(9, 0), (8, 9), (10, 0), None], ids=str)
def test_other_devices_never_import_the_package(
    capability: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    def forbidden() -> None:
        raise AssertionError("cpm-kernels must not be imported here")

    forbidden.cache_clear = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr(cpm, "kernels", forbidden)
    monkeypatch.setattr(cpm, "compute_capability", lambda device: capability)
    assert cpm.expand(torch.ones(3, 4, dtype=torch.int8), torch.ones(3).half()).eq(1).all()


def test_an_import_that_fails_in_any_way_leaves_torch(
    monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    class Exploding(SimpleNamespace):
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("CUDA driver version is insufficient")

    monkeypatch.setitem(sys.modules, "cpm_kernels", Exploding(__path__=[], __spec__=None))
    monkeypatch.setitem(sys.modules, "cpm_kernels.kernels", Exploding(__spec__=None))
    assert cpm.kernels() is None


def test_importing_and_running_the_model_does_not_import_cpm_kernels() -> None:
    code = (
        "import sys, torch\n"
        "from medchat.inference.quantization import QuantizedLinear\n"
        "QuantizedLinear(8, 8, 8).half()(torch.ones(2, 8).half())\n"
        "sys.exit('cpm_kernels' in sys.modules or 'pkg_resources' in sys.modules)"
    )
    done = run_python("-c", code, environment=child_environment(), imported=TORCH)
    assert done.returncode == 0, done.stderr.decode()
