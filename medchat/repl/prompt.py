"""The input line: editing, history, completion and the status line below it, with prompt_toolkit."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import Completer
from prompt_toolkit.filters import Condition, is_searching
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout.controls import BufferControl, SearchBufferControl
from prompt_toolkit.layout.dimension import AnyDimension, Dimension, to_dimension
from prompt_toolkit.layout.processors import BeforeInput, Processor, Transformation, TransformationInput
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style

from medchat.language import say
from medchat.repl.completion import complete_now
from medchat.repl.keyboard import TerminalKeys, bind_keys
from medchat.repl.screen import PROMPT
from medchat.repl.slash import SLASHES

_MARK = f"{PROMPT} "
#: Rows above the input that a long draft leaves free, so that the last message stays on the screen.
_ROWS_ABOVE = 8
#: Characters that change the text direction, and what is shown for them.
_DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_SHOWN = str.maketrans(dict.fromkeys(_DIRECTIONS, "\ufffd"))
_STYLE = Style.from_dict({"mark": "bold", "bottom-toolbar": "noreverse", "status": "fg:ansibrightblack"})


class Ended(Exception):
    """The prompt was ended by the program; the text typed so far is in `LinePrompt.text`."""


class LinePrompt:
    """Reads one line (of any number of rows) at a time. Main thread only, except `post`."""

    def __init__(
        self,
        keys: Input,
        output: Output,
        past: Sequence[str],
        remember: Callable[[str], None],
        completer: Completer,
        status: Callable[[], str],
        on_clear: Callable[[], None],
    ) -> None:
        """`on_clear` is called when the user empties the line with Ctrl-C."""
        self._input = keys
        self._history = _PastInputs(past, remember)
        self._status = status
        self._on_clear = on_clear
        self._context: contextvars.Context | None = None
        self._session: PromptSession[str] = PromptSession(
            [("class:mark", _MARK)],
            input=keys,
            output=output,
            multiline=True,
            prompt_continuation=" " * len(_MARK),
            history=self._history,
            completer=completer,
            complete_while_typing=Condition(lambda: self.text.startswith(SLASHES)),
            reserve_space_for_menu=4,
            key_bindings=self._keys(completer),
            bottom_toolbar=lambda: [("class:status", self._status())],
            style=_STYLE,
            enable_suspend=True,
            tempfile_suffix=".md",
            search_ignore_case=True,
            input_processors=[_VisibleMarks()],
        )
        # No warning on terminals that do not report the cursor's position: they have no status line.
        self._session.app.renderer.cpr_not_supported_callback = lambda: None
        self._name_search()
        self._limit_height()

    @property
    def text(self) -> str:
        """The text in the input line."""
        return self._session.default_buffer.text

    def read(self, draft: str, begin: Callable[[], None], *, ticking: bool) -> str:
        """Return the line that the user sends. `begin` is called once the prompt is shown.

        `ticking` updates the status line every second. Raises EOFError on Ctrl-D in an empty line, and Ended
        after `end`.
        """

        def started() -> None:
            self._context = contextvars.copy_context()
            self._session.app.loop.call_soon(begin, context=self._context)  # type: ignore[union-attr]

        self._session.refresh_interval = 1.0 if ticking else 0
        try:
            return self._session.prompt(default=draft, pre_run=started, handle_sigint=False)
        finally:
            self._context = None

    def post(self, action: Callable[[], None]) -> None:
        """Run `action` in the prompt's event loop, if there is a prompt. Any thread or signal handler may call it."""
        context, loop = self._context, self._session.app.loop
        if context is not None and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(action, context=context)

    def end(self) -> None:
        """End the current prompt: `read` raises Ended. Called through `post`."""
        future = self._session.app.future
        if future is not None and not future.done():
            self._session.app.exit(exception=Ended())

    def print_above(self, print_lines: Callable[[], None]) -> None:
        """Run `print_lines` with the input line hidden. Called through `post`."""
        printed = asyncio.ensure_future(run_in_terminal(print_lines))
        if isinstance(self._input, TerminalKeys):
            self._input.keep_mode(printed)

    def redraw(self) -> None:
        """Redraw the status line. Called through `post`."""
        self._session.app.invalidate()

    def _keys(self, completer: Completer) -> KeyBindings:
        keys = KeyBindings()
        bind_keys(keys)

        @keys.add("enter", filter=~is_searching)
        def _send(event: KeyPressEvent) -> None:
            if event.current_buffer.text.strip():
                event.current_buffer.validate_and_handle()

        @keys.add("escape", "enter", filter=~is_searching)
        @keys.add("c-j", filter=~is_searching)
        def _new_line(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        @keys.add("c-c", filter=~is_searching)
        def _clear_line(event: KeyPressEvent) -> None:
            self._history.keep_until_end(event.current_buffer.text)
            event.current_buffer.reset()
            self._on_clear()

        @keys.add("c-g", filter=~is_searching)
        def _open_editor(event: KeyPressEvent) -> None:
            event.current_buffer.open_in_editor()

        @keys.add("tab", filter=~is_searching)
        def _complete(event: KeyPressEvent) -> None:
            complete_now(event.current_buffer, completer)

        return keys

    def _limit_height(self) -> None:
        """Keep a long draft, such as one that was too long to be answered, from filling the screen."""
        for window in self._session.app.layout.find_all_windows():
            content = window.content
            if isinstance(content, BufferControl) and content.buffer is self._session.default_buffer:
                window.height = partial(self._limited, window.height)

    def _limited(self, height: AnyDimension) -> Dimension:
        wanted, rows = to_dimension(height), self._session.app.output.get_size().rows
        if self._session.app.is_done:  # the full text that was sent goes into the scrollback
            return wanted
        most = max(wanted.min, 3, rows - _ROWS_ABOVE)
        return Dimension(min=wanted.min, max=most)

    def _name_search(self) -> None:
        """Label the search of Ctrl-R in the interface language."""
        name = say("搜索输入历史：", "search history: ")
        for control in self._session.app.layout.find_all_controls():
            if isinstance(control, SearchBufferControl):
                control.input_processors = [BeforeInput(lambda: name if is_searching() else "")]


class _VisibleMarks(Processor):
    """Shows direction controls as visible characters: pasted, they would scramble the whole row.

    Other controls are shown by prompt_toolkit itself.
    """

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        fragments = transformation_input.fragments
        return Transformation([(fragment[0], fragment[1].translate(_SHOWN)) for fragment in fragments])


class _PastInputs(History):
    """The inputs of this chat and earlier ones, newest first."""

    def __init__(self, past: Sequence[str], remember: Callable[[str], None]) -> None:
        super().__init__()
        self._past = past
        self._remember = remember

    def load_history_strings(self) -> Iterable[str]:
        return self._past

    def store_string(self, string: str) -> None:
        self._remember(string)

    def keep_until_end(self, text: str) -> None:
        """Make a cleared line available with Up in this chat, without saving it."""
        remember, self._remember = self._remember, lambda text: None
        try:
            if text.strip():
                self.append_string(text)
        finally:
            self._remember = remember
