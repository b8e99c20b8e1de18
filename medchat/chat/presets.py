"""The user's own questions with placeholders, `[preset]` of the configuration: finding one and filling it."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medchat.errors import UsageError
from medchat.language import say
from medchat.sanitize import sanitize_line

_PLACEHOLDER = re.compile(r"\{([\w-]{1,40})\}")


@dataclass(frozen=True, slots=True)
class Preset:
    """A question in which `{name}` is a placeholder."""

    name: str
    text: str

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names of the placeholders, in order."""
        return tuple(dict.fromkeys(_PLACEHOLDER.findall(self.text)))

    def filled(self, words: str, values: Mapping[str, str] | None = None) -> tuple[str, list[str]]:
        """Return the question, and the placeholders that neither `values` nor `words` fill.

        `words` are pairs `name=value`; anything else fills the only placeholder that `values` leave. Raises
        UsageError for words that fill none.
        """
        given = dict(values or {})
        left = [name for name in self.placeholders if name not in given]
        pairs = _pairs(words, left)
        if pairs is None and len(left) != 1:
            raise self._fills_nothing(left)
        given |= {left[0]: words} if pairs is None else pairs
        # In one pass: a value may contain what looks like a placeholder.
        whole = _PLACEHOLDER.sub(lambda found: given.get(found[1], found[0]), self.text)
        return whole, [name for name in left if name not in given]

    def pairs(self, typed: Sequence[str]) -> dict[str, str]:
        """Return the pairs `name=value` of `typed`. Raises UsageError for a name that is not a placeholder."""
        values = {}
        for one in typed:
            name, equals, value = one.partition("=")
            if not equals or name not in self.placeholders:
                raise self._fills_nothing(self.placeholders)
            values[name] = value
        return values

    def _fills_nothing(self, names: Sequence[str]) -> UsageError:
        what = say(
            f"预设“{self.name}”中没有地方填入这些文字",
            f"preset {self.name} has no place for these words",
        )
        if not names:
            return UsageError(
                what, say("去掉它们，或在预设里写 {名称}", "leave them out, or put {name} into it")
            )
        listed = " ".join(f"{name}=…" for name in names)
        return UsageError(what, say(f"写成 {listed}", f"write {listed}"))


def preset_named(name: str, presets: Mapping[str, str]) -> Preset:
    """Return the preset of that name. Raises UsageError with suggestions."""
    if name in presets:
        return Preset(name, presets[name])
    near = difflib.get_close_matches(name, presets, n=3, cutoff=0.4) or list(presets)[:10]
    shown = sanitize_line(name, 40)
    raise UsageError(
        say(f"没有名为“{shown}”的预设", f"there is no preset {shown!r}"),
        say("现有：", "there are: ") + ", ".join(near)
        if near
        else say(
            '写在 config.toml 的 [preset] 一节里，例如：病历 = "请总结：{内容}"',
            'write one into [preset] of config.toml, for example: case = "Summarise: {text}"',
        ),
    )


def _pairs(words: str, names: Sequence[str]) -> dict[str, str] | None:
    """Return the pairs that `words` are, None where they are something else."""
    if not words:
        return {}
    try:
        parts = [part.partition("=") for part in shlex.split(words)]
    except ValueError:
        return None
    if not parts or not all(equals and name in names for name, equals, _ in parts):
        return None
    return {name: value for name, _, value in parts}
