"""The slash commands about how the model answers: its decoding settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medchat.language import say
from medchat.repl.rows import two_columns
from medchat.repl.screen import untrusted
from medchat.repl.set_command import apply_setting, values_in_force, without_effect
from medchat.repl.slash import ReplCommand

if TYPE_CHECKING:
    from medchat.repl.chat import Chat


def _set(chat: Chat, words: str) -> None:
    if not words:
        _parameters(chat, words)
    elif chat.exchange.ready():
        name, value = chat.exchange.call(lambda session: apply_setting(session, words))
        told = say(f"{name} = {value}（下一个回答起生效）", f"{name} = {value} (from the next answer on)")
        chat.screen.show(told + chat.exchange.call(lambda session: without_effect(session, name)))


def _parameters(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    rows = chat.exchange.call(values_in_force)
    others = [(untrusted(name), untrusted(value)) for name, value in chat.startup.settings()]
    shown = [two_columns(part, chat.screen.width) for part in (rows, others) if part]
    example = say("例如：/设置 temperature 0.7", "For example: /set temperature 0.7")
    chat.screen.show("\n\n".join(shown) + "\n" + example)


MODEL_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "set",
        "设置",
        "[key value]",
        "查看或修改生成参数",
        "show or change decoding settings",
        _set,
        more=(
            "从下一个回答起生效，只影响本次对话。不带参数时列出全部。",
            "It holds from the next answer on, in this chat alone. Without arguments all are shown.",
        ),
        examples=("/设置 temperature 0.7", "/set temperature 0.7"),
    ),
    ReplCommand(
        "params",
        "参数",
        "",
        "当前的全部参数",
        "all settings in force",
        _parameters,
        more=(
            "生成参数可用 /设置 修改；其余在加载模型时确定。",
            "/set changes the decoding settings; the others are fixed when the model is loaded.",
        ),
    ),
)
