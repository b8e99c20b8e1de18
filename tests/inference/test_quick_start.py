"""Packed weights answer without torch: what the ordinary way answers, and only where that way would use them."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from child_process import PROGRAM as CORE
from child_process import TORCH, child_environment, run_python
from native_engine import COMPILED
from talking_miniatures import FAMILIES

from medchat.api import Finish, GenerationConfig, LoadOptions, QuantizedCache, Text
from medchat.errors import MedchatError, UsageError
from medchat.inference import quick_start
from medchat.inference.cpu_engine import library
from medchat.inference.mapped_chat_model import MappedChatModel
from medchat.inference.prompt_lookup import Speculation

pytest_plugins = ("talking_miniatures",)
pytestmark = [pytest.mark.torch, COMPILED]

QUICK = ("chatglm", "llama")
QUESTIONS = ("头痛怎么办？", "咳嗽三天了，要不要去医院？")
NEVER = threading.Event()
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"greedy": True},
    "drawn": {"seed": 3, "temperature": 1.5, "top_p": 0.98},
    "top-k": {"seed": 4, "temperature": 1.2, "top_k": 20},
    "penalty": {"seed": 5, "repetition_penalty": 1.2},
    "stop text": {"greedy": True, "stop": ("。",)},
}


@pytest.fixture(scope="module")
def options(
    talkative: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., LoadOptions]:
    """Return a function from a family and a width to options whose weights are kept already."""
    cache_folder = QuantizedCache(tmp_path_factory.mktemp("quick") / "cache", 1 << 30)

    @cache
    def kept(family: str, quantize: str) -> LoadOptions:
        made = LoadOptions(
            talkative(family),
            quantize=quantize,
            device="cpu",
            dtype="bfloat16",
            quantized_cache=cache_folder,
            quick_start=True,
        )
        FAMILIES[family].load(made).close()
        return made

    def chosen(family: str = "llama", quantize: str = "int4", **others: Any) -> LoadOptions:
        return replace(kept(family, quantize), **others)

    return chosen


def load(options: LoadOptions, family: str = "llama", *, quick: bool = True) -> Any:
    return FAMILIES[family].load(replace(options, quick_start=quick))


def deltas(chat: Any, question: str, config: GenerationConfig) -> list[Any]:
    return list(chat.stream([Text(question)], config, threading.Event()))


# ---------------------------------------------------------------- the same answers


@pytest.mark.parametrize("family", QUICK)
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_answers_are_those_of_the_model_that_torch_loads(
    options: Callable[..., LoadOptions], family: str, quantize: str
) -> None:
    chosen = options(family, quantize)
    quick, ordinary = load(chosen, family), load(chosen, family, quick=False)
    assert isinstance(quick, MappedChatModel) and not isinstance(ordinary, MappedChatModel)
    said = ""
    for way in WAYS.values():
        config = GenerationConfig(max_new_tokens=16, **way)
        for question in QUESTIONS:
            found = deltas(quick, question, config)
            assert found == deltas(ordinary, question, config), way
            said += "".join(delta.text for delta in found)
    assert len(said) > 50
    for question in QUESTIONS:
        assert quick.count([Text(question)]) == ordinary.count([Text(question)])
        assert quick.prompt_ids([Text(question)]) == ordinary.prompt_ids([Text(question)])
    begun = [
        list(
            chat.go_on([Text(QUESTIONS[0])], "多喝水", GenerationConfig(greedy=True, max_new_tokens=8), NEVER)
        )
        for chat in (quick, ordinary)
    ]
    assert begun[0] == begun[1]
    # How much was drafted depends on how long each took.
    told = [{**chat.describe(), **Speculation().describe()} for chat in (quick, ordinary)]
    computed = told[1].pop("weight_bytes") - told[0].pop("weight_bytes")
    assert told[0] == told[1] and 0 <= computed < 2**12  # the tables of angles that torch's model has


@pytest.mark.parametrize("family", QUICK)
def test_a_folder_of_packed_weights_answers_without_the_original(
    options: Callable[..., LoadOptions], family: str, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    FAMILIES[family].save_quantized(options(family, "int8", quantized_cache=None), packed)
    config = GenerationConfig(max_new_tokens=16, seed=1, temperature=1.3)
    for quantize in ("none", "int8"):
        for dtype in ("float16", "bfloat16"):  # the folder's own, and one that its norms are rounded to
            chosen = LoadOptions(packed, device="cpu", dtype=dtype, quantize=quantize, quick_start=True)
            quick, ordinary = load(chosen, family), load(chosen, family, quick=False)
            assert isinstance(quick, MappedChatModel)
            assert deltas(quick, QUESTIONS[0], config) == deltas(ordinary, QUESTIONS[0], config)
    with pytest.raises(UsageError):  # the ordinary way says that int8 cannot become int4
        load(replace(chosen, quantize="int4"), family)


@pytest.mark.parametrize("family", QUICK)
def test_what_takes_torch_is_left_to_the_ordinary_model(
    options: Callable[..., LoadOptions], family: str
) -> None:
    chosen = options(family, "int8")
    quick, ordinary = load(chosen, family), load(chosen, family, quick=False)
    beams = GenerationConfig(num_beams=2, max_new_tokens=5)
    assert deltas(quick, QUESTIONS[0], beams) == deltas(ordinary, QUESTIONS[0], beams)
    prompts, greedy = (
        [[Text(question)] for question in QUESTIONS],
        GenerationConfig(greedy=True, max_new_tokens=5),
    )
    assert quick.generate_batch(prompts, greedy) == ordinary.generate_batch(prompts, greedy)
    assert quick.score(prompts[0], "多喝水") == ordinary.score(prompts[0], "多喝水")
    quick.close()


def test_an_answer_ends_soon_after_it_was_cancelled(options: Callable[..., LoadOptions]) -> None:
    quick, cancel = load(options()), threading.Event()
    answer = quick.stream([Text(QUESTIONS[0])], GenerationConfig(greedy=True, max_new_tokens=500), cancel)
    next(answer)
    cancel.set()
    assert [delta.finish for delta in answer][-1] is Finish.CANCELLED


def test_the_progress_is_told_and_may_stop_the_loading(options: Callable[..., LoadOptions]) -> None:
    told: list[tuple[int, int]] = []
    load(options(watch=lambda read, total: told.append((read, total))))
    assert told and told[-1][0] == told[-1][1] > 0

    def stop(read: int, total: int) -> None:
        raise MedchatError("stopped", "")

    with pytest.raises(MedchatError, match="stopped"):
        load(options(watch=stop))


# ---------------------------------------------------------------- the ordinary way instead


@pytest.mark.parametrize(
    "others",
    [
        {"quick_start": False},
        {"engine": "torch"},
        {"dtype": "float32"},
        {"dtype": "float16"},
        {"quantize": "none"},
        {"quantized_cache": None},
    ],
)
def test_other_options_take_the_ordinary_way(
    options: Callable[..., LoadOptions], others: dict[str, Any], tmp_path: Path
) -> None:
    if others.get("dtype") == "float16":  # kept for bfloat16 alone, and nothing is to be kept beside it
        full = options().quantized_cache
        assert full is not None
        others = {**others, "quantized_cache": replace(full, most_bytes=1)}
    assert not isinstance(FAMILIES["llama"].load(options(**others)), MappedChatModel)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_GRAPHICS", (Path("/proc/self/status"),)),
        ("has_bfloat16", lambda: None),
        ("memory_room", lambda: 1000),
    ],
)
def test_where_only_torch_can_tell_it_is_asked(
    options: Callable[..., LoadOptions], monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    chosen = options(device="auto", dtype="auto" if name == "has_bfloat16" else "bfloat16")
    monkeypatch.setattr(quick_start, name, value)
    assert not isinstance(load(chosen), MappedChatModel)


def test_without_the_library_torch_computes(
    options: Callable[..., LoadOptions], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = options()
    missing = tmp_path / "none.so"
    monkeypatch.setattr(quick_start, "open_library", lambda: library.open_library(missing))
    assert not isinstance(load(chosen), MappedChatModel)


def test_an_adapter_takes_the_ordinary_way(
    options: Callable[..., LoadOptions], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quick_start, "open_checkpoint", None)  # not even looked at
    with pytest.raises(MedchatError):  # what is wrong with the adapter
        load(options(adapters=(tmp_path / "none",)))


def test_weights_that_are_damaged_or_do_not_fit_are_told_of_as_ever(
    options: Callable[..., LoadOptions], tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    FAMILIES["llama"].save_quantized(options("llama", "int8", quantized_cache=None), packed)
    chosen = LoadOptions(packed, device="cpu", dtype="bfloat16", quick_start=True)
    weights, config = packed / "model.safetensors", packed / "config.json"
    whole, stated = weights.read_bytes(), json.loads(config.read_text(encoding="utf-8"))
    weights.write_bytes(whole[:-1])
    with pytest.raises(MedchatError, match=weights.name):
        load(chosen)
    weights.write_bytes(whole)
    config.write_text(json.dumps({**stated, "intermediate_size": stated["intermediate_size"] * 2}))
    with pytest.raises(MedchatError):
        load(chosen)
    config.write_text(json.dumps(stated))
    assert isinstance(load(chosen), MappedChatModel)
    shutil.rmtree(packed)
    with pytest.raises(MedchatError):
        load(chosen)


def test_weights_that_were_exchanged_are_not_answered_by_what_was_kept(
    options: Callable[..., LoadOptions], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(options().model, model)
    moved = options(model=model)
    assert isinstance(load(moved), MappedChatModel)  # a copy is the same model
    for _ in range(2):
        (model / "model.safetensors").touch()
        assert not isinstance(load(moved), MappedChatModel)
        assert isinstance(load(moved), MappedChatModel)


# ---------------------------------------------------------------- the command

#: Runs the program, as if nothing could be answered without torch if `{ordinary}`, and names what it imported of these.
PROGRAM = """
import sys
from medchat.__main__ import main
if {ordinary}:
    from medchat.inference import quick_start
    quick_start.has_bfloat16 = lambda: None
