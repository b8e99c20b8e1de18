"""The slash commands about the program itself: help, leaving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medchat.errors import UsageError
from medchat.language import LANGUAGES, say, set_language
from medchat.repl import offers
from medchat.repl.rows import two_columns
from medchat.repl.screen import untrusted, untrusted_line
from medchat.repl.slash import SLASHES, ReplCommand, find
from medchat.settings.keys import THEMES

if TYPE_CHECKING:
    from medchat.repl.chat import Chat

#: The word that saves a choice for all later chats.
_SAVE = ("save", "保存")


def _help(chat: Chat, words: str) -> None:
    width = chat.screen.width
    if words:
        _help_in_full(chat, words)
        return
    rows = [
        (f"/{command.name} /{command.zh_name} {command.placeholders}".rstrip(), command.summary)
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
    names = "    ".join(
        f"/{name} {command.placeholders}".rstrip() for name in (command.name, command.zh_name)
    )
    parts = [names, command.summary, command.details, say("例如：", "For example: ") + command.example]
    chat.screen.show("\n".join(part for part in parts if part))


def _language(chat: Chat, words: str) -> None:
    chosen, saved = _choice(words, LANGUAGES, "lang")
    if not chosen:
        chat.screen.show(say("现在是中文。英文：/语言 en", "This is English. Chinese: /lang zh"))
        return
    set_language(chosen)
    _note(chat, "lang", chosen)
    chat.screen.show(say("界面改为中文。", "English from now on.") + _where(chat, "lang", chosen, saved))


def _theme(chat: Chat, words: str) -> None:
    chosen, saved = _choice(words, THEMES, "theme")
    if not chosen:
        listed = say("、", ", ").join(THEMES)
        chat.screen.show(
            say(f"可选：{listed}。例如：/配色 bright", f"There are: {listed}. For example: /theme bright")
        )
        return
    chat.screen.use_theme(chosen)
    _note(chat, "theme", chosen)
    chat.screen.tell(
        say(f"配色改为 {chosen}。", f"The theme is {chosen}.") + _where(chat, "theme", chosen, saved)
    )


def _choice(words: str, choices: Sequence[str], name: str) -> tuple[str, bool]:
    """Return the choice, "" for none, and whether to save it. Raises UsageError."""
    chosen, *rest = words.lower().split() or [""]
    if (chosen and chosen not in choices) or (rest and rest not in ([word] for word in _SAVE)):
        raise UsageError(
            say(f"/{name} 不接受 {untrusted(words[:40])}", f"/{name} does not take {untrusted(words[:40])}"),
            say("可选：", "choose from: ")
            + ", ".join(choices)
            + say("；末尾加 save 则保存", "; add save to keep it"),
        )
    return chosen, bool(rest)


def _note(chat: Chat, name: str, value: str) -> None:
    if chat.control is not None:
        chat.control.change({name: value}, f"/{name}")


def _where(chat: Chat, name: str, value: str, saved: bool) -> str:
    """Save the choice if requested, and return where; else return how to."""
    if chat.control is None:
        return ""
    if not saved:
        return say(
            f"只在本次对话中；保存：/{name} {value} save",
            f" In this chat alone; to keep it: /{name} {value} save",
        )
    place = untrusted_line(str(chat.control.save_setting(name, value)))
    return say(f"已保存到 {place}", f" Saved in {place}")


def _exit(chat: Chat, words: str) -> None:
    chat.leaving = True


SYSTEM_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "lang",
        "语言",
        "[zh|en] [save]",
        "界面语言",
        "the interface language",
        _language,
        more=("末尾加 save 则以后都用它。", "With save at its end it holds for all chats to come."),
        examples=("/lang en", "/lang zh"),
        complete=offers.languages,
    ),
    ReplCommand(
        "theme",
        "配色",
        "[name] [save]",
        "提示行的配色",
        "the colours of MedChat's own lines",
        _theme,
        more=("末尾加 save 则以后都用它。", "With save at its end it holds for all chats to come."),
        examples=("/theme bright save", "/theme bright save"),
        complete=offers.themes,
    ),
    ReplCommand(
        "help",
        "帮助",
        "[command]",
        "全部命令和按键；给出命令名则详细说明",
        "all commands and keys; with a command's name, that one in full",
        _help,
        examples=("/帮助 撤销", "/help undo"),
        complete=offers.commands,
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
