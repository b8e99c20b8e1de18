"""Resolves the settings of a run from flags, a file, a recipe's defaults and the built-in ones.

Every value keeps its origin, which is shown before training, and written next to the result.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from medchat.api import SFTOptions, SFTRecipe
from medchat.errors import PluginError, UsageError
from medchat.language import say
from medchat.settings.keys import Kind
from medchat.settings.values import checked
from medchat.sft_job.batches import batch_layout
from medchat.sft_job.keys import EXTRA, KEYS
from medchat.sft_job.legacy_names import instead_of

#: Values of a file or of flags by name: (value, origin), an origin such as "--learning-rate" or "run.toml:3".
Given = Mapping[str, tuple[Any, str]]

#: Fields of `SFTOptions` that cannot be set in a file: the command sets them.
_BY_COMMAND = ("resume", "extra")


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective setting. `origin` is in the interface language.

    `chosen`: the user set it. `follows`: it was derived from other settings, and need not be saved.
    """

    name: str
    value: Any
    origin: str
    chosen: bool = False
    follows: bool = False


@dataclass(frozen=True, slots=True)
class RunSettings:
    """All settings of one run, in the order they are shown."""

    settings: Mapping[str, Setting]

    def value(self, name: str) -> Any:
        """Return a setting's value, None where it is unset."""
        return self.settings[name].value

    def resolved(self, options: SFTOptions) -> RunSettings:
        """Return the settings with the values that a recipe chose for unset ones."""
        found = self
        rows = {field.name: getattr(options, field.name) for field in fields(SFTOptions)}
        for name, row in self.settings.items():
            # A recipe does not choose folders: they stay as they were resolved.
            if name in rows and KEYS[name].is_path is False and row.value != rows[name]:
                found = found.with_resolved(name, rows[name])
        for key, value in options.extra.items():
            found = found.with_resolved(EXTRA + key, value)
        return found

    def with_resolved(self, name: str, value: Any) -> RunSettings:
        """Return the settings with an unset one resolved from weights and machine."""
        before = self.settings.get(name)
        if before and before.value == value:
            return self
        origin = say("由权重、方法和设备决定", "by weights, method and device")
        return RunSettings({**self.settings, name: Setting(name, value, origin)})

    def options(
        self, *, model: Path, output: Path, adapters: tuple[Path, ...] = (), resume: bool = False
    ) -> SFTOptions:
        """Return the options for a recipe, with names replaced by folders."""
        given: dict[str, Any] = {"model": model, "output": output, "adapters": adapters, "resume": resume}
        extra = {
            name.removeprefix(EXTRA): setting.value
            for name, setting in self.settings.items()
            if name.startswith(EXTRA)
        }
        named = {field.name for field in fields(SFTOptions)} - given.keys() - {"extra"}
        return SFTOptions(**given, extra=extra, **{name: self.value(name) for name in sorted(named)})


def choose_recipe(
    recipes: Mapping[str, SFTRecipe], backbone: str, method: str | None, where: str = ""
) -> SFTRecipe:
    """Return the recipe of that name, by default a backbone's first one. Raises UsageError."""
    if not recipes:
        raise UsageError(
            say(f"{backbone} 没有微调方法", f"{backbone} offers no fine-tuning"),
            say(
                "请换一个 --backbone：medchat plugins list", "choose another --backbone: medchat plugins list"
            ),
        )
    if method is None:
        return next(iter(recipes.values()))
    if method not in recipes:
        near = difflib.get_close_matches(method, recipes, n=1)
        names = ", ".join(near or recipes)
        raise UsageError(
            say(f"{backbone} 没有微调方法“{method}”", f"{backbone} has no method {method!r}"),
            say(f"可选：--method {names}", f"choose: --method {names}"),
            where=where,
        )
    return recipes[method]


def first_of(layers: Sequence[Given], name: str) -> tuple[Any, str]:
    """Return a setting's value and origin from the highest layer that has it; (None, "") if none does."""
    return next((layer[name] for layer in layers if name in layer), (None, ""))


