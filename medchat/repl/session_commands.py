"""The slash commands about the conversation as a whole: starting another, looking back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medchat.api import Turn
from medchat.chat.session_lines import branch_mark
from medchat.errors import UsageError
from medchat.language import say
from medchat.medical_safety import ai_mark
from medchat.repl import messages
from medchat.repl.rows import excerpt, two_columns
from medchat.repl.screen import PROMPT, untrusted
from medchat.repl.slash import ReplCommand

if TYPE_CHECKING:
    from medchat.repl.chat import Chat


def _new(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        chat.exchange.change(chat.startup.new_session)
        chat.screen.show(
            say(
                "已开始新会话，模型不再看到之前的内容。",
                "A new conversation: the model no longer sees what was said.",
            )
        )


def _history(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    turns = chat.exchange.call(lambda session: session.conversation.turns)
    points = chat.exchange.call(lambda session: session.recorder.branches())
    marks = {point.position: branch_mark(point) for point in points}
    if not turns:
        nothing = say("还没有对话。", "Nothing has been said yet.")
        chat.screen.show("\n".join([nothing, *marks.values()]))
    elif not words:
        rows = [
            (f"{number}", f"{excerpt(turn.question)}{marks.get(number, '')}\n     {excerpt(turn.answer)}")
            for number, turn in enumerate(turns, 1)
        ]
        rows += [("", mark) for number, mark in marks.items() if number > len(turns)]
        note = say("/历史 N 显示第 N 轮全文。", "/history N shows turn N in full.")
        chat.screen.show(two_columns(rows, chat.screen.width) + "\n" + note)
    elif words.isdecimal() and 1 <= int(words) <= len(turns):
        _show_turn(chat, turns[int(words) - 1])
    else:
        raise UsageError(
            say(f"没有第 {untrusted(words[:20])} 轮", f"there is no turn {untrusted(words[:20])}"),
            say(f"可选 1 到 {len(turns)}", f"choose from 1 to {len(turns)}"),
        )


def _show_turn(chat: Chat, turn: Turn) -> None:
    chat.screen.show(f"{PROMPT} " + untrusted(turn.question) + "\n")
    chat.screen.piece(turn.answer)
    chat.screen.end_answer()
    chat.screen.tell(ai_mark())
    reason = messages.ending(turn.finish, 0) if turn.finish != "length" else ""
    if reason:
        chat.screen.tell(reason)


def _clear(chat: Chat, words: str) -> None:
    chat.screen.clear()


SESSION_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "new",
        "新建",
        "",
        "开始新会话",
        "start a new conversation",
        _new,
        more=(
            "模型和设置不变；已保存的会话留着，模型不再看到其中的内容。",
            "Model and settings stay, and so does what was saved; the model no longer sees the former conversation.",
        ),
    ),
    ReplCommand(
        "history",
        "历史",
        "[n]",
        "本会话的问答；给出 n 显示第 n 轮全文",
        "what was said; n shows one turn in full",
        _history,
        more=(
            "每轮一问一答，从 1 开始编号。",
            "A turn is one question with its answer; they are numbered from 1.",
        ),
        examples=("/历史 2", "/history 2"),
    ),
    ReplCommand(
        "clear",
        "清屏",
        "",
        "清空屏幕，会话不变",
        "clear the screen; the conversation stays",
        _clear,
        more=("要开始新会话，请用 /新建。", "To start a new conversation: /new."),
    ),
)
