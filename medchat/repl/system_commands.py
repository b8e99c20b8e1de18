"""The slash commands about the program itself: help, leaving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medchat.language import say
from medchat.repl.rows import two_columns
from medchat.repl.slash import SLASHES, ReplCommand, find

if TYPE_CHECKING:
    from medchat.repl.chat import Chat


def _help(chat: Chat, words: str) -> None:
    width = chat.screen.width
    if words:
        _help_in_full(chat, words)
        return
    rows = [
        (f"/{command.name} /{command.zh_name} {command.words}".rstrip(), command.summary)
        for command in chat.commands
    ]
    keys = [
        ("Enter", say("发送", "send")),
        ("Alt+Enter / Ctrl-J", say("换行", "new line")),
        (
            "Ctrl-C / Esc",
            say(
                "回答时：停止并保留部分回答；输入时：清空（Ctrl-C）",
                "answering: stop, keep the partial answer; typing: clear (Ctrl-C)",
            ),
        ),
        ("Ctrl-D", say("空行时退出", "leave, on an empty line")),
        ("Ctrl-R", say("搜索输入历史", "search what was typed before")),
        ("Ctrl-G", say("用 $EDITOR 编辑", "edit in $EDITOR")),
        ("Ctrl-Z", say("挂起", "suspend")),
    ]
    note = say(
        "命令输入前几个字即可；以 // 开头则把斜杠原样发给模型。某个命令的详细说明：/帮助 撤销",
        "A command's first letters are enough; begin with // to send a slash. One command in full: /help undo",
    )
    chat.screen.show(f"{two_columns(rows, width)}\n\n{two_columns(keys, width)}\n\n{note}")


def _help_in_full(chat: Chat, words: str) -> None:
    command = find(words.split()[0].lstrip("".join(SLASHES)), chat.commands)
    names = "    ".join(f"/{name} {command.words}".rstrip() for name in (command.name, command.zh_name))
    parts = [names, command.summary, command.details, say("例如：", "For example: ") + command.example]
    chat.screen.show("\n".join(part for part in parts if part))


def _exit(chat: Chat, words: str) -> None:
    chat.leaving = True


SYSTEM_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "help",
        "帮助",
        "[command]",
        "全部命令和按键；给出命令名则详细说明",
        "all commands and keys; with a command's name, that one in full",
        _help,
        examples=("/帮助 撤销", "/help undo"),
    ),
    ReplCommand(
        "exit",
        "退出",
        "",
        "退出",
        "leave",
        _exit,
        more=(
            "会话已随每轮保存；输入 exit、quit、退出，或在空行按 Ctrl-D 也可以。",
            "Each turn is saved already. exit, quit, 退出, or Ctrl-D on an empty line do the same.",
        ),
    ),
)
