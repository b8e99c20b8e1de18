"""A command's conversation: the saved session it goes on with, its recorder, the checks on the user's words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medchat import safety
from medchat.api import ChatModel, Conversation, Notice
from medchat.cli.options import SessionChoice
from medchat.commands.opening import Opening, prepare, read_settings
from medchat.commands.recording import StoreRecorder, choose_session, conversation_of, open_store
from medchat.inert import inert_line
from medchat.session import ChatSession
from medchat.settings import Settings
from medchat.store import SessionRecord, SessionStore


@dataclass
class Prepared:
    """Everything but the model: `begin` turns a loaded model into a session."""

    opening: Opening
    store: SessionStore
    record: SessionRecord | None
    choice: SessionChoice
    warn: Callable[[str], None]
    extra_advisers: tuple[Callable[[Conversation, str], Iterable[Notice]], ...] = field(default=())

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.opening.settings

    def begin(self, model: ChatModel, *, guard_loops: bool = False) -> ChatSession:
        """Return the session, going on with what was said before."""
        conversation = conversation_of(self.store, self.record, str(self.settings.value("system") or ""))
        return ChatSession(
            model=model,
            template=self.opening.template,
            config=self.opening.generation,
            conversation=conversation,
            recorder=self.recorder(self.record),
            advisers=(self._advise,),
            listeners=(self.opening.extensions.turn_saved,),
            remember_history=self.settings.value("history") != "none",
            guard_loops=guard_loops,
            max_question_bytes=int(self.settings.value("max_question_bytes")),
        )

    def recorder(self, record: SessionRecord | None = None) -> StoreRecorder:
        """Return a recorder that goes on with `record`, or begins a session with its first turn."""
        return StoreRecorder(self.store, self._create, record, self.warn)

    def plugin_lines(self) -> list[str]:
        """Return one line for each plugin found broken so far."""
        return [str(failure) for failure in self.opening.registry.failures]

    def _create(self) -> SessionRecord:
        options = self.opening.options
        name = self.choice.name if self.choice.name and self.store.named(self.choice.name) is None else None
        return self.store.create(
            self.opening.backbone.name,
            options.address or str(options.model.absolute()),
            tuple(str(adapter.absolute()) for adapter in options.adapters),
            self._template(),
            str(self.settings.value("system") or ""),
            name,
        )

    def _template(self) -> str:
        """What `--template` takes to get this template again."""
        chosen = self.settings.value("template")
        path = Path(str(chosen)).expanduser() if chosen else None
        return str(path.absolute()) if path is not None and path.is_file() else self.opening.template.name

    def _advise(self, conversation: Conversation, question: str) -> tuple[Notice, ...]:
        advised = [notice for adviser in self.extra_advisers for notice in adviser(conversation, question)]
        advised += self.opening.extensions.advise(conversation, question)
        return safety.check(question, advised)


def prepare_conversation(
    flags: dict[str, Any], choice: SessionChoice, warn: Callable[[str], None]
) -> Prepared:
    """Check flags, settings, the saved session and the model's folder; load nothing yet.

    A saved session brings its own backbone, model, adapters, template and system text; flags go over them.
    """
    settings = read_settings(flags)
    save = choice.save and bool(settings.value("save"))
    store = open_store(save=save, warn=warn)
    try:
        record = choose_session(store, SessionChoice(choice.name, choice.latest, choice.resume, save))
        if record is not None:
            given = _given(flags)
            settings = read_settings({**_of_session(record, given), **given})
        for warning in settings.warnings:
            warn(inert_line(warning, 300))
        return Prepared(prepare(settings, rule=flags.get("rule")), store, record, choice, warn)
    except BaseException:
        store.close()
        raise


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None and value != ()}


def _of_session(record: SessionRecord, given: dict[str, Any]) -> dict[str, Any]:
    """What the session was held with. A backbone or model given by flag comes with its own template and adapters."""
    if "backbone" in given or "model" in given:
        return {"system": record.system or None}
    return {
        "backbone": record.backbone,
        "model": record.model,
        "adapter": record.adapters,
        "template": record.template or None,
        "system": record.system or None,
    }
