"""The built-in slash commands. A later command is one function and one row in `COMMANDS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells, set_cell_size

from medchat.api import Turn
from medchat.chat.session import ChatSession
from medchat.errors import UsageError
from medchat.language import say
from medchat.medical_safety import ai_mark
from medchat.repl import messages
from medchat.repl.medical_commands import INSIST, MEDICAL_COMMANDS
from medchat.repl.screen import PROMPT, unforgeable, untrusted
from medchat.repl.set_command import apply_setting, values_in_force, without_effect
from medchat.repl.slash import ReplCommand
from medchat.sanitize import sanitize_line

if TYPE_CHECKING:
    from medchat.repl.chat import Chat


def _table(rows: list[tuple[str, str]]) -> str:
    widest = max((cell_len(left) for left, _ in rows), default=0)
    return "\n".join(f"  {set_cell_size(left, widest)}  {right}".rstrip() for left, right in rows)


def _excerpt(text: str, cells: int = 60) -> str:
    line = unforgeable(sanitize_line(text, 2 * cells))
    return line if cell_len(line) <= cells else chop_cells(line, cells - 1)[0] + "…"


def _help(chat: Chat, words: str) -> None:
    rows = [
        (f"/{command.name} /{command.zh_name} {command.words}".rstrip(), command.summary)
        for command in chat.commands
    ]
    keys = [
        ("Enter", say("发送", "send")),
        ("Alt+Enter / Ctrl-J", say("换行", "new line")),
        (
            "Ctrl-C",
            say(
                "回答时：停止并保留部分回答；输入时：清空",
                "answering: stop, keep the partial answer; typing: clear",
            ),
        ),
        ("Ctrl-D", say("空行时退出", "leave, on an empty line")),
        ("Ctrl-R", say("搜索输入历史", "search what was typed before")),
        ("Ctrl-G", say("用 $EDITOR 编辑", "edit in $EDITOR")),
        ("Ctrl-Z", say("挂起", "suspend")),
    ]
    note = say(
        "命令可以只打开头几个字；// 开头发送一个斜杠。",
        "A command's first letters are enough; begin with // to send a slash.",
    )
    chat.screen.show(f"{_table(rows)}\n\n{_table(keys)}\n\n{note}")


def _exit(chat: Chat, words: str) -> None:
    chat.leaving = True


def _new(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        chat.exchange.change(chat.startup.new_session)
        chat.screen.show(
            say(
                "已开始新会话，模型不再看到之前的内容。",
                "A new conversation: the model no longer sees what was said.",
            )
        )


def _clear(chat: Chat, words: str) -> None:
    chat.screen.clear()


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
    undone = "\n".join(f"  {_excerpt(turn.question)}" for turn in taken)
    chat.screen.show(say(f"已撤销 {count} 轮：", f"Took back {count}:") + "\n" + undone)


def _regenerate(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        chat.show_answer(lambda session, cancel: session.regenerate(cancel))


def _history(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    turns = chat.exchange.call(lambda session: session.conversation.turns)
    if not turns:
        chat.screen.show(say("还没有对话。", "Nothing has been said yet."))
    elif not words:
        rows = [
            (f"{number}", f"{_excerpt(turn.question)}\n     {_excerpt(turn.answer)}")
            for number, turn in enumerate(turns, 1)
        ]
        chat.screen.show(
            _table(rows) + "\n" + say("/历史 N 显示第 N 轮全文。", "/history N shows turn N in full.")
        )
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


def _reasoning(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        text = chat.exchange.call(lambda session: session.last_reasoning)
        chat.screen.show(untrusted(text.strip()) or say("上一个回答没有思考。", "No reasoning came with it."))


def _set(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    if not words:
        rows = chat.exchange.call(values_in_force)
        others = [(untrusted(name), untrusted(value)) for name, value in chat.startup.settings()]
        shown = _table(rows) + ("\n\n" + _table(others) if others else "")
        chat.screen.show(
            shown + "\n" + say("例如：/设置 temperature 0.7", "For example: /set temperature 0.7")
        )
        return
    name, value = chat.exchange.call(lambda session: apply_setting(session, words))
    told = say(f"{name} = {value}（下一个回答起生效）", f"{name} = {value} (from the next answer on)")
    chat.screen.show(told + chat.exchange.call(lambda session: without_effect(session, name)))


def _stats(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        chat.screen.show(chat.exchange.call(_statistics))


def _statistics(session: ChatSession) -> str:
    facts = [
        (key, value) for key, value in session.model.describe().items() if value not in ((), [], "", None)
    ]
    rows = [(untrusted(str(key)), untrusted(_told(value))) for key, value in facts]
    rows.append((say("轮数", "turns"), str(len(session.conversation.turns))))
    shown = _table(rows)
    if session.last_stats is not None:
        stats = session.last_stats
        reused = say(f"复用 {stats.reused_tokens} 个词元", f"{stats.reused_tokens} tokens reused")
        seconds = say(f"用时 {stats.seconds:.1f} 秒", f"{stats.seconds:.1f} s")
        last = say("上一个回答：", "Last answer: ")
        shown += f"\n{last}{messages.footer(stats, session.model.context_length)} · {reused} · {seconds}"
    return shown


def _told(value: object) -> str:
    return say("；", "; ").join(map(str, value)) if isinstance(value, list | tuple) else str(value)


COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand("regen", "重答", "", "重新回答上一个问题", "answer the last question again", _regenerate),
    ReplCommand("undo", "撤销", "[n]", "撤销最近 n 轮（默认 1）", "take back the last n turns (1)", _undo),
    ReplCommand("new", "新建", "", "开始新会话", "start a new conversation", _new),
    ReplCommand(
        "history",
        "历史",
        "[n]",
        "本会话说过的话；给出 n 显示第 n 轮全文",
        "what was said; n shows one turn in full",
        _history,
    ),
    ReplCommand(
        "thinking",
        "思考",
        "",
        "上一个回答之前的思考全文",
        "what the model reasoned before its answer",
        _reasoning,
    ),
    ReplCommand(
        "clear", "清屏", "", "清空屏幕，会话不变", "clear the screen; the conversation stays", _clear
    ),
    ReplCommand("set", "设置", "[key value]", "查看或修改生成参数", "show or change decoding settings", _set),
    ReplCommand(
        "stats", "统计", "", "模型与上一个回答的数据", "figures of the model and the last answer", _stats
    ),
    *MEDICAL_COMMANDS,
    ReplCommand("help", "帮助", "", "本表", "this table", _help),
    ReplCommand("exit", "退出", "", "退出", "leave", _exit),
)


def built_in_commands(*, insists: bool) -> tuple[ReplCommand[Chat], ...]:
    """Return the commands of a chat; `insists` where the model refuses what it has not learned."""
    return (*COMMANDS, INSIST) if insists else COMMANDS
