"""`medchat ask`: the answer alone on stdout, everything else on stderr, and how each run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from cli_fixtures import (
    MARK_EN,
    MARK_ZH,
    PAIRS,
    Call,
    DumbTerminal,
    Outcome,
    Scripted,
    child_environment,
    command,
    copy_of,
    run,
    start,
    tree,
)
from scripted_backbone import ENDLESS, FAILING, HOSTILE, HOSTILE_TEXT, STOPPED, STOPPED_LOADING

from medchat.store import SavedTurn, SessionStore

pytest_plugins = ("cli_fixtures",)

START_ZH, START_EN = "仅供研究：", "Research only:"
FULL_ZH, FULL_EN = "MedChat 使用声明", "MedChat: please read"
QUESTION, ANSWER = next(iter(PAIRS.items()))


def saved_turns() -> tuple[SavedTurn, ...]:
    """Return the turns of the only saved session."""
    with SessionStore.open() as store:
        (record,) = store.list()
        return store.turns(record.id)


def read_until(process: subprocess.Popen[bytes], size: int) -> bytes:
    """Return the first bytes of stdout, as soon as there are `size` of them."""
    assert process.stdout is not None
    got = b""
    while len(got) < size:
        piece = os.read(process.stdout.fileno(), 4096)
        assert piece, process.stderr.read().decode() if process.stderr else ""
        got += piece
    return got


# ---------------------------------------------------------------- with a real model


@pytest.mark.torch
@pytest.mark.safety
def test_a_piped_question_gets_its_answer_alone_and_the_same_bytes_in_every_locale(talker: Path) -> None:
    flags = ("ask", "-", "--backbone", "chatglm", "--model", str(talker), "--greedy", "--seed", "1")
    first = run(*flags, stdin=f"{QUESTION}\n", LANG="C.UTF-8")
    second = run(*flags, stdin=f"{QUESTION}\n", LC_ALL="C")
    assert (first.code, first.out) == (0, f"{ANSWER}\n")
    assert (second.code, second.out) == (0, first.out)
    for outcome in (first, second):
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


@pytest.mark.torch
def test_ctrl_c_in_the_middle_of_an_answer_keeps_it_and_ends_with_130(endless: Path) -> None:
    process = start("ask", "口渴怎么办", "--model", str(endless), "--max-new-tokens", "1900")
    with process:
        seen = read_until(process, 3)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    (saved,) = saved_turns()
    assert process.returncode == 130
    assert saved.turn.answer == (seen + rest).decode().removesuffix("\n") and saved.turn.finish == "cancelled"
    assert b"Traceback" not in err and err.decode().rstrip().endswith(MARK_ZH)


# ---------------------------------------------------------------- how a run ends


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


def test_a_model_that_fails_half_way_ends_with_1_and_leaves_what_it_said(scripted: Scripted) -> None:
    outcome = scripted.run("ask", FAILING)
    assert (outcome.code, outcome.out) == (1, "多喝\n")
    assert "the device is gone" in outcome.err and "--debug" in outcome.err
    assert MARK_ZH in outcome.err and "Traceback" not in outcome.err
    (saved,) = saved_turns()
    assert (saved.turn.answer, saved.turn.finish) == ("多喝", "error")


def test_debug_adds_the_traceback_without_anybodys_words(scripted: Scripted) -> None:
    outcome = scripted.run("ask", FAILING, "--debug")
    assert "Traceback" in outcome.err and 'raise RuntimeError("the device is gone")' in outcome.err
    assert FAILING not in outcome.err


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
    shown = scripted.run("sessions", "list")
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


# ---------------------------------------------------------------- what is said, and in which language


@pytest.mark.safety
def test_the_full_disclaimer_comes_once_per_install_the_line_and_the_mark_always(scripted: Scripted) -> None:
    outcomes = [scripted.run("ask", "你好") for _ in range(3)]
    assert [outcome.err.count(FULL_ZH) for outcome in outcomes] == [1, 0, 0]
    assert all(outcome.err.count(START_ZH) - outcome.err.count(FULL_ZH) == 1 for outcome in outcomes)
    assert all(outcome.err.count(MARK_ZH) == 1 for outcome in outcomes)
    assert scripted.run("ask", "你好", MEDCHAT_HOME=str(scripted.model / "新")).err.count(FULL_ZH) == 1


def spoken(outcome: Outcome) -> str:
    """Return the language of a run: every line of ours in one, and none in the other."""
    assert outcome.code == 0, outcome.err
    languages = {"zh": (START_ZH, MARK_ZH, FULL_ZH), "en": (START_EN, MARK_EN, FULL_EN)}
    (language,) = (name for name, texts in languages.items() if any(text in outcome.err for text in texts))
    assert all(text in outcome.err for text in languages[language])
    return language


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "C.UTF-8"}, "zh"),
        ({"LC_ALL": "C"}, "zh"),
        ({"LC_ALL": "POSIX", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LANG": ""}, "zh"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_GB.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "C.UTF-8", "MEDCHAT_LANG": "en"}, "en"),
        ({"LANG": "en_US.UTF-8", "MEDCHAT_LANG": "zh"}, "zh"),
    ],
)
def test_the_environment_chooses_the_language(
    scripted: Scripted, environment: dict[str, str], language: str
) -> None:
    assert spoken(scripted.run("ask", "你好", **environment)) == language


def configure(text: str) -> None:
    home = Path(os.environ["MEDCHAT_HOME"])
    home.mkdir()
    (home / "config.toml").write_text(text, encoding="utf-8")


def test_a_flag_goes_over_the_variable_the_variable_over_the_file_the_file_over_the_locale(
    scripted: Scripted,
) -> None:
    configure('lang = "en"\n')
    assert spoken(scripted.run("ask", "你好", LANG="zh_CN.UTF-8")) == "en"
    assert "Commands:" in run("--help").out and "Usage: medchat ask" in run("ask", "--help").out
    assert "ready" in run("plugins", "list").out
    assert "命令：" in run("--help", MEDCHAT_LANG="zh").out
    assert MARK_ZH in scripted.run("ask", "你好", MEDCHAT_LANG="zh").err
    assert MARK_EN in scripted.run("ask", "你好", "--lang", "en", MEDCHAT_LANG="zh").err
    assert "Commands:" in run("--help", "--lang=en", MEDCHAT_LANG="zh").out


@pytest.mark.parametrize("variable", ["HOME", "XDG_CONFIG_HOME"])
def test_the_language_is_found_wherever_the_configuration_is(tmp_path: Path, variable: str) -> None:
    environment = {"MEDCHAT_HOME": "", "XDG_CONFIG_HOME": "", variable: str(tmp_path)}
    path = Path(run("config", "path", **environment).out.rstrip())
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text('lang = "en"\n', encoding="utf-8")
    assert "Commands:" in run("--help", **environment).out


def test_the_folder_one_works_in_may_choose_the_language_too(tmp_path: Path) -> None:
    (tmp_path / "medchat.toml").write_text('lang = "en"\n', encoding="utf-8")
    assert "Commands:" in run("--help", cwd=tmp_path).out


# ---------------------------------------------------------------- what is kept


def test_no_save_leaves_nothing_anywhere(scripted: Scripted, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    home = Path(os.environ["MEDCHAT_HOME"])
    outcome = scripted.run("ask", "秘密的问题", "--no-save", cwd=work, HOME=str(work), TMPDIR=str(work))
    assert outcome.code == 0
    assert not home.exists() and tree(work) == {}


def test_no_save_changes_no_byte_of_what_was_saved_before(scripted: Scripted, tmp_path: Path) -> None:
    home = Path(os.environ["MEDCHAT_HOME"])
    scripted.run("ask", "你好")
    before = tree(home)
    unsaved = scripted.run("ask", "秘密的问题", "--no-save", "--json")
    assert unsaved.one()["session"] is None
    assert tree(home) == before and before


@pytest.mark.torch
def test_no_save_leaves_nothing_with_a_real_model_either(
    call: Call, talker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    model = copy_of(talker, tmp_path / "model")
    before = tree(model)
    monkeypatch.chdir(work)
    assert call("ask", QUESTION, "--model", str(model), "--no-save", "--greedy").code == 0
    assert not Path(os.environ["MEDCHAT_HOME"]).exists()
    assert tree(work) == {} and tree(model) == before


def test_saved_files_are_the_owners_alone_whatever_the_umask(scripted: Scripted) -> None:
    before = os.umask(0)
    try:
        scripted.run("ask", "你好")
    finally:
        os.umask(before)
    home = Path(os.environ["MEDCHAT_HOME"])
    modes = {path: path.stat().st_mode & 0o777 for path in [home, *home.rglob("*")]}
    assert len(modes) > 2
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items())


def test_a_question_can_go_on_with_the_latest_session_or_a_named_one(scripted: Scripted) -> None:
    scripted.run("ask", "一", "--session", "复诊")
    scripted.run("ask", "二", "--session", "复诊")
    assert scripted.run("ask", "三", "-c").code == 0
    assert [saved.turn.question for saved in saved_turns()] == ["一", "二", "三"]
    one = scripted.run("ask", "四", "--session", "复诊", "--json").one()
    alone = scripted.run("ask", "四", "--session", "复诊", "--history", "none", "--json").one()
    assert one["prompt_tokens"] > alone["prompt_tokens"]


def test_a_home_that_cannot_be_written_is_said_loudly_and_the_answer_still_comes(
    scripted: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    outcome = scripted.run("ask", "你好", MEDCHAT_HOME=str(tmp_path / "file" / "home"))
    assert (outcome.code, outcome.out) == (0, "你问的是你好\n")
    assert "没有保存" in outcome.err
