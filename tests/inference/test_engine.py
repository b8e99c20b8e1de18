"""A model whose quantised products the native engine computes is the model that torch computes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_checkpoints import load as load_llama
from llama_checkpoints import lora
from native_engine import COMPILED, advance, dense, distance, read
from refusals import refused
from talking_miniatures import FAMILIES

from medchat.api import Finish, GenerationConfig, LoadOptions, Text
from medchat.chat.setup import read_settings, resolve_setup
from medchat.errors import UsageError
from medchat.inference.cpu_engine.library import VARIABLE, EngineUnavailableError, open_library
from medchat.inference.cpu_engine.packed_matrix import packed_bytes
from medchat.inference.engine import NativeLinear, engine_of, prepare_for_engine, takes_native
from medchat.inference.group_scales import GroupedLinear
from medchat.inference.quantization import QuantizedLinear, replace_modules
from medchat.inference.quick_start import wanted_engine

pytest_plugins = ("talking_miniatures",)
pytestmark = pytest.mark.torch

#: Families that the engine runs whole.
WHOLE = ["llama", "bloom", "huozi", "chatglm"]
CPU = torch.device("cpu")
GREEDY = GenerationConfig(max_new_tokens=12, greedy=True)
NEVER = threading.Event()
QUESTIONS = ("头痛怎么办？", "发热", "咳嗽三天了要不要去医院？")
QUESTION = [Text(QUESTIONS[0])]
#: What rounding activations to 24 bits may change in logits, as a share of their spread.
NEAR = 1e-4
Loaded = Callable[..., Any]


@pytest.fixture(scope="module")
def loaded(talkative: Callable[[str], Path]) -> Loaded:
    """Return a function from family, engine and width to the talkative model, loaded once.

    The engine "dense" is torch with the very weights of the native one, as plain float32 linears.
    """

    @cache
    def chat(family: str, engine: str, quantize: str) -> Any:
        taken = {"dense": "native"}.get(engine, engine)
        how = {"device": "cpu", "dtype": "float32", "quantize": quantize, "engine": taken}
        found: Any = FAMILIES[family].load(LoadOptions(talkative(family), **how))
        if engine == "dense":
            assert sum(1 for _ in replace_modules(found.model, NativeLinear, dense)) > 4
        return found

    return chat


def answer(chat: Any, question: str) -> str:
    return "".join(delta.text for delta in chat.stream([Text(question)], GREEDY, NEVER))


# ---------------------------------------------------------------- the same model


@COMPILED
@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_both_engines_answer_alike_and_score_alike(loaded: Loaded, family: str, quantize: str) -> None:
    native, reference = (loaded(family, engine, quantize) for engine in ("native", "dense"))
    assert native.describe()["engine"].startswith("native ") and reference.describe()["engine"] == "torch"
    ids = list(native.prompt_ids(QUESTION))
    prompts = [read(chat, ids) for chat in (native, reference)]
    assert distance(*prompts) < NEAR
    assert distance(*(advance(chat, 9) for chat in (native, reference))) < NEAR
    answers = [[answer(chat, question) for question in QUESTIONS] for chat in (native, reference)]
    assert answers[0] == answers[1] and any(answers[0])
    scores = [torch.tensor(chat.score(QUESTION, "多喝水")) for chat in (native, reference)]
    assert distance(*scores) < NEAR


@COMPILED
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_quantised_weights_are_counted_by_their_entries_whatever_computes_them(
    loaded: Loaded, quantize: str
) -> None:
    counts = {
        loaded("llama", engine, width).describe()["parameters"]
        for engine, width in (("torch", "none"), ("torch", quantize), ("native", quantize))
    }
    assert len(counts) == 1


@COMPILED
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_answers_as_each_question_alone(loaded: Loaded, family: str) -> None:
    chat = loaded(family, "native", "int8")
    together = chat.generate_batch([[Text(question)] for question in QUESTIONS], GREEDY)
    assert [one.text for one in together] == [answer(chat, question) for question in QUESTIONS]


@COMPILED
@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_a_kept_cache_gives_the_logits_of_a_fresh_one(loaded: Loaded, family: str) -> None:
    chat = loaded(family, "native", "int4")
    ids = list(range(10, 30))
    chat.stepper.forget()
    fresh = read(chat, ids)
    read(chat, [*ids[:-3], 9, 9])
    again = read(chat, ids)
    assert chat.stepper.reused_tokens == len(ids) - 3
    torch.testing.assert_close(again, fresh, atol=1e-4, rtol=1e-4)
    assert family not in WHOLE or torch.equal(again, fresh)


@COMPILED
@pytest.mark.parametrize("family", WHOLE)
def test_a_plain_model_runs_whole_and_one_with_a_hook_through_torch_as_near(
    loaded: Loaded, family: str
) -> None:
    chat = loaded(family, "native", "int8")
    ids = list(chat.prompt_ids([Text("咳嗽三天了要不要去医院？" * 6)]))
    whole = read(chat, ids)
    seen: list[object] = []
    handle = chat.model.get_input_embeddings().register_forward_hook(lambda *_: seen.append(1))
    through_torch = read(chat, ids)
    handle.remove()
    assert seen and distance(whole, through_torch) < NEAR
    assert torch.equal(read(chat, ids), whole)


@COMPILED
@pytest.mark.parametrize("family", WHOLE)
def test_rows_of_a_batch_that_end_at_different_lengths_are_those_of_each_alone(
    loaded: Loaded, family: str
) -> None:
    chat = loaded(family, "native", "int4")
    rows = [list(chat.prompt_ids([Text("头痛，发热，咳嗽"[:length] * 9)])) for length in (1, 8, 3, 6)]
    sampled = GenerationConfig(max_new_tokens=20, temperature=1.5, seed=3)
    together = chat.answer_rows(rows, sampled, None)
    assert together == [chat.answer_rows([row], sampled, None)[0] for row in rows]
    assert len({answer.tokens for answer in together}) == len(rows)


@COMPILED
def test_a_batch_that_is_cancelled_says_so_of_every_row(loaded: Loaded) -> None:
    cancel = threading.Event()
    cancel.set()
    answers = loaded("llama", "native", "int8").answer_rows([[9, 10], [11]], GREEDY, cancel)
    assert [answer.finish for answer in answers] == [Finish.CANCELLED] * 2


@COMPILED
def test_a_cancel_ends_a_prompt_within_the_layer_that_is_being_read(loaded: Loaded) -> None:
    chat = loaded("llama", "native", "int8")
    cancel, seen = threading.Event(), []

    def stop(*_: Any) -> None:
        seen.append(1)
        cancel.set()

    handles = [layer.register_forward_hook(stop) for layer in chat.model.model.layers]
    deltas = list(chat.stream(QUESTION, GREEDY, cancel))
    for handle in handles:
        handle.remove()
    assert len(handles) > 1 and len(seen) == 1 and [delta.text for delta in deltas] == [""]


@COMPILED
def test_every_instruction_set_of_this_cpu_gives_the_same_logits(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = loaded("chatglm", "native", "int4")
    ids = list(chat.prompt_ids(QUESTION))
    found = []
    for instructions in open_library().usable:
        monkeypatch.setenv(VARIABLE, instructions)
        assert chat.describe()["engine"] == f"native {instructions}"
        found.append(read(chat, ids))
    assert all(torch.equal(one, found[0]) for one in found)


@COMPILED
def test_an_adapter_over_native_weights_acts_as_over_those_of_torch(
    talkative: Callable[[str], Path], tmp_path: Path
) -> None:
    base = talkative("llama")
    lora(load_llama(base).model, tmp_path / "adapter", 3)
    model = load_llama(base, tmp_path / "adapter", quantize="int8", engine="native").model
    with torch.inference_mode():
        native = model(torch.arange(10, 30)[None]).logits
        assert sum(1 for _ in replace_modules(model, NativeLinear, dense)) > 4
        assert distance(native, model(torch.arange(10, 30)[None]).logits) < NEAR


@COMPILED
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_layer_adds_its_bias_and_keeps_shape_and_dtype(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    grouped = GroupedLinear(40, 24, 8)
    grouped.set_dense(torch.randn(24, 40))
    grouped.bias = torch.nn.Parameter(torch.randn(24), requires_grad=False)
    native = NativeLinear.of_quantized(grouped).to(dtype)
    inputs = torch.randn(2, 3, 40).to(dtype)
    found = native(inputs)
    assert (found.shape, found.dtype) == ((2, 3, 24), dtype)
    wanted = inputs.float() @ grouped.dense_weight().T + native.bias.float()
    torch.testing.assert_close(
        found, wanted.to(dtype), atol=1e-2 if dtype != torch.float32 else 1e-3, rtol=1e-2
    )


@COMPILED
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_gradients_pass_through_native_weights(loaded: Loaded, quantize: str) -> None:
    found = {}
    for engine in ("native", "dense"):
        layer = loaded("bloom", engine, quantize).model.transformer.h[0].mlp.dense_h_to_4h
        inputs = torch.linspace(-1, 1, layer.in_features).reshape(1, -1).requires_grad_()
        layer(inputs).square().sum().backward()
        found[engine] = inputs.grad
    torch.testing.assert_close(found["native"], found["dense"], atol=1e-2, rtol=1e-3)


# ---------------------------------------------------------------- which engine


class OneLayer(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer


@COMPILED
def test_auto_takes_the_native_engine_for_quantised_weights_on_a_cpu_alone() -> None:
    quantised, dense = OneLayer(QuantizedLinear(8, 8, 8)), OneLayer(torch.nn.Linear(8, 8))
    assert takes_native("auto", quantised, CPU) and takes_native("native", quantised, CPU)
    assert not takes_native("auto", dense, CPU)
    assert not takes_native("auto", quantised, torch.device("meta"))
    assert not takes_native("torch", quantised, CPU)


@pytest.mark.parametrize(
    ("engine", "dtype", "wanted"),
    [
        ("auto", "auto", "auto"),
        ("auto", "bfloat16", "auto"),
        ("auto", "float32", "torch"),
        ("native", "float32", "native"),
    ],
)
def test_auto_leaves_float32_to_torch(engine: str, dtype: str, wanted: str) -> None:
    assert wanted_engine(LoadOptions(Path(), engine=engine, dtype=dtype)) == wanted


def test_without_the_library_auto_is_torch_and_native_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise EngineUnavailableError("missing")

    monkeypatch.setattr("medchat.inference.engine.open_library", missing)
    model = OneLayer(QuantizedLinear(8, 8, 8))
    assert not takes_native("auto", model, CPU)
    assert prepare_for_engine("auto", model, CPU, quantising=True) == 0
    assert type(model.layer) is QuantizedLinear
    with pytest.raises(EngineUnavailableError):
        takes_native("native", model, CPU)


@pytest.mark.parametrize(
    ("wanted", "device", "said"),
    [
        ("fast", "cpu", "auto|native|torch"),
        ("native", "cpu", "--quantize"),
        ("native", "cuda", "--device cpu"),
    ],
)
def test_an_engine_that_cannot_serve_is_refused_with_what_to_type(
    wanted: str, device: str, said: str
) -> None:
    model = OneLayer(torch.nn.Linear(8, 8))
    error = refused(lambda: takes_native(wanted, model, torch.device(device)), UsageError, 2)
    assert said in error.remedy


@COMPILED
@pytest.mark.parametrize("engine", ["torch", "native"])
def test_the_setting_reaches_the_model_that_is_loaded(talkative: Callable[[str], Path], engine: str) -> None:
    flags = {"model": str(talkative("llama")), "device": "cpu", "quantize": "int8", "engine": engine}
    chat = resolve_setup(read_settings(flags)).load()
    assert str(chat.describe()["engine"]).startswith(engine)


@COMPILED
@pytest.mark.parametrize("family", FAMILIES)
def test_an_engine_that_cannot_serve_is_refused_before_any_weight_is_read(
    talkative: Callable[[str], Path], family: str
) -> None:
    options = LoadOptions(talkative(family), device="cpu", engine="native")
    assert "--quantize" in refused(lambda: FAMILIES[family].check(options), UsageError, 2).remedy


@COMPILED
@pytest.mark.parametrize("bits", [4, 8])
def test_the_memory_that_is_asked_for_is_what_the_native_layout_takes(bits: int) -> None:
    layer = QuantizedLinear(4096, 4096, bits)
    model = OneLayer(layer)
    stored = layer.weight.numel() + 2 * layer.weight_scale.numel()
    more = prepare_for_engine("native", model, CPU, quantising=False)
    assert stored + more == packed_bytes(4096, 4096, bits) and more > 0
    assert (
        prepare_for_engine("native", model, CPU, quantising=True) == 0
    )  # the scales of groups are there already
    native = NativeLinear.of_quantized(QuantizedLinear(64, 48, bits))
    assert native.weight.numel() == packed_bytes(48, 64, bits)
    assert engine_of(OneLayer(native)).startswith("native ") and engine_of(model) == "torch"
