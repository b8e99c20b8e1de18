"""Separates reasoning from the answer in one text: `<think>…</think>`, also without the opening tag.

Tags are matched ignoring case: models repeat them in capitals.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from medchat.api import Segment, Text
from medchat.inference.reasoning_channels import (
    BEGINNINGS,
    ChannelSplitter,
    SplitText,
    begun,
    in_small_letters,
)

#: The tags of reasoning by model: DeepSeek, Qwen and most others; Gemma; Seed; Magistral; Kimi.
_TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<seed:think>": "</seed:think>",
    "[think]": "[/think]",
    "◁think▷": "◁/think▷",
}
_OPEN, _CLOSE = tuple(_TAGS), tuple(_TAGS.values())
_LONGEST_TAG = max(map(len, _CLOSE))
_LONGEST_BEGINNING = max(map(len, (*_OPEN, *BEGINNINGS)))
#: Models whose chat template writes the opening tag, so that only the closing one is generated.
_BEGINS_INSIDE = re.compile(
    r"(?i)(?<![a-z0-9])(r1|qwq|thinking|think|reasoner|reasoning|z1|marco-o1)(?![a-z])"
)
#: Models that write in channels. A server that drops special tokens leaves the channels' names:
#: `analysis…assistantfinal…`.
_IN_CHANNELS = re.compile(r"(?i)(?<![a-z0-9])gpt-oss(?![a-z])")
_BARE_CHANNELS = {"analysis": "assistantfinal"}


def begins_inside(model: str) -> bool:
    """Whether a model of that name may begin inside its reasoning, without an opening tag."""
    return _BEGINS_INSIDE.search(model) is not None


def leaves_channel_names(model: str) -> bool:
    """Whether the names of a model's channels may be in its text without their marks."""
    return _IN_CHANNELS.search(model) is not None


class ReasoningSplitter:
    """A streaming splitter of an answer, which may be cut anywhere; `finish` returns what was held back.

    Reasoning at the beginning is returned at once. In the middle of an answer an unclosed tag is only text,
    so what follows it is held back until it is closed. With `wait`, everything before a closing tag is held
    back from the beginning; without it that text was returned as the answer, and `restarts` retracts it. With
    `bare_channels`, a text that begins with a channel's name belongs to that channel.
    """

    def __init__(self, *, wait: bool = False, bare_channels: bool = False) -> None:
        self._beginnings = {**_TAGS, **(_BARE_CHANNELS if bare_channels else {})}
        self._held = ""
        self._wait = wait
        self._state = self._beginning
        self._close = ""
        self._opened = False
        self._searched = 0
        self._channels = ChannelSplitter()

    def no_tags(self) -> None:
        """Note that the server sends reasoning separately: nothing has to be held back."""
        self._wait = False

    def feed(self, text: str) -> SplitText:
        """Return what has become certain."""
        self._held += text
        answer, reasoning, restarts = "", "", False
        while True:
            state = self._state
            added = state()
            restarts = restarts or added.restarts
            answer = added.answer if added.restarts else answer + added.answer
            reasoning += added.reasoning
            if self._state == state:
                return SplitText(answer, reasoning, restarts)

    def finish(self, *, complete: bool = True) -> SplitText:
        """Return what was held back at the end of the text, which ended by itself if `complete`.

        Text without its closing tag is then the answer, and else interrupted reasoning.
        """
        if self._state == self._in_channels:
            return self._channels.finish()
        held, self._held = self._held, ""
        broken_off = self._state == self._waiting and not complete
        if self._state == self._inside_beginning or broken_off:
            return SplitText(reasoning=held)
        return SplitText(answer="" if self._state == self._after_reasoning else held)

    # ------------------------------------------------------------ states: each consumes what it can of the
    # held text

    def _beginning(self) -> SplitText:
        start = self._held.lstrip()
        plain = in_small_letters(start[:_LONGEST_BEGINNING])
        if plain.startswith(BEGINNINGS):
            self._state = self._in_channels
            return SplitText()
        for tag, close in self._beginnings.items():
            if plain.startswith(tag):
                self._held, self._close, self._opened = start[len(tag) :], close, True
                self._state = self._inside_beginning
                return SplitText()
        if start and not any(tag.startswith(plain) for tag in (*self._beginnings, *BEGINNINGS)):
            self._state = self._waiting if self._wait else self._inside_answer
        return SplitText()

    def _in_channels(self) -> SplitText:
        held, self._held = self._held, ""
        return self._channels.feed(held)

    def _waiting(self) -> SplitText:
        place, tag = self._next_tag(_CLOSE)
        if tag:
            reasoning, self._held = self._held[:place], self._held[place + len(tag) :]
            self._state, self._opened = self._after_reasoning, True
            return SplitText(reasoning=reasoning)
        if not self._wait:
            self._state = self._inside_answer
        return SplitText()

    def _inside_beginning(self) -> SplitText:
        place, tag = _first(self._held, (self._close,))
        if tag:
            self._state = self._after_reasoning
            return SplitText(reasoning=self._take(place, len(tag)))
        return SplitText(reasoning=self._take(len(self._held) - begun(self._held, (self._close,))))

    def _after_reasoning(self) -> SplitText:
        self._held = self._held.lstrip()
        if self._held:
            self._state = self._inside_answer
        return SplitText()

    def _inside_answer(self) -> SplitText:
        # Only the first closing tag can have its opening tag in the template.
        tags = _OPEN if self._opened else (*_OPEN, *_CLOSE)
        place, tag = _first(self._held, tags)
        if tag in _CLOSE:
            reasoning = self._take(place, len(tag))
            self._opened, self._state = True, self._after_reasoning
            return SplitText(reasoning=reasoning, restarts=True)
        if tag:
            self._close, self._state = _TAGS[tag], self._inside_middle
            return SplitText(answer=self._take(place))
        return SplitText(answer=self._take(len(self._held) - begun(self._held, tags)))

    def _inside_middle(self) -> SplitText:
        """Take a complete block in the middle of an answer; the held text begins with its tag."""
        place, tag = self._next_tag((self._close,))
        if not tag:
            return SplitText()
        opening = next(len(open_) for open_, close in _TAGS.items() if close == tag)
        self._state, self._opened = self._inside_answer, True
        return SplitText(reasoning=self._take(place, len(tag))[opening:])

    def _next_tag(self, tags: tuple[str, ...]) -> tuple[int, str]:
        """Find a tag in held-back text, searching only the new part."""
        found = _first(self._held, tags, max(0, self._searched - _LONGEST_TAG))
        self._searched = 0 if found[1] else len(self._held)
        return found

    def _take(self, length: int, skipped: int = 0) -> str:
        text, self._held = self._held[:length], self._held[length + skipped :]
        return text


def reasoning_behind(segments: Sequence[Segment]) -> ReasoningSplitter:
    """Return the splitter for the answer to a prompt, which begins inside reasoning where the prompt opens one."""
    last = segments[-1] if segments else None
    end = last.text if isinstance(last, Text) else last.token if last else ""
    return ReasoningSplitter(wait=in_small_letters(end.rstrip()).endswith(_OPEN))


def _first(text: str, tags: tuple[str, ...], start: int = 0) -> tuple[int, str]:
    """Return the offset of the first of `tags` in `text` from `start` on, and which; (0, "") for none."""
    plain = in_small_letters(text[start:])
    found = [(start + place, tag) for tag in tags if (place := plain.find(tag)) >= 0]
    return min(found, default=(0, ""))
