"""Switching model, adapter, template or system text within a conversation; back to the old one after a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from medchat.api import ChatModel, Completion, Delta, GenerationConfig, Segment
from medchat.chat.collaborators import NoRecorder
from medchat.chat.demo_mode import DemoGate, KnownQuestions, as_demo
from medchat.chat.loading import Loading
from medchat.chat.session import ChatSession
from medchat.chat.setup import ChatSetup, resolve_setup
from medchat.errors import CheckpointError, MedchatError, MemoryShortageError
from medchat.language import say

if TYPE_CHECKING:
    from medchat.chat.conversation import PreparedChat

#: Settings that belong to a model and are dropped with it.
_OF_THE_MODEL = ("backbone", "model", "adapter", "template", "option")


def another_model(prepared: PreparedChat, model: str) -> dict[str, Any]:
    """Return the changes of settings that replace the present model, and all that belongs to it, with `model`."""
    unset: dict[str, Any] = dict.fromkeys(_OF_THE_MODEL)
    # A folder is recognised by its content; a URL is not.
    backbone = prepared.opening.backbone.name if "://" in model and prepared.opening.options.address else None
    return {**unset, "model": model, "backbone": backbone}


def switch_model(
    prepared: PreparedChat, session: ChatSession, changes: Mapping[str, Any], command: str, loading: Loading
) -> None:
    """Apply `changes` of the settings, made by `command`, to the conversation.

    Adapters are exchanged on the loaded weights if the backbone supports it. Another model is loaded while
    the old one stays; if memory is too small for both, the old one is freed first. Raises what resolving and
    loading raise, LoadingCancelled included: the session then has its old model, reloaded if it was freed.
    """
    opening, known = _reopened(prepared, changes, command)
    model = _switched(session, prepared.opening, _watched(opening, loading), loading)
    prepared.go_on_with(opening, known)
    session.use(model, opening.template, opening.generation, DemoGate(known) if known else None)
    session.remember_history = prepared.settings.value("history") != "none"


def choose_model(prepared: PreparedChat, changes: Mapping[str, Any], command: str) -> Callable[[], None]:
    """Choose another model before any is loaded; return a function that reverts it. Raises what resolving raises."""
    before = prepared.opening, prepared.demo
    prepared.go_on_with(*_reopened(prepared, changes, command))
    return lambda: prepared.go_on_with(*before)


@contextmanager
def session_beside(
    prepared: PreparedChat, session: ChatSession, changes: Mapping[str, Any], command: str, loading: Loading
) -> Iterator[ChatSession]:
    """Yield a session with another model or adapter that continues the same conversation and saves nothing.

    Exchanged adapters are restored afterwards; a model loaded for this is closed. Raises what `switch_model`
    raises, MemoryShortageError if it does not fit next to the model in use.
    """
    opening, known = _reopened(prepared, changes, command)
    old, own = prepared.opening, session.model
    other = _exchanged(own, old, opening)
    exchanged = other is not None
    if other is None:
        try:
            other = _watched(opening, loading).load()
        except MemoryShortageError as error:
            raise MemoryShortageError(
                say("内存放不下两个模型：", "there is not enough memory for two models: ") + error.what,
                say(
                    "改用 /模型 切换，或用 medchat compare 逐个比较",
                    "switch with /model, or compare them in turn with medchat compare",
                ),
            ) from error
    try:
        yield replace(
            session,
            model=other,
            template=opening.template,
            config=opening.generation,
            recorder=NoRecorder(),
            advisers=(),
            listeners=(),
            gate=DemoGate(known) if known else None,
            notices_shown=set(session.notices_shown),
        )
    finally:
        if not exchanged:
            other.close()
        elif other is not own:
            _put_back(session, other, opening, old)


def _reopened(
    prepared: PreparedChat, changes: Mapping[str, Any], command: str
) -> tuple[ChatSetup, KnownQuestions | None]:
    old = prepared.opening
    settings = old.settings.changed(changes, command)
    return as_demo(resolve_setup(settings, registry=old.registry))


def _watched(opening: ChatSetup, loading: Loading) -> ChatSetup:
    return replace(opening, options=replace(opening.options, watch=loading.watch, quick_start=True))


def _switched(session: ChatSession, old: ChatSetup, new: ChatSetup, loading: Loading) -> ChatModel:
    exchanged = _exchanged(session.model, old, new)
    if exchanged is not None:
        return exchanged
    try:
        model = new.load()
    except MemoryShortageError:
        loading.making_room = True
        session.model.close()
        session.model = GoneModel()
        try:
            return new.load()
        except BaseException as error:
            session.model = _loaded_again(old, error)
            raise
    session.model.close()
    return model


def _exchanged(model: ChatModel, old: ChatSetup, new: ChatSetup) -> ChatModel | None:
    """Return the model with the adapters of `new`, None if it has to be loaded."""
    if old.backbone.name != new.backbone.name or isinstance(model, GoneModel):
        return None
    if replace(old.options, adapters=()) != replace(new.options, adapters=()):
        return None
    if old.options.adapters == new.options.adapters:
        return model
    return new.backbone.exchange_adapters(model, new.options)


def _put_back(session: ChatSession, other: ChatModel, now: ChatSetup, old: ChatSetup) -> None:
    """Restore the model of `session`, whose weights `other` has used."""
    try:
        back = _exchanged(other, now, old)
    except MedchatError:  # for example its adapter is missing: reloading will report it
        back = None
    if back is None:
        other.close()
        session.model = GoneModel()
        back = _unwatched(old).load()
    session.model = back


def _loaded_again(opening: ChatSetup, error: BaseException) -> ChatModel:
    try:
        return _unwatched(opening).load()
    except MedchatError as second:
        reason = error.what if isinstance(error, MedchatError) else type(error).__name__
        raise CheckpointError(
            say(
                f"新模型没有加载（{reason}），原来的模型也没能重新加载（{second.what}）",
                f"the new model was not loaded ({reason}), nor the old one again ({second.what})",
            ),
            _load_one(),
        ) from error


def _unwatched(opening: ChatSetup) -> ChatSetup:
    return replace(opening, options=replace(opening.options, watch=None))


def _load_one() -> str:
    return say("用 /模型 加载一个", "load one with /model")


class GoneModel:
    """A placeholder after a model was lost: every call raises CheckpointError."""

    context_length = 1

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Raise CheckpointError, like all other calls."""
        raise _no_model()

    def generate_batch(
        self, prompts: Sequence[Sequence[Segment]], config: GenerationConfig
    ) -> list[Completion]:
        raise _no_model()

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        raise _no_model()

    def count(self, segments: Sequence[Segment]) -> int:
        raise _no_model()

    def describe(self) -> Mapping[str, Any]:
        """Return nothing: there is nothing to describe."""
        return {}

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def _no_model() -> CheckpointError:
    return CheckpointError(say("现在没有加载任何模型", "no model is loaded now"), _load_one())
