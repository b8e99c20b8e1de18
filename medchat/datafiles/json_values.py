"""The JSON values of a stream: of JSON lines one at a time, of an array or of objects in a row element by element.

No more than one value is in memory at a time, and none over `MAX_RECORD_BYTES`. Knows no records.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from medchat.language import say
from medchat.units import amount

#: The most that one record may take, and one line: a million characters of Chinese are 3 MB. What a line
#: of so many empty objects becomes is some 50 times as large.
MAX_RECORD_BYTES = 4_000_000
#: Read at a time.
_CHUNK = 1 << 16
#: White space of JSON, and the byte-order marks that joined files have in the middle.
_BLANK = re.compile("[ \t\r\n\ufeff]*")
#: A syntax error so near to the end of what has been read may be the reading's own cut.
_CUT = 16


@dataclass(frozen=True, slots=True)
class Item:
    """One JSON value. `problem` says why it cannot be used; `value` is None where it is not JSON at all."""

    line: int
    value: Any = None
    problem: str = ""

    @property
    def is_json(self) -> bool:
        """Whether the text is a JSON value, if not one that can be used."""
        return self.value is not None or not self.problem


class BrokenData(ValueError):
    """No record can be told apart after `line`. `remedy` is what to do, "" for correcting that line."""

    def __init__(self, line: int, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem
        self.remedy = remedy


def too_long(line: int) -> BrokenData:
    """Return the error for a record that is not read because of its size."""
    most = amount(MAX_RECORD_BYTES)
    return BrokenData(
        line,
        say(
            f"从这里开始的一条记录超过 {most}，没有读取",
            f"a record that begins here is over {most}; it was not read",
        ),
        say("把它拆成几条，或删掉它", "divide it, or delete it"),
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(say(f"{name} 不是 JSON 的数值", f"{name} is not a JSON number"))


def _decode(text: str, start: int) -> tuple[Any, int, str]:
    """Return the value that begins at `start`, where it ends, and the problem that a name in it stands for two values.

    Two equal ones are one. Raises ValueError and RecursionError.
    """
    twice: list[str] = []

    def one_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice.extend(name for name, value in pairs if not _same(value, found[name]))
        return found

    decoder = json.JSONDecoder(object_pairs_hook=one_of_each, parse_constant=_refuse_constant)
    value, end = decoder.raw_decode(text, start)
    return value, end, _said_twice(twice[0]) if twice else ""


def _same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other)


def _said_twice(name: str) -> str:
    shown = repr(name[:80])[1:-1]
    return say(
        f"字段 {shown} 写了两次，内容不同", f"the field {shown} stands there twice, with different values"
    )


#: What Python's decoder says, in Chinese.
_CHINESE = {
    "Expecting value": "这里应当是一个值",
    "Expecting property name enclosed in double quotes": "这里应当是双引号括起的字段名",
    "Expecting ':' delimiter": "这里应当是冒号",
    "Expecting ',' delimiter": "这里应当是逗号",
    "Unterminated string starting at": "从这里开始的文本没有结束的引号",
    "Invalid control character at": "文本里有换行或控制字符，应当写成 \\n",
    "Invalid \\escape": "反斜杠后面的字符无效",
    "Invalid \\uXXXX escape": "\\u 后面应当是四位十六进制数",
    "Extra data": "一个 JSON 值之后还有别的内容",
}


def _problem(error: Exception, column: int = 0) -> str:
    if isinstance(error, RecursionError):
        return say("JSON 嵌套过深", "JSON nested too deeply")
    if not isinstance(error, json.JSONDecodeError):
        return say(f"不是有效的 JSON（{error}）", f"not valid JSON ({error})")
    zh, en = _CHINESE.get(error.msg.removesuffix(": "), error.msg), error.msg
    before, here = error.doc[: error.pos].rstrip(), error.doc[error.pos : error.pos + 1]
    if (here in ("}", "]") and before.endswith(",")) or error.msg.startswith("Illegal trailing comma"):
        zh, en = "右括号前多了一个逗号，请删掉它", "delete the comma before the closing bracket"
    elif here == "'":
        zh, en = "JSON 用双引号，不用单引号", "JSON has double quotes, not single ones"
    column = column or error.colno
    return say(f"不是有效的 JSON（第 {column} 列：{zh}）", f"not valid JSON (column {column}: {en})")


def line_item(line: int, text: str) -> Item:
    """Return the value that one line of JSON lines holds. A comma after it, as in an array, is passed over."""
    start = _skip(text, 0)
    try:
        value, end, problem = _decode(text, start)
    except (ValueError, RecursionError) as error:
        return Item(line, problem=_problem(error))
    end = _skip(text, end)
    if text[end : end + 1] == ",":
        end = _skip(text, end + 1)
    if end < len(text):
        return Item(line, problem=_problem(json.JSONDecodeError("Extra data", text, end)))
    return Item(line, value, problem)


def _skip(text: str, position: int) -> int:
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


class TextWindow:
    """The text of a UTF-8 stream, as much of it as is being looked at, and where in it one stands."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._position = 0
        self._counted = 0
        self._line = 1
        self._ended = False

    @property
    def line(self) -> int:
        """The line on which one stands, from 1."""
        return self._line_of(self._position)

    def next(self) -> str:
        """Continue to the next character that is no white space and return it, "" at the end."""
        while True:
            self._position = _skip(self._text, self._position)
            if self._position < len(self._text):
                return self._text[self._position]
            if self._ended:
                return ""
            self._read_on()

    def take(self, character: str) -> bool:
        """Go past the next character if it is that one; say whether it was."""
        if self.next() != character:
            return False
        self._position += 1
        return True

    def value(self) -> Any:
        """Return the JSON value that begins here and go past it. Raises BrokenData."""
        return self.item().value

    def item(self) -> Item:
        """Return the JSON value that begins here, with its line and problem, and go past it. Raises BrokenData."""
        self.next()
        line = self.line
        while True:
            try:
                value, end, problem = _decode(self._text, self._position)
            except RecursionError as error:
                raise BrokenData(self.line, _problem(error)) from None
            except ValueError as error:
                if self._ended or not self._is_cut(error):
                    raise self._broken(error) from None
            else:
                # A number at the end of what has been read may continue.
                if self._ended or len(self._text) - end > 2:
                    self._position = end
                    return Item(line, value, problem)
            self._read_on()

    def _is_cut(self, error: ValueError) -> bool:
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _CUT

    def _broken(self, error: ValueError) -> BrokenData:
        if not isinstance(error, json.JSONDecodeError):
            return BrokenData(self.line, _problem(error))
        column = error.pos - self._text.rfind("\n", 0, error.pos)
        return BrokenData(self._line_of(error.pos), _problem(error, column))

    def _read_on(self) -> None:
        """Read more, dropping what one has gone past. Raises BrokenData."""
        self._line, self._counted = self.line, 0
        left = self._text[self._position :]
        if len(left) > MAX_RECORD_BYTES:
            raise too_long(self._line)
        # As much again as there is: a long value is looked at a few times, not once for each chunk.
        chunk = self._file.read(max(_CHUNK, len(left)))
        try:
            self._text, self._position = left + self._decoder.decode(chunk, final=not chunk), 0
        except UnicodeDecodeError as error:
            before = left.count("\n") + error.object.count(b"\n", 0, error.start)
            raise BrokenData(self._line + before, not_utf8(), CONVERT) from None
        self._ended = not chunk

    def _line_of(self, position: int) -> int:
        return self._line + self._text.count("\n", self._counted, position)


