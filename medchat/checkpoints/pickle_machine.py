"""A reader of pickles that makes nothing but plain values, in time and memory that the file's size bounds.

Python's own unpickler calls what the file names, hashes what it nests, and makes room for as many memos as
a number in the file says: some 30 bytes keep it busy for ever or take gigabytes. This one knows the few
instructions that a table of tensors is written in, and counts them.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any

#: Bytes of a pickle, and of any one text or number in it: 4,000 tensors have half a megabyte and 180,000 steps.
MOST_BYTES = 4 * 2**20
_MOST_STEPS = 200_000
_SIMPLE_KEYS = (str, int, float, bool, bytes, type(None))


class DamagedError(Exception):
    """The file is cut short or is not what its name says."""


class UnsafeError(Exception):
    """The pickle asks for something that is no part of a plain state dict. The text names it."""


class BoundedFile:
    """An open file of which nobody reads more than MOST_BYTES at once, whatever a number in it says."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, all that is left where it is negative. Raises DamagedError beyond the bound."""
        found = self._stream.read(min(size, MOST_BYTES + 1) if size >= 0 else MOST_BYTES + 1)
        if len(found) > MOST_BYTES:
            raise DamagedError("header")
        return found

    def readline(self) -> bytes:
        """Return the bytes to the end of a line, or a part of a line that is too long."""
        return self._stream.readline(MOST_BYTES)


def read_pickle(
    stream: BoundedFile | IO[bytes],
    find: Callable[[str, str], Callable[..., Any]],
    persistent: Callable[[Any], Any],
) -> Any:
    """Return what one pickle describes, and leave `stream` behind its end.

    `find` gives the stand-in for a name (module, name), `persistent` what a persistent id means. Raises
    DamagedError: cut, malformed, too long; and what the two raise, UnsafeError above all.
    """
    try:
        return _Machine(find, persistent).run(stream)
    except (DamagedError, UnsafeError, OSError):
        raise
    except Exception as error:  # a hostile pickle can break its reader in any way; all mean one thing
        raise DamagedError(f"pickle: {type(error).__name__}") from None


class _Machine:
    """The state of one reading: a stack, marks in it, and the memo."""

    def __init__(
        self, find: Callable[[str, str], Callable[..., Any]], persistent: Callable[[Any], Any]
    ) -> None:
        self._find, self._persistent = find, persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: Any) -> Any:
        start = stream.tell()
        for steps, (instruction, argument, position) in enumerate(pickletools.genops(stream)):
            if steps > _MOST_STEPS or (position or 0) - start > MOST_BYTES:
                raise DamagedError("pickle")
            if instruction.name == "STOP":
                return self._stack.pop()
            self._step(instruction.name, argument)
        raise DamagedError("pickle")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            stack[len(stack) - _TUPLES[name] :] = [tuple(self._last(_TUPLES[name]))]
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(self._above_mark()))
        elif name in ("SETITEM", "SETITEMS"):
            self._set_items(self._taken(2) if name == "SETITEM" else self._above_mark())
        elif name in ("APPEND", "APPENDS"):
            added = self._taken(1) if name == "APPEND" else self._above_mark()
            self._top(list).extend(added)
        elif name not in ("PROTO", "FRAME"):
            self._call(name, argument)

    def _call(self, name: str, argument: Any) -> None:
        """Do what makes an object. Raises DamagedError for an instruction that no table of tensors has."""
        stack = self._stack
        if name == "GLOBAL":
            module, _, word = argument.partition(" ")
            stack.append(self._find(module, word))
        elif name == "STACK_GLOBAL":
            module, word = self._taken(2)
            stack.append(self._find(str(module), str(word)))
        elif name == "BINPERSID":
            stack.append(self._persistent(stack.pop()))
        elif name == "REDUCE":
            make, arguments = self._taken(2)
            if not callable(make) or not isinstance(arguments, tuple):
                raise DamagedError("pickle: REDUCE")
            stack.append(make(*arguments))
        elif name == "BUILD":
            stack.pop()  # the attributes of a state dict and of a parameter: nothing of theirs is used
            if not stack:
                raise DamagedError("pickle: BUILD")
        else:
            raise DamagedError(f"pickle: {name}")

    def _set_items(self, items: list[Any]) -> None:
        table = self._top(dict)
        if len(items) % 2 or not all(isinstance(key, _SIMPLE_KEYS) for key in items[::2]):
            raise DamagedError("pickle: key")  # hashing a tuple of tuples of tuples may take for ever
        for key, value in zip(items[::2], items[1::2], strict=True):
            if key in table:
                raise DamagedError(f"pickle: {str(key)[:80]!r} twice")
            table[key] = value

    def _top(self, kind: type) -> Any:
        found = self._stack[-1]
        if not isinstance(found, kind):
            raise DamagedError(f"pickle: {kind.__name__}")
        return found

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise DamagedError("pickle: stack")
        return self._stack[len(self._stack) - count :]

    def _taken(self, count: int) -> list[Any]:
        found = self._last(count)
        del self._stack[len(self._stack) - count :]
        return found

    def _above_mark(self) -> list[Any]:
        mark = self._marks.pop()
        found = self._stack[mark:]
        del self._stack[mark:]
        return found


_PUSHED = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
    )
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
