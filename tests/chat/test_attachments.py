"""Files that go with a question, in `ask -f` and with `/file`."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_program import Scripted
from pseudo_terminal import terminal
from scripted_backbone import BROKEN
from switching_chat import switching_chat

from medchat.chat.attachments import ATTACHMENT_BYTES, read_attachment
from medchat.errors import UsageError

pytest_plugins = ("cli_program",)


def written(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_a_text_is_read_without_what_no_reader_sees(tmp_path: Path) -> None:
    place = written(tmp_path / "病历.txt", "\ufeff发热\r\n三天\u202e\u200b\x1b[2J\n")
    attached = read_attachment(place)
    assert (attached.name, attached.text) == ("病历.txt", "发热\n三天")
    assert attached.under("总结", 1000) == "总结\n\n发热\n三天"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n \n",
        "发热".encode("gb18030"),
        b"PK\x03\x04\0\0",
        "a".encode("utf-16"),
        b"a" * (ATTACHMENT_BYTES + 1),
    ],
)
def test_what_is_no_text_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        read_attachment(written(tmp_path / "case", content))
    assert caught.value.where == str(tmp_path / "case") and caught.value.remedy


def test_a_file_of_the_largest_size_is_read_and_question_and_file_together_are_bounded(
    tmp_path: Path,
) -> None:
    attached = read_attachment(written(tmp_path / "case", b"a" * ATTACHMENT_BYTES))
    assert len(attached.text) == ATTACHMENT_BYTES
    with pytest.raises(UsageError):
        attached.under("总结", ATTACHMENT_BYTES)


def test_ask_takes_files_and_what_is_piped_in(scripted: Scripted, tmp_path: Path) -> None:
    one, two = written(tmp_path / "a.txt", "发热三天"), written(tmp_path / "b.txt", "咳嗽")
    outcome = scripted.run("ask", "总结", "-f", one, "--file", two, stdin="血压高\n")
    assert (outcome.code, outcome.out) == (0, "你问的是总结\n\n发热三天\n\n咳嗽\n\n血压高\n")
    assert "附件：a.txt，4 字" in outcome.err


@pytest.mark.safety
def test_the_emergency_rules_read_the_file_too(scripted: Scripted, tmp_path: Path) -> None:
    place = written(tmp_path / "a.txt", "突然胸口剧痛，出冷汗，喘不上气")
    outcome = scripted.run("ask", "总结", "-f", place)
    assert outcome.code == 0 and "120" in outcome.out.split("你问的是")[0]


def test_ask_refuses_a_file_that_cannot_be_read_before_anything_is_loaded(
    scripted: Scripted, tmp_path: Path
) -> None:
    (scripted.model / BROKEN).touch()  # to load it would fail with 3
    outcome = scripted.run("ask", "总结", "-f", str(tmp_path / "absent"))
    assert outcome.code == 2 and "absent" in outcome.err


# ---------------------------------------------------------------- in the chat


@pytest.mark.terminal
def test_a_file_goes_with_the_next_question_alone(tmp_path: Path) -> None:
    written(tmp_path / "病历.txt", "发热三天")
    with terminal(tmp_path, columns=200) as screen:
        screen.enter("/文件")
        screen.wait_for("没有附件")
        screen.enter(f"/文件 {tmp_path / '病历.txt'}")
        screen.wait_for("附件：病历.txt（4 字）", "附件 病历.txt · ")
        screen.enter("总结")
        screen.wait(screen.journal, "a turn")
        screen.enter("头痛")
        screen.wait(lambda: len(screen.journal()) == 2, "two turns")
    questions = [turn["save"][0] for turn in screen.journal()]
    assert questions == ["总结\n\n发热三天", "头痛"]


@pytest.mark.terminal
def test_file_with_a_question_asks_at_once_and_none_takes_the_file_away(tmp_path: Path) -> None:
    written(tmp_path / "case.txt", "发热")
    with switching_chat(tmp_path) as screen:
        screen.enter("/file case.txt 总结")
        screen.wait_for("one：总结")
        screen.enter("/file case.txt")
        screen.wait_for("附件 case.txt · ")
        screen.enter("/file none")
        screen.wait_for("已去掉附件")
        screen.enter("/file nothing.txt")
        screen.wait_for("无法读取文件")
        screen.enter("头痛")
        screen.wait_for("one：头痛")
        assert "发热" not in screen.cursor_row()


@pytest.mark.terminal
def test_a_question_stopped_before_its_first_word_keeps_the_file(tmp_path: Path) -> None:
    written(tmp_path / "c", "发热")
    answers = {"总结\n\n发热": [{"gate": "go"}, "好"]}
    with terminal(tmp_path, {"answers": answers}, columns=200) as screen:  # the path is in one row
        screen.enter(f"/file {tmp_path / 'c'}")
        screen.enter("总结")
        screen.wait_for("正在思考")
        screen.type("\x03")
        screen.wait_for_prompt("总结")
        screen.wait_for("附件 c · ")
        screen.open_gate("go")
        screen.type("\r")
        screen.wait(screen.journal, "a turn")
        assert [turn["save"][:2] for turn in screen.journal()] == [["总结\n\n发热", "好"]]
