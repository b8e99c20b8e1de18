"""Decodes a body: UTF-8, as JSON and event streams must be, and detection of other encodings."""

from __future__ import annotations

import codecs
import re

from medchat_remote.chunks import MalformedPayloadError

#: Encodings accepted if the Content-Type states them and the bytes are not UTF-8, by Python's name.
_STATED = {
    **dict.fromkeys(("gbk", "gb2312", "gb18030", "cp936", "x-gbk"), "gb18030"),
    **dict.fromkeys(("big5", "big5-hkscs"), "big5hkscs"),
}
_CHARSET = re.compile(r"""charset\s*=\s*["']?([\w-]+)""", re.ASCII | re.IGNORECASE)
#: This many bytes of GB18030 that are not UTF-8, with no UTF-8 before them, are not just a truncated
#: character.
_CERTAIN = 4
_LAST_OF_TWO_BYTES = "\u07ff"


class ForeignEncodingError(MalformedPayloadError):
    """The body is in an undeclared encoding. `encoding` is its name, `codec` Python's."""

    def __init__(self, encoding: str, codec: str) -> None:
        super().__init__(encoding)
        self.encoding = encoding
        self.codec = codec


class BodyDecoder:
    """Decodes a body in parts that do not split characters: its lines, or all of it at once.

    The bytes take precedence over the Content-Type: many servers state a charset that they do not use. A
    character that the server itself truncated becomes U+FFFD.
    """

    def __init__(self, content_type: str = "") -> None:
        stated = _CHARSET.search(content_type)
        self._stated = _STATED.get(stated[1].lower(), "") if stated else ""
        self._codec = ""
        self._suspicious = 0

    def decode(self, part: bytes) -> str:
        """Return the text of a part. Raises ForeignEncodingError once it is certain."""
        codec = self._codec
        if not codec and (not part.isascii() or b"\0" in part):
            codec = self._codec = self._shown_by(part)
        return part.decode(codec or self._likely(part), "replace")

    def _shown_by(self, part: bytes) -> str:
        """Return the codec that the part implies for the body, "" if none."""
        if 3 * part.count(0) > len(part):  # in UTF-16 and UTF-32 every ASCII character has a zero byte
            raise ForeignEncodingError("UTF-16", "utf-16-le")
        if part.isascii():
            return ""
        if _is(part, "utf-8"):
            # Two bytes may be a character of GBK as well: 头 in it is a Greek letter in UTF-8.
            return "utf-8" if max(part.decode()) > _LAST_OF_TWO_BYTES else ""
        if self._stated:
            return self._stated if _is(part, self._stated) else ""
        if _is(part, "gb18030"):
            self._suspicious += sum(byte > 0x7F for byte in part)
            if self._suspicious >= _CERTAIN:
                raise ForeignEncodingError("GBK", "gb18030")
        return ""

    def _likely(self, part: bytes) -> str:
        return self._stated if self._stated and _is(part, self._stated) else "utf-8"


def decoded(body: bytes, content_type: str, *, strict: bool) -> str:
    """Return a complete body as text. Raises ForeignEncodingError if `strict`; else a likely encoding is used."""
    plain = body.removeprefix(codecs.BOM_UTF8)
    try:
        return BodyDecoder(content_type).decode(plain)
    except ForeignEncodingError as error:
        if strict:
            raise
        return plain.decode(error.codec, "replace")


def _is(part: bytes, codec: str) -> bool:
    try:
        part.decode(codec)
    except UnicodeDecodeError:
        return False
    return True
