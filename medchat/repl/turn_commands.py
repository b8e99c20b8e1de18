"""The slash commands that change what was said: answer again, take back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medchat.errors import UsageError
from medchat.language import say
from medchat.repl.rows import excerpt
from medchat.repl.screen import untrusted
from medchat.repl.slash import ReplCommand

if TYPE_CHECKING:
    from medchat.repl.chat import Chat


def _regenerate(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        chat.show_answer(lambda session, cancel: session.regenerate(cancel))


def _undo(chat: Chat, words: str) -> None:
    try:
        count = int(words or "1")
    except ValueError:
        raise UsageError(
            say(
                f"/撤销 后面要写轮数，不是 {untrusted(words[:40])}",
                f"/undo takes a number of turns, not {untrusted(words[:40])}",
            ),
            say("例如：/撤销 2", "for example: /undo 2"),
        ) from None
    if not chat.exchange.ready():
        return
    taken = chat.exchange.call(lambda session: session.undo(count))
    undone = "\n".join(f"  {excerpt(turn.question)}" for turn in taken)
    chat.screen.show(say(f"已撤销 {count} 轮：", f"Took back {count}:") + "\n" + undone)


TURN_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "regen",
        "重答",
        "",
        "重新回答上一个问题",
        "answer the last question again",
        _regenerate,
        more=(
            "新回答写完后取代原来的；中途停止或出错则保留原来的。",
            "The new answer takes the place of the old one once it is complete; if it is stopped or fails, the old"
            " one stays.",
        ),
    ),
    ReplCommand(
        "undo",
        "撤销",
        "[n]",
        "撤销最近 n 轮（默认 1）",
        "take back the last n turns (1)",
        _undo,
        more=(
            "模型不再看到撤销的问答。",
            "The model no longer sees the turns that were taken back.",
        ),
        examples=("/撤销 2", "/undo 2"),
    ),
)
