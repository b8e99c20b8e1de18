"""Whether the pieces of one answer come as `ChatModel.stream` says: their types, their order, their counts."""

from __future__ import annotations

from medchat.api import Completion, Delta, Finish
from medchat.language import say
from medchat.registry.contract import ContractError, mismatch, require

#: How many growing pieces from the first on, each beginning with the one before, are treated as the whole
#: text each time.
_GROWING = 4
#: A last piece of so many characters that is all that came before is treated as the whole text once more; an
#: answer that continues with so many, too, where it begins with them.
_AGAIN = 4


class AnswerCheck:
    """Holds every delta of one answer against the interface; `last` is the newest. Costs under a microsecond each.

    `begun` is what was said before, where the model continues with an answer.
    """

    __slots__ = ("_begun", "_growing", "_pieces", "_previous", "_text", "last")

    def __init__(self, begun: str = "") -> None:
        self._begun = begun
        self.last = Delta()
        self._pieces = 0
        self._text: list[str] = []
        self._previous = ""
        self._growing = True

    def take(self, delta: Delta) -> None:
        """Look at the next one. Raises ContractError."""
        last = self.last
        if last.finish is not None:
            raise _against("在结束（finish）之后又给出内容", "something came after the delta with finish")
        if type(delta) is not Delta:
            raise mismatch("Delta", delta)
        text, count = delta.text, delta.completion_tokens
        plain = delta.finish is None and delta.reasoning == "" and delta.rejected == ()
        if not plain or type(text) is not str or type(count) is not int:
            require(delta, Delta)
        elif not text.isascii():
            text.encode()
        if count < last.completion_tokens and not last.estimated:
            raise _against("completion_tokens 变小了", "completion_tokens fell")
        if delta.restarts:
            self._text.clear()
            self._pieces, self._growing = 0, False
        if text:
            self._look_for_repetition(text, ended=delta.finish is not None)
        self.last = delta

    def end(self, *, cancelled: bool) -> None:
        """Nothing more comes; `cancelled`: the answer was asked to stop. Raises ContractError."""
        if self.last.finish is Finish.CANCELLED and not cancelled:
            raise _against(
                "没有人停止，却以 Finish.CANCELLED 结束",
                "it ended with Finish.CANCELLED though nobody stopped it",
            )
        if self.last.finish is None:
            raise _against("没有以带 finish 的 Delta 结束", "it ended without a delta that has finish")
        refuse_ending(self.last, said=bool(self._text))
        if not (0 <= self.last.reused_tokens <= self.last.prompt_tokens or self.last.estimated):
            raise _against(
                "reused_tokens 是提示词的一部分，却比 prompt_tokens 多",
                "reused_tokens, a part of the prompt, is more than prompt_tokens",
            )
        if len(self._begun) >= _AGAIN and "".join(self._text).startswith(self._begun):
            raise _against(
                "从头重复了已有的回答，应只给出后面的文字",
                "it said the answer from its beginning; it must say only what comes after",
            )

    def _look_for_repetition(self, text: str, *, ended: bool) -> None:
        self._pieces += 1
        if self._growing:
            self._growing = self._pieces == 1 or (
                len(text) > len(self._previous) and text.startswith(self._previous)
            )
            enough = self._pieces >= (_GROWING - 1 if ended else _GROWING)
            if self._growing and enough and len(set(text)) > 1:
                raise _taken_back()
            self._previous = text
        if ended and self._pieces > 2 and len(text) >= _AGAIN and text == "".join(self._text):
            raise _taken_back()
        self._text.append(text)


def refuse_ending(ended: Delta | Completion, *, said: bool) -> None:
    """Raise ContractError for an answer that cannot have ended so; `said` is whether it has any text."""
    if ended.finish is Finish.ERROR:
        raise _against(
            "回答以 Finish.ERROR 结束，没有说明原因", "the answer ended with Finish.ERROR and no reason"
        )
    if said and not ended.completion_tokens and not ended.estimated:
        raise _against(
            "回答不为空，completion_tokens 却是 0", "the answer is not empty but completion_tokens is 0"
        )
    if min(ended.completion_tokens, ended.prompt_tokens) < 0:
        raise _against("词元数是负数", "a count of tokens is negative")


def _taken_back() -> ContractError:
    return _against(
        "每个 Delta 都重复了前面的全部文字，应只给出新的文字",
        "each delta holds the whole text again; it must hold only what is new",
    )


def _against(zh: str, en: str) -> ContractError:
    return ContractError(say(zh, en))