def resolve_settings(layers: Sequence[Given], recipe: SFTRecipe, *, processes: int = 1) -> RunSettings:
    """Merge the checked layers (highest first) with the recipe's defaults and the built-in ones.

    The division of a batch is derived from what was chosen (`batch_layout`). Raises UsageError.
    """
    found: dict[str, Setting] = {}
    builtin = {field.name: field.default for field in fields(SFTOptions) if field.name not in _BY_COMMAND}
    _check_defaults(recipe)
    for name in KEYS:
        value, place = first_of(layers, name)
        if place:
            found[name] = Setting(name, value, place, chosen=True)
        elif name in recipe.defaults:
            origin = say(f"方法 {recipe.method}", f"method {recipe.method}")
            found[name] = Setting(name, recipe.defaults[name], origin)
        else:
            default = builtin.get(name) if name in builtin and KEYS[name].is_path is False else None
            if default is None and KEYS[name].kind is Kind.FLAG:
                default = False
            found[name] = Setting(name, default, say("内置", "built-in"))
    for layer in reversed(layers):
        for name, (value, place) in layer.items():
            if name.startswith(EXTRA):
                found[name] = Setting(name, value, place, chosen=True)
    found["method"] = Setting("method", recipe.method, found["method"].origin, found["method"].chosen)
    found |= _divided(found, processes)
    collator = found["collator"]
    if collator.value not in recipe.collators:
        raise UsageError(
            say(f"没有名为“{collator.value}”的 collator", f"no collator is named {collator.value!r}"),
            say("可选：", "choose one of ") + ", ".join(recipe.collators),
            where=collator.origin,
        )
    return RunSettings(found)


def unknown_key(name: str, where: str) -> UsageError:
    """Return the error for a name in a file that is not a setting: an original project's name, or a typo."""
    told = instead_of(name, in_file=True)
    near = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.6)
    if told:
        hint = say("请改为：", "write instead: ") + told
    elif near:
        hint = say(f"是不是想写：{near[0]}", f"did you mean {near[0]}?")
    else:
        hint = say(
            "所有配置项：medchat sft --help；模型家族自己的选项写在 [extra] 下",
            "all settings: medchat sft --help; a backbone's own options stand under [extra]",
        )
    return UsageError(say(f"未知的配置项“{name}”", f"unknown setting {name!r}"), hint, where=where)


def checked_value(name: str, value: Any, label: str, where: str = "") -> Any:
    """Return a setting's value in its final type. Raises UsageError with `label`, `where` and the valid values."""
    if name.startswith(EXTRA):
        if isinstance(value, str | bool | int | float) and value != "":
            return value  # the backbone checks it and converts its type
        raise UsageError(
            say(f"{label} 的值类型不对", f"{label} is of the wrong type"),
            say("应为文本、数字或 true、false", "it must be a text, a number, true or false"),
            where=where,
        )
    return checked(KEYS[name], value, label, where)


def _check_defaults(recipe: SFTRecipe) -> None:
    strangers = sorted(set(recipe.defaults) - set(KEYS))
    if strangers:
        raise PluginError(
            say(
                f"方法 {recipe.method} 的默认值里有未知的配置项 {strangers[0]}",
                f"the defaults of method {recipe.method} name an unknown setting {strangers[0]}",
            ),
            say("请升级或修正这个插件", "upgrade or correct this plugin"),
        )


def _divided(found: Mapping[str, Setting], processes: int) -> dict[str, Setting]:
    """Return the three settings of a batch, unset ones derived from the others."""
    names = ("batch_size", "micro_batch_size", "gradient_accumulation")
    asked = {name: found[name].value if found[name].chosen else None for name in names}
    layout = batch_layout(
        asked["batch_size"],
        asked["micro_batch_size"],
        asked["gradient_accumulation"],
        processes,
        default=(found["batch_size"].value, found["micro_batch_size"].value),
    )
    derived = say("由批大小推出", "follows from the batch")
    fitted = {}
    for name, value in zip(names, layout, strict=True):
        if found[name].value != value:
            fitted[name] = Setting(name, value, derived, follows=True)
    return fitted
