"""`/set`: the decoding settings of the next answers, validated as the flags are."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any

from medchat.api import GENERATION_RANGES, GenerationConfig
from medchat.chat.session import ChatSession
from medchat.errors import UsageError
from medchat.language import say
from medchat.repl.screen import untrusted
from medchat.settings.keys import Kind, key_named
from medchat.settings.values import FALSE_WORDS, TRUE_WORDS

_KEYS = (*GENERATION_RANGES, "greedy")
_WHOLE = tuple(key for key in _KEYS if key_named(key).kind is Kind.WHOLE)
_WHEN_LOADING = ("backbone", "model", "adapter", "template", "system", "device", "dtype", "quantize")
_UNSET = ("none", "off", "random", "随机", "无")


def spelled(key: str) -> str:
    """Return `key` as it is typed: `max-new-tokens`."""
    return key.replace("_", "-")


def setting_names() -> tuple[str, ...]:
    """Return the names that `/set` takes."""
    return (*(spelled(key) for key in _KEYS), "history")


def values_in_force(session: ChatSession) -> list[tuple[str, str]]:
    """Return (name, value) of everything `/set` can change."""
    shown = [(spelled(key), _shown(getattr(session.config, key))) for key in _KEYS]
    return [*shown, ("history", "all" if session.remember_history else "none")]


def apply_setting(session: ChatSession, words: str) -> tuple[str, str]:
    """Change one setting as typed (`top-p 0.8`, `top-p=0.8`) and return its name and new value.

    Raises UsageError, naming the valid range, and changes nothing.
    """
    typed, _, value = words.replace("=", " ", 1).partition(" ")
    name, value = _named(typed), value.strip().lower()
    if not value:
        raise UsageError(
            say(f"/设置 {name} 缺少值", f"/set {name} needs a value"),
            say(f"例如：/设置 {name} {_example(name)}", f"for example: /set {name} {_example(name)}"),
        )
    if name == "history":
        session.remember_history = _one_of(name, value, ("all", "none")) == "all"
    else:
        change: dict[str, Any] = {name.replace("-", "_"): _read(name, value)}
        session.config = replace(session.config, **change)
    return name, dict(values_in_force(session))[name]


def without_effect(session: ChatSession, name: str) -> str:
    """Return a remark if the setting changes nothing while no token is drawn at random, else ""."""
    if name not in ("temperature", "top-p", "top-k", "seed") or session.config.samples:
        return ""
    if session.config.greedy:
        return say(
            "；但 greedy 开着，现在不起作用：/设置 greedy off",
            "; no effect while greedy is on: /set greedy off",
        )
    return say(
        "；但集束搜索不采样，现在不起作用：/设置 num-beams 1",
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
    key = name.replace("-", "_")
    if key == "greedy":
        return _one_of(name, value, (*TRUE_WORDS, *FALSE_WORDS)) in TRUE_WORDS
    if key == "seed" and value in _UNSET:
        return None
    try:
        return int(value) if key in _WHOLE else float(value)
    except ValueError:
        kind = say("整数", "a whole number") if key in _WHOLE else say("数", "a number")
        raise UsageError(
            say(
                f"{name} 需要一个{kind}，不是 {untrusted(value[:40])}",
                f"{name} needs {kind}, not {untrusted(value[:40])}",
            ),
            say(f"有效范围是 {GENERATION_RANGES[key]}", f"the valid range is {GENERATION_RANGES[key]}"),
        ) from None


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value in allowed:
        return value
    shown = "on | off" if "on" in allowed else " | ".join(allowed)
    raise UsageError(
        say(f"{name} 没有取值 {untrusted(value[:40])}", f"{name} cannot be {untrusted(value[:40])}"),
        say(f"可选：{shown}", f"choose from: {shown}"),
    )


def _example(name: str) -> str:
    examples = {"greedy": "on", "history": "none", "seed": "1"}
    return examples.get(name) or _shown(getattr(GenerationConfig(), name.replace("-", "_")))


def _shown(value: object) -> str:
    if value is None:
        return say("随机", "random")
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
