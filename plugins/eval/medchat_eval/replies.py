"""A model's answers to the prompts of an evaluation, each on disk as soon as it is there, none asked for twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from medchat.plugin_kit import (
    OpenedModel,
    Question,
    QuestionRecord,
    Results,
    Turn,
    UsageError,
    open_model,
    say,
)
from medchat_eval.flags import decisive
from medchat_eval.output_folder import ANSWERS, OutputFolder


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked after `turns`."""

    text: str
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelReply:
    """An answer. `dropped` counts turns that did not fit; `refusal` says why there is no answer."""

    text: str
    dropped: int = 0
    refusal: str = ""


def refusal_warnings(refusals: Iterable[str]) -> list[str]:
    """Return the warning about questions that got no answer, with the first reason; empty reasons are none."""
    found = [reason for reason in refusals if reason]
    if not found:
        return []
    return [
        say(
            f"{len(found)} 题没有得到回答，按错计：{found[0]}",
            f"{len(found)} questions got no answer, counted as wrong: {found[0]}",
        )
    ]


@contextmanager
def replies_in(
    output: OutputFolder, flags: Mapping[str, Any], prompts: Sequence[Prompt]
) -> Iterator[tuple[OpenedModel, list[ModelReply]]]:
    """Make the folder, open the model that the flags name, and give it with its replies. Raises as `replies_to`."""
    output.make()
    with open_model(decisive(flags)) as opened, output.answers() as results:
        yield opened, list(replies_to(opened, results, prompts))


def replies_to(opened: OpenedModel, results: Results, prompts: Sequence[Prompt]) -> Iterator[ModelReply]:
    """Yield the reply to each prompt, in order, once all of them are there.

    Raises UsageError if `results` are of other prompts, of another model or of other settings, and what the
    model raises if it keeps failing.
    """
    for index, row in results.rows.items():
        opened.require_same(row, ANSWERS)
        if index >= len(prompts) or row.get("question") != prompts[index].text:
            raise UsageError(
                say("已有的回答不是对这些题的", "the answers there are to other questions"),
                say(
                    "用原来的文件和选项继续，或用 --overwrite 重来",
                    "continue with the same files and flags, or start over with --overwrite",
                ),
                where=f"{ANSWERS} (index {index})",
            )
    questions = [
        Question(index, 0, QuestionRecord(text=prompt.text, last=prompt.text, turns=prompt.turns))
        for index, prompt in enumerate(prompts)
    ]
    rows: dict[int, Mapping[str, Any]] = {index: results.rows[index] for index in results.done}
    for row in opened.answer_rows(questions, done=results.done):
        results.append(row)
        rows[row["index"]] = row
    for index in range(len(prompts)):
        row = rows[index]
        refusal = str(row.get("error", "")) if row["finish"] == "error" else ""
        yield ModelReply(str(row["answer"]), int(row.get("dropped_turns", 0)), refusal)
