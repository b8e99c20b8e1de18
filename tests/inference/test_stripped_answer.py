"""White space at the ends of an answer goes, however the answer comes; all else stays."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.inference.causal_chat_model import CausalChatModel
from medchat.inference.chat_model import TokenChatModel
from medchat.inference.postprocess import StrippedAnswer

PIECES = st.lists(st.text(st.sampled_from(" \n\t\u3000\u2028头痛,:a"), max_size=5), max_size=8)


@given(PIECES)
def test_a_stream_is_the_stripped_text_of_its_pieces(pieces: list[str]) -> None:
    cleanup = StrippedAnswer()
    streamed = "".join(map(cleanup.feed, pieces)) + cleanup.finish()
    assert streamed == "".join(pieces).strip()


@pytest.mark.parametrize("kind", [TokenChatModel, CausalChatModel])
def test_a_model_strips_unless_its_family_has_rules_of_its_own(kind: type) -> None:
    assert inspect.signature(kind).parameters["cleanup"].default is StrippedAnswer
