"""Signals, a closed window and a resized one: everything saved, the terminal as it was."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from pseudo_terminal import rows_under, terminal

pytestmark = pytest.mark.terminal

CTRL_C, CTRL_D = "\x03", "\x04"
STOPPED = "▌ （已停止，保留部分回答）"


@pytest.mark.parametrize("during", ["prompt", "answer"])
def test_sigterm_saves_restores_the_terminal_and_ends_with_143(tmp_path: Path, during: str) -> None:
    with terminal(tmp_path, {"answers": {"问": ["开始", {"endless": "啊哈"}]}}) as screen:
        screen.wait_for_prompt()
        if during == "answer":
            screen.enter("问")
            screen.wait_for("开始啊哈")
        else:
            screen.type("草稿")
            screen.wait_for_prompt("草稿")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.exit_code() == 143
        assert screen.attributes() == screen.attributes_before
        assert bytes(screen.raw).rindex(b"\x1b[?2004l") > bytes(screen.raw).rindex(b"\x1b[?2004h")
        assert not screen.screen.cursor.hidden
        if during == "answer":
            assert screen.journal()[0]["save"][2] == "cancelled"
            assert STOPPED in screen.everything()
        else:
            assert json.loads((tmp_path / "inputs.jsonl").read_text()) == "草稿"


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_to_end_while_a_question_waits_for_the_model_keeps_the_question(
    tmp_path: Path, name: str, code: int
) -> None:
    with terminal(tmp_path, {"load_gate": "never"}) as screen:
        screen.enter("头痛怎么办")
        screen.wait(lambda: screen.shown()[1].startswith("模型加载中…"), "the wait under the question")
        screen.process.send_signal(getattr(signal, name))
        assert screen.exit_code() == code
        assert screen.attributes() == screen.attributes_before
        inputs = (tmp_path / "inputs.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(inputs[-1]) == "头痛怎么办"


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow), (signal.SIGHUP, 129)],
)
def test_a_model_that_does_not_come_back_is_left_at_the_second_signal(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with terminal(tmp_path, {"answers": {"问": ["开始", {"stuck": 60}, "完"]}}) as screen:
        screen.wait_for_prompt()
        screen.enter("问")
        screen.wait_for("开始")
        screen.process.send_signal(number)
        screen.wait_for("再按一次 Ctrl-C")
        assert screen.process.poll() is None
        screen.process.send_signal(number)
        assert screen.exit_code() == code
        assert screen.attributes() == screen.attributes_before
        assert not screen.screen.cursor.hidden
        (saved,) = screen.journal()
        assert saved["save"][1:3] == ["开始", "cancelled"]


@pytest.mark.parametrize("during", ["prompt", "answer"])
def test_a_closed_window_loses_no_words_and_ends_with_129(tmp_path: Path, during: str) -> None:
    with terminal(tmp_path, {"answers": {"问": ["开始", {"endless": "啊哈"}]}}) as screen:
        screen.wait_for_prompt()
        if during == "answer":
            screen.enter("问")
            screen.wait_for("开始啊哈")
        screen.hang_up()
        assert screen.exit_code() == 129
        assert [entry["save"][2] for entry in screen.journal()] == (
            ["cancelled"] if during == "answer" else []
        )


@pytest.mark.parametrize("end", ["SIGTERM", "SIGHUP", "closed"])
def test_what_was_typed_during_an_answer_outlives_the_end_of_the_program(tmp_path: Path, end: str) -> None:
    with terminal(tmp_path, {"answers": {"问": ["开始", {"endless": "啊哈"}]}}) as screen:
        screen.enter("问")
        screen.wait_for("开始啊哈")
        screen.type("第二问错\x7f？\r还有\x1b[200~贴的\r两行\x1b[201~")
        screen.wait_until_taken()
        if end == "closed":
            screen.hang_up()
        else:
            screen.process.send_signal(getattr(signal, end))
        assert screen.exit_code() == (143 if end == "SIGTERM" else 129)
        inputs = (tmp_path / "inputs.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(inputs[-1]) == "第二问？\n还有贴的\n两行"
        if end == "SIGTERM":
            assert "未发送的内容：第二问？" in screen.everything()


def test_a_resized_window_goes_on_at_its_new_width(tmp_path: Path) -> None:
    paragraph = "头痛可能由多种原因引起" * 6
    pieces = [paragraph, {"gate": "more"}, "\n\n" + paragraph]
    with terminal(tmp_path, {"answers": {"问": pieces}}, columns=80) as screen:
        screen.enter("问")
        screen.wait_for("头痛可能")
        screen.resize(40, 24)
        screen.open_gate("more")
        screen.wait_for_prompt()
        rows = rows_under(screen.everything(), "› 问", "▌")
        assert "".join(rows[-4:]) == paragraph and [len(row) for row in rows[-4:]] == [20, 20, 20, 6]
        screen.resize(60, 24)
        screen.enter("还在")
        screen.wait_for("第2次回答：还在")


def test_an_interrupt_from_outside_at_the_prompt_changes_nothing(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.wait_for_prompt()
        screen.type("草稿")
        screen.wait_for_prompt("草稿")
        os.kill(screen.process.pid, signal.SIGINT)
        screen.type("还在")
        screen.wait_for_prompt("草稿还在")
        screen.type(CTRL_C + CTRL_D)
        assert screen.exit_code() == 0
