"""How `medchat ask` ends: signals, readers that go away, models that fail. What had come is saved."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from child_process import TORCH
from cli_program import MARK_ZH, START_ZH, Scripted, read_until, saved_turns, start
from scripted_backbone import ENDLESS, FAILING, STOPPED, STOPPED_LOADING

from medchat.store import SessionStore

pytest_plugins = ("cli_program",)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_signal_keeps_the_partial_answer_saved_and_names_itself(
    scripted: Scripted, number: signal.Signals, code: int
) -> None:
    with scripted.start("ask", ENDLESS) as process:
        seen = read_until(process, 6)
        process.send_signal(number)
        rest, err = process.communicate(timeout=30)
    (saved,) = saved_turns()
    assert process.returncode == code
    assert saved.turn.answer == (seen + rest).decode().removesuffix("\n")
    assert saved.turn.finish == "cancelled" and "已停止" in err.decode() and b"Traceback" not in err


def test_a_json_answer_stopped_by_a_signal_is_still_one_object(scripted: Scripted) -> None:
    with scripted.start("ask", ENDLESS, "--events") as process:
        seen = read_until(process, 200)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
    lines = [json.loads(line) for line in (seen + rest).splitlines()]
    assert process.returncode == 143
    assert lines[-1]["finish"] == "cancelled"
    assert lines[-1]["answer"] == "".join(line["text"] for line in lines if line["event"] == "delta")


@pytest.mark.parametrize("flags", [(), ("--events",)])
def test_a_reader_that_goes_away_is_no_error_and_loses_no_turn(
    scripted: Scripted, flags: tuple[str, ...]
) -> None:
    process = scripted.start("ask", ENDLESS, *flags)
    read_until(process, 6)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(30) == 0
    assert "Traceback" not in err and "Error" not in err and "错误" not in err
    (saved,) = saved_turns()
    assert saved.turn.answer.startswith("水") and saved.turn.finish == "cancelled"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plugins", "list"], ["ask", "--help"], ["config", "show"]]
)
def test_every_page_may_be_cut_short_by_its_reader(arguments: list[str]) -> None:
    process = start(*arguments)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait(30)) == (b"", 0)


def test_a_signal_while_the_model_loads_ends_at_once_and_quietly(scripted: Scripted) -> None:
    (scripted.model / STOPPED_LOADING).touch()
    outcome = scripted.run("ask", "你好", timeout=20)
    assert (outcome.code, outcome.out) == (143, "")
    assert outcome.err.splitlines()[-1].startswith(START_ZH)


def test_stopping_before_the_answer_begins_leaves_nothing(scripted: Scripted) -> None:
    outcome = scripted.run("ask", STOPPED)
    with SessionStore.open() as store:
        assert store.list() == ()
    assert (outcome.code, outcome.out) == (143, "")
    assert "还没有回答" in outcome.err and MARK_ZH not in outcome.err


def test_a_model_that_fails_half_way_ends_with_5_and_leaves_what_it_said(scripted: Scripted) -> None:
    outcome = scripted.run("ask", FAILING)
    assert (outcome.code, outcome.out) == (5, "多喝\n")
    assert "medchat-scripted" in outcome.err and "stream: RuntimeError: the device is gone" in outcome.err
    assert MARK_ZH in outcome.err and "Traceback" not in outcome.err
    (saved,) = saved_turns()
    assert (saved.turn.answer, saved.turn.finish) == ("多喝", "error")


def test_debug_adds_the_traceback_without_anybodys_words(scripted: Scripted) -> None:
    outcome = scripted.run("ask", FAILING, "--debug")
    assert "Traceback" in outcome.err and 'raise RuntimeError("the device is gone")' in outcome.err
    assert FAILING not in outcome.err


@pytest.mark.torch
def test_ctrl_c_in_the_middle_of_an_answer_keeps_it_and_ends_with_130(endless: Path) -> None:
    process = start("ask", "口渴怎么办", "--model", str(endless), "--max-new-tokens", "1900", imported=TORCH)
    with process:
        seen = read_until(process, 3)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    (saved,) = saved_turns()
    assert process.returncode == 130
    assert saved.turn.answer == (seen + rest).decode().removesuffix("\n") and saved.turn.finish == "cancelled"
    assert b"Traceback" not in err and err.decode().rstrip().endswith(MARK_ZH)
