"""The layers put together: the highest one that has a value counts, and says where it came from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medchat.api import GenerationConfig
from medchat.builtin import PLUGIN_VARIABLES
from medchat.errors import MedchatError
from medchat.language import LANGUAGES, language_from_environment, say
from medchat.launcher import MACHINE_VARIABLE, PATIENCE_VARIABLE
from medchat.paths import config_file, project_config_file
from medchat.settings.files import FileValues, read_file
from medchat.settings.keys import GENERATION, KEYS, Key, key_named
from medchat.settings.profiles import find_profile
from medchat.settings.values import checked, from_text

_PREFIX = "MEDCHAT_"
#: Variables of ours that are no settings.
_OTHER_VARIABLES = {
    "MEDCHAT_HOME",
    "MEDCHAT_STRICT",
    "MEDCHAT_ENGINE_INSTRUCTIONS",
    "MEDCHAT_SHARED",
    "MEDCHAT_GOLDENS",
    "MEDCHAT_VENV",
    PATIENCE_VARIABLE,
    MACHINE_VARIABLE,
}


class Layer(IntEnum):
    """Where a value can come from, lowest first."""

    BUILTIN = 0
    PLUGIN = 1
    WEIGHTS = 2
    USER_FILE = 3
    PROJECT_FILE = 4
    VARIABLE = 5
    PROFILE = 6
    FLAG = 7
    COMMAND = 8


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from. `place` is `file:line`, a variable, a flag, a command of the chat, or a backbone's name.

    `profile` is the profile that the line of the file belongs to.
    """

    layer: Layer
    place: str = ""
    profile: str = ""

    def __str__(self) -> str:
        if self.layer is Layer.BUILTIN:
            return say("内置", "built-in")
        if self.layer is Layer.PLUGIN:
            return say(f"插件 {self.place}", f"plugin {self.place}")
        if self.layer is Layer.WEIGHTS:
            return say("权重自带", "the weights")
        if self.profile:
            return say(f"配置方案 {self.profile}（{self.place}）", f"profile {self.profile} ({self.place})")
        return self.place


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting as it counts now: what `config show` lists. `value` None is unset."""

    key: Key
    value: Any
    origin: Origin


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one run. `profile` is the one in force; `profiles` and `presets` are those there are."""

    _layers: Mapping[Layer, Mapping[str, tuple[Any, str]]]
    warnings: tuple[str, ...] = ()
    profile: str = ""
    profiles: tuple[str, ...] = ()
    presets: Mapping[str, str] = field(default_factory=dict)
    _profile_of_folder: bool = False
    #: Those of the user's own file, then those of the folder's.
    _plugin_tables: tuple[Mapping[str, FileValues], Mapping[str, FileValues]] = ({}, {})

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any] | None = None,
        *,
        profile: str = "",
        environment: Mapping[str, str] | None = None,
        user_file: Path | None = None,
        project_file: Path | None = None,
    ) -> Settings:
        """Read the files and the environment; put the profile and then `flags` (full names; None: not given) over them.

        Raises UsageError naming file and line, variable or flag for an unknown key or a bad value.
        """
        environment = os.environ if environment is None else environment
        own = read_file(user_file or config_file(), project=False)
        folder = read_file(project_file or project_config_file(), project=True)
        layers = {
            Layer.USER_FILE: own.values,
            Layer.PROJECT_FILE: folder.values,
            Layer.VARIABLE: _from_variables(environment),
            Layer.PROFILE: find_profile(profile, own.profiles, folder.profiles) if profile else {},
            Layer.FLAG: _from_flags(flags or {}),
        }
        names = tuple(sorted({*own.profiles, *folder.profiles}))
        of_folder = bool(profile) and profile not in own.profiles
        tables = own.plugins, folder.plugins
        return cls(layers, _misspelt_variables(environment), profile, names, own.presets, of_folder, tables)

    def changed(self, values: Mapping[str, Any], command: str) -> Settings:
        """Return the settings with these over all others, as `command` (`/set`) chose them; None unsets one.

        The values are already checked. Full or short names.
        """
        named = {key_named(name).name: (value, command) for name, value in values.items()}
        over = {**self._layers.get(Layer.COMMAND, {}), **named}
        return replace(self, _layers={**self._layers, Layer.COMMAND: over})

    def value(self, name: str) -> Any:
        """Return the value that counts: str, bool, int, float, a tuple of str, or None if unset.

        `name` is full (`generation.top_p`) or short (`top_p`). Raises UsageError for an unknown one.
        """
        return self._found(key_named(name))[0]

    def origin(self, name: str) -> Origin:
        """Return where the value that counts came from."""
        return self._found(key_named(name))[1]

    def is_set(self, name: str) -> bool:
        """Whether anyone has chosen a value, rather than leaving the default."""
        return self.origin(name).layer is not Layer.BUILTIN

    def is_of_folder(self, name: str) -> bool:
        """Whether the value that counts was chosen by a file that came with the folder."""
        return self._is_of_folder(self.origin(name))

    def plugin_table(self, plugin: str) -> Mapping[str, tuple[Any, str, bool]]:
        """Return the table `[plugin.NAME]`: unchecked value, `file:line`, and whether the folder's file says so.

        What the folder's file says goes over the user's own, as everywhere.
        """
        own, folder = (tables.get(plugin, {}) for tables in self._plugin_tables)
        return {
            **{name: (value, place, False) for name, (value, place) in own.items()},
            **{name: (value, place, True) for name, (value, place) in folder.items()},
        }

    def folder_notice(self) -> str:
        """Return a line on what the folder's own `medchat.toml` chose of what is asked, by whom it is answered and
        whether it is kept; "" where it chose nothing of that."""
        chosen = [
            (name, self._found(key)) for name, key in KEYS.items() if key.announced
            and self._is_of_folder(self._found(key)[1])
        ]  # fmt: skip
        if not chosen:
            return ""
        listed = say("、", ", ").join(
            f"{name} = {_in_toml(value)} ({origin})" for name, (value, origin) in chosen
        )
        return say(
            f"！当前目录的 medchat.toml 设定了：{listed}。如不需要，请删去那一行，或在命令行另行指定",
            f"! medchat.toml in this folder has chosen: {listed}. If that is not what you want, delete the line or"
            " choose by flag",
        )

    def generation(self, over: GenerationConfig | None = None) -> GenerationConfig:
        """Return `over` (the backbone's own defaults) with every generation setting that was chosen."""
        chosen = {
            key.short: self.value(name)
            for name, key in KEYS.items()
            if name.startswith(GENERATION) and self.is_set(name)
        }
        return (over or GenerationConfig()).with_settings(**chosen)

    def effective(
        self,
        backbone: str = "",
        defaults: GenerationConfig | None = None,
        of_weights: Mapping[str, Any] = MappingProxyType({}),
    ) -> tuple[Effective, ...]:
        """Return every setting as it counts. `defaults` are those of `backbone`, the layer of plugins.

        `of_weights`, by full name, is what the weights in use bring with them: it counts where nobody chose.
        """
        shown = []
        for name, key in KEYS.items():
            value, origin = self._found(key)
            if name.startswith(GENERATION) and origin.layer is Layer.BUILTIN:
                known = defaults or GenerationConfig()
                value = None if key.short in known.unset else getattr(known, key.short)
                origin = Origin(Layer.PLUGIN, backbone) if defaults else origin
            if name in of_weights and not self._is_chosen(key):
                value, origin = of_weights[name], Origin(Layer.WEIGHTS)
            shown.append(Effective(key, value, origin))
        return tuple(shown)

    def _is_chosen(self, key: Key) -> bool:
        """Whether a value counts that somebody chose; a command may have unset it again."""
        value, origin = self._found(key)
        return origin.layer is not Layer.BUILTIN and value != key.default

    def _is_of_folder(self, origin: Origin) -> bool:
        return origin.layer is Layer.PROJECT_FILE or (
            origin.layer is Layer.PROFILE and self._profile_of_folder
        )

    def _found(self, key: Key) -> tuple[Any, Origin]:
        for layer in reversed(Layer):
            if key.name in self._layers.get(layer, {}):
                value, place = self._layers[layer][key.name]
                if value is None:  # unset by a command
                    value = key.default
                return value, Origin(layer, place, self.profile if layer is Layer.PROFILE else "")
        return key.default, Origin(Layer.BUILTIN)


