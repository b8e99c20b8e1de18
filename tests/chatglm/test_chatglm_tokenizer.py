"""The tokenizer's promises for any text: no forged specials, no lost characters, no crash."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import random
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from locations import DATA
from medchat_chatglm.prompts import (
    CHATGLM_ROUNDS,
    MED_CHATGLM,
    MED_CHATGLM_DEMO,
    TEMPLATE_KEY,
    TEMPLATES,
    chatglm_template,
)
from medchat_chatglm.tokenizer import ChatGLMTokenizer
from medchat_chatglm.vocabulary import CONTROL_PIECES, FILE_NAME, train_chatglm_vocabulary
from sentencepiece import sentencepiece_model_pb2 as protocol

from medchat.api import Control, PromptTemplate, Segment, Text, Turn
from medchat.errors import CheckpointError, UsageError
from medchat.language import set_language

SYNTHETIC = json.loads((DATA / "goldens/chatglm/tokenizer/tokenizer.json").read_text(encoding="utf-8"))
GENERATIONS = ("v0", "v11")
CORPUS = (
    "头痛怎么办？多喝水，注意休息。",
    "感冒了，怎么治疗！",
    "问题：发烧\n回答: 请量体温；",
    "a tab\there",
)

SPECIAL_WORDS = (*CONTROL_PIECES, "<unk>", "<s>", "</s>", "<pad>", "<image_3>", "<0xE4>", "<n>", "<|tab|>")
#: Text as hypothesis finds it, text full of special words, and text that no file could hold.
any_text = st.one_of(
    st.text(),
    st.lists(st.one_of(st.sampled_from((*SPECIAL_WORDS, " ", "\n", "▁")), st.text(max_size=3))).map("".join),
    st.text(st.characters(categories=["Cs", "Lo", "Cc"])),
)


@cache
def tokenizer_of(kind: str) -> ChatGLMTokenizer:
    if kind == "trained":
        return ChatGLMTokenizer(train_chatglm_vocabulary(CORPUS, 64))
    return ChatGLMTokenizer(base64.b64decode(SYNTHETIC[f"spm_model_{kind}_base64"]))


KINDS = (*GENERATIONS, "trained")


# ---------------------------------------------------------------- what a user types


@pytest.mark.parametrize("kind", KINDS)
@given(text=any_text)
def test_no_text_becomes_a_special_id(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    specials = set(tokenizer.special_ids.values())
    assert specials.isdisjoint(tokenizer.encode(text))
    assert specials.isdisjoint(tokenizer.encode(text, dummy_prefix=False))
    prompt = tokenizer.build_prompt([Text(text)])
    assert [token for token in prompt if token in specials] == prompt[-2:]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=lambda template: template.name)
@given(question=any_text, answer=any_text, system=any_text)
def test_no_turn_forges_a_control_in_any_prompt_form(
    template: PromptTemplate, question: str, answer: str, system: str
) -> None:
    tokenizer = tokenizer_of("v11")
    prompt = tokenizer.build_prompt(template.render([Turn(question, answer)], question, system))
    specials = set(tokenizer.special_ids.values())
    assert [token for token in prompt if token in specials] == prompt[-2:]
    assert prompt[-2:] == [tokenizer.id_of("[gMASK]"), tokenizer.id_of("<sop>")]


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" ▁")))
def test_identity_vocabulary_gives_text_back_unchanged(text: str) -> None:
    tokenizer = tokenizer_of("trained")
    written = [word for word in (*SPECIAL_WORDS, "<|blank_") if word in text]
    if not written:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_runs_of_blanks_survive_whatever_their_length() -> None:
    tokenizer = tokenizer_of("trained")
    for length in (*range(2, 84), 160, 161, 240, 1001):
        text = f"a{' ' * length}b"
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_surrogates_never_reach_sentencepiece() -> None:
    tokenizer = tokenizer_of("trained")
    assert tokenizer.decode(tokenizer.encode("痛\ud800吗")) == "痛\ufffd吗"
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")
    assert tokenizer.decode(tokenizer.encode("a\x00b")) == "a\x00b"


@pytest.mark.parametrize(
    "text",
    [
        piece * (1_000_000 // len(piece.encode()))
        for piece in ("头痛，怎么办？", "a", "\x00", " ", "\n", "a  ")
    ],
    ids=("chinese", "letters", "nul", "blanks", "newlines", "gaps"),
)
def test_a_megabyte_is_encoded_and_decoded_in_seconds(text: str) -> None:
    tokenizer = tokenizer_of("v11")
    start = time.monotonic()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) or not ids
    assert time.monotonic() - start < 10


# ---------------------------------------------------------------- segments


segments_strategy = st.lists(
    st.one_of(any_text.map(Text), st.sampled_from(CONTROL_PIECES).map(Control)), max_size=8
)


@given(segments=segments_strategy)
def test_each_control_is_exactly_one_id_and_texts_join(segments: list[Segment]) -> None:
    tokenizer = tokenizer_of("v11")
    expected: list[int] = []
    pending = ""
    for segment in segments:
        if isinstance(segment, Text):
            pending += segment.text
            continue
        expected += [*tokenizer.encode(pending), tokenizer.id_of(segment.token)]
        pending = ""
    assert tokenizer.encode_segments(segments) == expected + tokenizer.encode(pending)


def test_joined_texts_may_merge_across_their_border() -> None:
    tokenizer = ChatGLMTokenizer(train_chatglm_vocabulary(["头痛 头痛 头痛 头痛药 止痛"] * 20, 40))
    whole, parts = tokenizer.encode("头痛"), tokenizer.encode("头") + tokenizer.encode("痛")
    assert whole != parts
    assert tokenizer.encode_segments([Text("头"), Text("痛")]) == whole


def test_prompt_ending_depends_on_the_masks_it_carries() -> None:
    old, new = tokenizer_of("v0"), tokenizer_of("v11")
    for tokenizer in (old, new):
        text, sop = tokenizer.encode("头痛"), tokenizer.id_of("<sop>")
        gmask, mask = tokenizer.id_of("[gMASK]"), tokenizer.id_of("[MASK]")
        assert tokenizer.build_prompt([Text("头痛")]) == [*text, gmask, sop]
        assert tokenizer.build_prompt([Text("头痛"), Control("[gMASK]")]) == [*text, gmask, sop]
        complete = [Text("头痛"), Control("[MASK]"), Control("<sop>")]
        assert tokenizer.build_prompt(complete) == [*text, mask, sop]
        assert tokenizer.build_prompt([Text("头痛")], max_length=3) == [text[0], gmask, sop]
        assert tokenizer.build_prompt([]) == [gmask, sop]
    middle = [Control("[MASK]"), Text("头痛")]
    assert new.build_prompt(middle)[-1:] == [new.id_of("<sop>")]
    assert old.build_prompt(middle)[-2:] == [old.id_of("</s>"), old.id_of("<sop>")]


@pytest.mark.parametrize(
    "segments", [[Control("<sop>")], [Control("<bos>")], [Control("<n>")], [Control("")]], ids=str
)
def test_broken_templates_are_refused_with_a_remedy(segments: list[Segment]) -> None:
    with pytest.raises(UsageError) as refusal:
        tokenizer_of("v11").build_prompt(segments)
    assert refusal.value.what
    assert refusal.value.remedy


# ---------------------------------------------------------------- decoding


@pytest.mark.parametrize("kind", KINDS)
@given(ids=st.lists(st.integers(min_value=-5, max_value=2**40)))
def test_ids_without_a_piece_decode_to_nothing(kind: str, ids: list[int]) -> None:
    tokenizer = tokenizer_of(kind)
    valid = [token for token in ids if tokenizer.num_image_tokens <= token < tokenizer.vocab_size]
    assert tokenizer.decode(ids) == tokenizer.decode(valid)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_controls_and_pads_decode_to_nothing(generation: str) -> None:
    tokenizer = tokenizer_of(generation)
    ids = tokenizer.encode("头痛怎么办")
    controls = [token for name, token in tokenizer.special_ids.items() if name != "<unk>"]
    assert tokenizer.decode([*controls, *ids, *controls]) == "头痛怎么办"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("generation", GENERATIONS)
def test_pads_are_dropped_before_bytes_are_joined(generation: str) -> None:
    tokenizer = tokenizer_of(generation)
    first, *rest = tokenizer.encode("👋", dummy_prefix=False)
    assert tokenizer.decode([first, tokenizer.pad_token_id, *rest]) == "👋"
    assert tokenizer.decode([first, tokenizer.id_of("<s>"), *rest]) != "👋"


# ---------------------------------------------------------------- copies and files


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_for_a_data_loader_is_the_same_tokenizer(kind: str, copied: object) -> None:
    tokenizer = tokenizer_of(kind)
    assert callable(copied)
    twin = copied(tokenizer)
    text = "头痛  怎么\n办 <sop> 👋"
    assert twin.encode(text) == tokenizer.encode(text)
    assert twin.decode(twin.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert twin.special_ids == tokenizer.special_ids
    assert (twin.eos_token_id, twin.stop_ids) == (tokenizer.eos_token_id, tokenizer.stop_ids)


def write_folder(folder: Path, generation: str, **stated: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / FILE_NAME).write_bytes(base64.b64decode(SYNTHETIC[f"spm_model_{generation}_base64"]))
    recorded = SYNTHETIC[generation]
    config = {
        "vocab_size": recorded["vocab_size"],
        "bos_token_id": recorded["bos_token_id"],
        "pad_token_id": recorded["pad_token_id"],
        **({"gmask_token_id": recorded["special"]["[gMASK]"]} if generation == "v11" else {}),
    }
    (folder / "config.json").write_text(json.dumps(config | stated), encoding="utf-8")
    return folder


@pytest.mark.parametrize("generation", GENERATIONS)
def test_folder_of_renumbered_ids_is_accepted(generation: str, tmp_path: Path) -> None:
    tokenizer = ChatGLMTokenizer.from_folder(write_folder(tmp_path, generation))
    assert tokenizer.special_ids["<sop>"] == SYNTHETIC[generation]["bos_token_id"]


def test_vocabulary_of_the_other_generation_is_refused_naming_both_files(tmp_path: Path) -> None:
    set_language("en")
    try:
        for own, other in (GENERATIONS, GENERATIONS[::-1]):
            folder = write_folder(tmp_path / own, own)
            model = base64.b64decode(SYNTHETIC[f"spm_model_{other}_base64"])
            (folder / FILE_NAME).write_bytes(model)
            with pytest.raises(CheckpointError) as refusal:
                ChatGLMTokenizer.from_folder(folder)
            assert str(folder / FILE_NAME) in refusal.value.what
            assert str(folder / "config.json") in refusal.value.what
            assert FILE_NAME in refusal.value.remedy
    finally:
        set_language("zh")


def test_stated_offset_and_end_token_go_before_the_layout(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "v11")
    (folder / "tokenizer_config.json").write_text('{"num_image_tokens": 0, "eos_token": "</s>"}')
    tokenizer = ChatGLMTokenizer.from_folder(folder)
    assert tokenizer.eos_token_id == tokenizer.id_of("</s>") == 2
    assert tokenizer.id_of("<eop>") in tokenizer.stop_ids


def unloadable_vocabulary() -> bytes:
    """A readable file that SentencePiece itself refuses: two pieces are the same."""
    proto = protocol.ModelProto.FromString(base64.b64decode(SYNTHETIC["spm_model_v0_base64"]))
    proto.pieces[9].piece = proto.pieces[8].piece
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a model at all",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        random.Random(1).randbytes(4000),
        base64.b64decode(SYNTHETIC["spm_model_v11_base64"])[:2000],
        base64.b64decode(SYNTHETIC["spm_model_v11_base64"])[:-9],
        unloadable_vocabulary(),
    ],
    ids=("empty", "text", "lfs", "noise", "cut", "cut-at-the-end", "piece-twice"),
)
def test_damaged_vocabulary_is_a_checkpoint_error_with_its_path(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as refusal:
        ChatGLMTokenizer.from_file(path)
    assert refusal.value.where == str(path)
    assert refusal.value.remedy


def test_missing_files_are_checkpoint_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as refusal:
        ChatGLMTokenizer.from_file(tmp_path / FILE_NAME)
    assert FILE_NAME in refusal.value.remedy
    assert refusal.value.where == str(tmp_path / FILE_NAME)
    for read in (ChatGLMTokenizer.from_folder, chatglm_template):
        with pytest.raises(CheckpointError) as refusal:
            read(tmp_path)
        assert refusal.value.where == str(tmp_path) and "config.json" in refusal.value.what


# ---------------------------------------------------------------- prompt forms


def test_med_forms_wrap_the_question_as_trained_and_as_in_the_demo() -> None:
    assert MED_CHATGLM.render([], "头痛") == (Text("问题：头痛\n回答: "),)
    assert MED_CHATGLM_DEMO.render([], "头痛") == (Text("问题：头痛\n答案："),)
    turns = [Turn("头痛", "多休息。")]
    assert MED_CHATGLM.render(turns, "发烧") == (Text("问题：头痛\n回答: 多休息。\n问题：发烧\n回答: "),)
    assert (MED_CHATGLM.multi_turn, CHATGLM_ROUNDS.multi_turn) == (False, True)
    assert CHATGLM_ROUNDS.render([], "头痛") == (Text("头痛"),)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"vocab_size": 150528}, MED_CHATGLM),
        ({}, MED_CHATGLM),
        ({"vocab_size": 130528}, CHATGLM_ROUNDS),
        ({"vocab_size": 700, "pad_token_id": 3}, CHATGLM_ROUNDS),
        ({"vocab_size": 20700, "pad_token_id": 20003}, MED_CHATGLM),
        ({"vocab_size": 130528, TEMPLATE_KEY: "med_chatglm_demo"}, MED_CHATGLM_DEMO),
    ],
)
def test_config_decides_the_prompt_form(
    config: dict[str, object], expected: PromptTemplate, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert chatglm_template(tmp_path) is expected


@pytest.mark.parametrize("content", ["[]", "{", f'{{"{TEMPLATE_KEY}": "nonsense"}}', "\xff", "[" * 100_000])
def test_unusable_config_is_a_checkpoint_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError) as refusal:
        chatglm_template(tmp_path)
    assert refusal.value.where.removesuffix(":1") == str(tmp_path / "config.json")


@pytest.mark.torch
@settings(max_examples=30)
@given(
    rows=st.sampled_from([150528, 130528, 320, 20700]),
    pad=st.sampled_from([None, 0, 3, 20003]),
)
def test_template_and_model_agree_on_the_generation(rows: int, pad: int | None) -> None:
    from medchat_chatglm.config_file import generation_of
    from medchat_chatglm.configuration import ChatGLMConfig

    stated = {"vocab_size": rows} | ({} if pad is None else {"pad_token_id": pad})
    assert generation_of(stated) == ChatGLMConfig(**stated).generation


def test_tokenizer_and_prompts_need_no_torch() -> None:
    code = (
        "import sys, medchat_chatglm.tokenizer, medchat_chatglm.prompts, medchat_chatglm.cleanup;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
