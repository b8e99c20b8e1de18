"""`/file`: attaches a text file to the next question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medchat.chat.attachments import read_attachment
from medchat.language import say
from medchat.repl import offers
from medchat.repl.model_commands import NOTHING
from medchat.repl.screen import untrusted_line
from medchat.repl.slash import ReplCommand
from medchat.repl.typed_paths import path_and_rest

if TYPE_CHECKING:
    from medchat.repl.chat import Chat


def _file(chat: Chat, words: str) -> None:
    if not words:
        chat.screen.show(
            _attached(chat)
            or say("没有附件。例如：/文件 病历.txt", "No file is attached. For example: /file case.txt")
        )
        return
    if words in NOTHING:
        chat.attachment = None
        chat.screen.show(say("已去掉附件。", "The file is no longer attached."))
        return
    path, question = path_and_rest(words)
    chat.attachment = read_attachment(path)
    chat.screen.show(_attached(chat))
    if question:
        chat.draft = chat.handle(question)


def _attached(chat: Chat) -> str:
    if chat.attachment is None:
        return ""
    name, count = untrusted_line(chat.attachment.name), len(chat.attachment.text)
    return say(
        f"附件：{name}（{count} 字），随下一个问题发送。",
        f"Attached: {name} ({count} characters), sent with the next question.",
    )


FILE_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "file",
        "文件",
        "[path] [question]",
        "附上一个文本文件，随下一个问题发送",
        "attach a text file to the next question",
        _file,
        more=(
            "UTF-8 文本，最大 1 MB；内容写在问题下方，与问题一起保存。/文件 无 去掉它。",
            "UTF-8 text of at most 1 MB; it stands below the question and is saved with it. /file none takes it away.",
        ),
        examples=("/文件 病历.txt 请总结", "/file case.txt Summarise this"),
        complete=offers.files,
    ),
)
