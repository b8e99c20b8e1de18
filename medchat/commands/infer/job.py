"""What `medchat infer` is asked to do: read and checked before a model is loaded, then answered."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medchat import __version__
from medchat.api import GenerationConfig
from medchat.batch.parts import look_at_outputs, open_outputs, part_paths
from medchat.batch.questions import QuestionFile, read_questions
from medchat.batch.resuming import check_belongs
from medchat.batch.setup import BatchSetup
from medchat.batch.work import WorkPlan
from medchat.chat.demo_mode import as_demo
from medchat.chat.setup import ChatSetup, read_settings, resolve_setup
from medchat.cli.native_output import HeldNativeOutput
from medchat.cli.output import say_aside
from medchat.commands.infer.run import BatchRun
from medchat.datafiles.fields import FieldChoice
from medchat.errors import DataError, UsageError
from medchat.language import say
from medchat.launcher import Process
from medchat.paths import config_file, project_config_file
from medchat.sanitize import sanitize_line
from medchat.user_paths import user_path
from medchat.whole_file import check_output_file

#: The default batch size. On a CPU decoding is bound by reading the weights, so this many prompts cost little
#: more than one; running out of memory halves it.
BATCH_SIZE = 8
#: How many bad records or failed questions are named; of more only the number is given.
NAMED = 10


@dataclass(frozen=True)
class InferJob:
    """The questions and what answers them. `target` is where the answers go, `shown` as the user wrote it.

    `flags` are those of the command, by their Python names.
    """

    setup: BatchSetup
    source: QuestionFile
    plan: WorkPlan
    process: Process
    target: Path
    shown: Path
    flags: Mapping[str, Any]

    @classmethod
    def read(
        cls, data: str, output: str, flags: Mapping[str, Any], process: Process, *, speak: bool
    ) -> InferJob:
        """Read the settings and the questions, and check all that needs no model; `speak` of what was read.

        Raises UsageError, CheckpointError, PluginError or DataError for what cannot be answered as asked.
        """
        opening, demo = as_demo(resolve_setup(read_settings(flags)))
        opening = replace(opening, generation=_generation(opening.generation, flags))
        setup = BatchSetup(opening, demo, force_answer=flags["force_answer"], exact=flags["exact"])
        choice = FieldChoice(flags["question_field"], flags["answer_field"], flags["context_field"])
        source = _read(user_path(data), choice, skip_bad=flags["skip_bad"], speak=speak)
        target = Path(os.path.realpath(user_path(output)))  # pathlib raises for a loop of links
        _refuse_inputs(target, opening, source.path)
        batch_size = 1 if flags["exact"] else _batch_size(opening, flags["batch_size"])
        plan = WorkPlan(source.questions[: flags["limit"]], batch_size, process.world_size)
        return cls(setup, source, plan, process, target, Path(output), flags)

    def facts(self) -> dict[str, str]:
        """Return what every process that shares this job must find as this one does, by name."""
        settings = self.setup.opening.settings
        kept = {name: settings.value(name) for name in ("system", "history", "max_question_bytes")}
        asked = repr(self.source.questions).encode(errors="backslashreplace")
        return {
            "medchat": __version__,
            "--data": hashlib.sha256(asked).hexdigest(),
            **{name: repr(value) for name, value in (self.setup.provenance.as_fields() | kept).items()},
        }

    def check(self) -> int:
        """Check what is there already, and the model without reading weights; answer nothing."""
        self.look_at_earlier()
        opening = self.setup.opening
        opening.backbone.check(opening.options)
        for notice in opening.notices():
            say_aside(notice)
        place, count = sanitize_line(opening.options.location, 200), len(self.plan.questions)
        say_aside(say(f"检查通过：{place}，{count} 个问题", f"checked: {place}, {count} questions"))
        return 0

    def look_at_earlier(self) -> None:
        """Raise, as `answer` would, for earlier answers that this job may neither continue nor replace."""
        resume, overwrite = self.flags["resume"], self.flags["overwrite"]
        earlier = look_at_outputs(self.target, resume=resume, overwrite=overwrite)
        check_belongs(earlier, self.source.questions, self.setup.provenance, self.target)

    def answer(self) -> int:
        """Answer this process's share, and return the exit code. Raises MedchatError."""
        resume, overwrite = self.flags["resume"], self.flags["overwrite"]
        outputs = open_outputs(self.target, self.process, resume=resume, overwrite=overwrite)
        try:
            run = BatchRun(
                self.setup,
                self.source,
                self.plan,
                outputs,
                self.shown,
                skip_bad=self.flags["skip_bad"],
                overwrites=overwrite,
            )
            check_belongs(outputs.earlier, self.source.questions, self.setup.provenance, self.target)
            with HeldNativeOutput():
                return run.complete()
        finally:
            outputs.close()


