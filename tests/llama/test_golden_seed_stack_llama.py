"""LLaMA and Chinese-Alpaca, with and without BenTsao's kind of adapter, against what the original stack answered.

Every folder of the seed stack that holds a LLaMA is walked; all figures come from its expected.json.
Folders: `$MEDCHAT_GOLDENS`, else `goldens` under `$MEDCHAT_SHARED` or next to the project; skipped where absent.
"""

from __future__ import annotations

import json
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call
from locations import SHARED
from seed_stack import decoding, recorded_text

from medchat.api import ChatModel, LoadOptions, Segment, Text
from medchat.templates import load_template

pytest_plugins = ("cli_program",)
pytestmark = [pytest.mark.golden, pytest.mark.torch]

ROOT = Path(os.environ.get("MEDCHAT_GOLDENS", SHARED / "goldens")) / "seed-stack"
#: Stated in the issue for the logits of the seed stack.
TOLERANCE = 1e-3
PARTS = ("base_only", "with_adapter")
KINDS = ("greedy", "beam4")


def folders() -> list[Path]:
    found = (path.parent for path in ROOT.glob("*/expected.json"))
    configs = {folder: folder / "base" / "config.json" for folder in found}
    return sorted(
        folder
        for folder, config in configs.items()
        if json.loads(config.read_text(encoding="utf-8"))["model_type"] == "llama"
        and (folder / "base" / "tokenizer.model").is_file()
    )


FOLDERS = folders()
if not FOLDERS:
    pytest.skip(f"nothing recorded at {ROOT}", allow_module_level=True)

from medchat_llama.backbone import LlamaBackbone  # noqa: E402
from medchat_llama.loading import LLAMA  # noqa: E402

from medchat.inference.causal_loading import CausalModel  # noqa: E402
from medchat.inference.decode import GenerationLimits, stream_tokens  # noqa: E402
from medchat.inference.generate import generate_rows  # noqa: E402
from medchat.inference.kv_cache import CausalStepper  # noqa: E402

EXPECTED = {
    folder.name: json.loads((folder / "expected.json").read_text(encoding="utf-8")) for folder in FOLDERS
}
CASES = [
    pytest.param((folder, part, case), id=f"{folder.name}-{part}-{number}")
    for folder in FOLDERS
    for part in PARTS
    for number, case in enumerate(EXPECTED[folder.name][part])
]
Item = tuple[Path, str, dict[str, Any]]


def options(folder: Path, part: str) -> LoadOptions:
    adapters = (folder / "adapter",) if part == "with_adapter" else ()
    return LoadOptions(folder / "base", adapters=adapters, device="cpu", dtype="float32")


@cache
def loaded(folder: Path, part: str) -> CausalModel[Any, Any]:
    return LLAMA.load(options(folder, part))


@cache
def chat(folder: Path, part: str) -> ChatModel:
    return LlamaBackbone().load(options(folder, part))


def prompt(case: dict[str, Any]) -> tuple[Segment, ...]:
    return load_template(case["template"]).render((), case["instruction"])


@pytest.mark.parametrize("item", CASES)
def test_the_prompt_and_its_ids_are_those_recorded(item: Item) -> None:
    folder, part, case = item
    segments = prompt(case)
    assert "".join(segment.text for segment in segments if isinstance(segment, Text)) == case["prompt"]
    assert loaded(folder, part).tokenizer.build_prompt(segments) == case["input_ids"]
    assert chat(folder, part).count(segments) == len(case["input_ids"])


@pytest.mark.parametrize("item", CASES)
def test_the_best_logits_are_those_recorded(item: Item) -> None:
    folder, part, case = item
    logits = CausalStepper(loaded(folder, part).model).prefill(case["input_ids"], threading.Event())
    best = logits.topk(len(case["last_logits_top10"]))
    assert best.indices.tolist() == [token for token, _ in case["last_logits_top10"]]
    recorded = [value for _, value in case["last_logits_top10"]]
    assert best.values.tolist() == pytest.approx(recorded, abs=TOLERANCE, rel=0)


@pytest.mark.parametrize("item", CASES)
def test_the_ids_of_answers_are_those_recorded(item: Item) -> None:
    folder, part, case = item
    model, tokenizer = loaded(folder, part).model, loaded(folder, part).tokenizer
    limits = GenerationLimits(tokenizer.stop_ids, tokenizer.pad_token_id, 2048)
    for kind in KINDS:
        rows = generate_rows(model, [case["input_ids"]], decoding(case, kind), limits)
        assert list(rows[0].tokens) == case[f"{kind}_ids"]
    steps = stream_tokens(
        CausalStepper(model),
        case["input_ids"],
        decoding(case, "greedy"),
        stop_ids=limits.stop_ids,
        context_length=limits.context_length,
        cancel=threading.Event(),
    )
    assert [step.token for step in steps if step.token is not None] == case["greedy_ids"]


@pytest.mark.parametrize("item", CASES)
def test_the_texts_are_those_recorded_streamed_and_in_a_batch(item: Item) -> None:
    folder, part, case = item
    model, segments = chat(folder, part), prompt(case)
    short = load_template(case["template"]).render((), "短")
    for kind in KINDS:
        config, text = decoding(case, kind), recorded_text(case, kind)
        deltas = list(model.stream(segments, config, threading.Event()))
        assert "".join(delta.text for delta in deltas) == text
        assert model.generate_batch([short, segments], config)[1].text == text


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_special_ids_are_those_of_the_original_run_everywhere(folder: Path) -> None:
    """The checkpoint states bos 0, eos 1 and pad -1; the recorded run had overridden them."""
    recorded = {name: EXPECTED[folder.name][f"{name}_token_id"] for name in ("bos", "eos", "pad")}
    model, tokenizer = loaded(folder, "with_adapter").model, loaded(folder, "with_adapter").tokenizer
    for holder in (tokenizer, model.config, model.generation_config):
        assert {name: getattr(holder, f"{name}_token_id") for name in recorded} == recorded
    assert tokenizer.id_of("<unk>") == 0


@pytest.mark.parametrize("kind", ["greedy", pytest.param("beam4", marks=pytest.mark.slow)])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_ask_and_infer_print_the_recorded_texts(call: Call, tmp_path: Path, folder: Path, kind: str) -> None:
    cases = EXPECTED[folder.name]["with_adapter"]
    wanted = ["--greedy"] if kind == "greedy" else ["--num-beams", "4"]
    flags = ["--backbone", "llama", "--model", str(folder / "base"), "--adapter", str(folder / "adapter")]
    flags += ["--dtype", "float32", "--device", "cpu", "--max-new-tokens", str(len(cases[0][f"{kind}_ids"]))]
    asked = call("ask", cases[0]["instruction"], *flags, *wanted)
    assert asked.code == 0, asked.err
    assert asked.out == recorded_text(cases[0], kind) + "\n"
    for template in {case["template"] for case in cases}:
        mine = [case for case in cases if case["template"] == template]
        data, output = tmp_path / f"{template}.jsonl", tmp_path / f"{template}.out.jsonl"
        lines = (json.dumps({"instruction": case["instruction"]}, ensure_ascii=False) for case in mine)
        data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        given = ["--data", str(data), "--output", str(output), "--template", template]
        done = call("infer", *given, *flags, *wanted)
        assert done.code == 0, done.err
        answers = [json.loads(line)["answer"] for line in output.read_text(encoding="utf-8").splitlines()]
        assert answers == [recorded_text(case, kind) for case in mine]
