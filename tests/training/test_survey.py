"""What is shown of the data before training, with the real vocabularies and the published data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from built_features import build_features
from hypothesis import given
from hypothesis import strategies as st
from locations import SHARED
from medchat_bloom.tokenizer import BloomTokenizer
from medchat_chatglm.collators import MedCollator, TrainingSample
from medchat_chatglm.prompts import MED_CHATGLM
from medchat_chatglm.tokenizer import ChatGLMTokenizer
from medchat_llama.prompts import MED_ALLDATA
from medchat_llama.tokenizer import LlamaTokenizer

from medchat.api import Example, PreviewPiece, Segment
from medchat.inference.detokenizer import StreamText
from medchat.sft_job.data import read_training_data
from medchat.templates import load_template
from medchat.training.features import Feature
from medchat.training.survey import preview, survey

pytestmark = pytest.mark.torch

real_files = pytest.mark.skipif(
    not ((SHARED / "data").is_dir() and (SHARED / "tokenizers").is_dir()),
    reason="the published data and vocabularies are not here",
)
UNCUT = 1 << 20
END = 0


@dataclass(frozen=True)
class Encoder:
    tokenizer: Any

    def encode_prompt(self, segments: Sequence[Segment]) -> list[int]:
        return list(self.tokenizer.build_prompt(segments))

    def encode_answer(self, answer: str) -> list[int]:
        return [*self.tokenizer.encode(answer), self.tokenizer.eos_token_id]


class ByteVocabulary:
    """Every byte an id: what a Chinese character is in byte-level vocabularies at worst."""

    special_ids: Mapping[str, int] = MappingProxyType({"<end>": END, "<begin>": 1})

    def stream(self) -> StreamText:
        return StreamText(lambda ids: bytes(n - 2 for n in ids if n > 1).decode("utf-8", "replace"))


def byte_ids(text: str) -> tuple[int, ...]:
    return tuple(byte + 2 for byte in text.encode())


whole_texts = st.text().filter(lambda text: "\ufffd" not in text)


@given(whole_texts, whole_texts)
def test_preview_pieces_join_to_the_text_and_garble_nothing(prompt: str, answer: str) -> None:
    labelled = [(1, False), *((n, False) for n in byte_ids(prompt)), *((n, True) for n in byte_ids(answer))]
    pieces = preview(ByteVocabulary(), [*labelled, (END, True)])
    assert (pieces[0], pieces[-1]) == (
        PreviewPiece("<begin>", False, special=True),
        PreviewPiece("<end>", True, special=True),
    )
    plain = [piece for piece in pieces if not piece.special]
    assert "".join(piece.text for piece in plain if piece.learned) == answer
    assert "".join(piece.text for piece in plain if not piece.learned) == prompt


def test_a_survey_counts_what_the_features_are() -> None:
    class Bytes:
        def encode_prompt(self, segments: Sequence[Segment]) -> list[int]:
            return [1, *byte_ids("".join(getattr(segment, "text", "") for segment in segments))]

        def encode_answer(self, answer: str) -> list[int]:
            return [*byte_ids(answer), END]

    examples = [Example("ab", "cde"), Example("x" * 40, "y" * 30), Example("z" * 99, "z", where="f:3")]
    made = build_features(examples, load_template("bare"), Bytes(), 50, allow_left_out=True)
    shown = survey(made, ByteVocabulary(), template="bare", max_length=50)
    assert (shown.records, shown.lengths, shown.longest) == (3, (7, 72, 102), 50)
    assert (shown.cut_questions, shown.cut_answers, shown.unlabelled) == (1, 1, ("f:3",))
    assert (shown.tokens, shown.label_tokens) == (7 + 50, 4 + 29)
    assert [piece.text for piece in shown.preview] == ["<begin>", "ab", "cde", "<end>"]


def test_the_preview_shows_the_labels_of_the_collator_that_will_train() -> None:
    collator = MedCollator(END)

    def collate(features: Sequence[Feature]) -> dict[str, torch.Tensor]:
        return collator([TrainingSample((*f.prompt_ids, *f.answer_ids), len(f.prompt_ids)) for f in features])

    class Bytes:
        def encode_prompt(self, segments: Sequence[Segment]) -> list[int]:
            return [*byte_ids("".join(getattr(segment, "text", "") for segment in segments)), 1, 1]

        def encode_answer(self, answer: str) -> list[int]:
            return [*byte_ids(answer), END]

    made = build_features([Example("问", "答")], load_template("bare"), Bytes(), 50)
    shown = survey(made, ByteVocabulary(), template="bare", max_length=50, collate=collate).preview
    assert [(piece.text, piece.learned) for piece in shown] == [
        ("问", False),
        ("<begin>", False),
        ("<begin>", True),
        ("答", True),
        ("<end>", True),
        ("<end>", True),
    ]


# ------------------------------------------------------------ the real vocabularies and data


@cache
def examples(name: str) -> tuple[Example, ...]:
    return read_training_data(SHARED / "data" / name).examples


@cache
def llama(name: str) -> Encoder:
    return Encoder(LlamaTokenizer.from_file(SHARED / "tokenizers" / name / "tokenizer.model"))


@cache
def chatglm() -> Encoder:
    return Encoder(ChatGLMTokenizer.from_folder(SHARED / "tokenizers" / CHATGLM))


KNOWLEDGE, LITERATURE = "llama_data.json", "liver_cancer.json"
SMALL, LARGE, CHATGLM = "llama", "chinese-alpaca", "chatglm-6b-icetk"


@real_files
@pytest.mark.parametrize(
    ("vocabulary", "data", "truncated", "unanswered"),
    [
        (SMALL, KNOWLEDGE, "22.9%", 2),
        (SMALL, LITERATURE, "90.7%", 676),
        (LARGE, KNOWLEDGE, "0.05%", 0),
        (LARGE, LITERATURE, "47.6%", 269),
    ],
)
def test_lengths_reproduce_what_the_seeds_cutoff_destroyed(
    vocabulary: str, data: str, truncated: str, unanswered: int
) -> None:
    # docs/specs/training.md, "Truncation": the whole record in med_template, all past the 256th token gone.
    as_one = [
        replace(example, question=example.dialogue or example.question, turns=(), dialogue="")
        for example in examples(data)
    ]
    made = build_features(as_one, load_template("med_template"), llama(vocabulary), UNCUT)
    over = sum(length > 256 for length in made.lengths) / len(as_one)
    assert f"{over:.{len(truncated.rstrip('%').split('.')[1])}%}" == truncated
    assert sum(len(feature.prompt_ids) >= 256 for feature in made.features) == unanswered


@real_files
@pytest.mark.parametrize(
    ("vocabulary", "data", "template", "too_long", "cut"),
    [
        (SMALL, KNOWLEDGE, "med_template", 1985, (0, 1985, 760)),
        (SMALL, LITERATURE, "literature_template", 915, (707, 663, 512)),
        (LARGE, KNOWLEDGE, "med_template", 4, (0, 3, 4)),
        (LARGE, LITERATURE, "literature_template", 483, (483, 0, 0)),
        (CHATGLM, KNOWLEDGE, "med_chatglm", 1, (0, 0, 1)),
        (CHATGLM, LITERATURE, "med_chatglm", 279, (279, 0, 0)),
    ],
)
def test_our_truncation_leaves_every_published_record_its_label_in_seconds(
    vocabulary: str, data: str, template: str, too_long: int, cut: tuple[int, int, int]
) -> None:
    # The table of docs/measurements.md.
    encoder, records = chatglm() if vocabulary == CHATGLM else llama(vocabulary), examples(data)
    form = MED_CHATGLM if vocabulary == CHATGLM else load_template(template)
    started = time.process_time()
    made = build_features(records, form, encoder, 256)
    assert time.process_time() - started < 20  # about 2 on one core
    assert not made.left_out and len(made.features) == len(records)
    assert sum(length > 256 for length in made.lengths) == too_long
    assert (made.lost_turns, made.cut_questions, made.cut_answers) == cut
    for feature in made.features:
        assert feature.length <= 256
        assert feature.answer_ids[-1] == encoder.tokenizer.eos_token_id and len(feature.answer_ids) >= 2


@real_files
@pytest.mark.parametrize("data", [KNOWLEDGE, LITERATURE, "med_chatglm_train.txt"])
def test_previews_of_published_records_read_as_the_prompt_and_the_answer(data: str) -> None:
    for number in (0, 17, 171):
        example = examples(data)[number]
        for template in (load_template("literature_template"), MED_ALLDATA):
            tokenizer = llama(SMALL).tokenizer
            made = build_features([example], template, llama(SMALL), UNCUT)
            pieces = survey(made, tokenizer, template=template.name, max_length=UNCUT).preview
            begin, prompt, answer, end = pieces
            assert (begin.text, end.text, end.learned) == ("<s>", "</s>", True)
            assert answer == PreviewPiece(example.answer, learned=True)
            assert example.question in prompt.text and "\ufffd" not in prompt.text


@real_files
@pytest.mark.parametrize("folder", ["chatglm-6b-icetk", "chatglm-6b"])
def test_a_chatglm_preview_names_the_mask_and_the_start_of_the_answer(folder: str) -> None:
    tokenizer = ChatGLMTokenizer.from_folder(SHARED / "tokenizers" / folder)
    example = Example("头痛怎么办？", "多休息\n少熬夜")
    made = build_features([example], MED_CHATGLM, Encoder(tokenizer), 256)
    pieces = survey(made, tokenizer, template="med_chatglm", max_length=256).preview
    assert [piece.text for piece in pieces if piece.special][:2] == ["[gMASK]", "<sop>"]
    assert "".join(piece.text for piece in pieces if piece.learned) == "多休息\n少熬夜" + tokenizer.eos_token


def test_a_bloom_preview_is_not_garbled(tmp_path: Path) -> None:
    from medchat_bloom.backbone import BloomBackbone

    BloomBackbone().tiny(tmp_path / "tiny")
    tokenizer = BloomTokenizer.from_folder(tmp_path / "tiny")
    example = Example("龘靐齉？", "齾🩺，饕餮。")  # nothing a tiny vocabulary has merges for
    made = build_features([example], load_template("bloom_deploy"), Encoder(tokenizer), 256)
    prompt, answer, end = survey(made, tokenizer, template="x", max_length=256).preview
    assert "龘靐齉？" in prompt.text
    assert (answer.text, end.text) == ("齾🩺，饕餮。", "</s>")
