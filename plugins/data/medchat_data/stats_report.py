"""The counts of a file in words: rows for the screen, and a page with pictures that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.plugin_kit import Document, Picture, Section, Table, sanitize_line, say
from medchat_data.histogram import histogram
from medchat_data.measuring import SHORT_ANSWER, Lengths, Measures
from medchat_data.token_lengths import TokenLengths


@dataclass(frozen=True, slots=True)
class KnownTest:
    """How many of the `questions` of a test stand in the data, by the kind of what was found."""

    path: Path
    questions: int
    kinds: Mapping[str, int]

    @property
    def found(self) -> int:
        """How many stand there in any way."""
        return sum(self.kinds.values())

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON holds them."""
        return {"file": str(self.path), "questions": self.questions, "found": self.found, **self.kinds}


@dataclass(frozen=True, slots=True)
class FileStats:
    """All that was counted of one file: its bad records, its good ones, their tokens, and tests that they give away."""

    path: Path
    sha256: str
    bad: int
    counts: Measures
    tokens: TokenLengths | None = None
    against: tuple[KnownTest, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON holds them; what was not asked for is left out."""
        asked: dict[str, Any] = {"tokens": self.tokens.as_json()} if self.tokens else {}
        if self.against:
            asked["against"] = [test.as_json() for test in self.against]
        return {
            "file": str(self.path),
            "sha256": self.sha256,
            "bad": self.bad,
            **self.counts.as_json(),
            **asked,
        }


def stats_document(found: Sequence[FileStats]) -> Document:
    """Return the page: for each file the rows, then how its lengths are spread."""
    heads = (say("计数", "count"), say("值", "value"))
    sections = []
    for one in found:
        rows = [(name, str(value)) for name, value in stats_rows(one)]
        pictures = [
            Picture(f"{at}.svg", shows, histogram(lengths.sizes, shows, limit))
            for at, (shows, lengths, limit) in enumerate(_spreads(one))
        ]
        sections.append(Section(one.path.name, [Table(heads, [*rows, ("SHA-256", one.sha256)]), *pictures]))
    return Document(say("训练数据统计", "Statistics of training data"), sections)


def _spreads(one: FileStats) -> Iterator[tuple[str, Lengths, int | None]]:
    """Yield what is drawn: what it shows, its values, and the length at which training cuts."""
    turns = Lengths.of(size for size, count in one.counts.turns.items() for _ in range(count))
    yield say("每条的轮数", "turns of a record"), turns, None
    yield say("问题字数", "characters of a question"), one.counts.question_characters, None
    yield say("回答字数", "characters of an answer"), one.counts.answer_characters, None
    if one.tokens:
        shows = say("每条的词元数，竖线右侧会被截断", "tokens of an example; right of the line it is cut")
        yield shows, one.tokens.lengths, one.tokens.max_length


def stats_rows(one: FileStats) -> Iterator[tuple[str, Any]]:
    """Yield each count of a file with its name."""
    yield from _count_rows(one.counts, one.bad)
    if one.tokens:
        yield from _token_rows(one.tokens)
    for test in one.against:
        kinds = say("、", ", ").join(f"{kind} {count}" for kind, count in test.kinds.items())
        shown = f"{_share(test.found, test.questions)}" + (f" ({kinds})" if kinds else "")
        name = sanitize_line(test.path.name)
        yield say(f"{name} 的题目在数据里", f"questions of {name} in the data"), shown


def _count_rows(counts: Measures, bad: int) -> Iterator[tuple[str, Any]]:
    forms = say("、", ", ").join(f"{form} {count}" for form, count in counts.forms.items())
    turns = say("、", ", ").join(f"{turns} × {count}" for turns, count in counts.turns.items())
    yield say("记录", "records"), f"{counts.records} ({forms})" if forms else str(counts.records)
    yield say("有误的记录", "bad records"), bad
    yield say("轮数 × 记录", "turns × records"), turns
    yield say("问题字数", "characters of a question"), _shown(counts.question_characters)
    yield say("回答字数", "characters of an answer"), _shown(counts.answer_characters)
    yield say("input 为空", "input empty"), counts.without_input
    yield say("没有回答", "without an answer"), counts.without_answer
    yield say("重复的问题", "repeated questions"), counts.repeated_questions
    yield say("有 id（不同的）", "with id (different ones)"), f"{counts.with_id} ({counts.sources})"
    for name, count, of in (
        (
            say(f"不足 {SHORT_ANSWER} 字的回答", f"answers under {SHORT_ANSWER} characters"),
            counts.short_answers,
            counts.answers,
        ),
        (say("一开口就附和的回答", "answers that begin by agreeing"), counts.agreeing, counts.answers),
        (
            say("以“这、该、他”等开头的问题", "questions with a dangling pronoun"),
            counts.dangling,
            counts.records,
        ),
        (say("含剂量的回答", "answers with a dose"), counts.doses, counts.answers),
    ):
        yield name, _share(count, of)


def _token_rows(tokens: TokenLengths) -> Iterator[tuple[str, Any]]:
    examples = len(tokens.lengths.sizes)
    model = sanitize_line(f"{tokens.backbone} {tokens.model}", 120)
    yield say("词表", "vocabulary"), f"{model}{say('，模板 ', ', template ')}{sanitize_line(tokens.template)}"
    yield say("每条的词元数（含提示）", "tokens of an example (with its prompt)"), _shown(tokens.lengths)
    yield (
        say(
            f"超过 {tokens.max_length} 个词元，训练时截断",
            f"over {tokens.max_length} tokens, cut in training",
        ),
        _share(tokens.too_long, examples),
    )
    for name, count in (
        (say("其中去掉最早的轮次", "of them without their first turns"), tokens.lost_turns),
        (say("其中去掉问题的开头", "of them without the beginning of the question"), tokens.cut_questions),
        (say("其中去掉回答的结尾", "of them without the end of the answer"), tokens.cut_answers),
        (say("其中不剩回答，不学习", "of them left without an answer, not learned"), tokens.without_answer),
    ):
        if count:
            yield name, _share(count, examples)


def _shown(lengths: Lengths) -> str:
    return say(
        f"中位数 {lengths.median:g}，九成不超过 {lengths.p90}，最长 {lengths.longest}",
        f"median {lengths.median:g}, nine of ten up to {lengths.p90}, longest {lengths.longest}",
    )


def _share(count: int, of: int) -> str:
    return f"{count} ({count / of:.1%})" if of else str(count)
