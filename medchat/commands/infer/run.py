"""One run of batch inference: from checked flags and files to answers on disk, with progress on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medchat.batch.answering import AnsweredBatch, BatchHalved
from medchat.batch.parts import Outputs
from medchat.batch.questions import Question, QuestionFile
from medchat.batch.results import Line
from medchat.batch.setup import BatchSetup
from medchat.batch.work import WorkPlan
from medchat.chat.events import SettingsRejected
from medchat.chat.session_choice import model_notes, opening_lines
from medchat.chat.setup import ChatSetup
from medchat.cli.leaving import when_left
from medchat.cli.output import say_aside
from medchat.commands.infer.progress import InferProgress, Tell, show_progress
from medchat.commands.infer.summary import summarize
from medchat.errors import MedchatError
from medchat.language import say
from medchat.repl import messages
from medchat.sanitize import sanitize_line
from medchat.templates import ignores_input


@dataclass
class BatchRun:
    """One run of this process, with everything checked that needs no model."""

    setup: BatchSetup
    source: QuestionFile
    plan: WorkPlan
    outputs: Outputs
    shown_output: Path
    skip_bad: bool
    overwrites: bool = False
    _known_rejected: set[str] = field(default_factory=set)

    @property
    def _opening(self) -> ChatSetup:
        return self.setup.opening

    def complete(self) -> int:
        """Answer what is missing, sort the result file and return the exit code."""
        wanted = {question.index for question in self.plan.questions}
        done = self.outputs.done & wanted
        progress = InferProgress(self._expected(len(done)), before=len(done))
        if self._leads:
            self._announce(len(done))
        with self._saying_how_to_go_on(len(wanted)):
            if done != wanted:
                self._answer(progress, frozenset(done))
            if self._leads and not self.outputs.process.alone:
                say_aside(say("本进程已完成，等待其他进程", "this process is done; waiting for the others"))
            lines = self.outputs.finish(wanted, say_aside)
        return self._report(progress, lines) if self._leads else 0

    @contextmanager
    def _saying_how_to_go_on(self, total: int) -> Iterator[None]:
        """Where the block fails, or the program is left in it, say what is saved and how to continue."""

        def say_it() -> None:
            if self._leads:
                say_aside(self._how_to_go_on(total))

        with when_left(say_it):
            try:
                yield
            except BaseException:
                say_it()
                raise

    def _expected(self, done: int) -> int:
        """The total of this process's progress: its own share of what is missing."""
        total, rank = len(self.plan.questions), self.outputs.process.rank
        return done + round((total - done) * self.plan.share(rank) / total)

    def _answer(self, progress: InferProgress, done: frozenset[int]) -> None:
        model = self._opening.load()
        try:
            if self._leads:
                for note in model_notes(model):
                    say_aside(note)
            progress.start()
            with show_progress(progress, quiet=not self._leads) as (show, tell):
                show()
                for event in self.setup.answering(
                    model, self.plan, rank=self.outputs.process.rank, done=done
                ).run():
                    if isinstance(event, BatchHalved):
                        tell(
                            say(
                                f"内存不足，改为一批 {event.rows} 个问题",
                                f"memory ran out; going on with {event.rows} questions in a batch",
                            )
                        )
                    else:
                        self.outputs.append(event.rows)
                        self._name_failures(event, tell)
                        self._name_rejected(event.rows, tell)
                        progress.add(len(event.rows), event.tokens)
                        show()
        finally:
            model.close()

    @property
    def _leads(self) -> bool:
        return self.outputs.process.leads

    def _announce(self, done: int) -> None:
        for line in [*opening_lines(self._opening, say_aside), *self._remarks(done)]:
            say_aside(line)

    def _remarks(self, done: int) -> list[str]:
        template, world_size = self._opening.template, self.outputs.process.world_size
        lines = [self._about_the_demo()] if self.setup.demo is not None else []
        if world_size > 1:
            lines.append(
                say(
                    f"{world_size} 个进程分工，所示为本进程的进度",
                    f"the work is divided among {world_size} processes; the progress is this one's",
                )
            )
        if self.outputs.torn:
            lines.append(
                say(
                    "结果文件的最后一行不完整，已去掉并重新回答",
                    "the result file's last line was torn; it is cut off and answered again",
                )
            )
        if done:
            lines.append(say(f"已有 {done} 个回答，继续", f"{done} questions are answered already; going on"))
        history = self._opening.settings.value("history") != "none"
        if history and not template.multi_turn and any(question.turns for question in self.plan.questions):
            lines.append(
                say(
                    f"（模板 {sanitize_line(template.name)} 的权重只用单轮对话训练过，而数据里有多轮对话）",
                    f"(template {sanitize_line(template.name)} was trained on single turns; the data has dialogues)",
                )
            )
        if ignores_input(template) and any(question.asked.input for question in self.plan.questions):
            lines.append(
                say(
                    f"！模板 {sanitize_line(template.name)} 不使用 input，模型看不到它",
                    f"! template {sanitize_line(template.name)} leaves out `input`: the model does not see it",
                )
            )
        return lines

    def _about_the_demo(self) -> str:
        if self.setup.force_answer:
            return say(
                "这是演示模型：没有学过的问题也照样生成，内容没有意义（--force-answer）",
                "this is the demo model: what it says of questions it has not learned means nothing (--force-answer)",
            )
        return say(
            "这是演示模型：没有学过的问题不作回答（仍要生成：--force-answer）",
            "this is the demo model: a question it has not learned gets no answer (--force-answer makes it write)",
        )

    def _name_failures(self, step: AnsweredBatch, tell: Tell) -> None:
        for question, error in step.failed:
            reason = error.what if isinstance(error, MedchatError) else f"{type(error).__name__}: {error}"
            tell(f"{self._place(question)}: {sanitize_line(reason, 300)}")

    def _name_rejected(self, rows: Sequence[Mapping[str, Any]], tell: Tell) -> None:
        """Report once for each setting that the server rejected it."""
        names = dict.fromkeys(name for row in rows for name in row.get("rejected_settings", ()))
        if news := tuple(name for name in names if name not in self._known_rejected):
            self._known_rejected.update(news)
            tell(messages.rejected(SettingsRejected(news)))

    def _place(self, question: Question) -> str:
        where = f"{sanitize_line(str(self.source.path))}:{question.line}"
        return say(f"{where}（第 {question.index + 1} 条）", f"{where} (record {question.index + 1})")

    def _how_to_go_on(self, total: int) -> str:
        output = sanitize_line(str(self.shown_output))
        if self.outputs.keeps_earlier:
            return say(
                f"已停止：还没有新的回答，{output} 里原有的结果没有改动",
                f"stopped before the first new answer; the earlier results in {output} are unchanged",
            )
        # Counted from the file: a signal may have come between storing answers and counting them.
        stored = self.outputs.stored()
        with_resume = (
            say(
                "同一条命令，把 --overwrite 换成 --resume",
                "the same command, --resume in place of --overwrite",
            )
            if self.overwrites
            else say("同一条命令加上 --resume", "the same command with --resume")
        )
        return say(
            f"已停止：{stored}/{total} 个回答已保存在 {output}。继续：{with_resume}",
            f"stopped: {stored}/{total} answers are saved in {output}; continue with {with_resume}",
        )

    def _report(self, progress: InferProgress, lines: Sequence[Line]) -> int:
        wanted = {question.index for question in self.plan.questions}
        rows = [line.row for line in lines if line.index in wanted]
        speed = progress.tokens / progress.seconds if progress.answered else 0.0
        return summarize(rows, str(self.shown_output), speed, skip_bad=self.skip_bad)
