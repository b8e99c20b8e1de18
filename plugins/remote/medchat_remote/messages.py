"""The conversation for the endpoint: messages with roles, or one text if a template is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medchat.plugin_kit import Control, Segment, Text, Turn

SYSTEM, USER, ASSISTANT = (Control(f"message:{role}") for role in ("system", "user", "assistant"))
_ROLES: Mapping[Control, str] = {SYSTEM: "system", USER: "user", ASSISTANT: "assistant"}

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class MessagesTemplate:
    """Keeps the roles. The endpoint makes the prompt from the messages, with the model's own chat template."""

    name: str = "messages"
    stop: tuple[str, ...] = ()
    multi_turn: bool = True

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return each message as its role's marker and its text."""
        segments: list[Segment] = [SYSTEM, Text(system)] if system else []
        for turn in turns:
            segments += [USER, Text(turn.question), ASSISTANT, Text(turn.answer)]
        return (*segments, USER, Text(question))


def as_messages(segments: Sequence[Segment]) -> list[Message] | None:
    """Return the messages that `MessagesTemplate` rendered, or None for any other template's prompt."""
    if not segments or segments[0] not in _ROLES:
        return None
    messages: list[Message] = []
    for segment in segments:
        if isinstance(segment, Text):
            messages[-1]["content"] += segment.text
        elif segment in _ROLES:
            messages.append({"role": _ROLES[segment], "content": ""})
        else:
            messages[-1]["content"] += segment.token
    return messages


def as_text(segments: Sequence[Segment]) -> str:
    """Return the prompt of any other template as one text, special tokens by their names."""
    return "".join(segment.text if isinstance(segment, Text) else segment.token for segment in segments)
