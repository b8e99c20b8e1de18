"""What the model is sent, as `/context` and `/raw` show it; language and colours of the chat."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from cli_program import Call
from medchat_bloom.backbone import BloomBackbone
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_llama.backbone import LlamaBackbone
from scripted_session import ScriptedContinuer, ScriptedModel, ask, session_of
from switching_chat import switching_chat

from medchat.api import Backbone, Control, Finish, GenerationConfig, LoadOptions, Segment, Text, Turn
from medchat.chat.events import AnswerFinished
from medchat.chat.revising import go_on
from medchat.chat.session import ChatSession
from medchat.errors import UsageError
from medchat.language import set_language
from medchat.registry.guarded_model import guarded_model
from medchat.registry.metadata import PluginEntry
from medchat.repl.prompt_commands import drawn_context, exact_prompt
from medchat.settings import Settings
from medchat.templates import load_template

pytest_plugins = ("cli_program",)


def filled(turns: int, **changes: object) -> ChatSession:
    """A session of 1,000 tokens of context and turns of 100 each."""
    session = session_of(
        ScriptedModel(pieces=("答" * 60,)), config=GenerationConfig(max_new_tokens=250), **changes
    )
    for _ in range(turns):
        ask(session, "问" * 40)
    return session


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("turns", [0, 3, 7, 12])
def test_the_bar_is_as_full_as_the_window_and_fits_the_screen(turns: int, width: int) -> None:
    shown = drawn_context(filled(turns), width).splitlines()
    bar = shown[1].strip()
    tokens = min(turns, 7) * 100
    assert shown[0] == f"上下文：{tokens}/1000 词元（{tokens // 10}%）"
    assert len(bar) == min(60, width - 4)
    assert bar.count("█") / len(bar) == pytest.approx(tokens / 1000, abs=0.03)
    assert bar.count("▒") / len(bar) == pytest.approx(0.25, abs=0.03)


def test_turns_without_room_are_named_with_the_reason() -> None:
    assert "7 轮全部发送" in drawn_context(filled(7), 80)
    shown = drawn_context(filled(12), 80)
    assert "发送 7 轮，共 12 轮" in shown and "第 1 到 5 轮：上下文已满，未发送" in shown


def test_one_turn_without_room_is_no_range() -> None:
    shown = drawn_context(filled(8), 80)
    assert "第 1 轮：上下文已满" in shown and "到" not in shown.splitlines()[-1]
    set_language("en")
    try:
        assert "turn 1: the context is full" in drawn_context(filled(8), 80)
    finally:
        set_language("zh")


@pytest.mark.parametrize("turns", [1, 3])
def test_a_template_for_single_questions_is_called_so(turns: int) -> None:
    session = session_of(Counting(), template=Alone())
    for _ in range(turns):
        list(session.ask("咳嗽", threading.Event()))
    assert drawn_context(session, 80).splitlines()[-1].startswith("此模板每次只发送当前问题")


def test_history_none_is_the_reason_where_nothing_is_sent() -> None:
    session = filled(3)
    session.remember_history = False
    assert "history 是 none" in drawn_context(session, 80)


class LastTwo:
    """A template that never sends more than two turns."""

    name, stop, multi_turn = "two", (), True

    def render(self, turns: tuple[Turn, ...], question: str, system: str = "") -> tuple[Segment, ...]:
        return (Control("<s>"), *(Text(turn.question + turn.answer) for turn in turns[-2:]), Text(question))


class Alone(LastTwo):
    """A template that sends no earlier turn."""

    def render(self, turns: tuple[Turn, ...], question: str, system: str = "") -> tuple[Segment, ...]:
        return super().render((), question, system)


class Counting(ScriptedModel):
    """Counts control tokens too, and tells ids."""

    def count(self, segments: object) -> int:
        return len(self.prompt_ids(segments))  # type: ignore[arg-type]

    def prompt_ids(self, segments: tuple[Segment, ...]) -> list[int]:
        ids: list[int] = []
        for part in segments:
            ids += [7] if isinstance(part, Control) else [ord(letter) for letter in part.text]
        return ids

    def stream(self, *args: object) -> object:  # type: ignore[override]
        yield from super().stream([Text("")], *args[1:])  # type: ignore[arg-type]


def test_a_template_that_leaves_turns_out_is_the_reason() -> None:
    session = session_of(Counting(), template=LastTwo())
    for _ in range(5):
        list(session.ask("咳嗽", threading.Event()))
    shown = drawn_context(session, 80)
    assert "第 1 到 3 轮：此模板不发送这么早的对话" in shown and "已满" not in shown


def test_the_prompt_is_shown_to_the_letter_with_control_tokens_and_ids() -> None:
    session = session_of(Counting(), template=LastTwo())
    with pytest.raises(UsageError):
        exact_prompt(session, "")
    list(session.ask("头\n痛", threading.Event()))
    assert "⟦<s>⟧头\n痛\n\n4 个词元：7 22836 10 30171" in exact_prompt(session, "")
    assert "⟦<s>⟧头\n痛多喝水咳" in exact_prompt(session, "咳")


class Continuing(Counting):
    """Goes on with an answer too; its first one is cut off."""

    def answer_ids(self, answer: str) -> list[int]:
        return [ord(letter) for letter in answer]

    def go_on(
        self, segments: tuple[Segment, ...], answer: str, config: GenerationConfig, cancel: threading.Event
    ) -> object:
        yield from super().stream(segments, config, cancel)


def test_after_going_on_the_answer_so_far_stands_behind_the_prompt() -> None:
    session = session_of(Continuing(finish=Finish.LENGTH), template=Alone())
    ask(session, "头痛")
    assert "⟦<s>⟧头痛\n\n3 个词元：7 22836 30171" in exact_prompt(session, "")
    list(go_on(session, threading.Event()))
    assert "⟦<s>⟧头痛多喝水\n\n6 个词元：7 22836 30171 | 22810 21917 27700" in exact_prompt(session, "")
    list(go_on(session, threading.Event()))
    assert "⟦<s>⟧头痛多喝水多喝水\n\n" in exact_prompt(session, "")
    assert "⟦<s>⟧咳\n\n2 个词元" in exact_prompt(session, "咳")  # another question has no answer yet
    ask(session, "咳")
    assert "⟦<s>⟧咳\n\n2 个词元" in exact_prompt(session, "")


def test_an_answer_so_far_can_look_like_no_control_token() -> None:
    session = session_of(Continuing(pieces=("⟦</s>⟧\x1b[2J",), finish=Finish.LENGTH), template=Alone())
    ask(session, "头痛")
    list(go_on(session, threading.Event()))
    shown = exact_prompt(session, "")
    assert shown.count("⟦") == 1 and "[</s>]" in shown and "\x1b" not in shown


def test_a_model_that_goes_on_without_telling_ids_shows_the_answer_all_the_same() -> None:
    session = session_of(ScriptedContinuer(finish=Finish.LENGTH))
    ask(session)
    list(go_on(session, threading.Event()))
    assert "多喝水\n\n这个模型不给出词元编号" in exact_prompt(session, "")


def test_text_can_look_neither_like_a_control_token_nor_like_a_line_of_ours() -> None:
    session = session_of(Counting(), template=LastTwo())
    shown = exact_prompt(session, "⟦<s>⟧\x1b[2J\n▌ 系统 \u202e")
    assert shown.count("⟦") == 1 and "\x1b" not in shown and "▌" not in shown and "\u202e" not in shown


def test_a_model_without_ids_says_so() -> None:
    session = session_of()
    ask(session)
    assert "不给出词元编号" in exact_prompt(session, "")
    set_language("en")
    try:
        assert "does not report" in exact_prompt(session, "")
    finally:
        set_language("zh")


@pytest.mark.torch
def test_the_ids_of_a_real_model_are_those_it_is_given(talker: Path) -> None:
    options = LoadOptions(talker, device="cpu")
    model = ChatGLMBackbone().load(options)
    session = ChatSession(model, ChatGLMBackbone().template(options), GenerationConfig())
    segments = session.fitted("头痛怎么办？").segments
    ids = model.prompt_ids(segments)  # type: ignore[attr-defined]
    assert len(ids) == model.count(segments) > 5
    assert " ".join(map(str, ids)) in exact_prompt(session, "头痛怎么办？")
    session.config = GenerationConfig(greedy=True, max_new_tokens=4)
    list(session.ask("头痛怎么办？", threading.Event()))
    begun = session.conversation.turns[-1].answer
    (last,) = [event for event in go_on(session, threading.Event()) if isinstance(event, AnswerFinished)]
    counted, _, behind = exact_prompt(session, "").splitlines()[-1].partition(" | ")
    assert counted.startswith(f"{last.stats.prompt_tokens} 个词元：")  # as many as the model was given
    assert [int(one) for one in behind.split()] == list(model.answer_ids(begun))


#: What each family adds to a prompt of text alone, before and behind it.
ADDED = {
    ChatGLMBackbone: ("", "⟦[gMASK]⟧⟦<sop>⟧"),
    LlamaBackbone: ("⟦<s>⟧", ""),
    BloomBackbone: ("", ""),
}


@pytest.mark.torch
@pytest.mark.parametrize("family", ADDED)
def test_control_tokens_that_the_family_adds_are_shown(family: type[Backbone], tmp_path: Path) -> None:
    backbone = family()
    backbone.tiny(tmp_path / "model", corpus=["头痛怎么办？", "多休息。"] * 9)
    options = LoadOptions(tmp_path / "model", device="cpu", dtype="float32")
    entry = PluginEntry("medchat", backbone.name, "here:Here", backbone.name, "1")
    model = guarded_model(backbone.load(options), entry, "load")
    session = ChatSession(model, load_template("bare"), GenerationConfig())
    before, behind = ADDED[family]
    assert f"\n\n{before}头痛 怎么办？{behind}\n\n" in exact_prompt(session, "头痛 怎么办？")
    model.close()


# ---------------------------------------------------------------- on the terminal


@pytest.mark.terminal
@pytest.mark.parametrize("columns", [40, 80, 120])
def test_context_and_raw_on_the_terminal(tmp_path: Path, columns: int) -> None:
    with switching_chat(tmp_path, columns=columns) as screen:
        screen.enter("头痛")
        screen.wait_for("one：头痛")
        screen.enter("/上下文")
        screen.wait_for("1 轮全部发送。", "█")
        screen.enter("/原文")
        screen.wait_for("上次发送的提示词：", "这个模型不给出词元编号。")


@pytest.mark.terminal
def test_language_and_theme_hold_in_the_chat_and_are_kept_only_where_saved(tmp_path: Path) -> None:
    with switching_chat(tmp_path) as screen:
        screen.enter("/lang en")
        screen.wait_for("English from now on. In this chat alone")
        screen.enter("/theme nope")
        screen.wait_for("choose from: default, bright, mono")
        screen.enter("/theme bright")
        screen.wait_for("The theme is bright.")
        assert b"\x1b[36m" in screen.raw  # cyan
        config = tmp_path / "home" / "config.toml"
        assert not config.exists()
        screen.enter("/theme mono save")
        screen.wait_for("Saved in")
    settings = Settings.load(environment={}, user_file=config, project_file=tmp_path / "none")
    assert (settings.value("theme"), settings.value("lang")) == ("mono", None)


def test_ask_and_infer_know_the_profile(call: Call, tmp_path: Path) -> None:
    refused = call("ask", "头痛", "--profile", "没有")
    assert refused.code == 2 and "没有名为“没有”的配置方案" in refused.err
