"""Streaming text: the pieces joined are the whole, half characters never show, long answers stay cheap."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from locations import DATA
from medchat_chatglm.cleanup import DATE_MARKER, StreamingResponse, process_response
from medchat_chatglm.tokenizer import ChatGLMTokenizer, unfinished
from medchat_chatglm.vocabulary import train_chatglm_vocabulary

from medchat.inference.detokenizer import StreamText

SYNTHETIC = json.loads((DATA / "goldens/chatglm/tokenizer/tokenizer.json").read_text(encoding="utf-8"))
KINDS = ("v0", "v11", "trained")


@cache
def tokenizer_of(kind: str) -> ChatGLMTokenizer:
    if kind == "trained":
        return ChatGLMTokenizer(
            train_chatglm_vocabulary(["头痛 <n> <|blank_8|> <|tab|> a b"] * 9 + ["多 喝 水"], 80)
        )
    return ChatGLMTokenizer(base64.b64decode(SYNTHETIC[f"spm_model_{kind}_base64"]))


def streamed(stream: StreamText, ids: Sequence[int]) -> tuple[list[str], str]:
    return [stream.feed(token) for token in ids], stream.finish()


@st.composite
def id_streams(draw: st.DrawFn, kind: str) -> list[int]:
    """Any ids: text, single bytes of characters (whole, cut and nonsense), controls, rows without a piece."""
    tokenizer = tokenizer_of(kind)
    first, last = tokenizer.num_image_tokens, tokenizer.vocab_size
    byte_ids = st.integers(last - 256, last - 1)
    spaces = st.sampled_from([first + 5, *tokenizer.special_ids.values(), first + 4])
    letters = st.sampled_from("<n>|tabblank_80123 \n\t痛😀é").map(tokenizer.encode)
    characters = st.characters(exclude_categories=["Cs"]).map(
        lambda letter: [last - 256 + byte for byte in letter.encode()]
    )
    some = st.one_of(
        st.integers(first, last + 9).map(lambda token: [token]),
        byte_ids.map(lambda token: [token]),
        spaces.map(lambda token: [token]),
        letters,
        characters,
        characters.map(lambda ids: ids[:-1]),
    )
    return [token for part in draw(st.lists(some, max_size=40)) for token in part]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300)
@given(data=st.data())
def test_pieces_joined_are_the_whole_decoding(kind: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(kind)
    ids = data.draw(id_streams(kind))
    pieces, rest = streamed(tokenizer.stream(), ids)
    joined, whole = "".join(pieces) + rest, tokenizer.decode(ids)
    assert whole.startswith(joined) and not whole.removeprefix(joined).strip("\ufffd")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_no_half_character_is_ever_shown(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    pieces, rest = streamed(tokenizer.stream(), tokenizer.encode(text))
    assert not any("\ufffd" in piece for piece in [*pieces, rest])


def test_a_character_of_four_bytes_comes_whole_with_its_last_byte() -> None:
    tokenizer = tokenizer_of("v11")
    stream = tokenizer.stream()
    ids = tokenizer.encode("👋")
    assert [stream.feed(token) for token in ids] == ["", "", "", "", "👋"]
    assert stream.feed(tokenizer.encode("头", dummy_prefix=False)[0]) == "头"


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_an_answer_cut_inside_a_character_ends_before_it(missing: int) -> None:
    tokenizer = tokenizer_of("v11")
    ids = tokenizer.encode("头👋")[:-missing]
    pieces, rest = streamed(tokenizer.stream(), ids)
    assert "".join(pieces) + rest == "头"
    assert tokenizer.decode(ids).endswith("\ufffd")


def test_white_space_written_letter_by_letter_is_held_until_it_is_known() -> None:
    tokenizer = tokenizer_of("v11")
    letters = [tokenizer.encode(letter, dummy_prefix=False) for letter in "a<|tab|>b<nb"]
    ids = [token for letter in letters for token in letter]
    assert tokenizer.decode(ids) == "a\tb<nb"
    pieces, rest = streamed(tokenizer.stream(), ids)
    assert [piece for piece in pieces if piece] == ["a", "\t", "b", "<nb"]
    assert rest == ""


def test_a_finished_stream_starts_anew() -> None:
    tokenizer = tokenizer_of("trained")
    stream, ids = tokenizer.stream(), tokenizer.encode("头痛 a")
    first = streamed(stream, ids)
    assert streamed(stream, ids) == first
    assert stream.finish() == ""


@given(words=st.lists(st.sampled_from([" ", "", "a", " b"])))
def test_ids_without_text_at_the_beginning_still_count_as_the_beginning(words: list[str]) -> None:
    """LLaMA's decoder drops one leading space, and no more."""

    def decode(ids: Sequence[int]) -> str:
        return "".join(words[token] for token in ids).removeprefix(" ")

    pieces, rest = streamed(StreamText(decode), range(len(words)))
    assert "".join(pieces) + rest == decode(range(len(words)))


