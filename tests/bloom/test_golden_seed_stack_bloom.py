"""Bloom with and without BenTsao's kind of adapter, against what the original stack answered.

Folders: `$MEDCHAT_GOLDENS`, else `goldens` under `$MEDCHAT_SHARED` or next to the project; skipped where absent.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call
from locations import SHARED
from seed_stack import decoding, recorded_text

from medchat.api import ChatModel, LoadOptions
from medchat.templates import load_template

pytest_plugins = ("cli_program",)
pytestmark = [pytest.mark.golden, pytest.mark.torch]

FOLDER = Path(os.environ.get("MEDCHAT_GOLDENS", SHARED / "goldens")) / "seed-stack" / "bloom"
if not (FOLDER / "expected.json").is_file():
    pytest.skip(f"nothing recorded at {FOLDER}", allow_module_level=True)

from medchat_bloom.backbone import BloomBackbone  # noqa: E402
from medchat_bloom.loading import BLOOM  # noqa: E402

from medchat.inference.causal_loading import CausalModel  # noqa: E402
from medchat.inference.decode import GenerationLimits, stream_tokens  # noqa: E402
from medchat.inference.generate import generate_rows  # noqa: E402
from medchat.inference.kv_cache import CausalStepper  # noqa: E402

EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
#: Stated in the issue for the logits of the seed stack.
TOLERANCE = 1e-3
PARTS = ("base_only", "with_adapter")
CASES = [
    pytest.param((part, case), id=f"{part}-{number}")
    for part in PARTS
    for number, case in enumerate(EXPECTED[part])
]


def options(part: str) -> LoadOptions:
    adapters = (FOLDER / "adapter",) if part == "with_adapter" else ()
    return LoadOptions(FOLDER / "base", adapters=adapters, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def loaded() -> dict[str, CausalModel[Any, Any]]:
    return {part: BLOOM.load(options(part)) for part in PARTS}


@pytest.fixture(scope="module")
def models() -> dict[str, ChatModel]:
    return {part: BloomBackbone().load(options(part)) for part in PARTS}


@pytest.mark.parametrize("item", CASES)
def test_the_prompt_and_its_ids_are_those_recorded(
    loaded: dict[str, CausalModel[Any, Any]], item: tuple[str, dict[str, Any]]
) -> None:
    part, case = item
    segments = load_template(case["template"]).render((), case["instruction"])
    assert "".join(segment.text for segment in segments) == case["prompt"]
    assert loaded[part].tokenizer.build_prompt(segments) == case["input_ids"]


@pytest.mark.parametrize("item", CASES)
def test_the_best_logits_are_those_recorded(
    loaded: dict[str, CausalModel[Any, Any]], item: tuple[str, dict[str, Any]]
) -> None:
    part, case = item
    logits = CausalStepper(loaded[part].model).prefill(case["input_ids"], threading.Event())
    best = logits.topk(len(case["last_logits_top10"]))
    assert best.indices.tolist() == [token for token, _ in case["last_logits_top10"]]
    recorded = [value for _, value in case["last_logits_top10"]]
    assert best.values.tolist() == pytest.approx(recorded, abs=TOLERANCE, rel=0)


@pytest.mark.parametrize("item", CASES)
def test_the_ids_of_answers_are_those_recorded(
    loaded: dict[str, CausalModel[Any, Any]], item: tuple[str, dict[str, Any]]
) -> None:
    part, case = item
    tokenizer = loaded[part].tokenizer
    limits = GenerationLimits(tokenizer.stop_ids, tokenizer.pad_token_id, 2048, tokenizer.size)
    for kind in ("greedy", "beam4"):
        rows = generate_rows(loaded[part].model, [case["input_ids"]], decoding(case, kind), limits)
        assert list(rows[0].tokens) == case[f"{kind}_ids"]
    steps = stream_tokens(
        CausalStepper(loaded[part].model),
        case["input_ids"],
        decoding(case, "greedy"),
        stop_ids=limits.stop_ids,
        context_length=limits.context_length,
        cancel=threading.Event(),
        token_count=limits.token_count,
    )
    assert [step.token for step in steps if step.token is not None] == case["greedy_ids"]


@pytest.mark.parametrize("item", CASES)
def test_the_texts_are_those_recorded_streamed_and_in_a_batch(
    models: dict[str, ChatModel], item: tuple[str, dict[str, Any]]
) -> None:
    part, case = item
    segments = load_template(case["template"]).render((), case["instruction"])
    for kind in ("greedy", "beam4"):
        config = decoding(case, kind)
        deltas = list(models[part].stream(segments, config, threading.Event()))
        assert "".join(delta.text for delta in deltas) == recorded_text(case, kind)
    alone = [recorded_text(case, kind) for kind in ("greedy", "beam4")]
    batch = [load_template(case["template"]).render((), words) for words in ("短", case["instruction"])]
    together = [
        models[part].generate_batch(batch, decoding(case, kind))[1].text for kind in ("greedy", "beam4")
    ]
    assert together == alone


def test_the_adapter_brings_the_template_it_was_trained_with() -> None:
    assert {case["template"] for case in EXPECTED["with_adapter"]} == {
        BloomBackbone().template(options("with_adapter")).name
    }


@pytest.mark.parametrize("kind", ["greedy", "beam4"])
def test_ask_prints_the_recorded_answer(call: Call, kind: str) -> None:
    case = EXPECTED["with_adapter"][0]
    wanted = ["--greedy"] if kind == "greedy" else ["--num-beams", "4"]
    outcome = call(
        "ask",
        case["instruction"],
        *("--backbone", "bloom", "--model", str(FOLDER / "base"), "--adapter", str(FOLDER / "adapter")),
        *(
            "--dtype",
            "float32",
            "--device",
            "cpu",
            "--max-new-tokens",
            str(len(case[f"{kind}_ids"])),
            *wanted,
        ),
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out == recorded_text(case, kind) + "\n"
    assert "bloomz-7b1" in outcome.err
