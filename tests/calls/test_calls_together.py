"""Calls to a model on this machine are answered together, each as if it were alone, and kept as they end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from medchat.errors import MedchatError, MemoryShortageError
from medchat.inference.causal_rows import CausalRows
from medchat.plugin_kit import CallLimits, OpenedModel, open_calls, open_model

pytest_plugins = ("evaluated_models",)
pytestmark = pytest.mark.torch

PROMPTS = tuple("请选出正确的选项。" * (number % 4 + 1) + f"第{number}题" for number in range(11))
#: Greedy, and drawn with one seed for all.
DECODING: dict[str, dict[str, Any]] = {
    "greedy": {"greedy": True},
    "sampled": {"temperature": 1.2, "top_p": 0.9, "seed": 5},
}


@pytest.fixture
def opened(
    request: pytest.FixtureRequest, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OpenedModel]:
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "home"))
    decoding = {"max_new_tokens": 8, **DECODING[getattr(request, "param", "greedy")]}
    flags = {"model": str(tiny_llama), "device": "cpu", "dtype": "float32", "template": "bare"}
    with open_model(flags, **decoding) as model:
        yield model


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many answers each step of the model is for, as it goes."""
    seen: list[int] = []
    advance = CausalRows.advance

    def noted(self: CausalRows, rows: Sequence[Any], tokens: Sequence[int]) -> Any:
        seen.append(len(rows))
        return advance(self, rows, tokens)

    monkeypatch.setattr(CausalRows, "advance", noted)
    return seen


def asked(opened: OpenedModel, path: Path, *, resume: bool = False) -> dict[str, tuple[str, str, int, int]]:
    """Ask all prompts; return what the file holds of each."""
    with open_calls(path, opened, CallLimits(), resume=resume) as calls:
        calls.answer(PROMPTS)
        assert not calls.failures
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {
        row["prompt"]: tuple(row[name] for name in ("answer", "finish", "prompt_tokens", "tokens"))
        for row in rows
    }


def alone(opened: OpenedModel) -> dict[str, tuple[str, str, int, int]]:
    answers = {prompt: opened.ask(prompt) for prompt in PROMPTS}
    return {
        prompt: (one.text, str(one.finish), one.prompt_tokens, one.completion_tokens)
        for prompt, one in answers.items()
    }


@pytest.mark.parametrize("opened", DECODING, indirect=True)
def test_answers_together_are_those_of_each_alone(
    opened: OpenedModel, widths: list[int], tmp_path: Path
) -> None:
    assert asked(opened, tmp_path / "calls.jsonl") == alone(opened)
    assert max(widths) == 8


def test_where_memory_runs_out_half_as_many_go_together_and_every_answer_comes(
    opened: OpenedModel, widths: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = CausalRows.advance

    def short(self: CausalRows, rows: Sequence[Any], tokens: Sequence[int]) -> Any:
        if len(rows) > 4:
            raise MemoryShortageError("full", "")
        return noted(self, rows, tokens)

    monkeypatch.setattr(CausalRows, "advance", short)
    assert asked(opened, tmp_path / "calls.jsonl") == alone(opened)
    assert max(widths) == 4


@pytest.mark.parametrize(("error", "steps"), [(KeyboardInterrupt, 10), (MedchatError, 3)])
def test_whatever_ends_the_asking_what_had_come_is_kept_and_not_asked_again(
    opened: OpenedModel,
    widths: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Any,
    steps: int,
) -> None:
    noted = CausalRows.advance

    def ending(self: CausalRows, rows: Sequence[Any], tokens: Sequence[int]) -> Any:
        if len(widths) == steps:
            raise error("stopped", "") if error is MedchatError else error
        return noted(self, rows, tokens)

    path = tmp_path / "calls.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(CausalRows, "advance", ending)
        with pytest.raises(error):
            asked(opened, path)
    kept = [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert (0 < len(kept) < len(PROMPTS)) is (steps > 8)  # none has more than eight tokens
    whole = asked(opened, path, resume=True)
    assert whole == alone(opened) and list(whole)[: len(kept)] == kept


def test_a_model_whose_answers_would_change_together_is_asked_one_at_a_time(
    tiny_llama: Path, widths: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "home"))
    flags = {"model": str(tiny_llama), "device": "cpu", "dtype": "bfloat16", "template": "bare"}
    with open_model(flags, max_new_tokens=4, greedy=True) as opened:
        assert not opened.exact_in_batch
        assert asked(opened, tmp_path / "calls.jsonl") == alone(opened)
    assert not widths
