"""`/set`: the decoding settings of the next answers, validated like the flags."""

from __future__ import annotations

import difflib
from typing import Any

from medchat.api import GENERATION_SETTINGS, GenerationConfig
from medchat.chat.session import ChatSession
from medchat.errors import UsageError
from medchat.language import say
from medchat.repl.screen import untrusted
from medchat.settings.keys import Key, Kind, key_named
from medchat.settings.values import from_text

_KEYS = GENERATION_SETTINGS
#: Only in `/set`: whether earlier turns are sent.
_HISTORY = Key(
    "history",
    Kind.TEXT,
    None,
    "是否发送之前的对话",
    "whether earlier turns are sent",
    choices=("all", "none"),
)
#: Settings of the display and the bell: attributes of `SessionThread`.
ON_SCREEN = ("footer", "bell")
_WHEN_LOADING = ("backbone", "device", "dtype", "quantize", "engine")
_COMMANDS = {
    "model": "模型",
    "adapter": "适配器",
    "template": "模板",
    "system": "系统",
    "lang": "lang",
    "theme": "theme",
}
_UNSET = ("none", "off", "random", "随机", "无")


def spelled(key: str) -> str:
    """Return `key` as users type it: `max-new-tokens`."""
    return key.replace("_", "-")


def setting_names() -> tuple[str, ...]:
    """Return the names that `/set` takes."""
    return (*(spelled(key) for key in _KEYS), _HISTORY.name, *ON_SCREEN)


def setting_values(name: str) -> tuple[str, ...]:
    """Return the values of a setting with fixed choices, () of any other or of none."""
    if name == _HISTORY.name:
        return _HISTORY.choices
    if name not in setting_names():
        return ()
    key = key_named(name.replace("-", "_"))
    return ("on", "off") if key.kind is Kind.FLAG else key.choices


def values_in_force(session: ChatSession) -> list[tuple[str, str]]:
    """Return (name, value) of everything `/set` can change."""
    config = session.config
    shown = [
        (
            spelled(key),
            say("由服务端决定", "the server's") if key in config.unset else shown_value(getattr(config, key)),
        )
        for key in _KEYS
    ]
    return [*shown, ("history", "all" if session.remember_history else "none")]


def typed_setting(words: str) -> tuple[str, str]:
    """Return the full name and the value that were typed (`top-p 0.8`, `top=0.8`). Raises UsageError."""
    typed, _, value = words.replace("=", " ", 1).partition(" ")
    name, value = _named(typed), value.strip().lower()
    if not value:
        raise UsageError(
            say(f"/设置 {name} 缺少值", f"/set {name} needs a value"),
            say(f"例如：/设置 {name} {_example(name)}", f"for example: /set {name} {_example(name)}"),
        )
    return name, value


def screen_setting(name: str, value: str) -> bool:
    """Return the value typed for a setting of ON_SCREEN. Raises UsageError."""
    return bool(from_text(key_named(name), value, name))


def apply_setting(session: ChatSession, name: str, value: str) -> Any:
    """Change a setting of the session and return its new value. Raises UsageError, without a change."""
    chosen = _read(name, value)
    if name == _HISTORY.name:
        session.remember_history = chosen == "all"
    else:
        change: dict[str, Any] = {name.replace("-", "_"): chosen}
        session.config = session.config.with_settings(**change)
    return chosen


def without_effect(session: ChatSession, name: str) -> str:
    """Return a remark if the setting has no effect without sampling, else ""."""
    if name not in ("temperature", "top-p", "top-k", "seed") or session.config.samples:
        return ""
    if session.config.greedy:
        return say(
            "；但 greedy 开着，现在不起作用：/设置 greedy off",
            "; no effect while greedy is on: /set greedy off",
        )
    return say(
        "；但束搜索不采样，现在不起作用：/设置 num-beams 1",
        "; no effect with beam search: /set num-beams 1",
    )


def _named(typed: str) -> str:
    wanted = typed.strip().lower().lstrip("-").replace("_", "-")
    names = setting_names()
    fitting = [name for name in names if name == wanted] or [
        n for n in names if wanted and n.startswith(wanted)
    ]
    if len(fitting) == 1:
        return fitting[0]
    near = fitting or difflib.get_close_matches(wanted, names, n=3, cutoff=0.5) or list(names)
    if wanted in _COMMANDS:
        raise UsageError(
            say(f"{wanted} 有自己的命令", f"{wanted} has a command of its own"),
            say(f"请用 /{_COMMANDS[wanted]}", f"use /{wanted}"),
        )
    if wanted in _WHEN_LOADING:
        raise UsageError(
            say(f"对话中不能改 {wanted}", f"{wanted} cannot change while the model is loaded"),
            say(
                f"退出后重新开始：medchat chat --{wanted} …",
                f"leave and start again: medchat chat --{wanted} …",
            ),
        )
    raise UsageError(
        say(f"没有设置项 {untrusted(typed[:40])}", f"there is no setting {untrusted(typed[:40])}"),
        say("可以设置：", "you can set: ") + ", ".join(near),
    )


def _read(name: str, value: str) -> Any:
    if name == "seed" and value in _UNSET:
        return None
    return from_text(_HISTORY if name == _HISTORY.name else key_named(name.replace("-", "_")), value, name)


def _example(name: str) -> str:
    examples = {"greedy": "on", "history": "none", "seed": "1", "footer": "off", "bell": "on"}
    return examples.get(name) or shown_value(getattr(GenerationConfig(), name.replace("-", "_")))


def shown_value(value: object) -> str:
    if value is None:
        return say("随机", "random")
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
