"""`medchat data build literature`: dialogues from abstracts, every answer checked against its statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import click

from medchat.plugin_kit import (
    DataError,
    GenerationConfig,
    LocalizedCommand,
    Turn,
    sanitize,
    say,
    user_path,
    write_out,
)
from medchat_data.converting import as_dialogue
from medchat_data.flags import build_flags
from medchat_data.literature import LiteratureFile, LiteratureText, read_literature
from medchat_data.literature_prompts import PROMPT_VERSION, statements_prompt
from medchat_data.literature_stages import MOST_CALLS, NOT_ASKED, Ask, Stages, Statement, stage_reasons
from medchat_data.model_writer import (
    BACKBONE_WRITER,
    REMOTE_WRITER,
    BuildFiles,
    built_line,
    open_writer,
    planned,
    rejected_line,
    say_estimate,
    say_what_is_left,
    written_by,
)

#: `--dry-run` shows the prompts of so many texts.
_SHOWN_TEXTS = 3
#: The share of questions that assert something false.
_FALSE_SHARE = 0.2


@click.command(
    "literature",
    cls=LocalizedCommand,
    help=say(
        "由模型把摘要或结论写成对话：提取结论、提问、回答，再核对每个回答所依据的原文；不合格的留在旁边，注明原因。",
        "Have a model write dialogues from abstracts or conclusions: statements, questions, answers, a check of each"
        " answer that quotes what it rests on. What fails is kept beside with the reason.",
    ),
)
@click.argument("literature_file", metavar="FILE")
@click.option(
    "--writer",
    type=click.Choice([REMOTE_WRITER, BACKBONE_WRITER]),
    required=True,
    help=say("由谁写：远程接口，或本机的模型", "who writes: an endpoint, or a model on this machine"),
)
@click.option(
    "--false-share",
    type=click.FloatRange(0, 1),
    metavar="X",
    default=_FALSE_SHARE,
    show_default=True,
    help=say(
        "有多大比例的提问说了错误的话，由回答来纠正",
        "the share of questions that assert something false, to be corrected",
    ),
)
@build_flags(
    dry_run=say(
        "只显示前三篇的提示和预计用量，不写文件",
        "show the prompts of the first three texts and what all would take; write nothing",
    ),
)
def literature(literature_file: str, writer: str, false_share: float, **flags: Any) -> int:
    """Build; return 6 where some record has no text, 1 where a model left some unwritten."""
    path, seed = user_path(literature_file), flags.get("seed") or 0
    GenerationConfig(seed=seed)  # raises for one out of range
    file = read_literature(path)
    if flags["dry_run"]:
        return write_out(_shown_prompts(file, flags))
    files = BuildFiles.from_flags(flags, {say("文献文件", "the file of literature"): path})
    rows, left = _written(file, Stages(false_share, seed), writer, flags, files)
    codes = Counter(row.get("code", "") for row in rows)
    click.echo(built_line(Counter(literature=codes.pop("", 0)), files), err=True)
    if codes:
        click.echo(rejected_line(codes, files), err=True)
    if file.bad:
        return DataError.exit_code
    return 1 if left else 0


def _written(
    file: LiteratureFile, stages: Stages, writer: str, flags: Mapping[str, Any], files: BuildFiles
) -> tuple[list[dict[str, Any]], int]:
    """Ask stage after stage; return the rows of both files, and how many statements or texts are not done."""
    rows: list[dict[str, Any]] = []
    with open_writer(writer, flags, files) as (opened, calls):
        prompts = [statements_prompt(source.text) for source in file.sources]
        say_estimate(calls, prompts)
        _say_bound(len(file.sources))

        def made(ask: Ask) -> int:
            found = stages.run(file.sources, ask)
            rows[:] = _Rows(file, stages.seed, written_by(writer, opened)).of(found)
            return sum(one.code == NOT_ASKED for one in chain.from_iterable(found))

        try:
            made(calls.answer)
        finally:
            left = made(calls.stored)
            files.write((row for row in rows if "code" not in row), (row for row in rows if "code" in row))
        say_what_is_left(calls, left)
    return rows, left


@dataclass(frozen=True, slots=True)
class _Rows:
    """Makes the lines of both files. `origin` is what provenance says of the model."""

    file: LiteratureFile
    seed: int
    origin: Mapping[str, Any]

    def of(self, found: list[list[Statement]]) -> list[dict[str, Any]]:
        """Return the lines, numbered, those of records without a text first."""
        lines = [*self._bad(), *chain.from_iterable(map(self._of_text, found))]
        return [{"index": index, **line} for index, line in enumerate(lines)]

    def _bad(self) -> Iterator[dict[str, Any]]:
        for bad in self.file.bad:
            yield {"code": "bad-record", "reason": bad.reason, "where": f"{self.file.path.name}:{bad.line}"}

    def _of_text(self, statements: list[Statement]) -> Iterator[dict[str, Any]]:
        """Yield the lines of one text: its dialogue as far as each answer, so that every one is learned."""
        said: list[Turn] = []
        for one in statements:
            if one.code == NOT_ASKED:
                continue
            line: dict[str, Any] = {}
            if one.code:
                line |= {"code": one.code, "reason": stage_reasons()[one.code], "written": one.written}
            instruction = as_dialogue(said, one.question) if one.question else ""
            line |= {"instruction": instruction, "input": "", "output": one.answer}
            line["provenance"] = self._provenance(one)
            yield line
            if not one.code:
                said.append(Turn(one.question, one.answer))

    def _provenance(self, one: Statement) -> dict[str, Any]:
        return {
            "sources": [self._source(one.source)],
            "statement": one.text,
            "asserts_false": one.asserts_false,
            "form": "literature",
            "form_version": PROMPT_VERSION,
            "seed": self.seed,
            **self.origin,
            "prompts_sha256": list(one.calls),
            "date": one.day,
            "verified": {"quote": one.quote},
        }

    def _source(self, source: LiteratureText) -> dict[str, Any]:
        return {"file": self.file.path.name, "line": source.line, "id": source.id, "sha256": source.sha256}


def _shown_prompts(file: LiteratureFile, flags: Mapping[str, Any]) -> str:
    prompts = [statements_prompt(source.text) for source in file.sources]
    _say_bound(len(prompts))
    return "\n\n".join([*map(sanitize, prompts[:_SHOWN_TEXTS]), planned(prompts, flags)])


def _say_bound(texts: int) -> None:
    """Say on stderr how many calls all stages can take."""
    click.echo(
        say(
            f"第一步提取结论；{texts} 篇的四步合计至多 {texts * MOST_CALLS} 次调用",
            f"the first stage extracts statements; the four of {texts} texts take up to {texts * MOST_CALLS} calls",
        ),
        err=True,
    )
