"""What `medchat ask` writes of an answer: text, one JSON object, or JSON lines; all else goes to stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

from medchat import medical_safety
from medchat.api import Finish, Notice
from medchat.chat.conversation import PreparedChat
from medchat.chat.demo_mode import UnknownToDemo
from medchat.chat.events import Advice
from medchat.chat.session import ChatSession
from medchat.cli.cjk_wrap import taller_than_screen
from medchat.cli.output import CLOSED_PIPE, answer_stream, say_aside
from medchat.errors import MedchatError
from medchat.language import say
from medchat.repl import messages
from medchat.repl.answer_events import AnswerEvents
from medchat.sanitize import StreamSanitizer, sanitize_line


class AskedAnswer(AnswerEvents):
    """The answer so far, and how it is written: text, one JSON object, or JSON lines."""

    def __init__(
        self,
        session: ChatSession,
        prepared: PreparedChat,
        style: str,
        *,
        figures: bool = False,
        screen: StreamSanitizer | None = None,
    ) -> None:
        super().__init__()
        self.session, self.prepared = session, prepared
        self.style, self.figures, self.screen = style, figures, screen

    def start(self, question: str) -> None:
        """Write what precedes the first event."""
        if self.style == "events":
            start = {"event": "start", "question": question, "disclaimer": medical_safety.ai_mark()}
            _line(start)

    def show_piece(self, text: str) -> None:
        """Write the next piece of the answer."""
        if self.style == "events":
            _line({"event": "delta", "text": text})
        elif self.style == "text":
            _write(self.screen.feed(text) if self.screen else text)

    def show_reasoning(self, text: str) -> None:
        """Write the reasoning in JSON lines, which have every event."""
        if self.style == "events":
            _line({"event": "reasoning", "text": text})

    def show_restart(self, remark: str) -> None:
        """Note that the text so far was reasoning; what is in a pipe cannot be taken back."""
        if self.style == "events":
            _line({"event": "restart"})
        elif self.style == "text":
            self._end_line()
            say_aside(remark)

    def show_advice(self, advice: Advice) -> None:
        """Write a notice before the answer."""
        if self.style == "events":
            _line({"event": "notice", **medical_safety.as_fields(advice.notice)})
        if not advice.said:
            say_notice(advice.notice, self.style)

    def show_question(self, question: str) -> None:
        """Do nothing: the question is in the command."""

    def show_remark(self, text: str) -> None:
        """Write the remark to stderr."""
        say_aside(text)

    def show_notice(self, text: str, *, urgent: bool) -> None:
        """Write a notice after the answer."""
        say_aside(sanitize_line(text, 600) if urgent else text)

    def fills_screen(self) -> bool:
        """Whether the notices have scrolled off the screen."""
        return self.style == "text" and sys.stderr.isatty() and taller_than_screen(self.text)

    def finish(self) -> None:
        """Write the end of the answer, the AI mark and the remarks."""
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
        self.show_notices_again()
        if self.figures and self.answered:
            say_aside(messages.footer(self.answered.stats, self.session.model.context_length))

    def refuse(self, unknown: UnknownToDemo) -> None:
        """Write the object of a question that gets no answer; the caller shows the error `unknown`."""
        refused = {**self.as_json(), "finish": "refused", "nearest": list(unknown.nearest)}
        if self.style == "json":
            _line(refused)
        elif self.style == "events":
            _line({"event": "end", **refused})

    def break_off(self) -> None:
        """End the partial answer of a model that failed; the caller shows the error."""
        if self.text:
            if self.style == "text":
                self._end_line()
            say_aside(medical_safety.ai_mark())
            self.show_notices_again()

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
            "seed": self.answered.seed if self.answered else config.seed,
            "dropped_turns": self.dropped_turns,
            "session": record.id if record else None,
            "safety": [medical_safety.as_fields(notice) for notice in self.notices],
            "answer_notices": [medical_safety.as_fields(notice) for notice in self.reviews],
            "disclaimer": medical_safety.ai_mark(),
            "AIGC": medical_safety.aigc_metadata(turn.answer if turn else self.text),
        }


class OutputClosed(Exception):
    """Standard output is closed. Distinct from OSError, which a model may raise for its own reasons."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason

    def exit_code(self) -> int:
        """Return the exit code if the reader has gone; raise MedchatError for any other cause."""
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
        raise OutputClosed(error) from error


def _line(value: dict[str, Any]) -> None:
    _write(json.dumps(value, ensure_ascii=not _speaks_unicode()) + "\n")


def _speaks_unicode() -> bool:
    return "utf" in (answer_stream().encoding or "").lower()


def say_notice(notice: Notice, style: str) -> None:
    """Show a notice on stderr, and an urgent one also before the answer if that is text. Raises OutputClosed."""
    line = sanitize_line(notice.text, 600)
    if style == "text" and notice.urgent:
        _write(line + "\n")
        if answer_stream().isatty() and sys.stderr.isatty():
            return  # both are one screen: it was shown already
    say_aside(line)
