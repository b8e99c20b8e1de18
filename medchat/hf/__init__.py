"""What a plugin subclasses: for chat models that transformers computes, and for a net of one's own.

    class Qwen(TransformersBackbone):
        name = "qwen"
        summary = {"zh": "…", "en": "…"}
        model_types = ("qwen2",)

`HFTokenizer` reads their tokenizer.json. A torch module of one's own is a `NetBackbone`, and its vocabulary a
`NetTokenizer`: chat and the trainer of all families take it (`examples/medchat-charlm`).

Importing this imports no torch, and tokenizers only with `HFTokenizer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medchat.hf.backbone import TransformersBackbone
from medchat.hf.net import NetBackbone, NetTokenizer

if TYPE_CHECKING:
    from medchat.hf.tokenizer import HFTokenizer

__all__ = ["HFTokenizer", "NetBackbone", "NetTokenizer", "TransformersBackbone"]


def __getattr__(name: str) -> Any:
    """Import and return `HFTokenizer`. Raises AttributeError for any other name."""
    if name != "HFTokenizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from medchat.hf.tokenizer import HFTokenizer

    return HFTokenizer
