"""Chat models that transformers computes and whose folders say the rest: what a plugin for one subclasses.

    class Qwen(TransformersBackbone):
        name = "qwen"
        summary = {"zh": "…", "en": "…"}
        model_types = ("qwen2",)

`HFTokenizer` reads their tokenizer.json. Importing this imports no torch, and tokenizers only with `HFTokenizer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medchat.hf.backbone import TransformersBackbone

if TYPE_CHECKING:
    from medchat.hf.tokenizer import HFTokenizer

__all__ = ["HFTokenizer", "TransformersBackbone"]


def __getattr__(name: str) -> Any:
    """Import and return `HFTokenizer`. Raises AttributeError for any other name."""
    if name != "HFTokenizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from medchat.hf.tokenizer import HFTokenizer

    return HFTokenizer
