"""What a chat's commands may change: the model, its settings, and what is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from medchat import paths
from medchat.api import GENERATION_SETTINGS, LoadOptions
from medchat.api.option import declared_options
from medchat.chat.conversation import PreparedChat
from medchat.chat.fitness import require_beams
from medchat.chat.loading import Loading
from medchat.chat.session import ChatSession
from medchat.chat.switching import another_model, choose_model, session_beside, switch_model
from medchat.sanitize import sanitize_line
from medchat.settings import Effective
from medchat.settings.keys import GENERATION
from medchat.settings.plugin_options import option_key
from medchat.settings.profiles import PROFILE_KEYS
from medchat.settings.writing import save_profile, save_setting
from medchat.weights.folders import weights_here


class ModelControl:
    """Changes model and settings of a prepared chat.

    Methods that take a session run in the thread that answers; the others in the main thread, while no answer
    and no loading is running. `command` is what the user typed (`/model`): the origin of what it sets.
    """

    def __init__(self, prepared: PreparedChat) -> None:
        self._prepared = prepared

    # ------------------------------------------------------------ with the session

    def switch(
        self, session: ChatSession, changes: Mapping[str, Any], command: str, loading: Loading
    ) -> list[str]:
        """Switch the model; return notes on it. Raises what `switch_model` raises."""
        switch_model(self._prepared, session, changes, command, loading)
        notes = session.model.describe().get("notes", ())
        return [
            *self._prepared.opening.notices(in_chat=True),
            *(sanitize_line(str(note), 300) for note in notes),
        ]

    def choose(self, changes: Mapping[str, Any], command: str) -> Callable[[], None]:
        """Choose another model before any is loaded: see `choose_model`."""
        return choose_model(self._prepared, changes, command)

    def beside(
        self, session: ChatSession, changes: Mapping[str, Any], command: str, loading: Loading
    ) -> AbstractContextManager[ChatSession]:
        """Return a session with another model or adapter for a comparison: see `session_beside`."""
        return session_beside(self._prepared, session, changes, command, loading)

    def as_model(self, model: str) -> dict[str, Any]:
        """Return the changes that put `model` in place of the present one, with all that came with it."""
        return another_model(self._prepared, model)

    # ------------------------------------------------------------ settings

    @property
    def label(self) -> str:
        """The name of the model for the status line: `llama · tiny + lora`."""
        opening = self._prepared.opening
        adapters = "".join(f" + {adapter.name}" for adapter in opening.options.adapters)
        return sanitize_line(f"{opening.backbone.name} · {_short_place(opening.options)}{adapters}", 60)

    @property
    def insists(self) -> bool:
        """Whether the model answers only what it has learned unless the user insists."""
        return self._prepared.demo is not None

    @property
    def adapters(self) -> tuple[str, ...]:
        """The folders of the adapters in use."""
        return tuple(map(str, self._prepared.opening.options.adapters))

    @property
    def model(self) -> str:
        """The value of `--model` for the model in use."""
        return self._prepared.opening.options.location

    @property
    def templates(self) -> tuple[str, ...]:
        """The names of the templates that plugins add, the model's own first."""
        opening = self._prepared.opening
        own = opening.backbone.template(opening.options).name
        return tuple(dict.fromkeys((own, *(found.name for found in opening.extensions.templates()))))

    def weights_here(self, kind: Literal["base", "adapter"]) -> tuple[str, ...]:
        """Return the names of the models or adapters in the models folder."""
        return weights_here(kind)

    @property
    def option_names(self) -> Mapping[str, str]:
        """The labels of the backbone's own options in the interface language, as far as it has them."""
        declared = declared_options(self._prepared.opening.backbone.load_keys)
        return {key: name for key, option in declared.items() if (name := option_key(key, option).summary)}

    @property
    def presets(self) -> Mapping[str, str]:
        """The user's questions with placeholders, by name."""
        return self._prepared.settings.presets

    def effective(self) -> tuple[Effective, ...]:
        """Return every effective setting with its origin."""
        opening = self._prepared.opening
        own = opening.backbone.generation
        of_weights: dict[str, Any] = {"backbone": opening.backbone.name, "template": opening.template.name}
        for name in GENERATION_SETTINGS:  # the decoding settings of the demo's model
            if (value := getattr(opening.generation, name)) != getattr(own, name):
                of_weights[GENERATION + name] = value
        return self._prepared.settings.effective(opening.backbone.name, own, of_weights)

    def check_setting(self, name: str, typed: str) -> None:
        """Raise UsageError for a decoding setting, as typed after `/set`, that the model in use does not support."""
        backbone = self._prepared.opening.backbone
        if name == "num-beams" and typed.isdecimal():
            require_beams(backbone.name, backbone.capabilities, int(typed[:9]))

    def change(self, values: Mapping[str, Any], command: str) -> None:
        """Note settings that were changed in this chat; their values were checked."""
        self._prepared.change(values, command)

    # ------------------------------------------------------------ the user's own configuration

    def save_profile(self, name: str) -> Path:
        """Save model and settings as a profile; return the file. Raises UsageError, OSError."""
        options = self._prepared.opening.options
        values: dict[str, Any] = {
            "backbone": self._prepared.opening.backbone.name,
            "model": options.address or str(options.model.absolute()),
        }
        if options.adapters:
            values["adapter"] = [str(adapter.absolute()) for adapter in options.adapters]
        settings = self._prepared.settings
        for key in PROFILE_KEYS:
            value = settings.value(key)
            if key not in ("backbone", "model", "adapter") and settings.is_set(key) and value is not None:
                values[key] = value
        if text := self._prepared.system_text(self._prepared.record.system if self._prepared.record else ""):
            values["system"] = text
        save_profile(paths.config_file(), name, values)
        return paths.config_file()

    def save_setting(self, name: str, value: Any) -> Path:
        """Save one setting for all later chats; return the file. Raises UsageError, OSError."""
        save_setting(paths.config_file(), name, value)
        return paths.config_file()


def _short_place(options: LoadOptions) -> str:
    return sanitize_line(
        options.address.partition("://")[2] or options.model.name, 40 if options.address else 30
    )