def _refuse_inputs(target: Path, opening: ChatSetup, data: Path) -> None:
    """Raise UsageError if an output file would overwrite an input of the run."""
    inputs = {"--data": data, "medchat config path": config_file(), "./medchat.toml": project_config_file()}
    if opening.options.model.is_file():
        inputs["--model"] = opening.options.model
    if template := opening.settings.value("template"):
        inputs["--template"] = Path(str(template))
    for path in (target, *part_paths(target).values()):
        check_output_file(path, inputs)


def _batch_size(opening: ChatSetup, asked: int | None) -> int:
    """Return the batch size. Raises UsageError if the backbone answers one question at a time."""
    if opening.backbone.capabilities.batch:
        return asked or BATCH_SIZE
    if (asked or 1) > 1:
        name = opening.backbone.name
        raise UsageError(
            say(
                f"{name} 逐个回答，不支持 --batch-size {asked}",
                f"{name} answers one at a time: no --batch-size {asked}",
            ),
            say("去掉 --batch-size", "leave --batch-size out"),
        )
    return 1


def _generation(configured: GenerationConfig, flags: Mapping[str, Any]) -> GenerationConfig:
    """Greedy unless a flag of this command requests sampling: a chat's temperature in a file does not count."""
    if flags["sample"] and flags["greedy"]:
        raise UsageError(say("--sample 和 --greedy 只能用一个", "use only one of --sample and --greedy"))
    asked = any(flags[name] is not None for name in ("temperature", "top_p", "top_k"))
    return replace(configured, greedy=bool(flags["greedy"]) or not (flags["sample"] or asked))


def _read(path: Path, choice: FieldChoice, *, skip_bad: bool, speak: bool) -> QuestionFile:
    source = read_questions(path, choice)
    if speak:
        for bad in source.bad[:NAMED]:
            say_aside(f"{sanitize_line(str(path))}:{bad.line}: {sanitize_line(bad.reason)}")
    if source.bad and not skip_bad:
        raise DataError(
            say(f"{len(source.bad)} 条记录有误", f"{len(source.bad)} bad records")
            + say("：", ": ")
            + source.bad[0].reason,
            (source.bad[0].remedy or say("改正后再试", "correct them"))
            + say("；或用 --skip-bad 跳过", "; or leave them out with --skip-bad"),
            where=f"{path}:{source.bad[0].line}",
        )
    if not source.questions:
        raise DataError(say("没有一条可用的记录", "none of the records can be used"), where=str(path))
    if speak:
        skipped = (
            say(f"，跳过 {len(source.bad)} 条格式有误的记录", f", {len(source.bad)} bad records left out")
            if source.bad
            else ""
        )
        say_aside(
            say(
                f"{sanitize_line(path.name)}：{source.described}，{len(source.questions)} 个问题{skipped}",
                f"{sanitize_line(path.name)}: {source.described}, {len(source.questions)} questions{skipped}",
            )
        )
        for remark in source.fields.lines():
            say_aside(f"  {remark}")
        if further := sum(len(question.asked.wordings) for question in source.questions):
            say_aside(
                say(
                    f"  另有 {further} 种问法未使用，只问第一种",
                    f"  {further} more wordings are not asked, only the first",
                )
            )
    return source
