"""`medchat ask`: one question, the answer alone on stdout."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import click

from medchat import medical_safety
from medchat.api import Finish, Notice
from medchat.chat.conversation import PreparedChat, prepare_conversation
from medchat.chat.demo_mode import UnknownToDemo
from medchat.chat.events import (
    Advice,
    AnswerFinished,
    AnswerPiece,
    AnswerRestarted,
    AnswerReviewed,
    AnswerShortened,
    Event,
    HistoryDropped,
    ReasoningPiece,
    SettingsRejected,
    SingleTurnTemplate,
)
from medchat.chat.recorder import SessionChoice
from medchat.chat.session import ChatSession
from medchat.cli.group import LocalizedCommand
from medchat.cli.options import generation_flags, model_flags, session_flags
from medchat.cli.output import CLOSED_PIPE, answer_stream, say_aside, silence_stdout
from medchat.cli.piped_input import QuestionInput
from medchat.cli.signals import cancel_on_signals
from medchat.commands.chat import disclaimer_lines, model_notes
from medchat.errors import MedchatError, UsageError
from medchat.language import say
from medchat.repl import messages
from medchat.repl.cjk_wrap import taller_than_screen
from medchat.sanitize import StreamSanitizer, sanitize_line
from medchat.sft_job.shell_words import joined
from medchat.store import SessionKind


@dataclass
class _Answer:
    """What has come so far, and how it is written: text, one JSON object, or JSON lines."""

    session: ChatSession
    prepared: PreparedChat
    style: str
    figures: bool = False
    text: str = ""
    notices: list[Notice] = field(default_factory=list)
    reviews: list[Notice] = field(default_factory=list)
    dropped: int = 0
    answered: AnswerFinished | None = None
    screen: StreamSanitizer | None = None

    def take(self, event: Event) -> None:
        """Write what the event means in this style."""
        if isinstance(event, AnswerPiece):
            self.text += event.text
            self._piece(event.text)
        elif isinstance(event, ReasoningPiece):
            if self.style == "events":
                _line({"event": "reasoning", "text": event.text})
        elif isinstance(event, AnswerRestarted):
            self._restart()
        elif isinstance(event, SettingsRejected):
            say_aside(messages.rejected(event))
        elif isinstance(event, Advice):
            self.notices.append(event.notice)
            self._notice(event.notice)
        elif isinstance(event, AnswerReviewed):
            self.reviews.append(event.notice)
        elif isinstance(event, HistoryDropped):
            self.dropped = event.turns
            say_aside(messages.dropped(event))
        elif isinstance(event, AnswerShortened):
            say_aside(messages.shortened(event))
        elif isinstance(event, SingleTurnTemplate):
            say_aside(messages.single_turn(event))
        elif isinstance(event, AnswerFinished):
            self.answered = event

    def _piece(self, text: str) -> None:
        if self.style == "events":
            _line({"event": "delta", "text": text})
        elif self.style == "text":
            _write(self.screen.feed(text) if self.screen else text)

    def _restart(self) -> None:
        """What was written so far was reasoning; what is on its way through a pipe cannot be taken back."""
        if self.style == "events":
            _line({"event": "restart"})
        elif self.style == "text":
            self._end_line()
            say_aside(messages.reasoned_unmarked(len(self.text)))
        self.text = ""

    def _notice(self, notice: Notice) -> None:
        if self.style == "events":
            _line({"event": "notice", **medical_safety.as_fields(notice)})
        elif self.style == "text" and notice.urgent:
            _write(sanitize_line(notice.text, 600) + "\n")
            if answer_stream().isatty() and sys.stderr.isatty():
                return  # one screen: it is there already
        say_aside(sanitize_line(notice.text, 600))

    def finish(self) -> None:
        """Write the end of the answer, the mark and what is worth a remark."""
        turn = self.answered.turn if self.answered else None
        if self.style == "json":
            _line(self.as_json())
        elif self.style == "events":
            _line({"event": "end", **self.as_json()})
        elif turn is not None:
            self._end_line()
        if turn is None:
            say_aside(say("（已停止，还没有回答）", "(stopped before any answer came)"))
            return
        if turn.finish is Finish.CANCELLED:
            say_aside(say("（已停止，保留部分回答）", "(stopped; the partial answer is kept)"))
        elif self.answered and (empty := messages.empty(self.answered)):
            say_aside(empty)
        elif turn.finish is Finish.LENGTH:
            say_aside(
                say(
                    "（到达长度上限，可用 --max-new-tokens 调高）",
                    "(hit the length limit; raise --max-new-tokens)",
                )
            )
        say_aside(medical_safety.ai_mark())
        self._after_the_answer()
        if self.figures and self.answered:
            say_aside(messages.footer(self.answered.stats, self.session.model.context_length))

    def refuse(self, unknown: UnknownToDemo) -> None:
        """Write the object of a question that gets no answer; why is shown by whoever catches `unknown`."""
        refused = {**self.as_json(), "finish": "refused", "nearest": list(unknown.nearest)}
        if self.style == "json":
            _line(refused)
        elif self.style == "events":
            _line({"event": "end", **refused})

    def break_off(self) -> None:
        """End what the model said before it failed; the failure itself is shown by whoever catches it."""
        if self.text:
            if self.style == "text":
                self._end_line()
            say_aside(medical_safety.ai_mark())
            self._after_the_answer()

    def _after_the_answer(self) -> None:
        """Say what the answer's review found, and once more what is urgent where the answer drove it off the screen."""
        for notice in self.reviews:
            say_aside(notice.text)
        if self.style == "text" and sys.stderr.isatty() and taller_than_screen(self.text):
            for notice in self.notices:
                if notice.urgent:
                    say_aside(sanitize_line(notice.short or notice.text, 600))

    def _end_line(self) -> None:
        _write((self.screen.flush() if self.screen else "") + "\n")

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        turn = self.answered.turn if self.answered else None
        stats = self.answered.stats if self.answered else None
        config = self.session.config
        record = self.prepared.saved_session()
        about = self.session.model.describe()
        return {
            "answer": turn.answer if turn else self.text,
            "finish": str(turn.finish if turn else Finish.CANCELLED),
            "reasoning": self.answered.reasoning if self.answered else "",
            "rejected_settings": list(self.answered.rejected) if self.answered else [],
            "prompt_tokens": stats.prompt_tokens if stats else 0,
            "completion_tokens": stats.completion_tokens if stats else 0,
            "reused_tokens": stats.reused_tokens if stats else 0,
            "tokens_estimated": bool(stats and stats.estimated),
            "seconds": round(stats.seconds, 4) if stats else 0.0,
            "first_token_seconds": round(stats.first_token_seconds, 4) if stats else 0.0,
            "tokens_per_second": round(stats.tokens_per_second, 2) if stats else 0.0,
            "model": str(about.get("model", "")),
            "backbone": self.prepared.opening.backbone.name,
            "adapters": [str(path) for path in self.prepared.opening.options.adapters],
            "template": self.session.template.name,
            "dtype": str(about.get("dtype", "")),
            "device": str(about.get("device", "")),
            "greedy": config.greedy,
            "seed": config.seed,
            "dropped_turns": self.dropped,
            "session": record.id if record else None,
            "safety": [medical_safety.as_fields(notice) for notice in self.notices],
            "answer_notices": [medical_safety.as_fields(notice) for notice in self.reviews],
            "disclaimer": medical_safety.ai_mark(),
            "AIGC": medical_safety.aigc_metadata(turn.answer if turn else self.text),
        }


