"""From knowledge to the rows of a training file and the rejects beside it, each with where it comes from.

Rows are numbered in the order of the knowledge, kept and rejected ones together. Knows no files and no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medchat.plugin_kit import say
from medchat_data.drafts import Draft, draft_reasons
from medchat_data.knowledge import KnowledgeFile, KnowledgeRecord
from medchat_data.prompt_forms import FORM_VERSION, Knowledge, Sample, samples_of
from medchat_data.verifying import mentions_word, normalised, values_named

#: Who wrote the words of a record that was made from the forms alone.
TEMPLATE_WRITER = "template"


@dataclass(frozen=True, slots=True)
class BuiltRow:
    """One line, of the training data or, where there is a `reason`, of the rejects. `form` is "" for a bad record."""

    row: Mapping[str, Any]
    form: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What decides the rows: the same plan gives the same rows. `date` is that of the build, as YYYY-MM-DD.

    `draft` writes the words of a sample; None for one that is not written yet, which then makes no row.
    """

    knowledge: KnowledgeFile
    forms: Sequence[str]
    seed: int
    date: str
    draft: Callable[[Sample], Draft | None] | None = None

    def samples(self) -> Iterator[list[Sample]]:
        """Yield the samples of one knowledge record after the other, in the words of the forms."""
        knowledge = Knowledge(self.knowledge.records)
        for record in self.knowledge.records:
            yield list(samples_of(record, knowledge, self.forms, self.seed))

    def rows(self) -> Iterator[list[BuiltRow]]:
        """Yield the rows of one knowledge record after the other; those of records that say nothing come first."""
        index = 0
        for bad in self.knowledge.bad:
            where = f"{self.knowledge.path.name}:{bad.line}"
            row = {"index": index, "code": "bad-record", "reason": bad.reason, "where": where}
            yield [BuiltRow(row, reason="bad-record")]
            index += 1
        asked: set[str] = set()
        for samples in self.samples():
            drafts = [self._drafted(sample) for sample in samples]
            yield [
                self._row(index + number, sample, draft, asked)
                for number, (sample, draft) in enumerate(zip(samples, drafts, strict=True))
                if draft is not None
            ]
            index += len(samples)

    def _drafted(self, sample: Sample) -> Draft | None:
        if self.draft is None:
            return Draft(sample.question, sample.answer, origin={"writer": TEMPLATE_WRITER})
        return self.draft(sample)

    def _row(self, index: int, sample: Sample, draft: Draft, asked: set[str]) -> BuiltRow:
        sample = replace(sample, question=draft.question, answer=draft.answer)
        named = values_named(sample.answer, sample.values)
        code = draft.code or _fault(sample, named, asked)
        row: dict[str, Any] = {"index": index}
        if code:
            row |= {"code": code, "reason": _reasons()[code]}
        else:
            asked.add(normalised(sample.instruction))
        if draft.written:
            row["written"] = draft.written
        row |= {"instruction": sample.instruction, "input": "", "output": sample.answer}
        row["provenance"] = {
            "sources": [self._source(record) for record in sample.sources],
            "relations": list(sample.relations),
            "form": sample.form,
            "form_version": FORM_VERSION,
            "seed": self.seed,
            "date": self.date,
            "verified": {"values_named": list(named)},
            **draft.origin,
        }
        return BuiltRow(row, sample.form, code)

    def _source(self, record: KnowledgeRecord) -> dict[str, Any]:
        return {
            "file": self.knowledge.path.name,
            "line": record.line,
            "id": record.id,
            "sha256": record.sha256,
        }


def _fault(sample: Sample, named: Sequence[str], asked: set[str]) -> str:
    """Return the code of what is wrong with a sample, "" for nothing."""
    if not named:
        return "no-value-named"
    if sample.hidden and mentions_word(sample.question, sample.hidden):
        return "names-what-it-hides"
    return "question-repeated" if normalised(sample.instruction) in asked else ""


def _reasons() -> Mapping[str, str]:
    return {
        "no-value-named": say(
            "回答没有提到知识记录里的任何一个值", "the answer names none of the record's values"
        ),
        "names-what-it-hides": say(
            "问题里已经说出了要回答的中心词",
            "the question names the centre word that it asks for",
        ),
        "question-repeated": say("这个问题前面已经有了", "the same question was built before"),
        **draft_reasons(),
    }