CONVERT = "iconv -f GB18030 -t UTF-8"


def not_utf8() -> str:
    """Return the message that a text is in no encoding that is read here."""
    return say(f"不是 UTF-8 文本（可用 {CONVERT} 转换）", f"not UTF-8 text ({CONVERT} converts it)")


def array_items(window: TextWindow) -> Iterator[Item]:
    """Yield the elements of the JSON array that begins here. Raises BrokenData where it breaks off."""
    window.take("[")
    while not window.take("]"):
        if not window.next():
            raise BrokenData(window.line, say("JSON 数组没有结束", "the JSON array does not end"))
        yield window.item()
        if not window.take(",") and window.next() not in ("]", ""):
            raise BrokenData(
                window.line,
                say("不是有效的 JSON 数组：缺少逗号", "not a valid JSON array: a comma is missing"),
            )


def whole_array(window: TextWindow) -> Iterator[Item]:
    """Yield the elements of the array that the stream is. Raises BrokenData."""
    yield from array_items(window)
    if window.next():
        raise BrokenData(
            window.line,
            say("JSON 数组结束之后还有别的内容", "there is more after the end of the JSON array"),
        )


def row_of_values(window: TextWindow) -> Iterator[Item]:
    """Yield JSON values that stand one after the other, each on as many lines as it likes. Raises BrokenData."""
    while window.next():
        yield window.item()
        window.take(",")


def members(window: TextWindow) -> Iterator[str]:
    """Yield the names of the members of the object that begins here.

    One is before each member's value then, and whoever asks goes past it. Raises BrokenData.
    """
    window.take("{")
    while not window.take("}"):
        line, name = window.line, window.value()
        if not isinstance(name, str) or not window.take(":"):
            raise BrokenData(line, say("不是有效的 JSON 对象", "not a valid JSON object"))
        yield name
        if not window.take(",") and window.next() != "}":
            raise BrokenData(window.line, say("JSON 对象没有结束", "the JSON object does not end"))