def configured_language() -> str:
    """Return the interface language that the settings name, else that of the environment.

    Settings that cannot be read name none: whatever needs them reads them again and says what is wrong.
    """
    try:
        named = Settings.load().value("lang")
    except MedchatError:
        named = None
    return str(named) if named in LANGUAGES else language_from_environment()


def _in_toml(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def _from_variables(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Return what the variables say. An empty variable counts as unset."""
    return {
        name: (from_text(key, environment[key.variable], key.variable), key.variable)
        for name, key in KEYS.items()
        if environment.get(key.variable)
    }


def _from_flags(flags: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    found = {}
    for name, value in flags.items():
        if value is not None:
            key = key_named(name)
            found[key.name] = (checked(key, value, key.flag), key.flag)
    return found


def _misspelt_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return a line for each variable that is none of ours but nearly one. Others are left alone:
    plugins and users may have their own."""
    known = {key.variable for key in KEYS.values()}.union(_OTHER_VARIABLES, PLUGIN_VARIABLES)
    strangers = sorted(name for name in environment if name.startswith(_PREFIX) and name not in known)
    if not strangers:
        return ()
    import difflib

    names = [name.removeprefix(_PREFIX) for name in known]
    return tuple(
        say(
            f"环境变量 {stranger} 不起作用；是不是想写：{_PREFIX}{near[0]}",
            f"the variable {stranger} has no effect; did you mean {_PREFIX}{near[0]}?",
        )
        for stranger in strangers
        if (near := difflib.get_close_matches(stranger.removeprefix(_PREFIX), names, n=1, cutoff=0.65))
    )