class _OutputClosed(Exception):
    """Standard output takes no more. Apart from OSError, which a model may raise for reasons of its own."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason

    def exit_code(self) -> int:
        """Return the exit code for a reader that has gone; raise MedchatError for any other reason."""
        if isinstance(self.reason, BrokenPipeError):
            return CLOSED_PIPE
        why = self.reason.strerror or str(self.reason)
        raise MedchatError(
            say(f"无法写到标准输出：{why}", f"standard output could not be written: {why}"),
            say(
                "请检查重定向的目标和磁盘空间；已有的回答可用 medchat sessions list 找到",
                "check where it is redirected and the space there; medchat sessions list finds what was saved",
            ),
        ) from self.reason


def _write(text: str) -> None:
    stream = answer_stream()
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        raise _OutputClosed(error) from error


def _line(value: dict[str, Any]) -> None:
    _write(json.dumps(value, ensure_ascii=not _speaks_unicode()) + "\n")


def _speaks_unicode() -> bool:
    return "utf" in (answer_stream().encoding or "").lower()


class _AskCommand(LocalizedCommand):
    """`medchat ask`: a question that begins with a dash is taken for an option, and that is said."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises UsageError, with the command to type, for an option that may be a question."""
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            word = next((word for word in typed if word.startswith(error.option_name)), error.option_name)
            if error.possibilities:
                raise
            raise UsageError(
                say(f"没有选项 {error.option_name}", f"there is no option {error.option_name}"),
                say(
                    "如果它是问题，写在 -- 之后，选项写在 -- 之前：",
                    "if it is the question, put it behind --, and options before: ",
                )
                + joined(["medchat", "ask", "--", word]),
            ) from None


