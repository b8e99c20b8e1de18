"""Result files of `medchat infer` as runs that can be compared: each answer scored by what its record says is right."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medchat.plugin_kit import ReferencedAnswer
from medchat_eval.choice_file import listed_choice
from medchat_eval.comparing import EvaluationRun
from medchat_eval.extraction import extract_choice
from medchat_eval.judge_files import read_answer_file
from medchat_eval.results import Metric, mean_metric, share_metric
from medchat_eval.text_metrics import OVERLAP, TEXT_LIBRARIES, bleu, characters, rouge_l, word_cutter

#: The task of such a run.
ANSWERS_TASK = "answers"


def read_answers_run(label: str, path: Path) -> EvaluationRun:
    """Read a result file and score its answers; a question without a reference answer has no score.

    Raises CheckpointError where it cannot be read, DataError for the first line that is no result.
    """
    file = read_answer_file(path)
    scores, metrics = score_answers(
        [ReferencedAnswer(one.question, one.answer, one.reference) for one in file.answers]
    )
    keys = [(one.id, one.question) for one in file.answers]
    return EvaluationRun(
        label,
        path,
        ANSWERS_TASK,
        {name: metric.as_json() for name, metric in metrics.items()},
        {key: score for key, score in zip(keys, scores, strict=True) if score is not None},
        {key: one.answer for key, one in zip(keys, file.answers, strict=True)},
        {key: one.reference for key, one in zip(keys, file.answers, strict=True)},
        file.made_by,
        mark=file.mark,
    )


def score_answers(answers: Sequence[ReferencedAnswer]) -> tuple[list[float | None], dict[str, Metric]]:
    """Return a score for each answer, None without a reference, and the metrics of all.

    Answers to choice questions are scored by what they choose, others by how near they are to the reference.
    """
    scores: list[float | None] = []
    chances: list[float] = []
    chosen: list[float] = []
    written: list[ReferencedAnswer] = []
    for one in answers:
        if choice := listed_choice(one.question, one.reference):
            options, right = choice
            chosen.append(float(extract_choice(one.answer, options, several=len(right) > 1) == right))
            chances.append(1 / (2 ** len(options) - 1 if len(right) > 1 else len(options)))
            scores.append(chosen[-1])
        elif one.reference.strip():
            written.append(one)
            scores.append(rouge_l(characters(one.answer), characters(one.reference)))
        else:
            scores.append(None)
    accuracy = {"accuracy": share_metric(chosen, sum(chances) / len(chances))} if chosen else {}
    return scores, accuracy | _wording(written)


def lacks_text_libraries() -> bool:
    """Whether the metrics by words are left out, as what they need is not installed."""
    return any(find_spec(name) is None for name in TEXT_LIBRARIES)


def _wording(written: Sequence[ReferencedAnswer]) -> dict[str, Metric]:
    if not written:
        return {}
    pairs: list[tuple[Any, Any]] = [(characters(one.answer), characters(one.reference)) for one in written]
    found = {"rouge_l": mean_metric([rouge_l(*pair) for pair in pairs], OVERLAP)}
    if lacks_text_libraries():
        return found
    cut = word_cutter()
    found["rouge_l_words"] = mean_metric(
        [rouge_l(cut(one.answer), cut(one.reference)) for one in written], OVERLAP
    )
    found["bleu"] = bleu([one.answer for one in written], [one.reference for one in written])
    return found
