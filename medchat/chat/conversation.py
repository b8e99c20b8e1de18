"""A command's conversation: the saved session it continues, its recorder, the checks on the user's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from medchat import __version__, medical_safety
from medchat.api import GENERATION_RANGES, ChatModel, Conversation, Notice, SlashCommand, Turn
from medchat.chat.demo_mode import DemoGate, KnownQuestions, as_demo
from medchat.chat.events import AnswerContext
from medchat.chat.recorder import StoreRecorder
from medchat.chat.session import ChatSession
from medchat.chat.session_choice import SessionChoice, conversation_of, open_store, session_to_go_on_with
from medchat.chat.setup import ChatSetup, read_settings, resolve_setup
from medchat.errors import MedchatError
from medchat.language import current_language
from medchat.sanitize import sanitize_line
from medchat.settings import Layer, Settings
from medchat.settings.plugin_options import SETTING as OPTION
from medchat.store import AnswerOrigin, SessionKind, SessionRecord, SessionStore


@dataclass(frozen=True, slots=True)
class _About:
    """The model and settings of a session, as they are saved."""

    backbone: str
    model: str
    adapters: tuple[str, ...]
    template: str
    system: str


@dataclass
class PreparedChat:
    """Everything except the model: `begin` turns a loaded model into a session."""

    opening: ChatSetup
    store: SessionStore
    record: SessionRecord | None
    choice: SessionChoice
    warn: Callable[[str], None]
    demo: KnownQuestions | None = None
    _recorder: StoreRecorder | None = None
    _said_early: set[str] = field(default_factory=set)
    _shown_lines: int = 0

    @property
    def settings(self) -> Settings:
        """The effective settings."""
        return self.opening.settings

    def begin(self, model: ChatModel, *, guard_loops: bool = False) -> ChatSession:
        """Return the session, continuing the saved conversation."""
        conversation = conversation_of(self.store, self.record, str(self.settings.value("system") or ""))
        return begin_session(
            self.opening,
            self.demo,
            model,
            conversation,
            recorder=self.recorder(self.record),
            listeners=(self._after_turn,),
            guard_loops=guard_loops,
            said_early=self._said_early,
        )

    def go_on_with(self, opening: ChatSetup, demo: KnownQuestions | None) -> None:
        """Answer from now on with another model or other settings, which are saved with the next turn."""
        self.opening, self.demo = opening, demo
        if self._recorder is not None:
            self._recorder.model_changed()

    def change(self, values: Mapping[str, Any], command: str) -> None:
        """Note checked settings that `command` changed in this chat and that need no loading."""
        self.go_on_with(replace(self.opening, settings=self.settings.changed(values, command)), self.demo)

    def early_notices(self, question: str) -> list[Notice]:
        """Return the notices on the first question to show at once: loading the model may take minutes.

        The session that `begin` returns does not repeat them.
        """
        try:
            conversation = conversation_of(self.store, self.record, "")
        except MedchatError:  # raised again by `begin`; the notices do not wait for it
            conversation = Conversation()
        due = medical_safety.urgent_notices(conversation, question)
        new = [notice for notice in due if notice.text not in self._said_early]
        self._said_early.update(notice.text for notice in new)
        return new

    def recorder(self, record: SessionRecord | None = None) -> StoreRecorder:
        """Return a recorder that continues `record`, or creates a session with its first turn."""
        self._recorder = StoreRecorder(
            self.store,
            self._create,
            record,
            self.warn,
            self._note_changes,
            self._origin,
            in_chat=self.choice.kind is not SessionKind.ASK,
        )
        return self._recorder

    @property
    def answering(self) -> tuple[str, str]:
        """The backbone and the model (a path or a URL) that answer, as in each turn's origin."""
        about = self._about()
        return about.backbone, about.model

    @property
    def recorder_in_use(self) -> StoreRecorder | None:
        """The recorder of the turns, None before `begin`."""
        return self._recorder

    def saved_session(self) -> SessionRecord | None:
        """Return the present session on disk, None if nothing was saved."""
        return self._recorder.record if self._recorder is not None and self._recorder.on_disk else None

    def slash_commands(self) -> list[SlashCommand]:
        """Return the commands that the demo and the plugins add."""
        ours = [self.demo.slash_command()] if self.demo else []
        return [*ours, *self.opening.extensions.slash_commands()]

    def plugin_lines(self) -> list[str]:
        """Return the lines about plugins (`Registry.lines`) that are new since the last call."""
        lines = self.opening.registry.lines()
        shown, self._shown_lines = self._shown_lines, len(lines)
        return list(lines[shown:])

    def _after_turn(self, conversation: Conversation, turn: Turn) -> None:
        self.opening.extensions.turn_saved(conversation, turn)
        for line in self.plugin_lines():
            self.warn(line)

    def _create(self, store: SessionStore) -> SessionRecord:
        name = self.choice.name if self.choice.name and store.named(self.choice.name) is None else None
        about = self._about()
        return store.create(
            about.backbone,
            about.model,
            about.adapters,
            about.template,
            about.system,
            name,
            kind=self.choice.kind,
        )

    def _origin(self, context: AnswerContext) -> AnswerOrigin:
        settings: dict[str, Any] = {
            name: getattr(context.config, name) for name in (*GENERATION_RANGES, "greedy")
        }
        if chosen := self.settings.value(OPTION):
            settings[OPTION] = list(chosen)
        return AnswerOrigin(
            **asdict(self._about(self.record.system if self.record else "")),
            settings=settings,
            notices=tuple(notice.text for notice in context.notices),
            medchat=__version__,
            language=current_language(),
            edited=context.edited,
        )

    def _note_changes(self, store: SessionStore, record: SessionRecord) -> SessionRecord:
        now = self._about(record.system)
        if now == _About(record.backbone, record.model, record.adapters, record.template, record.system):
            return record
        return store.change(record.id, **asdict(now))

    def _about(self, system: str = "") -> _About:
        options = self.opening.options
        return _About(
            self.opening.backbone.name,
            options.address or str(options.model.absolute()),
            tuple(str(adapter.absolute()) for adapter in options.adapters),
            self.opening.template_value,
            self.system_text(system),
        )

    def system_text(self, held: str) -> str:
        """Return the effective system text; `held` is that of the saved session."""
        chosen = str(self.settings.value("system") or "")
        return chosen if self.settings.origin("system").layer is Layer.COMMAND else chosen or held