code = main()
sys.stdout.flush()
print(*{{"torch", "transformers", "peft"}} & set(sys.modules), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(("command", "family"), [("ask", "chatglm"), ("ask", "llama"), ("chat", "chatglm")])
def test_ask_and_chat_import_no_torch_and_print_what_they_print_with_torch(
    options: Callable[..., LoadOptions], command: str, family: str, tmp_path: Path
) -> None:
    kept = options(family, "int8").quantized_cache
    assert kept is not None
    (tmp_path / "home" / "cache").mkdir(parents=True)
    (tmp_path / "home" / "cache" / "quantized").symlink_to(kept.folder)
    environment = child_environment(MEDCHAT_HOME=str(tmp_path / "home"), MEDCHAT_LANG="en")
    chosen = f"--model {options(family).model} --quantize int8 --seed 7 --no-save --max-new-tokens 12 --system 你是医生"
    question = "胸口剧烈疼痛怎么办？"
    arguments = [command, *chosen.split(), *([question] if command == "ask" else [])]

    def printed(imported: str) -> tuple[bytes, list[str]]:
        program = PROGRAM.format(ordinary=imported is TORCH)
        typed = f"{question}\n咳嗽呢？\n".encode() if command == "chat" else b""
        run = run_python("-c", program, *arguments, environment=environment, imported=imported, stdin=typed)
        assert run.returncode == 0, run
        return run.stdout, [line for line in run.stderr.decode().splitlines() if "tokens/s" not in line]

    (quick, aside), (ordinary, other_aside) = printed(CORE), printed(TORCH)
    assert aside.pop() == "" and "torch" in other_aside.pop()
    assert aside == other_aside and len(aside) > 3  # red flags and the disclaimer
    assert quick == ordinary and len(quick) > 10
