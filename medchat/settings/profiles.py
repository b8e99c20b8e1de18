"""Profiles: a model with all that goes with it under one name, `[profile.NAME]` in a configuration file.

    [profile.bentsao]
    model = "./llama-7b"
    adapter = ["./bentsao-lora"]
    temperature = 0.2          # decoding settings with or without `generation.`

A profile is read whole from one file, the user's own where both have it: a folder's `medchat.toml` cannot change
what a user's own name stands for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from medchat.errors import UsageError
from medchat.language import say
from medchat.settings.keys import GENERATION, KEYS, Key, key_named

TABLE = "profile."
#: What a profile may hold: which model answers, and how it is asked.
PROFILE_KEYS = (
    *("backbone", "model", "adapter", "template", "option", "system", "history"),
    *("device", "dtype", "quantize", "engine"),
    *(name for name in KEYS if name.startswith(GENERATION)),
)
#: Of these, what a folder's own file may not choose. An address of a model is refused as everywhere there.
NOT_FOR_FOLDERS = ("backbone", "template", "system")
_NAME = re.compile(r"[\w-]{1,40}")

#: name -> (value, "file:line")
Values = Mapping[str, tuple[Any, str]]


def split_profile(name: str) -> tuple[str, str]:
    """Return profile and setting of a dotted name of a file, ("", "") for a name that is of no profile."""
    if not name.startswith(TABLE):
        return "", ""
    profile, _, setting = name.removeprefix(TABLE).partition(".")
    return profile, setting


def profile_key(setting: str, where: str) -> Key:
    """Return the key that a profile's setting is. Raises UsageError: unknown, or none that a profile may hold."""
    key = key_named(setting, where)
    if key.name not in PROFILE_KEYS:
        raise UsageError(
            say(f"配置方案不能设置 {key.name}", f"a profile may not set {key.name}"),
            say("可以设置：", "it may set: ") + ", ".join(PROFILE_KEYS),
            where=where,
        )
    return key


def check_name(name: str, where: str = "") -> str:
    """Return the name of a profile. Raises UsageError for what can be none."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            say("配置方案的名称无效", "this cannot be the name of a profile"),
            say(
                "只用文字、数字、- 和 _，最多 40 个字符",
                "use letters, digits, - and _, at most 40 characters",
            ),
            where=where,
        )
    return name


def find_profile(name: str, own: Mapping[str, Values], folder: Mapping[str, Values]) -> Values:
    """Return what the profile sets; `own` are those of the user's file, `folder` those of `./medchat.toml`.

    Raises UsageError naming those there are.
    """
    for profiles in (own, folder):
        if name in profiles:
            return profiles[name]
    import difflib

    names = sorted({*own, *folder})
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:10]
    raise UsageError(
        say(f"没有名为“{name[:40]}”的配置方案", f"there is no profile {name[:40]!r}"),
        say("现有：", "there are: ") + ", ".join(near)
        if names
        else say("对话中用 /保存 profile 名称 可以存一个", "save one in a chat with /save profile NAME"),
    )
