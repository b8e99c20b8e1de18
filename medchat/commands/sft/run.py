"""Runs fine-tuning: progress, signals, the reports next to the result, and the next command."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medchat.api import SFTEvent, SFTNote, SFTReport, SFTSaved
from medchat.cli.leaving import when_left
from medchat.cli.output import aligned, say_aside
from medchat.cli.program import show_failure
from medchat.cli.signals import cancel_on_signals
from medchat.commands.sft.prepare import PreparedRun
from medchat.commands.sft.progress import EventPrinter, show_training
from medchat.errors import MedchatError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.sft_job.card import use_command, write_card, write_report
from medchat.sft_job.facts import write_facts
from medchat.sft_job.report import cost_rows, result_rows
from medchat.sft_job.run_file import FILE_NAME, as_toml
from medchat.whole_file import write_whole_file


@dataclass
class RunWatcher:
    """Shows a run and writes its reports. The recipe calls it in the main process."""

    prepared: PreparedRun
    show: EventPrinter
    cancel: threading.Event = field(default_factory=threading.Event)
    notes: list[str] = field(default_factory=list)
    kept: bool = False
    saved: Path | None = None

    def on_event(self, event: SFTEvent) -> None:
        """Show the event; write the settings as soon as there is a folder, for `--resume`."""
        if isinstance(event, SFTNote) and event.everywhere:
            self.show(event)  # comes before the run and is not part of its reports
            return
        if isinstance(event, SFTNote):
            self.notes.append(event.text)
        if isinstance(event, SFTSaved):
            self.saved = event.folder
        if not self.kept:
            self._keep_settings(self.prepared.plan.options.output)
        self.show(event)

    def finish(self, folder: Path, report: SFTReport) -> None:
        """Write settings, model card and report. A failure here must not lose the trained weights."""
        facts = self.prepared.facts(tuple(self.notes))
        try:
            self._write_settings(folder)
            write_card(folder, facts, report)
            write_report(folder, facts, report)
        except Exception as error:
            reason = sanitize_line(f"{type(error).__name__}: {error}", 200)
            self.show(SFTNote(say(f"报告没有写完整：{reason}", f"the report is not complete: {reason}")))

    def say_what_is_saved(self) -> None:
        """Say which checkpoint there is: the run is left in the middle of a step."""
        if not self.prepared.plan.process.leads:
            return
        if self.saved is None:
            say_aside(say("还没有保存过检查点", "no checkpoint was saved yet"))
            return
        name = sanitize_line(self.saved.name, 80)
        say_aside(
            say(
                f"最近的检查点 {name} 已保存；同一条命令加上 --resume 继续",
                f"the last checkpoint, {name}, is saved; the same command with --resume goes on",
            )
        )

    def _keep_settings(self, folder: Path) -> None:
        if not folder.is_dir():
            return
        self.kept = True
        if not (folder / FILE_NAME).exists():
            self._write_settings(folder)
            write_facts(folder, self.prepared.facts(), None)

    def _write_settings(self, folder: Path) -> None:
        # Written atomically, because `--resume` reads it.
        write_whole_file(folder / FILE_NAME, as_toml(self.prepared.plan.settings))


def run_training(prepared: PreparedRun) -> tuple[int, SFTReport | None]:
    """Run the recipe and return (exit code, report). Ctrl-C, SIGTERM and SIGHUP save and stop.

    The same signal again stops at once.
    """
    plan = prepared.plan
    leads = plan.process.leads
    with show_training(quiet=not leads) as show:
        watch = RunWatcher(prepared, show)

        def stopping() -> None:
            if leads:
                show(
                    SFTNote(
                        say(
                            "完成这一步后保存并停止；再按一次立即停止",
                            "saving after this step, then stopping; press again to stop at once",
                        )
                    )
                )

        with (
            when_left(watch.say_what_is_saved),
            cancel_on_signals(watch.cancel, insist=True, on_first=stopping) as codes,
        ):
            try:
                report = plan.recipe.run(prepared.data, plan.options, watch)
            except MedchatError as error:
                if not codes:
                    raise
                stopped = error
            else:
                return 0, report
    # Of several processes only one has the error's message.
    show_failure(stopped, debug=False)
    return codes[0], None


def summary_lines(prepared: PreparedRun, report: SFTReport) -> Iterator[str]:
    """Yield the results, their cost and their folder."""
    facts = prepared.facts()
    output = sanitize_line(str(report.output))
    yield say(f"完成：结果在 {output}", f"done: the result is in {output}")
    yield from aligned([*result_rows(facts, report), *cost_rows(facts, report)])
    if (report.output / "report.html").is_file():
        yield "  " + say("报告：", "report: ") + sanitize_line(str(report.output / "report.html"))
    yield say("接下来和它对话：", "Now chat with it:")


def next_command(prepared: PreparedRun, report: SFTReport) -> str:
    """Return the command to chat with the result."""
    options = prepared.plan.options
    adapters = [str(adapter) for adapter in options.adapters]
    return use_command(prepared.facts(), report, str(report.output), str(options.model), adapters)


def tell(lines: Iterator[str]) -> None:
    """Print lines to stderr."""
    for line in lines:
        say_aside(line)
