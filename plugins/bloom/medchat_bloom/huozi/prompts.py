"""The template of Huozi 1.0: utterances between two control tokens, the system's first.

The turns: docs/specs/models.md, "Huozi". A class and not a JSON template: the markers are control tokens, and
JSON templates contain text only, so that nothing a user types can become one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medchat.plugin_kit import Control, Segment, Text, Turn

BEGIN, END = Control("<|beginofutterance|>"), Control("<|endofutterance|>")
CHAT_TOKENS = (BEGIN.token, END.token)
#: The template of BenTsao's LoRA, which does not use the chat tokens.
ADAPTER_TEMPLATE = "bloom_deploy"
SYSTEM, USER, ASSISTANT = "系统", "用户", "助手"
#: The published code sends a system utterance with every prompt, a page about its authors. Ours is the short
#: one documented for the later Huozi models; `--system` replaces it.
DEFAULT_SYSTEM = "你是一个智能助手"
#: The largest number of past turns that the published code sends.
MOST_TURNS = 14


@dataclass(frozen=True, slots=True)
class HuoziTemplate:
    """`<|beginofutterance|>role` newline text `<|endofutterance|>` newline, for each utterance."""

    name: str = "huozi"
    stop: tuple[str, ...] = ()
    multi_turn: bool = True
    note: Mapping[str, str] = field(
        default_factory=lambda: {
            "zh": "训练所用权重：活字 1.0（多轮）；它的 BenTsao LoRA 用 bloom_deploy",
            "en": "trained on it: Huozi 1.0 (several turns); BenTsao's LoRA for it takes bloom_deploy",
        }
    )

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return the prompt for `question` after the latest 14 of `turns`; it ends where the answer begins."""
        segments = [*_utterance(SYSTEM, system or DEFAULT_SYSTEM)]
        for turn in turns[-MOST_TURNS:]:
            segments += [*_utterance(USER, turn.question), *_utterance(ASSISTANT, turn.answer)]
        return (*segments, *_utterance(USER, question), BEGIN, Text(f"{ASSISTANT}\n"))


def _utterance(role: str, text: str) -> tuple[Segment, ...]:
    return BEGIN, Text(f"{role}\n"), *((Text(text),) if text else ()), END, Text("\n")


HUOZI = HuoziTemplate()
