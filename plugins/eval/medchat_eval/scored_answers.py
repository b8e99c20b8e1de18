"""Result files of `medchat infer` as runs that can be compared: each answer scored by what its record says is right."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medchat_eval.choice_file import listed_choice
from medchat_eval.comparing import EvaluationRun
from medchat_eval.extraction import extract_choice
from medchat_eval.judge_files import GivenAnswer, read_answer_file
from medchat_eval.results import Metric, mean_metric, share_metric
from medchat_eval.text_metrics import OVERLAP, TEXT_LIBRARIES, bleu, characters, rouge_l, word_cutter

#: The task of such a run.
ANSWERS_TASK = "answers"


def read_answers_run(label: str, path: Path) -> EvaluationRun:
    """Read a result file and score its answers; a question without a reference answer has no score.

    Raises CheckpointError where it cannot be read, DataError for the first line that is no result.
    """
    file = read_answer_file(path)
    scores: dict[tuple[str, str], float] = {}
    chances: list[float] = []
    chosen: list[float] = []
    written: list[GivenAnswer] = []
    for one in file.answers:
        key = (one.id, one.question)
        if choice := listed_choice(one.question, one.reference):
            options, right = choice
            picked = extract_choice(one.answer, options, several=len(right) > 1)
            scores[key] = float(picked == right)
            chosen.append(scores[key])
            chances.append(1 / (2 ** len(options) - 1 if len(right) > 1 else len(options)))
        elif one.reference.strip():
            scores[key] = rouge_l(characters(one.answer), characters(one.reference))
            written.append(one)
    metrics: dict[str, Metric] = {}
    if chosen:
        metrics["accuracy"] = share_metric(chosen, sum(chances) / len(chances))
    metrics |= _wording(written)
    keyed = {(one.id, one.question): one for one in file.answers}
    return EvaluationRun(
        label,
        path,
        ANSWERS_TASK,
        {name: metric.as_json() for name, metric in metrics.items()},
        scores,
        {key: one.answer for key, one in keyed.items()},
        {key: one.reference for key, one in keyed.items()},
        file.made_by,
        mark=file.mark,
    )


def lacks_text_libraries() -> bool:
    """Whether the metrics by words are left out, as what they need is not installed."""
    return any(find_spec(name) is None for name in TEXT_LIBRARIES)


def _wording(written: Sequence[GivenAnswer]) -> dict[str, Metric]:
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
