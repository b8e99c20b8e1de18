"""Attaches a file to a question: read within a limit, as text, without invisible characters."""

from __future__ import annotations

from dataclasses import dataclass

from medchat.chat.text_checks import check_question
from medchat.errors import UsageError
from medchat.language import say
from medchat.regular_files import TooLargeError, read_regular
from medchat.sanitize import sanitize
from medchat.units import amount
from medchat.user_paths import user_path

#: The largest file. Question and files together are bounded by `max_question_bytes`.
ATTACHMENT_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Attachment:
    """The text of a file and the file's name. `text` is sanitized."""

    name: str
    text: str

    def under(self, question: str, max_bytes: int) -> str:
        """Return the question followed by the text. Raises UsageError if both together are too long."""
        whole = f"{question}\n\n{self.text}"
        check_question(whole, max_bytes)
        return whole


def read_attachment(place: str) -> Attachment:
    """Read a file of UTF-8 text. Raises UsageError: missing, not a regular file, too large, empty, not text."""
    path = user_path(place)
    try:
        content = read_regular(path, ATTACHMENT_BYTES)
    except OSError as error:
        shorter = say(
            f"最大 {amount(ATTACHMENT_BYTES)}；请截取需要的部分",
            f"at most {amount(ATTACHMENT_BYTES)}: attach only the part that matters",
        )
        raise UsageError(
            say(f"无法读取文件：{error.strerror}", f"cannot read the file: {error.strerror}"),
            shorter if isinstance(error, TooLargeError) else say("请检查路径", "check the path"),
            where=str(path),
        ) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_text(
            path, say(f"不是 UTF-8（第 {error.start + 1} 个字节）", f"not UTF-8 (byte {error.start + 1})")
        ) from None
    if "\0" in text:
        raise _no_text(path, say("是二进制文件", "a binary file"))
    text = sanitize(text).strip("\n")
    if not text.strip():
        raise UsageError(
            say("文件是空的", "the file is empty"), say("请换一个文件", "take another file"), where=str(path)
        )
    return Attachment(path.name, text)


def _no_text(path: object, what: str) -> UsageError:
    return UsageError(
        say(f"文件不是文本：{what}", f"not a text file: {what}"),
        say("先转换编码：iconv -f GB18030 -t UTF-8", "convert it first: iconv -f GB18030 -t UTF-8"),
        where=str(path),
    )
