"""From the choices of a model to the numbers about them. Knows no files and no terminal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from medchat.plugin_kit import say
from medchat_eval.choice_file import LETTERS, option_letters
from medchat_eval.choosing import Chosen
from medchat_eval.replies import refusal_warnings
from medchat_eval.results import Metric, share_metric

#: Every metric of the task, in the order of the report.
METRICS = (
    "accuracy",
    "accuracy_rotated",
    "accuracy_every_order",
    "accuracy_per_character",
    "accuracy_multi",
    "parsed_rate",
)
#: Below so many questions the interval is wider than most differences between models.
_FEW = 100
#: A letter chosen so much more often than it is right points to a habit of the model's.
_LEANING = 0.25


class ChoiceTally:
    """Choices gathered question by question: for each its file's order first, then the turned ones."""

    def __init__(self, turns: Iterable[Sequence[Chosen]]) -> None:
        self._turns = [turn for turn in turns if turn]

    @property
    def _single(self) -> list[Sequence[Chosen]]:
        return [turn for turn in self._turns if not turn[0].asked.item.several]

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics of `METRICS` that there are cases for."""
        single = self._single
        several = [turn for turn in self._turns if turn[0].asked.item.several]
        found = {"accuracy": share_metric([turn[0].right for turn in single], _chance(single))}
        if any(len(turn) > 1 for turn in single):
            means = [sum(one.right for one in turn) / len(turn) for turn in single]
            found["accuracy_rotated"] = share_metric(means, _chance(single))
            every = [all(one.right for one in turn) for turn in single]
            found["accuracy_every_order"] = share_metric(every, _chance(single, every_order=True))
        per_character = [turn[0] for turn in single if turn[0].per_character is not None]
        if per_character:
            right = [one.per_character == one.asked.answer for one in per_character]
            found["accuracy_per_character"] = share_metric(right, _chance(single))
        found["accuracy_multi"] = share_metric([turn[0].right for turn in several], _chance(several))
        found["parsed_rate"] = share_metric([bool(turn[0].places) for turn in self._turns])
        return {name: found[name] for name in METRICS if name in found and found[name].count}

    @property
    def subjects(self) -> dict[str, Metric]:
        """The accuracy on each subject, questions with one right option alone, most questions first."""
        by_subject: dict[str, list[Sequence[Chosen]]] = defaultdict(list)
        for turn in self._single:
            by_subject[turn[0].asked.item.subject].append(turn)
        ordered = sorted(by_subject.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        return {
            name: share_metric([turn[0].right for turn in turns], _chance(turns)) for name, turns in ordered
        }

    @property
    def counts(self) -> dict[str, Any]:
        """Plain numbers: how often each letter was chosen and is right (in the file's order), what failed."""
        first = [turn[0] for turn in self._turns]
        return {
            "questions": len(first),
            "questions_multi": sum(one.asked.item.several for one in first),
            "unparsed": sum(not one.places and not one.refusal for one in first),
            "refused": sum(bool(one.refusal) for one in first),
            "truncated": sum(one.dropped > 0 for one in first),
            "letters_chosen": _letters(one.places for one in first),
            "letters_right": _letters(one.asked.answer for one in first),
        }

    @property
    def items(self) -> list[dict[str, Any]]:
        """The single questions, for results.json."""
        return [_as_item(turn) for turn in self._turns]

    @property
    def warnings(self) -> list[str]:
        """What to know before believing the numbers, in the interface language."""
        counts, found = self.counts, self._unproven()
        found += refusal_warnings(turn[0].refusal for turn in self._turns)
        if counts["questions"] < _FEW:
            found.append(
                say(
                    f"只有 {counts['questions']} 道题：区间很宽，相差几个百分点说明不了什么",
                    f"only {counts['questions']} questions: the interval is wide, and a difference of a few"
                    " points means little",
                )
            )
        if letter := self._leaning():
            found.append(
                say(
                    f"模型偏爱选 {letter}：请看轮换选项顺序后的准确率",
                    f"the model leans to {letter}: look at the accuracy with the options rotated",
                )
            )
        if counts["unparsed"]:
            found.append(
                say(
                    f"{counts['unparsed']} 道题没有得出选择，按错计：请看模型的回答",
                    f"in {counts['unparsed']} questions no choice was found, counted as wrong: read the replies",
                )
            )
        if counts["truncated"]:
            found.append(
                say(
                    f"{counts['truncated']} 道题的示例放不下，只用了一部分",
                    f"in {counts['truncated']} questions the worked examples did not all fit",
                )
            )
        return found

    def _unproven(self) -> list[str]:
        """Return the warning for an accuracy that guessing may give, none where it is above chance or below."""
        metrics = self.metrics
        accuracy = metrics.get("accuracy_rotated") or metrics.get("accuracy")
        if accuracy is None or accuracy.interval is None or accuracy.chance is None:
            return []
        if not accuracy.interval.holds(accuracy.chance):
            return []
        return [
            say(
                "准确率的区间包含随机水平：不能说明比猜测好",
                "the interval of the accuracy contains chance: nothing shows that it is better than guessing",
            )
        ]

    def _leaning(self) -> str:
        """Return the letter that is chosen far more often than it is right, "" for none."""
        single = [turn[0] for turn in self._single]
        if not single:
            return ""
        chosen, right = _letters(one.places for one in single), _letters(one.asked.answer for one in single)
        excess, letter = max(
            ((chosen.get(letter, 0) - right.get(letter, 0)) / len(single), letter) for letter in LETTERS
        )
        return letter if excess >= _LEANING else ""


def _chance(turns: Sequence[Sequence[Chosen]], *, every_order: bool = False) -> float | None:
    """Return what choosing blindly gives: one of the options, or one of all sets; in every order that many times."""
    if not turns:
        return None
    asked = [(len(turn[0].asked.options), turn[0].asked.item.several, len(turn)) for turn in turns]
    shares = [
        (1 / (2**size - 1 if several else size)) ** (orders if every_order else 1)
        for size, several, orders in asked
    ]
    return sum(shares) / len(shares)


def _letters(chosen: Iterable[frozenset[int]]) -> dict[str, int]:
    counts = Counter(LETTERS[place] for places in chosen for place in places)
    return dict(sorted(counts.items()))


def _as_item(turn: Sequence[Chosen]) -> dict[str, Any]:
    first = turn[0]
    item = first.asked.item
    row: dict[str, Any] = {
        "id": item.id,
        "line": item.line,
        "question": item.question,
        "subject": item.subject,
        "answer": item.letters,
        "chosen": option_letters(first.places),
        "score": float(first.right),
    }
    optional: Mapping[str, Callable[[], Any]] = {
        "multi": lambda: item.several,
        "score_rotated": lambda: sum(one.right for one in turn) / len(turn) if len(turn) > 1 else None,
        "reply": lambda: first.reply,
        "dropped_examples": lambda: first.dropped,
        "refusal": lambda: first.refusal,
    }
    for name, value in optional.items():
        if (found := value()) or (name == "score_rotated" and found is not None):
            row[name] = found
    return row
