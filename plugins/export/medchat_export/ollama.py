"""The Modelfile by which Ollama runs a GGUF file. No text can leave its field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medchat.plugin_kit import GenerationConfig, UsageError, say
from medchat_export.conversation_pattern import ConversationPattern, as_go

_QUOTES = '"""'


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What is written. `weights` is the GGUF file's name beside the Modelfile."""

    weights: str
    pattern: ConversationPattern
    generation: GenerationConfig
    stops: Sequence[str]
    system: str
    licence: str

    def text(self) -> str:
        """Return the file. Raises UsageError for a system text or stop that a field cannot hold."""
        lines = [f"FROM ./{self.weights}", f"TEMPLATE {_quoted(as_go(self.pattern), 'TEMPLATE')}"]
        if self.system:
            lines.append(f"SYSTEM {_quoted(self.system, 'SYSTEM')}")
        lines += [f"PARAMETER stop {_quoted(stop, 'stop')}" for stop in self.stops]
        lines += [f"PARAMETER {name} {value}" for name, value in self._numbers()]
        if self.licence:
            lines.append(f"LICENSE {_quoted(self.licence, 'LICENSE')}")
        return "\n".join(lines) + "\n"

    def _numbers(self) -> list[tuple[str, int | float]]:
        decoding = self.generation
        return [
            ("temperature", 0 if decoding.greedy else decoding.temperature),
            ("top_p", decoding.top_p),
            ("top_k", decoding.top_k),
            ("repeat_penalty", decoding.repetition_penalty),
            ("num_predict", decoding.max_new_tokens),
        ]


def _quoted(text: str, field: str) -> str:
    if _QUOTES in text or text.endswith('"'):
        raise UsageError(
            say(
                f"{field} 的内容含有连续三个双引号，或以双引号结尾，Modelfile 无法表示",
                f"{field} holds three double quotes in a row, or ends with one: a Modelfile cannot hold that",
            ),
            say("改写这段文字，例如用“”", "write it otherwise, for example with “”"),
        )
    return f"{_QUOTES}{text}{_QUOTES}"