@click.command(
    cls=_AskCommand,
    help=say(
        "回答一个问题。问题为 - 时从标准输入读取；另有管道或文件接入时，其内容作为问题的背景。",
        "Answer one question; - reads it from standard input. Beside a question, what is piped in is its context.",
    ),
)
@click.argument("question", metavar=say("问题|-", "QUESTION|-"))
@model_flags
@generation_flags
@session_flags
@click.option("--json", "as_json", is_flag=True, help=say("输出一个 JSON 对象", "print one JSON object"))
@click.option("--events", is_flag=True, help=say("边生成边输出 JSON 行", "print JSON lines while streaming"))
@click.option(
    "--force-answer",
    is_flag=True,
    help=say(
        "演示模型没有学过的问题也照样写（没有意义）", "let the demo's miniature answer what it never learned"
    ),
)
@click.option("--stats", is_flag=True, help=say("最后在标准错误显示统计", "end with figures on stderr"))
def command(question: str, as_json: bool, events: bool, stats: bool, force_answer: bool, **flags: Any) -> int:
    """Answer one question."""
    if as_json and events:
        raise UsageError(
            say("--json 和 --events 只能用一个", "use only one of --json and --events"),
            say(
                "--json 在最后输出一个对象，--events 边生成边输出",
                "--json prints one object at the end, --events prints while streaming",
            ),
        )
    choice = SessionChoice(
        flags["session"], flags["continue_"], flags["resume"], not flags["no_save"], SessionKind.ASK
    )
    prepared = prepare_conversation(flags, choice, say_aside)
    try:
        asked = QuestionInput(question, int(prepared.settings.value("max_question_bytes")))
        asked.begin()
        for line in [
            *disclaimer_lines(prepared.store),
            *prepared.plugin_lines(),
            *prepared.opening.notices(),
        ]:
            say_aside(line)
        style = "json" if as_json else "events" if events else "text"
        return _answer(prepared, asked, style, figures=stats, insist=force_answer)
    finally:
        prepared.store.close()


def _answer(prepared: PreparedChat, asked: QuestionInput, style: str, *, figures: bool, insist: bool) -> int:
    model = prepared.opening.load()
    cancel = threading.Event()
    try:
        for note in model_notes(model):
            say_aside(note)
        session = prepared.begin(model)
        screen = StreamSanitizer() if answer_stream().isatty() else None
        answer = _Answer(session, prepared, style, figures, screen=screen)
        question = asked.complete()
        events = session.ask(question, cancel, insist=insist)
        with cancel_on_signals(cancel) as codes:
            try:
                if style == "events":
                    _line({"event": "start", "question": question, "disclaimer": medical_safety.ai_mark()})
                for event in events:
                    answer.take(event)
                answer.finish()
            except _OutputClosed as closed:
                silence_stdout()
                cancel.set()
                for _ in events:  # what had come is saved all the same
                    pass
                return closed.exit_code()
            except UnknownToDemo as unknown:
                answer.refuse(unknown)
                raise
            except Exception:
                answer.break_off()
                raise
        return codes[0] if codes else 0
    finally:
        model.close()
