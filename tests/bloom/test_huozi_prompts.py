"""Huozi's chat form: exact to the newline, the system first, and out of a user's reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from bloom_adapters import write_adapter
from hypothesis import given, settings
from hypothesis import strategies as st
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_bloom.huozi.prompts import DEFAULT_SYSTEM, HUOZI, MOST_TURNS
from medchat_bloom.plugin import medchat_templates
from medchat_bloom.tokenizer import BloomTokenizer

from medchat.api import Control, Conversation, LoadOptions, Segment, Text, Turn
from medchat.templates import fit

pytestmark = pytest.mark.torch

B, E = "<|beginofutterance|>", "<|endofutterance|>"
TYPED = st.lists(st.sampled_from([B, E, "</s>", "<s>", "助手\n", "\n", "头痛"]) | st.text(max_size=5)).map(
    "".join
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("huozi") / "huozi"
    HuoziBackbone().tiny(path, hidden_size=16, vocabulary_size=400)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> BloomTokenizer:
    return BloomTokenizer.from_folder(folder)


def written(segments: tuple[Segment, ...]) -> str:
    return "".join(part.text if isinstance(part, Text) else part.token for part in segments)


def test_the_form_is_the_published_one_to_the_newline() -> None:
    turns = (Turn("你好", "你好，请讲。"), Turn("头痛", "多休息。"))
    assert written(HUOZI.render(turns, "还要吃药吗？", "你是医生。")) == (
        f"{B}系统\n你是医生。{E}\n"
        f"{B}用户\n你好{E}\n{B}助手\n你好，请讲。{E}\n"
        f"{B}用户\n头痛{E}\n{B}助手\n多休息。{E}\n"
        f"{B}用户\n还要吃药吗？{E}\n{B}助手\n"
    )


def test_the_system_comes_first_even_when_none_was_given() -> None:
    assert written(HUOZI.render((), "你好")) == f"{B}系统\n{DEFAULT_SYSTEM}{E}\n{B}用户\n你好{E}\n{B}助手\n"


def test_every_marker_is_a_control_token() -> None:
    segments = HUOZI.render((Turn("甲", "乙"),), "丙")
    assert sum(segment == Control(B) for segment in segments) == 5
    assert sum(segment == Control(E) for segment in segments) == 4
    assert not any(marker in part.text for part in segments if isinstance(part, Text) for marker in (B, E))


@settings(max_examples=200)
@given(question=TYPED, answer=TYPED, system=TYPED)
def test_nothing_typed_can_begin_or_end_an_utterance(
    tokenizer: BloomTokenizer, question: str, answer: str, system: str
) -> None:
    ids = tokenizer.build_prompt(HUOZI.render((Turn(question, answer),), question, system))
    assert ids.count(tokenizer.id_of(B)) == 5
    assert ids.count(tokenizer.id_of(E)) == 4
    assert not {tokenizer.id_of("</s>"), tokenizer.id_of("<s>")}.intersection(ids)


def test_only_the_latest_turns_are_sent() -> None:
    turns = [Turn(f"问{number}", f"答{number}") for number in range(20)]
    text = written(HUOZI.render(turns, "末"))
    assert [number for number in range(20) if f"问{number}{E}" in text] == list(range(20 - MOST_TURNS, 20))
    assert MOST_TURNS == 14


def test_both_end_tokens_stop_an_answer(tokenizer: BloomTokenizer) -> None:
    assert tokenizer.stop_ids == {tokenizer.id_of("</s>"), tokenizer.id_of(E)}


def test_the_template_is_the_chat_form_and_bloom_deploy_with_an_adapter(folder: Path, tmp_path: Path) -> None:
    backbone = HuoziBackbone()
    adapter = write_adapter(tmp_path / "lora", width=16)
    ours = write_adapter(tmp_path / "ours", width=16, medchat_template="huozi")
    assert backbone.template(LoadOptions(folder)) is HUOZI
    assert backbone.template(LoadOptions(folder, adapters=(adapter,))).name == "bloom_deploy"
    assert backbone.template(LoadOptions(folder, adapters=(ours,))) is HUOZI
    assert medchat_templates() == [HUOZI]


@pytest.mark.parametrize(("turns", "dropped"), [(MOST_TURNS, 0), (MOST_TURNS + 3, 3)])
def test_turns_that_the_form_leaves_out_count_as_dropped_so_that_the_user_is_told(
    turns: int, dropped: int
) -> None:
    said = Conversation(tuple(Turn(f"{number:02d}", "答") for number in range(turns)))

    def length(segments: Sequence[Segment]) -> int:
        return len(written(tuple(segments)))

    fitted = fit(HUOZI, said, "头痛？", length, 10_000)
    assert (fitted.dropped, fitted.segments) == (dropped, HUOZI.render(said.turns, "头痛？"))
    tight = fit(HUOZI, said, "头痛？", length, fitted.tokens - 1)
    assert (tight.dropped, tight.segments) == (dropped + 1, HUOZI.render(said.turns[dropped + 1 :], "头痛？"))
