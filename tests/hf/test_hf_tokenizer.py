"""HFTokenizer on vocabularies of every kind, held against transformers' own on the same files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from medchat.api import Control, Text
from medchat.errors import CheckpointError
from medchat.hf.tiny import TINY_CORPUS, train_byte_level
from medchat.hf.tokenizer import HFTokenizer

TEXTS = [
    "头痛怎么办？",
    "a",
    " two  blanks ",
    "line\n\nline",
    "🙂 12345 don't",
    "",
    "\n",
    "<s>",
    "x</s><end>y<unk>",
]


def with_border(scheme: str) -> Tokenizer:
    """A vocabulary in SentencePiece's way: a word border in front of a text, bytes for unknown characters."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if scheme == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False
    )
    tokenizer.train_from_iterator(TINY_CORPUS, trainer)
    stated = json.loads(tokenizer.to_str())
    stated["added_tokens"] = stated["added_tokens"][:3]  # the bytes are ordinary pieces
    tokenizer = Tokenizer.from_str(json.dumps(stated))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def byte_level() -> Tokenizer:
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return train_byte_level(TINY_CORPUS, 500, cut, ("<unk>", "<s>", "</s>"))


def greedy_of_blanks() -> Tokenizer:
    """As Phi-3 has it: a control token that takes the blanks behind it, one that takes those before it."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens([AddedToken("<end>", rstrip=True), AddedToken("<begin>", lstrip=True)])
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte level": byte_level,
    "border first": lambda: with_border("first"),
    "border always": lambda: with_border("always"),
    "border by the normaliser": lambda: with_border("prepend"),
    "greedy of blanks": greedy_of_blanks,
}


@pytest.fixture(params=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path, KINDS[request.param]())


def write(path: Path, tokenizer: Tokenizer, **stated: object) -> Path:
    (path / "tokenizer.json").write_text(tokenizer.to_str())
    roles = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "TokenizersBackend",
    }
    (path / "tokenizer_config.json").write_text(json.dumps({**roles, **stated}))
    return path


@pytest.mark.parametrize("text", TEXTS[:-2])
def test_a_prompt_of_text_alone_has_the_ids_of_the_library(folder: Path, text: str) -> None:
    library = PreTrainedTokenizerFast.from_pretrained(folder)
    assert HFTokenizer.from_folder(folder).build_prompt([Text(text)]) == library(text)["input_ids"]


@pytest.mark.parametrize("text", TEXTS[:-2])
def test_a_prompt_with_control_tokens_has_the_ids_of_the_library(folder: Path, text: str) -> None:
    ours, library = HFTokenizer.from_folder(folder), PreTrainedTokenizerFast.from_pretrained(folder)
    for token in ours.special_ids:
        segments = [
            Text(f"q {text}"),
            Control(token),
            Text(text),
            Text("\n\n"),
            Control("</s>"),
            Text(f" {text}"),
        ]
        written = "".join(one.token if isinstance(one, Control) else one.text for one in segments)
        assert ours.build_prompt(segments) == library(written, add_special_tokens=False)["input_ids"]


def test_no_text_encodes_to_a_control_token(folder: Path) -> None:
    ours = HFTokenizer.from_folder(folder)
    for token in ours.special_ids:
        for text in (token, f"a{token}", f"{token}b", f"头{token}头", token * 3):
            assert not {*ours.encode(text)} & {*ours.special_ids.values()}
            assert ours.decode(ours.encode(text)).strip() == text


@pytest.mark.parametrize("text", [text for text in TEXTS if text.strip()])
def test_an_answer_is_encoded_as_it_is_decoded_behind_a_prompt(folder: Path, text: str) -> None:
    ours = HFTokenizer.from_folder(folder)
    before = ours.build_prompt([Text("问：")])
    assert ours.decode([*before, *ours.encode(text)]) == "问：" + text


@pytest.mark.parametrize(("stated", "front"), [(True, (1,)), (False, ()), (None, ())])
def test_a_folder_may_state_what_stands_in_front(
    tmp_path: Path, stated: bool | None, front: tuple[int, ...]
) -> None:
    ours = HFTokenizer.from_folder(write(tmp_path, byte_level(), add_bos_token=stated))
    assert tuple(ours.build_prompt([Text("a")])) == (*front, *ours.encode("a"))
    assert ours.build_prompt([Control("</s>"), Text("a")]) == [2, *ours.encode("a")]


def test_an_unknown_regular_expression_is_refused_until_a_family_lists_it(tmp_path: Path) -> None:
    slow = r"(a+)+$"
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(slow), "isolated")
    folder = write(tmp_path, tokenizer)
    with pytest.raises(CheckpointError, match=r"\(a\+\)\+\$"):
        HFTokenizer.from_folder(folder)

    class Known(HFTokenizer):
        expressions = frozenset({slow})

    assert Known.from_folder(folder).size == 500


def test_a_long_expression_that_is_refused_stands_whole_in_the_cause_that_debug_shows(tmp_path: Path) -> None:
    long = "|".join(f"(x{number}+)+" for number in range(60))
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(long), "isolated")
    with pytest.raises(CheckpointError) as refused:
        HFTokenizer.from_folder(write(tmp_path, tokenizer))
    assert long not in refused.value.what and "--debug" in refused.value.remedy
    assert long in str(refused.value.__cause__)


def test_a_vocabulary_without_an_end_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, byte_level(), eos_token=None)
    with pytest.raises(CheckpointError, match="eos_token"):
        HFTokenizer.from_folder(folder)
