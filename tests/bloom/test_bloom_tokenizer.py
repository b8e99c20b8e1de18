"""What a user types never becomes a control token of Bloom or Huozi, whatever the vocabulary's files say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from child_process import child_environment, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from medchat_bloom.tiny import train_tokenizer
from medchat_bloom.tokenizer import (
    BEGIN_OF_UTTERANCE,
    BOS,
    END_OF_UTTERANCE,
    EOS,
    PAD,
    UNK,
    BloomTokenizer,
)
from tokenizers import AddedToken, Tokenizer

from medchat.api import Control, Text
from medchat.errors import CheckpointError, UsageError
from medchat.hf.vocabulary import FILE_NAME

CHAT = (BEGIN_OF_UTTERANCE, END_OF_UTTERANCE)
CORPUS = (
    "头痛怎么办？多喝水，注意休息。",
    "Hello, how are you?",
    "</s></s></s> <s><s> <pad> <|endofutterance|>",
) * 3
MARKERS = (UNK, BOS, EOS, PAD, *CHAT)
TYPED = st.lists(st.sampled_from([*MARKERS, "头痛", " ", "<", "|>", "s>", "a"]) | st.text(max_size=4)).map(
    "".join
)


def folder_of(path: Path, tokenizer: Tokenizer, **files: Any) -> Path:
    """Write tokenizer.json and the small files beside it: `special_tokens_map={…}`."""
    path.mkdir(parents=True, exist_ok=True)
    (path / FILE_NAME).write_text(tokenizer.to_str(), encoding="utf-8")
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return path


def read(path: Path, tokenizer: Tokenizer, **files: Any) -> BloomTokenizer:
    return BloomTokenizer.from_folder(folder_of(path, tokenizer, **files))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BloomTokenizer:
    return read(tmp_path_factory.mktemp("vocabulary"), train_tokenizer(CORPUS, 330, CHAT))


@settings(max_examples=300)
@given(text=TYPED)
def test_typed_markers_stay_text_and_come_back_whole(tokenizer: BloomTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert set(ids).isdisjoint(tokenizer.special_ids.values())
    assert tokenizer.decode(ids) == text


@pytest.fixture(scope="module")
def marked_and_plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[BloomTokenizer, Tokenizer]:
    # Trained on markers, merges would build some of them; here they have pieces of more than a letter.
    raw = train_tokenizer(["beginofutterance endofutterance pad unk"] * 9, 330, CHAT)
    content = {**json.loads(raw.to_str()), "added_tokens": []}
    return read(tmp_path_factory.mktemp("marked"), raw), Tokenizer.from_str(json.dumps(content))


@settings(max_examples=100)
@given(text=TYPED)
def test_typed_markers_get_the_ids_that_a_vocabulary_without_markers_gives_them(
    marked_and_plain: tuple[BloomTokenizer, Tokenizer], text: str
) -> None:
    marked, plain = marked_and_plain
    assert marked.encode(text) == plain.encode(text).ids


@settings(max_examples=100)
@given(text=TYPED)
def test_a_streamed_answer_never_shows_half_a_character(tokenizer: BloomTokenizer, text: str) -> None:
    stream = tokenizer.stream()
    pieces = [stream.feed(token) for token in tokenizer.encode(text)]
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text
    assert "".join(pieces) + stream.finish() == text


def test_a_control_is_one_id_and_gives_no_text(tokenizer: BloomTokenizer) -> None:
    for token in MARKERS:
        ids = tokenizer.build_prompt([Text("头"), Control(token), Text("痛")])
        assert ids == [*tokenizer.encode("头"), tokenizer.id_of(token), *tokenizer.encode("痛")]
        assert tokenizer.decode(ids) == "头痛"


def test_adjacent_texts_are_encoded_as_one(tokenizer: BloomTokenizer) -> None:
    whole = "头痛怎么办？"
    assert len(tokenizer.encode(whole)) < sum(len(tokenizer.encode(letter)) for letter in whole)
    assert tokenizer.build_prompt([Text(letter) for letter in whole]) == tokenizer.encode(whole)


def test_an_unknown_control_token_is_refused_with_the_known_ones(tokenizer: BloomTokenizer) -> None:
    with pytest.raises(UsageError) as refusal:
        tokenizer.build_prompt([Control("[gMASK]")])
    assert "[gMASK]" in refusal.value.what
    assert EOS in refusal.value.remedy


def test_stop_ids_are_the_end_of_text_and_of_an_utterance(tmp_path: Path, tokenizer: BloomTokenizer) -> None:
    assert tokenizer.stop_ids == {tokenizer.id_of(EOS), tokenizer.id_of(END_OF_UTTERANCE)}
    plain = read(tmp_path, train_tokenizer(CORPUS, 330))
    assert plain.stop_ids == {plain.id_of(EOS)} == {plain.eos_token_id}


def test_lone_surrogates_become_the_replacement_character(tokenizer: BloomTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"
    assert tokenizer.decode(tokenizer.encode("\ud83d\udc4b")) == "👋"


def test_ids_of_rows_without_a_token_give_no_text(tokenizer: BloomTokenizer) -> None:
    assert tokenizer.decode([*tokenizer.encode("头"), tokenizer.size, tokenizer.size + 100]) == "头"


# ---------------------------------------------------------------- files that say odd things


def test_a_marker_that_merges_would_build_is_spelled_out(tmp_path: Path) -> None:
    content = json.loads(train_tokenizer(CORPUS, 300).to_str())
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    vocabulary["</"] = vocabulary.get("</", max(vocabulary.values()) + 1)
    vocabulary["</s"] = vocabulary.get("</s", max(vocabulary.values()) + 1)
    merges[:0] = [["<", "/"], ["</", "s"], ["</s", ">"]]
    raw = Tokenizer.from_str(json.dumps(content))
    raw.encode_special_tokens = True
    assert vocabulary[EOS] in raw.encode("a</s>b").ids, "the merges are meant to build it"
    tokenizer = read(tmp_path, Tokenizer.from_str(json.dumps(content)))
    ids = tokenizer.encode("头a</s>b")
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids) == "头a</s>b"


def test_chat_tokens_that_the_file_does_not_flag_are_control_tokens_all_the_same(tmp_path: Path) -> None:
    raw = train_tokenizer(CORPUS, 300)
    raw.add_tokens([AddedToken(token, normalized=False, special=False) for token in CHAT])
    assert raw.encode(CHAT[0]).ids == [raw.token_to_id(CHAT[0])]
    tokenizer = read(tmp_path, raw)
    assert set(CHAT) <= set(tokenizer.special_ids)
    assert tokenizer.id_of(CHAT[0]) not in tokenizer.encode(f"a{CHAT[0]}b")


def test_added_words_that_are_no_markers_stay_words(tmp_path: Path) -> None:
    raw = train_tokenizer(CORPUS, 300)
    raw.add_tokens(["布洛芬"])
    tokenizer = read(tmp_path, raw)
    ids = tokenizer.encode("吃布洛芬吗")
    assert raw.token_to_id("布洛芬") in ids
    assert tokenizer.decode(ids) == "吃布洛芬吗"


@pytest.mark.parametrize("as_object", [False, True])
def test_tokens_named_beside_a_vocabulary_that_lacks_them_get_the_next_ids(
    tmp_path: Path, as_object: bool
) -> None:
    raw = train_tokenizer(CORPUS, 300)
    size = raw.get_vocab_size()
    named = [{"content": token} for token in CHAT] if as_object else list(CHAT)
    files = {"special_tokens_map": {"eos_token": EOS, "additional_special_tokens": named}}
    tokenizer = read(tmp_path, raw, **files, added_tokens={CHAT[0]: size, CHAT[1]: size + 1})
    assert [tokenizer.id_of(token) for token in CHAT] == [size, size + 1]
    assert tokenizer.size == size + 2
    (tmp_path / "added_tokens.json").write_text(json.dumps({CHAT[0]: size + 1}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="编号"):
        BloomTokenizer.from_folder(tmp_path)


def test_the_map_of_special_tokens_goes_before_the_tokenizer_configuration(tmp_path: Path) -> None:
    tokenizer = read(
        tmp_path,
        train_tokenizer(CORPUS, 300),
        tokenizer_config={"eos_token": PAD, "pad_token": PAD, "bos_token": None},
        special_tokens_map={"eos_token": {"content": EOS}},
    )
    assert tokenizer.eos_token_id == tokenizer.id_of(EOS)
    assert tokenizer.pad_token_id == tokenizer.id_of(PAD)


def test_truncation_and_padding_stored_in_the_file_are_off(tmp_path: Path) -> None:
    raw = train_tokenizer(CORPUS, 300)
    raw.enable_truncation(4)
    raw.enable_padding(length=20, pad_id=3)
    tokenizer = read(tmp_path, raw)
    assert tokenizer.decode(tokenizer.encode("头痛怎么办？" * 3)) == "头痛怎么办？" * 3


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "无法读取"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs"),
        (None, "没有"),
    ],
    ids=["damaged", "pointer", "missing"],
)
def test_a_bad_vocabulary_file_is_refused_by_name(tmp_path: Path, content: str | None, word: str) -> None:
    if content is not None:
        (tmp_path / FILE_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=word) as refusal:
        BloomTokenizer.from_folder(tmp_path)
    assert refusal.value.where == str(tmp_path / FILE_NAME)


def test_a_vocabulary_without_an_end_token_is_refused(tmp_path: Path) -> None:
    content = json.loads(train_tokenizer(CORPUS, 300).to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != EOS]
    with pytest.raises(CheckpointError, match=EOS):
        read(tmp_path, Tokenizer.from_str(json.dumps(content)))


@pytest.mark.slow
def test_a_vocabulary_is_the_same_each_time_it_is_trained() -> None:
    """In this process and in one whose hashes of text are others."""
    corpus = ["头痛怎么办？多喝水，注意休息。"] * 2
    program = (
        "import sys; from medchat_bloom.tiny import train_tokenizer;"
        f"sys.stdout.buffer.write(train_tokenizer({corpus!r}, 300, ['<|x|>']).to_str().encode())"
    )
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    other = run_python("-c", program, environment=child_environment(PYTHONHASHSEED=seed))
    assert other.stdout.decode() == train_tokenizer(corpus, 300, ["<|x|>"]).to_str(), other.stderr.decode()


def test_reading_a_vocabulary_imports_no_torch() -> None:
    program = (
        "import sys, medchat_bloom.plugin, medchat_bloom.plugin, medchat_bloom.tokenizer,"
        " medchat_bloom.inspection, medchat.checkpoints.stated_template;"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
