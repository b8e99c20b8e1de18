"""Sends questions to the background thread and shows its answers, with all interruptions."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from medchat.api import SlashCommand
from medchat.chat.events import Event
from medchat.chat.loading import Loading, LoadingCancelled
from medchat.chat.model_control import ModelControl
from medchat.chat.session import ChatSession
from medchat.cli.stuck import SECOND_WISH
from medchat.language import say
from medchat.repl import messages
from medchat.repl.answering import AnswerView
from medchat.repl.interrupts import Interrupts
from medchat.repl.plugin_calls import PluginCalls
from medchat.repl.screen import Screen, Tone
from medchat.repl.startup import Startup
from medchat.repl.worker import Job, Worker

Result = TypeVar("Result")

#: Seconds between two polls of the keyboard, the clock and the screen during an operation.
_POLL = 0.04
#: How long the loading of a model may take to stop; otherwise it continues behind the prompt.
_STOPPING = 0.5
#: How long an answer may take to stop and to be saved, once the program was asked to end.
_LAST_ANSWER = 10.0


class SessionThread:
    """The chat's session and its thread. `meanwhile` is called about twenty times a second while waiting."""

    def __init__(self, startup: Startup, make_screen: Callable[[], Screen], interrupts: Interrupts) -> None:
        self.meanwhile: Callable[[], None] = lambda: None
        self.context_length = 0
        self.session_label = ""
        self.ready_lines: tuple[str, ...] = ()
        self.plugin_commands: tuple[SlashCommand, ...] = ()
        self._startup = startup
        self._make_screen = make_screen
        self._interrupts = interrupts
        self._engine = Worker()
        self.plugins = PluginCalls(lambda: self.screen, interrupts, lambda: self.meanwhile())
        self._session: ChatSession | None = None
        self._began = 0.0
        self._loading: Job[None] | None = None
        self.footer, self.bell = startup.footer, startup.bell
        #: Whether the user stopped the loading: it starts again when the model is needed.
        self.held_back = False

    @cached_property
    def screen(self) -> Screen:
        """The screen, created on first use: importing rich takes a third of the time to the first prompt."""
        return self._make_screen()

    # ------------------------------------------------------------ loading

    def begin(self) -> Job[None]:
        """Start loading the model, once, and again if that was stopped and the model is needed."""
        if self._loading is None:
            self._began = time.monotonic()
            self._loading = self._engine.start(self._load)
        return self._loading

    def _load(self, job: Job[None]) -> None:
        self._session = self._startup.open_session()
        self.ready_lines = tuple(self._startup.ready_lines(self._session))
        self._take_facts(self._session)

    def _take_facts(self, session: ChatSession) -> None:
        self.plugin_commands = tuple(self._startup.slash_commands())
        self.context_length = session.model.context_length
        self.session_label = self._startup.session_label(session)

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded, so that `call` can be used."""
        return self._session is not None

    @property
    def loading_seconds(self) -> float | None:
        """Seconds since the loading began, or None once it ended or failed."""
        if self._loading is None or self._loading.finished:
            return None
        return time.monotonic() - self._began

    @property
    def load_error(self) -> BaseException | None:
        """The error of loading the model. Stopped loading is none."""
        error = self._loading.error if self._loading is not None and not self.held_back else None
        return None if isinstance(error, LoadingCancelled) else error

    def ready(self) -> bool:
        """Wait for the model, showing progress. False if the user stopped it; raises what loading raised."""
        if self.held_back:
            self.held_back, self._loading = False, None
        loading = self.begin()
        if not self._waited(loading, self._startup.loading, self._began):
            return False
        if isinstance(loading.error, LoadingCancelled):
            self.held_back = True
            self._startup.loading.stop.clear()
            self.screen.tell(messages.loading_stopped())
            return False
        loading.result()
        self.greet()
        return True

    def _waited(self, job: Job[Result], loading: Loading, began: float, *, switching: bool = False) -> bool:
        """Show the loading progress until the job ends; Ctrl-C stops it.

        False if it did not stop. A switch of models is always waited for, unless the program is asked to end.
        """
        stopped_at = math.inf
        with self._interrupts.stopping(loading.stop) as stop:
            while not job.finished:
                self.screen.wait_for(
                    _loading_model(), time.monotonic() - began, messages.loading_bar(loading)
                )
                job.take(_POLL)
                self.screen.tick()
                self.meanwhile()
                if stop.is_set():
                    stopped_at = min(stopped_at, time.monotonic())
                ending = self._interrupts.exit_code is not None
                patience = _STOPPING if not switching else _LAST_ANSWER if ending else math.inf
                if time.monotonic() - stopped_at > patience:
                    break
        self.screen.wait_for("")
        self.screen.end_answer()
        if not job.finished:
            loading.stop.clear()
        return job.finished

    def greet(self) -> None:
        """Show, once, the notes on the loaded model."""
        lines, self.ready_lines = self.ready_lines, ()
        for line in lines:
            self.screen.tell(line)

    # ------------------------------------------------------------ work

    def call(self, work: Callable[[ChatSession], Result]) -> Result:
        """Run `work` on the session, in its thread, and return the result. Only after `ready`."""
        job = self._engine.start(lambda _: work(self._the_session()))
        while not job.finished:
            job.take(_POLL)
        return job.result()

    def call_visibly(
        self,
        what: str,
        work: Callable[[ChatSession, threading.Event], Result],
        progress: Callable[[], str] = str,
    ) -> Result:
        """`call` for slow work: shows what is pending, and the result of `progress` repeatedly.

        Ctrl-C sets the event, and `work` must end early.
        """
        began = time.monotonic()
        job = self._engine.start(lambda job: work(self._the_session(), job.cancel))
        with self._interrupts.stopping(job.cancel):
            while not job.finished:
                self.screen.wait_for(what, time.monotonic() - began, progress())
                job.take(_POLL)
                self.screen.tick()
                self.meanwhile()
        self.screen.wait_for("")
        self.screen.end_answer()
        return job.result()

    def change(self, work: Callable[[ChatSession], ChatSession]) -> None:
        """Replace the present session."""

        def replace(session: ChatSession) -> None:
            self._session = work(session)
            self.session_label = self._startup.session_label(self._session)

        self.call(replace)

    def switch(self, changes: Mapping[str, Any], command: str) -> Sequence[str]:
        """Switch the conversation to another model, adapter, template or system text; return notes on it.

        Raises what `ModelControl.switch` raises, LoadingCancelled included. Only after `ready`.
        """
        control, loading = self._startup.control, Loading()
        if control is None:
            raise RuntimeError("this chat has one model only")
        if self._session is None:
            return self._load_instead(control, changes, command)

        def work(job: Job[Sequence[str]]) -> Sequence[str]:
            session = self._the_session()
            try:
                return control.switch(session, changes, command, loading)
            finally:
                self._take_facts(session)

        job = self._engine.start(work)
        self._waited(job, loading, time.monotonic(), switching=True)
        return job.result() if job.finished else ()

    def _load_instead(self, control: ModelControl, changes: Mapping[str, Any], command: str) -> Sequence[str]:
        """Load another model than the one whose loading the user stopped; if that fails, none is loaded."""
        take_back = control.choose(changes, command)
        try:
            if self.ready():
                return ()
        except Exception:
            self.held_back = True
            take_back()
            raise
        take_back()
        raise LoadingCancelled

    def answer(
        self,
        ask: Callable[[ChatSession, threading.Event], Iterator[Event]],
        screen: Screen | None = None,
        loading: Loading | None = None,
    ) -> AnswerView:
        """Show the events of `ask` on `screen` (default: the chat's) until they end; before them the
        `loading` progress.

        Ctrl-C ends them early; the view has what came.
        """
        screen = screen or self.screen

        def work(job: Job[None]) -> None:
            for event in ask(self._the_session(), job.cancel):
                job.emit(event)

        view = AnswerView(screen, self.context_length, footer=self.footer)
        began = time.monotonic()
        job = self._engine.start(work)
        try:
            with self._interrupts.stopping(job.cancel):
                self._watch(job, view, screen, loading)
        except BaseException:  # the screen is gone: what had come must still be saved
            job.cancel.set()
            self._engine.idle_within(_LAST_ANSWER)
            raise
        view.close(job.error)
        if self.bell and time.monotonic() - began > self._startup.bell_after:
            self.screen.ring()
        self.session_label = self.call(self._startup.session_label) if job.finished else ""
        return view

    def _watch(self, job: Job[None], view: AnswerView, screen: Screen, loading: Loading | None) -> None:
        began = time.monotonic()
        asked_to_end: float | None = None
        told = False
        while not job.finished:
            event = job.take(_POLL)
            if event is not None:
                view.take(event)
            else:
                view.idle()
            if loading is not None and not loading.ended:
                screen.wait_for(_loading_model(), time.monotonic() - began, messages.loading_bar(loading))
            elif not view.text_came:
                screen.wait_for(_progress(view), time.monotonic() - began)
            self.screen.tick()
            self.meanwhile()
            if self._interrupts.waiting_since > SECOND_WISH and not told:
                told = True
                screen.end_answer()
                screen.tell(messages.does_not_stop(), Tone.WARNING)
            if self._interrupts.exit_code is not None:
                asked_to_end = asked_to_end or time.monotonic()
            late = asked_to_end is not None and time.monotonic() - asked_to_end > _LAST_ANSWER
            if late or self._interrupts.insists:
                self._interrupts.exit_code = self._interrupts.exit_code or 130
                self._the_session().leave_alone()
                return

    def at_rest(self, seconds: float) -> bool:
        """Whether the thread is idle, waiting up to `seconds` for it to finish."""
        return self._engine.idle_within(seconds) and self.plugins.at_rest

    def _the_session(self) -> ChatSession:
        if self._session is None:
            raise RuntimeError("the model is not loaded")
        return self._session


def _loading_model() -> str:
    return say("模型加载中", "loading the model")


def _progress(view: AnswerView) -> str:
    thinking = say("正在思考", "thinking")
    count = view.reasoning_characters
    return thinking + (say(f"，已写 {count} 字", f", {count} characters") if count else "")