def begin_session(
    opening: ChatSetup,
    demo: KnownQuestions | None,
    model: ChatModel,
    conversation: Conversation,
    **kept: Any,
) -> ChatSession:
    """Return a session with the loaded `model` that continues `conversation`.

    The checks of the user's words and of the answers are always included. `kept` are further fields of
    `ChatSession`, for example its recorder.
    """

    def advised_by_plugins(before: Conversation, question: str) -> tuple[Notice, ...]:
        return medical_safety.merge_notices((), opening.extensions.advise(before, question))

    return ChatSession(
        model=model,
        template=opening.template,
        config=opening.generation,
        conversation=conversation,
        # The built-in one first: a slow plugin must not delay an urgent notice.
        advisers=(medical_safety.advise, advised_by_plugins),
        reviewers=(medical_safety.review_answer,),
        remember_history=opening.settings.value("history") != "none",
        gate=DemoGate(demo) if demo else None,
        notices_shown=medical_safety.keys_shown(conversation),
        max_question_bytes=int(opening.settings.value("max_question_bytes")),
        **kept,
    )


def prepare_conversation(
    flags: dict[str, Any], choice: SessionChoice, warn: Callable[[str], None]
) -> PreparedChat:
    """Check flags, settings, the saved session and the model's folder; load nothing yet.

    A saved session has its own backbone, model, adapters, template and system text; flags override them.
    """
    settings = read_settings(flags)
    save = choice.save and bool(settings.value("save"))
    store = open_store(save=save, warn=warn)
    try:
        store, record = session_to_go_on_with(store, replace(choice, save=save), warn)
        if record is not None:
            given = _given(flags)
            held = _of_session(record, given, settings, _options_of(store, record))
            if OPTION in held and OPTION in given:  # the last value of a key counts
                given[OPTION] = (*held[OPTION], *given[OPTION])
            settings = read_settings({**held, **given})
        if notice := settings.folder_notice():
            warn(sanitize_line(notice, 600))
        opening, known = as_demo(resolve_setup(settings))
        return PreparedChat(opening, store, record, choice, warn, known)
    except BaseException:
        store.close()
        raise


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None and value != ()}


def _options_of(store: SessionStore, record: SessionRecord) -> tuple[str, ...]:
    """Return the backbone's own options, KEY=VALUE, of the session's last answer."""
    saved = store.turns(record.id)
    chosen = saved[-1].origin.settings.get(OPTION) if saved else None
    return tuple(one for one in chosen if isinstance(one, str)) if isinstance(chosen, list) else ()


def _of_session(
    record: SessionRecord, given: dict[str, Any], settings: Settings, options: tuple[str, ...]
) -> dict[str, Any]:
    """The session's model and settings, except those that the profile sets.

    A backbone or model given by flag or profile has its own template, adapters and options.
    """
    held = {
        "backbone": record.backbone,
        "model": record.model,
        "adapter": record.adapters,
        "template": record.template or None,
        "system": record.system or None,
        OPTION: options or None,
    }
    chosen = {name for name in held if settings.origin(name).layer is Layer.PROFILE}
    if chosen.union(given) & {"backbone", "model"}:
        held = {"system": held["system"]}
    return {name: value for name, value in held.items() if name not in chosen and value is not None}
