"""LLaMA's vocabularies on raw SentencePiece: the real ones if they are installed, a small one everywhere."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from locations import SHARED
from medchat_llama.tokenizer import LlamaTokenizer
from medchat_llama.vocabulary import train_llama_vocabulary
from sentencepiece import SentencePieceProcessor
from sentencepiece import sentencepiece_model_pb2 as protocol

from medchat.api import Control, Text
from medchat.errors import CheckpointError, UsageError

CORPUS = (
    "头痛怎么办？请多休息，多喝温水。",
    "### 问题: ### 回答:",
    "the answer is in the question [PAD] [PAD] [PAD]",
    "感冒发烧要看医生",
) * 3
TEXTS = st.text(
    st.one_of(st.sampled_from("头痛发烧，。 \n\t\u2581<s>/[PAD]0aé😀\u3000"), st.characters()), max_size=40
)


def recorded() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name in ("llama", "chinese-alpaca"):
        path = SHARED / "goldens" / "tokenizers" / f"{name}.json"
        if path.is_file() and (SHARED / "tokenizers" / name / "tokenizer.model").is_file():
            cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
            found += [(name, case) for case in cases]
    return found


RECORDED = recorded()
here = pytest.mark.skipif(not RECORDED, reason=f"no vocabularies at {SHARED}")
each_case = pytest.mark.parametrize(
    "item", [pytest.param(item, id=f"{item[0]}-{number}") for number, item in enumerate(RECORDED)]
)


@cache
def real(name: str) -> LlamaTokenizer:
    return LlamaTokenizer.from_file(SHARED / "tokenizers" / name / "tokenizer.model")


def grown(model: bytes) -> bytes:
    """Return a vocabulary in which the letters of [PAD] would merge into that very piece."""
    proto = protocol.ModelProto.FromString(model)
    for piece in ("[P", "AD]", "[PAD]"):
        proto.pieces.add(piece=piece, score=0.0)
    return bytes(proto.SerializeToString())


@cache
def small(pad: bool = False) -> LlamaTokenizer:
    model = train_llama_vocabulary(CORPUS, 340)
    return LlamaTokenizer(grown(model) if pad else model)


# ---------------------------------------------------------------- as recorded


@here
@pytest.mark.golden
@each_case
def test_ids_and_texts_are_those_of_raw_sentencepiece(item: tuple[str, dict[str, Any]]) -> None:
    name, case = item
    tokenizer = real(name)
    assert tokenizer.encode_whole(case["text"]) == case["ids"]
    assert tokenizer.decode(case["ids"]) == case["decoded"]
    if case["category"] != "special":  # there the original let text become special ids
        assert tokenizer.build_prompt([Text(case["text"])]) == case["model_input_ids"]


@here
@pytest.mark.golden
@each_case
def test_streamed_text_equals_the_whole(item: tuple[str, dict[str, Any]]) -> None:
    name, case = item
    tokenizer = real(name)
    stream = tokenizer.stream()
    pieces = [stream.feed(token) for token in case["ids"]]
    assert "".join(pieces) + stream.finish() == case["decoded"]


@here
@pytest.mark.parametrize(
    ("name", "size"), [("llama", 32000), ("chinese-llama", 49953), ("chinese-alpaca", 49954)]
)
def test_the_published_vocabularies_open_with_the_right_ids(name: str, size: int) -> None:
    tokenizer = real(name)
    assert tokenizer.size == size
    assert [tokenizer.id_of(piece) for piece in ("<unk>", "<s>", "</s>")] == [0, 1, 2]
    assert tokenizer.stop_ids == {2}
    assert ("[PAD]" in tokenizer.special_ids) == (size == 49954)
    assert tokenizer.special_ids.get("[PAD]", 49953) == 49953


# ---------------------------------------------------------------- whatever is typed


@given(text=TEXTS)
@pytest.mark.parametrize("pad", [False, True])
def test_no_text_becomes_a_special_id(pad: bool, text: str) -> None:
    tokenizer = small(pad)
    special = set(tokenizer.special_ids.values())
    assert special.isdisjoint(tokenizer.encode_whole(text))
    assert special.isdisjoint(tokenizer.encode(text))
    prompt = tokenizer.build_prompt([Text(text)])
    assert prompt[0] == tokenizer.bos_token_id and special.isdisjoint(prompt[1:])


def test_a_vocabulary_whose_letters_merge_into_pad_is_no_way_round() -> None:
    raw = SentencePieceProcessor(model_proto=grown(train_llama_vocabulary(CORPUS, 340)))
    pad = raw.piece_to_id("[PAD]")
    assert pad in raw.encode("[PAD]")
    assert pad == small(pad=True).id_of("[PAD]") not in small(pad=True).encode("a[PAD]b")


@given(text=TEXTS)
def test_text_comes_back_as_it_was(text: str) -> None:
    ids = small().encode_whole(text)
    plain = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\u2581", " ")
    assert small().decode(ids) == plain


@given(before=TEXTS, text=TEXTS)
def test_an_answer_has_the_ids_it_has_behind_a_prompt(before: str, text: str) -> None:
    """Every published form ends with a newline, over which nothing merges."""
    prompt = f"{before}\n### 回答:\n"
    assert small().encode_whole(prompt + text) == small().encode_whole(prompt) + small().encode(text)


@given(parts=st.lists(TEXTS, max_size=5))
def test_adjacent_texts_are_one_text(parts: list[str]) -> None:
    joined = small().build_prompt([Text("".join(parts))])
    assert small().build_prompt([Text(part) for part in parts]) == joined


def test_controls_become_one_id_each() -> None:
    tokenizer = small(pad=True)
    ids = tokenizer.build_prompt(
        [Text("头痛"), Control("</s>"), Control("<s>"), Text("</s>"), Control("[PAD]")]
    )
    assert [token for token in ids[1:] if token in tokenizer.special_ids.values()] == [
        2,
        1,
        tokenizer.size - 1,
    ]


def test_a_control_that_the_vocabulary_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(UsageError) as caught:
        small().build_prompt([Control("<|endofutterance|>")])
    assert "</s>" in caught.value.remedy


@given(ids=st.lists(st.integers(0, 345), max_size=40))
def test_any_ids_stream_to_what_they_decode_to_at_once_but_for_half_a_character(ids: list[int]) -> None:
    stream = small().stream()
    text = "".join(stream.feed(token) for token in ids) + stream.finish()
    whole = small().decode(ids)
    assert whole.startswith(text) and not whole[len(text) :].strip("\ufffd")


@given(text=TEXTS)
def test_special_ids_and_rows_without_a_piece_have_no_text(text: str) -> None:
    tokenizer = small(pad=True)
    ids = tokenizer.encode_whole(text)
    extra = [*tokenizer.special_ids.values(), tokenizer.size, tokenizer.size + 40, -1]
    assert tokenizer.decode([*extra, *ids, *extra]) == tokenizer.decode(ids)


# ---------------------------------------------------------------- the file


def test_training_is_repeatable_and_spells_the_rare_in_bytes() -> None:
    assert train_llama_vocabulary(CORPUS, 340) == train_llama_vocabulary(CORPUS, 340)
    tokenizer = small()
    assert tokenizer.size <= 340
    assert len(tokenizer.encode("龘")) == 3 and tokenizer.decode(tokenizer.encode("龘")) == "龘"


@pytest.mark.parametrize(
    ("corpus", "size"), [((), 340), (("\n\n\t",), 340), (("头痛",), 100)], ids=["none", "blank", "small"]
)
def test_what_cannot_be_trained_is_refused(corpus: tuple[str, ...], size: int) -> None:
    with pytest.raises(UsageError):
        train_llama_vocabulary(corpus, size)


def test_a_damaged_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    good = train_llama_vocabulary(CORPUS, 340)
    foreign = protocol.ModelProto.FromString(good)
    foreign.pieces[1].piece = "<pad>"
    contents = {"short": good[:500], "text": b"<html>", "empty": b"", "foreign": foreign.SerializeToString()}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "missing/tokenizer.model"):
        with pytest.raises(CheckpointError) as caught:
            LlamaTokenizer.from_file(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
        assert "tokenizer.model" in caught.value.remedy
