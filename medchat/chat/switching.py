"""Another model, adapter, template or system text while a conversation continues; the old one after any failure."""

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

#: What comes with a model and does not outlive it.
_OF_THE_MODEL = ("backbone", "model", "adapter", "template", "option")


def another_model(prepared: PreparedChat, model: str) -> dict[str, Any]:
    """Return the changes of settings that put `model` in place of the present one, with all that came with it."""
    unset: dict[str, Any] = dict.fromkeys(_OF_THE_MODEL)
    # A folder says what it is; an address does not.
    backbone = prepared.opening.backbone.name if "://" in model and prepared.opening.options.address else None
    return {**unset, "model": model, "backbone": backbone}


def switch_model(
    prepared: PreparedChat, session: ChatSession, changes: Mapping[str, Any], command: str, loading: Loading
) -> None:
    """Let the conversation continue with what `changes` of the settings, made by `command`, ask for.

    Adapters are exchanged over the loaded weights where the backbone can. Another model is loaded beside the
    old one; where memory is too short for both, the old one goes first. Raises what resolving and loading
    raise, LoadingCancelled included: the session then has its old model, loaded again if it had to go.
    """
    opening, known = _reopened(prepared, changes, command)
    model = _switched(session, prepared.opening, _watched(opening, loading), loading)
    prepared.go_on_with(opening, known)
    session.use(model, opening.template, opening.generation, DemoGate(known) if known else None)
    session.remember_history = prepared.settings.value("history") != "none"


def choose_model(prepared: PreparedChat, changes: Mapping[str, Any], command: str) -> Callable[[], None]:
    """Let another model be loaded, before any is; return what takes that back. Raises what resolving raises."""
    before = prepared.opening, prepared.demo
    prepared.go_on_with(*_reopened(prepared, changes, command))
    return lambda: prepared.go_on_with(*before)


@contextmanager
def session_beside(
    prepared: PreparedChat, session: ChatSession, changes: Mapping[str, Any], command: str, loading: Loading
) -> Iterator[ChatSession]:
    """Yield a session with another model or adapter that says the same conversation on and keeps nothing.

    Adapters that can be exchanged are put back afterwards; a model loaded for this is closed. Raises what
    `switch_model` raises, MemoryShortageError if there is no room beside the model in use.
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
    return replace(opening, options=replace(opening.options, watch=loading.watch))


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
    """Return the model with the adapters of `new`, None if that takes loading."""
    if old.backbone.name != new.backbone.name or isinstance(model, GoneModel):
        return None
    if replace(old.options, adapters=()) != replace(new.options, adapters=()):
        return None
    if old.options.adapters == new.options.adapters:
        return model
    return new.backbone.exchange_adapters(model, new.options)


def _put_back(session: ChatSession, other: ChatModel, now: ChatSetup, old: ChatSetup) -> None:
    """Give `session` its model again, whose weights `other` has borrowed."""
    try:
        back = _exchanged(other, now, old)
    except MedchatError:  # its adapter is not there any more, say: loading again will tell
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
    """Stands where there is no model any more: asked for anything it says so (CheckpointError)."""

    context_length = 1

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Raise CheckpointError, as all that follows."""
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
        """There is nothing to give back."""


def _no_model() -> CheckpointError:
    return CheckpointError(say("现在没有加载任何模型", "no model is loaded now"), _load_one())
