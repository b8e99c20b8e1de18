"""Segments of a prompt and the templates that make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from medchat.api.conversation import Turn


@dataclass(frozen=True, slots=True)
class Control:
    """A special token, named by its piece (`[gMASK]`, `<sop>`, `</s>`). Becomes exactly one id."""

    token: str


@dataclass(frozen=True, slots=True)
class Text:
    """Ordinary text. Encoded with special-token parsing off, whatever it holds."""

    text: str


Segment = Control | Text


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """A vocabulary's special tokens: the pieces that a `Control` may name, and which has which role.

    `roles` maps `bos_token`, `eos_token` (and `unk_token`, `pad_token`) to a token, where there is one.
    """

    tokens: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)


class PromptTemplate(Protocol):
    """Turns a conversation into segments. Never into one string: see docs/decisions."""

    @property
    def name(self) -> str:
        """The name shown to the user and stored with each session."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an answer besides the model's own end tokens (most templates: none)."""
        ...

    @property
    def multi_turn(self) -> bool:
        """Whether the weights were trained on several turns in this template."""
        ...

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return the prompt for `question` after `turns`, oldest first."""
        ...
