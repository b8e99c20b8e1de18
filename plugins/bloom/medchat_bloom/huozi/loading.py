"""Loading of Huozi's folders: Bloom's architecture with chat tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from medchat.inference.answer_deltas import TextFilter
from medchat.inference.postprocess import StreamingCleanup, StrippedAnswer
from medchat.plugin_kit import LoadOptions
from medchat_bloom.huozi.prompts import CHAT_TOKENS
from medchat_bloom.loading import BloomLoading


class HuoziLoading(BloomLoading):
    """The loader of Huozi 1.0, which stops on both end tokens."""

    name = "huozi"
    required = CHAT_TOKENS

    def base_notes(self, options: LoadOptions) -> tuple[str, ...]:
        """Return nothing: there is only one base."""
        return ()

    def cleanup(self, options: LoadOptions) -> Callable[[], TextFilter]:
        """Return the published chat function's filter; BenTsao's script for the adapter has none."""
        markers = dict.fromkeys(CHAT_TOKENS, "")
        return StrippedAnswer if options.adapters else partial(StreamingCleanup, replaced=markers)


HUOZI_LOADING = HuoziLoading()