class CountingDecoder:
    """Counts how many ids are decoded in all."""

    def __init__(self, tokenizer: ChatGLMTokenizer) -> None:
        self.tokenizer = tokenizer
        self.decoded = 0

    def __call__(self, ids: Sequence[int]) -> str:
        self.decoded += len(ids)
        return self.tokenizer.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_cost_grows_with_the_answer_not_its_square(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    source = random.Random(5)
    usual = tokenizer.encode("头痛，👋 多喝水\n<n> a <|blank_ b")[1:]
    controls = [tokenizer.id_of("[sMASK]")] * 700
    blanks = [tokenizer.num_image_tokens + 5] * 700
    for ids in ([source.choice(usual) for _ in range(2000)], usual + controls + blanks + usual):
        counting = CountingDecoder(tokenizer)
        pieces, rest = streamed(StreamText(counting, unfinished), ids)
        assert "".join(pieces) + rest == tokenizer.decode(ids)
        assert counting.decoded < 12 * len(ids)


# ---------------------------------------------------------------- clean-up as it streams

answers = st.text(st.sampled_from("中文年a3[]训练时间,!:;?，。 \n\t\u3000\x1f"), max_size=40)
marked = st.lists(st.one_of(answers, st.sampled_from((DATE_MARKER, DATE_MARKER[:-1])))).map("".join)


@pytest.mark.parametrize("full_width", [False, True])
@settings(max_examples=400)
@given(text=st.one_of(marked, st.text()), cuts=st.lists(st.integers(0, 60)))
def test_streamed_clean_up_is_the_clean_up_of_the_whole(text: str, cuts: list[int], full_width: bool) -> None:
    stream = StreamingResponse(full_width=full_width)
    borders = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    parts = [text[left:right] for left, right in pairwise(borders)]
    shown = "".join(stream.feed(part) for part in parts) + stream.finish()
    assert shown == process_response(text, full_width=full_width)


@settings(max_examples=300)
@given(text=marked)
def test_one_pass_equals_the_ten_passes_of_the_original(text: str) -> None:
    import re

    expected = text.strip().replace(DATE_MARKER, "2023年")
    for ascii_mark, wide in zip(",!:;?", "，！：；？", strict=True):
        expected = re.sub(rf"([\u4e00-\u9fff])\{ascii_mark}", rf"\1{wide}", expected)
        expected = re.sub(rf"\{ascii_mark}([\u4e00-\u9fff])", rf"{wide}\1", expected)
    assert process_response(text, full_width=True) == expected


def test_only_what_may_change_is_held_back() -> None:
    stream = StreamingResponse(full_width=True)
    shown = [
        stream.feed(piece)
        for piece in (" 头痛", ",", "a", "?", "好", "  ", "\n", "吗", "[[训练", "时间]]", "!", " ")
    ]
    assert shown == ["头痛", "，", "a", "", "？好", "", "", "  \n吗", "", "2023年", "！", ""]
    assert stream.finish() == ""
