"""The chat without a terminal: answers alone on stdout, everything else on stderr, exit codes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from child_process import start_python
from pseudo_terminal import SCRIPTED_CHAT, chat_environment

from medchat.repl.lines import QuestionLines


def start(folder: Path, script: dict[str, Any], **variables: str) -> subprocess.Popen[bytes]:
    folder.joinpath("script.json").write_text(json.dumps({**script, "lines": True}), encoding="utf-8")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return start_python(*SCRIPTED_CHAT, str(folder), environment=chat_environment(variables), **pipes)


def chat(folder: Path, script: dict[str, Any], typed: str | bytes) -> tuple[int, str, str]:
    process = start(folder, script)
    out, err = process.communicate(typed.encode() if isinstance(typed, str) else typed, timeout=30)
    return process.returncode, out.decode(), err.decode()


def journal(folder: Path) -> list[dict[str, Any]]:
    path = folder / "journal.jsonl"
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def test_stdout_holds_the_answers_alone(tmp_path: Path) -> None:
    script = {"opening": ["横幅"], "answers": {"头痛": ["多喝水。\n", "早睡。"], "发烧": ["量体温。"]}}
    code, out, err = chat(tmp_path, script, "头痛\n\n发烧\n")
    assert (code, out) == (0, "多喝水。\n早睡。\n量体温。\n")
    assert "横幅" in err and err.count("本回答由人工智能生成") == 2
    assert [entry["save"][0] for entry in journal(tmp_path)] == ["头痛", "发烧"]


@pytest.mark.safety
def test_an_urgent_notice_stands_before_the_answer_on_both_streams(tmp_path: Path) -> None:
    script = {"notices": [["少熬夜", False], ["请拨打 120", True]], "answers": {"胸痛": ["躺下。"]}}
    code, out, err = chat(tmp_path, script, "胸痛\n")
    assert (code, out) == (0, "▌ 请拨打 120\n躺下。\n")
    assert err.index("请拨打 120") < err.index("少熬夜") < err.index("本回答由人工智能生成")


@pytest.mark.safety
def test_hostile_output_reaches_a_pipe_inert(tmp_path: Path) -> None:
    script = {"answers": {"问": ["\x1b[2J▌ 假提示\x1b", "]52;c;aGk=\x07\u202e完"]}}
    assert chat(tmp_path, script, "问\n")[1] == "| 假提示完\n"


def test_commands_work_and_an_unknown_one_never_reaches_the_model(tmp_path: Path) -> None:
    code, out, err = chat(tmp_path, {}, "一\n/undo\n/hlep\n//斜杠\n/exit\n二\n")
    assert code == 2
    assert out == "第1次回答：一\n第2次回答：/斜杠\n"
    assert "已撤销 1 轮" in err and "没有命令 /hlep" in err
    assert [next(iter(entry)) for entry in journal(tmp_path)] == ["save", "undo", "save"]


def test_a_failing_answer_is_reported_and_the_next_line_is_answered(tmp_path: Path) -> None:
    script = {"answers": {"坏": ["一半", {"fail": "显存不足"}], "好": ["好的"]}}
    code, out, err = chat(tmp_path, script, "坏\n好\n")
    assert (code, out) == (1, "一半\n好的\n")
    assert "显存不足" in err
    assert journal(tmp_path)[0]["save"] == ["坏", "一半", "error"]


def test_a_model_that_cannot_be_loaded_ends_with_its_exit_code(tmp_path: Path) -> None:
    code, out, err = chat(tmp_path, {"load_fails": "找不到权重"}, "头痛\n")
    assert (code, out) == (3, "")
    assert "找不到权重" in err and "medchat models show" in err


def test_input_that_is_not_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    code, out, err = chat(tmp_path, {}, "头痛怎么办".encode("gbk") + b"\n")
    assert (code, out) == (2, "")
    assert "UTF-8" in err


def test_a_line_that_is_not_utf8_costs_only_itself(tmp_path: Path) -> None:
    code, out, err = chat(tmp_path, {}, "一\n".encode() + "头痛怎么办".encode("gbk") + "\n二\n".encode())
    assert (code, out) == (2, "第1次回答：一\n第2次回答：二\n")
    assert "UTF-8" in err


def test_lines_are_utf8_whatever_the_locale_says(tmp_path: Path) -> None:
    process = start(tmp_path, {}, PYTHONUTF8="0", PYTHONIOENCODING="gbk", LC_ALL="C")
    process.communicate("\ufeff头痛\r\n发烧".encode(), timeout=30)
    assert [entry["save"][0] for entry in journal(tmp_path)] == ["头痛", "发烧"]


def test_a_line_that_is_too_long_costs_only_itself(tmp_path: Path) -> None:
    code, out, err = chat(tmp_path, {}, "一\n" + "长" * 700_000 + "\n二\n")
    assert (code, out) == (2, "第1次回答：一\n第2次回答：二\n")
    assert "1048576" in err


class Endless(io.RawIOBase):
    """A line without an end, as long as nobody asks for it whole."""

    def __init__(self, size: int, largest: int) -> None:
        self.left, self.largest = size, largest

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None and 0 < size <= self.largest, "the whole line was asked for"
        given = min(size, self.left)
        self.left -= given
        return b"a" * given


def test_no_line_is_read_whole_before_it_is_known_to_be_short_enough() -> None:
    lines = QuestionLines(Endless(50_000_000, largest=1 << 20), max_bytes=1000)
    first = lines.next()
    assert first is not None and 1000 < len(first) < 1100
    assert lines.next() is None


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_keeps_the_partial_answer_and_names_itself(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start(tmp_path, {"answers": {"长": ["开始", {"endless": "啊"}]}})
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("长\n再来\n".encode())
    process.stdin.flush()
    assert process.stdout.read(len("开始".encode())) == "开始".encode()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == code
    (entry,) = journal(tmp_path)
    assert entry["save"][2] == "cancelled" and entry["save"][1].startswith("开始")


def test_a_signal_between_two_lines_ends_the_chat(tmp_path: Path) -> None:
    process = start(tmp_path, {"answers": {"一": ["好"]}})
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("一\n".encode())
    process.stdin.flush()
    assert process.stdout.readline() == "好\n".encode()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    process.communicate()


def test_a_reader_that_goes_away_loses_no_turn(tmp_path: Path) -> None:
    process = start(tmp_path, {"answers": {"长": ["开始", {"endless": "啊" * 500}]}})
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("长\n".encode())
    process.stdin.close()
    process.stdout.read(6)
    process.stdout.close()
    process.wait(30)
    (entry,) = journal(tmp_path)
    assert entry["save"][2] == "cancelled"
