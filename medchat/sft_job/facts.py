"""The facts of a run for its reports: plain values, saved as JSON next to the result."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from medchat import __version__, medical_safety
from medchat.api import MemoryEstimate, SFTReport, SFTSample, SFTSurvey
from medchat.errors import CheckpointError
from medchat.language import say
from medchat.regular_files import read_json
from medchat.sft_job.run_file import toml_value
from medchat.sft_job.settings import RunSettings
from medchat.whole_file import write_whole_file

FILE_NAME = "report.json"
#: The limit of the file in bytes: the metrics of a run take a thousandth of it, settings and samples more.
_LARGEST = 64 * 2**20


@dataclass(frozen=True, slots=True)
class DataFacts:
    """One data file: its name, its format in words, how many records were read and how many left out.

    `remarks` say which fields were read and which not, and what else is not learned.
    """

    name: str
    form: str
    records: int
    bad: int = 0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LengthFacts:
    """A survey in numbers. Lengths are in tokens."""

    template: str
    records: int
    max_length: int
    median: int
    high: int
    longest: int
    over: int
    lost_turns: int
    cut_questions: int
    cut_answers: int
    unlabelled: int
    tokens: int
    label_tokens: int

    @classmethod
    def of(cls, survey: SFTSurvey) -> LengthFacts:
        """Return the numbers of a survey. `high` is the 95th percentile of the lengths."""
        lengths = sorted(survey.lengths) or [0]
        return cls(
            survey.template,
            survey.records,
            survey.max_length,
            round(statistics.median(lengths)),
            lengths[min(len(lengths) - 1, int(len(lengths) * 0.95))],
            lengths[-1],
            sum(length > survey.max_length for length in lengths),
            survey.lost_turns,
            survey.cut_questions,
            survey.cut_answers,
            len(survey.unlabelled),
            survey.tokens,
            survey.label_tokens,
        )


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run: its settings and its data. `settings` are name, value as in TOML, origin."""

    backbone: str
    method: str
    base: str
    settings: tuple[tuple[str, str, str], ...]
    data: tuple[DataFacts, ...]
    train: int
    held_out: int
    created: str
    lengths: LengthFacts | None = None
    memory: Mapping[str, int] | None = None
    available: int = 0
    device: str = ""
    processes: int = 1
    notes: tuple[str, ...] = ()
    version: str = __version__

    @property
    def estimated(self) -> int:
        """The estimated peak in bytes, 0 if there was no estimate."""
        return sum((self.memory or {}).values())

    def setting(self, name: str) -> str:
        """Return a setting's value as in TOML, "" where it is unset."""
        return next((value for key, value, _ in self.settings if key == name), "")


def settings_rows(settings: RunSettings) -> tuple[tuple[str, str, str], ...]:
    """Return the settings that have a value: name, value as in TOML, origin."""
    return tuple(
        (name, toml_value(row.value), row.origin)
        for name, row in settings.settings.items()
        if row.value is not None
    )


def memory_facts(memory: MemoryEstimate | None) -> dict[str, Any]:
    """Return the fields of `RunFacts` that come from a memory estimate."""
    if memory is None:
        return {}
    return {"memory": dict(memory.parts), "available": memory.available, "device": memory.device}


def write_facts(folder: Path, facts: RunFacts, report: SFTReport | None) -> None:
    """Write `report.json`; `report` is None for an unfinished run."""
    body: dict[str, Any] = {"run": asdict(facts), "result": asdict(report) if report else None}
    text = json.dumps(body, ensure_ascii=False, default=str)
    body |= {"disclaimer": medical_safety.ai_mark(), "AIGC": medical_safety.aigc_metadata(text)}
    whole = json.dumps(body, ensure_ascii=False, indent=2, default=str) + "\n"
    write_whole_file(folder / FILE_NAME, whole)


def read_facts(folder: Path) -> tuple[RunFacts, SFTReport | None]:
    """Read what `write_facts` wrote. Raises CheckpointError if the folder holds no such run."""
    path = folder / FILE_NAME
    try:
        body = read_json(path, _LARGEST)
        return _run(body["run"]), _report(body["result"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            say("这里没有微调的记录", "there is no record of a fine-tuning run here"),
            say("请指定 medchat sft 的 --output 目录", "name the --output folder of a medchat sft run"),
            where=str(path),
        ) from error


def _run(row: Mapping[str, Any]) -> RunFacts:
    known = {field.name for field in fields(RunFacts)}
    values: dict[str, Any] = {name: value for name, value in row.items() if name in known}
    values["settings"] = tuple((name, value, origin) for name, value, origin in row["settings"])
    values["data"] = tuple(
        DataFacts(**{**item, "remarks": tuple(item.get("remarks", ()))}) for item in row["data"]
    )
    values["notes"] = tuple(row["notes"])
    values["lengths"] = LengthFacts(**row["lengths"]) if row["lengths"] else None
    return RunFacts(**values)


def _report(row: Mapping[str, Any] | None) -> SFTReport | None:
    if row is None:
        return None
    known = {field.name for field in fields(SFTReport)}
    values: dict[str, Any] = {name: value for name, value in row.items() if name in known}
    values["output"] = Path(row["output"])
    values["samples"] = tuple(SFTSample(**sample) for sample in row["samples"])
    return SFTReport(**values)
