"""`medchat ask`: the answer alone on stdout, everything else on stderr."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from child_process import TORCH, child_environment, command
from cli_program import MARK_ZH, PAIRS, START_ZH, Call, DumbTerminal, Scripted, run, saved_turns
from scripted_backbone import HOSTILE, HOSTILE_TEXT

pytest_plugins = ("cli_program",)

QUESTION, ANSWER = next(iter(PAIRS.items()))


# ---------------------------------------------------------------- with a real model


@pytest.mark.torch
@pytest.mark.safety
def test_a_piped_question_gets_its_answer_alone(talker: Path) -> None:
    flags = ("ask", "-", "--backbone", "chatglm", "--model", str(talker), "--greedy", "--seed", "1")
    outcome = run(*flags, stdin=f"{QUESTION}\n", imported=TORCH)
    assert (outcome.code, outcome.out) == (0, f"{ANSWER}\n")
    assert START_ZH in outcome.err and outcome.err.rstrip().endswith(MARK_ZH)
    assert "Traceback" not in outcome.err and "Warning" not in outcome.err


@pytest.mark.torch
@pytest.mark.safety
def test_json_is_one_object_with_everything_a_script_needs(call: Call, talker: Path) -> None:
    outcome = call("ask", QUESTION, "--model", str(talker), "--greedy", "--seed", "7", "--json")
    answer = outcome.one()
    assert outcome.out.count("\n") == 1 and outcome.code == 0
    assert (answer["answer"], answer["finish"], answer["disclaimer"]) == (ANSWER, "stop", MARK_ZH)
    assert answer["model"] == str(talker) and answer["backbone"] == "chatglm"
    assert (answer["greedy"], answer["seed"], answer["safety"]) == (True, 7, [])
    assert answer["prompt_tokens"] > 4 and 1 < answer["completion_tokens"] <= len(ANSWER) + 1
    assert 0 < answer["first_token_seconds"] <= answer["seconds"]
    assert answer["session"] and answer["AIGC"]["Label"] == "1"


@pytest.mark.torch
def test_events_are_json_lines_whose_texts_add_up_to_the_answer(call: Call, talker: Path) -> None:
    outcome = call("ask", QUESTION, "--model", str(talker), "--greedy", "--events")
    first, *deltas, last = outcome.lines()
    assert first == {"event": "start", "question": QUESTION, "disclaimer": MARK_ZH}
    assert {delta["event"] for delta in deltas} == {"delta"} and len(deltas) > 1
    assert "".join(delta["text"] for delta in deltas) == ANSWER
    assert (last["event"], last["answer"], last["finish"]) == ("end", ANSWER, "stop")


@pytest.mark.torch
def test_an_answer_cut_by_its_limit_says_so(call: Call, endless: Path) -> None:
    outcome = call("ask", "口渴", "--model", str(endless), "--max-new-tokens", "5", "--json")
    assert (outcome.one()["finish"], outcome.one()["completion_tokens"]) == ("length", 5)
    assert "--max-new-tokens" in outcome.err


@pytest.mark.torch
@pytest.mark.parametrize(
    "flags",
    [
        ("--num-beams", "3"),
        ("--temperature", "0.5", "--top-k", "5", "--top-p", "0.9", "--seed", "3"),
        ("--repetition-penalty", "1.1", "--greedy"),
        ("--template", "med_template", "--greedy"),
        ("--rule", "med", "--dtype", "float32", "--greedy"),
        ("--history", "none", "--device", "cpu", "--greedy"),
    ],
    ids=lambda flags: flags[0],
)
def test_every_way_of_decoding_answers(call: Call, talker: Path, flags: tuple[str, ...]) -> None:
    outcome = call("ask", QUESTION, "--model", str(talker), *flags, "--max-new-tokens", "40", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.one()["completion_tokens"] > 0


@pytest.mark.torch
def test_a_seed_makes_a_sampled_answer_repeatable(call: Call, talker: Path) -> None:
    def sampled(seed: int) -> str:
        flags = ("--temperature", "2", "--top-p", "1", "--seed", str(seed), "--max-new-tokens", "20")
        return call("ask", "别的", "--model", str(talker), *flags).out

    answers = {seed: sampled(seed) for seed in range(3)}
    assert answers == {seed: sampled(seed) for seed in range(3)}
    assert len(set(answers.values())) > 1


# ---------------------------------------------------------------- streams


def test_nothing_moves_or_colours_where_there_is_no_terminal(scripted: Scripted) -> None:
    outcome = scripted.run("ask", "你好", CLICOLOR_FORCE="1", FORCE_COLOR="1", TERM="xterm-256color")
    assert outcome.out == "你问的是你好\n"
    assert "\x1b" not in outcome.err and "\r" not in outcome.err


@pytest.mark.safety
def test_json_and_the_saved_session_hold_the_models_text_exactly(scripted: Scripted) -> None:
    outcome = scripted.run("ask", HOSTILE, "--json")
    assert "\x1b" not in outcome.out and outcome.one()["answer"] == HOSTILE_TEXT
    assert saved_turns()[0].turn.answer == HOSTILE_TEXT
    shown = scripted.run("sessions", "list", "--all")
    identity = shown.out.split()[0]
    page = scripted.run("sessions", "show", identity)
    assert "多喝水" in page.out and not set("\x1b\x07\u202e") & set(page.out)


def test_an_encoding_without_chinese_is_escaped_and_never_a_crash(scripted: Scripted) -> None:
    plain = scripted.run("ask", "你好", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert plain.code == 0 and plain.out.encode("ascii").decode("unicode_escape") == "你问的是你好\n"
    as_json = scripted.run("ask", "你好😀", "--json", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert as_json.out.isascii() and as_json.one()["answer"] == "你问的是你好😀"


@pytest.mark.parametrize(
    "typed", ["头痛", "头痛\n", "头痛\r\n", "\ufeff头痛\n"], ids=["bare", "line", "windows", "marked"]
)
def test_the_end_of_a_piped_question_is_not_part_of_it(scripted: Scripted, typed: str) -> None:
    assert scripted.run("ask", "-", stdin=typed).out == "你问的是头痛\n"


@pytest.mark.safety
def test_an_answer_is_the_same_bytes_in_every_locale(scripted: Scripted) -> None:
    first, *others = (
        scripted.run("ask", "-", stdin=f"{QUESTION}\n", **variables)
        for variables in ({"LANG": "C.UTF-8"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "LANG": ""})
    )
    assert first.out == f"你问的是{QUESTION}\n" and len(others) == 2
    for outcome in (first, *others):
        assert (outcome.code, outcome.out) == (0, first.out)
        assert START_ZH in outcome.err and outcome.err.rstrip().endswith(MARK_ZH)


def test_a_question_may_have_several_lines(scripted: Scripted) -> None:
    assert scripted.run("ask", "-", stdin="头痛\n三天了\n\n").out == "你问的是头痛\n三天了\n\n"


def test_piped_input_without_a_command_is_one_question(scripted: Scripted) -> None:
    outcome = run(
        stdin="头痛\n三天了\n",
        PYTHONPATH=scripted.python_path,
        MEDCHAT_BACKBONE="scripted",
        MEDCHAT_MODEL=str(scripted.model),
    )
    assert (outcome.code, outcome.out) == (0, "你问的是头痛\n三天了\n")


@pytest.mark.terminal
def test_on_a_terminal_the_program_without_a_command_is_a_chat(scripted: Scripted) -> None:
    chosen = {"MEDCHAT_BACKBONE": "scripted", "MEDCHAT_MODEL": str(scripted.model)}
    with DumbTerminal(PYTHONPATH=scripted.python_path, **chosen) as screen:
        assert START_ZH in screen.wait_for("› ")
        screen.type("头痛")
        assert "你问的是头痛" in screen.wait_for(MARK_ZH)
        screen.type("/exit")
        assert screen.end().code == 0


@pytest.mark.terminal
@pytest.mark.safety
def test_nothing_a_model_says_reaches_the_terminal_as_a_control(scripted: Scripted) -> None:
    with DumbTerminal("ask", HOSTILE, *scripted.flags, PYTHONPATH=scripted.python_path) as screen:
        shown = screen.end()
    assert shown.code == 0 and "多喝水" in shown.out
    assert not set("\x1b\x07\u202e") & set(shown.out)


@pytest.mark.terminal
def test_a_dash_on_a_terminal_is_refused_and_not_waited_for(scripted: Scripted) -> None:
    with DumbTerminal("ask", "-", *scripted.flags, PYTHONPATH=scripted.python_path) as screen:
        shown = screen.end()
    assert shown.code == 2 and "下一步：printf" in shown.out


@pytest.mark.terminal
def test_a_chat_whose_answers_go_elsewhere_is_not_interactive(scripted: Scripted) -> None:
    master, slave = os.openpty()
    done = subprocess.run(
        command("chat", *scripted.flags),
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        env=child_environment(PYTHONPATH=scripted.python_path),
        check=False,
    )
    said = os.read(master, 65536).decode()
    os.close(master)
    os.close(slave)
    assert (done.returncode, done.stdout) == (2, b"") and "medchat ask" in said


def test_a_question_that_begins_with_a_dash_goes_behind_two(scripted: Scripted) -> None:
    flags = [*scripted.flags, "--", "--lang"]
    outcome = run("ask", *flags, PYTHONPATH=scripted.python_path)
    assert outcome.out == "你问的是--lang\n"
