"""The slash commands about the prompt: how full the context is, and the exact text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medchat.api import AnswerIds, ChatModel, Control, PromptIds, PromptParts, Segment, Text
from medchat.chat.gathered import SentPrompt
from medchat.chat.session import ChatSession
from medchat.errors import UsageError
from medchat.language import say
from medchat.repl.screen import untrusted
from medchat.repl.slash import ReplCommand

if TYPE_CHECKING:
    from medchat.repl.chat import Chat

#: The largest width of the bar, in cells.
_BAR = 60
_USED, _KEPT_FREE, _FREE = "█", "▒", "░"
#: The brackets around control tokens. Never in text.
_OPEN, _CLOSE = "⟦", "⟧"
_TEXT = str.maketrans({_OPEN: "[", _CLOSE: "]"})


def _context(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        width = chat.screen.width
        chat.screen.show(chat.exchange.call(lambda session: drawn_context(session, width)))


def drawn_context(session: ChatSession, width: int) -> str:
    """Return a drawing, `width` cells wide, of the context with the next question, and which turns are left out.

    Raises UsageError if not even a question alone has room.
    """
    fitted = session.fitted("")
    total = session.model.context_length
    room = max(0, total - fitted.tokens)
    answer = min(session.config.max_new_tokens, room)
    cells = max(4, min(_BAR, width - 4))
    used = -(-cells * fitted.tokens // total)
    kept = min(cells - used, -(-cells * answer // total))
    bar = _USED * used + _KEPT_FREE * kept + _FREE * (cells - used - kept)
    share = f"{fitted.tokens / total:.0%}"
    return "\n".join(
        [
            say(
                f"上下文：{fitted.tokens}/{total} 词元（{share}）",
                f"Context: {fitted.tokens}/{total} tokens ({share})",
            ),
            f"  {bar}",
            say(
                f"  {_USED} 已用 {fitted.tokens}  {_KEPT_FREE} 留给回答 {answer}  {_FREE} 空余 {room - answer}",
                f"  {_USED} used {fitted.tokens}  {_KEPT_FREE} for the answer {answer}  {_FREE} free {room - answer}",
            ),
            *_turns(session, fitted.dropped, fitted.left_out),
        ]
    )


def _turns(session: ChatSession, dropped: int, left_out: int) -> list[str]:
    count = len(session.conversation.turns)
    if not count:
        return [say("还没有对话。", "Nothing has been said yet.")]
    if not session.remember_history:
        return [
            say(
                f"{count} 轮都不发送：history 是 none（/设置 history all）",
                f"none of {count} turns is sent: history is none (/set history all)",
            )
        ]
    if not dropped:
        return [say(f"{count} 轮全部发送。", f"All {count} turns are sent.")]
    said = [
        say(f"发送 {count - dropped} 轮，共 {count} 轮。", f"{count - dropped} of {count} turns are sent.")
    ]
    if left_out == count:
        said.append(
            say(
                "此模板每次只发送当前问题（/模板）",
                "this template sends the present question alone (/template)",
            )
        )
    elif left_out:
        said.append(
            _numbered(1, left_out)
            + say(
                "：此模板不发送这么早的对话（/模板）",
                ": this template does not send turns that old (/template)",
            )
        )
    if dropped > left_out:
        said.append(
            _numbered(left_out + 1, dropped)
            + say(
                "：上下文已满，未发送（/新建 重新开始，或 /设置 max-new-tokens 调低）",
                ": the context is full, not sent (/new starts over; or lower /set max-new-tokens)",
            )
        )
    return said


def _numbered(first: int, last: int) -> str:
    if first == last:
        return say(f"第 {first} 轮", f"turn {first}")
    return say(f"第 {first} 到 {last} 轮", f"turns {first} to {last}")


def _raw(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        chat.screen.show(chat.exchange.call(lambda session: exact_prompt(session, words)))


def exact_prompt(session: ChatSession, question: str) -> str:
    """Return the prompt for `question`, else the last one sent, sanitized, with its ids.

    The beginning of an answer that the model was to continue follows it. Raises UsageError if there is no
    prompt.
    """
    prompt = SentPrompt(session.fitted(question).segments) if question else session.last_prompt
    if not prompt.segments:
        raise UsageError(
            say("还没有发送过提示词", "no prompt has been sent yet"),
            say("看某个问题的提示词：/原文 问题", "the prompt for a question: /raw QUESTION"),
        )
    model = session.model
    which = (
        say("会发送的提示词：", "What would be sent:")
        if question
        else say("上次发送的提示词：", "What was sent last:")
    )
    whole = model.prompt_parts(prompt.segments) if isinstance(model, PromptParts) else prompt.segments
    begun = (Text(prompt.begun),) if prompt.begun else ()
    return f"{which}\n\n{_written((*whole, *begun))}\n\n{_counted(model, prompt)}"


def _counted(model: ChatModel, prompt: SentPrompt) -> str:
    """Return the prompt's number of tokens and their ids, those of a begun answer after a bar."""
    ids = model.prompt_ids(prompt.segments) if isinstance(model, PromptIds) else ()
    if not ids:
        return say("这个模型不给出词元编号。", "This model does not report token ids.")
    begun = model.answer_ids(prompt.begun) if prompt.begun and isinstance(model, AnswerIds) else ()
    count, shown = len(ids) + len(begun), " ".join(map(str, ids))
    behind = " | " + " ".join(map(str, begun)) if begun else ""
    return say(f"{count} 个词元：", f"{count} tokens: ") + shown + behind


def _written(segments: Sequence[Segment]) -> str:
    return "".join(
        f"{_OPEN}{untrusted(part.token)}{_CLOSE}"
        if isinstance(part, Control)
        else untrusted(part.text).translate(_TEXT)
        for part in segments
    )


PROMPT_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "context",
        "上下文",
        "",
        "上下文用了多少，哪些轮没有发送",
        "how full the context is, which turns are out",
        _context,
        more=(
            "按下一个问题计算，不含问题本身。",
            "Counted for the next question, without its own words.",
        ),
    ),
    ReplCommand(
        "raw",
        "原文",
        "[question]",
        "发给模型的提示词原文与词元编号",
        "the exact prompt, with its control tokens and ids",
        _raw,
        more=(
            "⟦ ⟧ 中是特殊标记。不写问题时显示上次发送的提示词；续写时已有的回答接在后面，其编号在 | 之后。",
            "Control tokens stand in ⟦ ⟧. Without a question the last prompt that was sent is shown; after /continue"
            " the answer so far stands behind it, its ids behind |.",
        ),
        examples=("/原文 头痛怎么办？", "/raw What helps against a headache?"),
    ),
)
