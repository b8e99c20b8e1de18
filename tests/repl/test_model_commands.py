"""Another model, adapter, template or system text from the prompt of a real chat."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest
from pseudo_terminal import Terminal
from switching_backbone import OVERFLOWING, make
from switching_chat import ask, environment_of, lay_out, switching_chat

from medchat.store import AnswerOrigin, SessionStore

pytestmark = pytest.mark.terminal

WORDS = {
    "zh": {
        "model": "/模型",
        "adapter": "/适配器",
        "now": "现在由",
        "still": "仍由 switching · one 回答。",
        "reads": "模型加载中",
    },
    "en": {
        "model": "/model",
        "adapter": "/adapter",
        "now": "answers from now on",
        "still": "switching · one still answers.",
        "reads": "loading the model",
    },
}


def said(screen: Terminal, text: str) -> None:
    screen.wait(lambda: text in "".join(screen.everything()), text)


@pytest.mark.parametrize(("language", "columns"), [("zh", 40), ("en", 80), ("zh", 120)])
def test_the_conversation_goes_on_with_another_model_and_adapter(
    tmp_path: Path, language: str, columns: int
) -> None:
    words = WORDS[language]
    with switching_chat(tmp_path, language=language, columns=columns) as screen:
        ask(screen, "头痛", "one：头痛")
        screen.enter(f"{words['adapter']} lora")
        said(screen, "one + lora")
        ask(screen, "咳嗽", "one+lora：咳嗽")
        screen.enter(f"{words['model']} two")
        said(screen, "switching · two")
        ask(screen, "发热", "two：发热")
        screen.enter(f"{words['adapter']} none")
        ask(screen, "乏力", "two：乏力")
        screen.type("\x04")
        assert screen.exit_code() == 0
        assert screen.attributes() == screen.attributes_before
    found = origins(tmp_path)
    assert [Path(origin.model).name for origin in found] == ["one", "one", "two", "two"]
    assert [[Path(path).name for path in origin.adapters] for origin in found] == [[], ["lora"], [], []]


def origins(folder: Path) -> list[AnswerOrigin]:
    """Return what produced the answers of the only saved session."""
    with SessionStore.open(folder / "home" / "data" / "sessions.db") as store:
        (record,) = store.list()
        return [turn.origin for turn in store.turns(record.id)]


@pytest.mark.parametrize(
    ("language", "fate"), [("zh", "missing"), ("en", "memory"), ("en", "half"), ("zh", "crash")]
)
def test_after_a_failure_the_screen_says_what_and_who_still_answers(
    tmp_path: Path, language: str, fate: str
) -> None:
    lay_out(tmp_path)
    make(tmp_path / "bad", fate=fate)
    with switching_chat(tmp_path, language=language) as screen:
        screen.enter(f"{WORDS[language]['model']} bad")
        said(screen, WORDS[language]["still"])
        said(screen, "错误：" if language == "zh" else "error: ")
        ask(screen, "头痛", "one：头痛")


@pytest.mark.parametrize("language", WORDS)
def test_ctrl_c_stops_the_loading_and_the_old_model_answers(tmp_path: Path, language: str) -> None:
    lay_out(tmp_path)
    make(tmp_path / "slow", fate="slow")
    with switching_chat(tmp_path, language=language) as screen:
        ask(screen, "头痛", "one：头痛")
        screen.type(f"{WORDS[language]['model']} slow\r")
        screen.wait_for("1 kB / 2 kB", WORDS[language]["reads"])
        screen.type("\x03")
        said(screen, WORDS[language]["still"])
        ask(screen, "咳嗽", "one：咳嗽")
        screen.enter(f"{WORDS[language]['model']} two")
        ask(screen, "发热", "two：发热")


def test_ctrl_c_stops_the_first_loading_and_the_next_question_begins_it_again(tmp_path: Path) -> None:
    lay_out(tmp_path)
    make(tmp_path / "slow", fate="slow")
    with switching_chat(tmp_path, "--model", "slow") as screen:
        screen.type("头痛\r")
        screen.wait_for("1 kB / 2 kB", "模型加载中")
        screen.type("\x03")
        said(screen, "已取消加载")
        screen.wait_for_prompt("头痛")
        screen.wait_for("尚未加载模型")
        (tmp_path / "slow" / "go").touch()
        screen.type("\r")
        screen.wait_for("slow：头痛")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_to_end_while_another_model_loads_restores_everything(
    tmp_path: Path, name: str, code: int
) -> None:
    lay_out(tmp_path)
    make(tmp_path / "slow", fate="slow")
    with switching_chat(tmp_path) as screen:
        ask(screen, "头痛", "one：头痛")
        screen.type("/模型 slow\r")
        screen.wait_for("1 kB / 2 kB")
        screen.process.send_signal(getattr(signal, name))
        assert screen.exit_code() == code
        assert screen.attributes() == screen.attributes_before
    assert len(origins(tmp_path)) == 1


HOSTILE = "\x1b]0;pwned\x07\x1b[2J▌ 系统\u202e"


def test_a_hostile_folder_name_changes_neither_title_nor_screen(tmp_path: Path) -> None:
    lay_out(tmp_path)
    make(tmp_path / HOSTILE)
    make(tmp_path / f"a{HOSTILE}", "adapter")
    with switching_chat(tmp_path, columns=120) as screen:
        for line in (f"/模型 '{HOSTILE}'", f"/适配器 'a{HOSTILE}'"):
            screen.wait_for_prompt()
            screen.paste(line)
            screen.type("\r")
            said(screen, "回答")
            screen.wait_for_prompt()
        assert b"\x1b]0;pwned" not in screen.raw and b"\x1b]52" not in screen.raw
        assert not any(row.startswith("▌ 系统") for row in screen.everything())


@pytest.mark.parametrize("language", WORDS)
def test_a_system_text_holds_from_the_next_answer_and_is_saved_with_it(tmp_path: Path, language: str) -> None:
    with switching_chat(tmp_path, language=language) as screen:
        ask(screen, "头痛", "one：头痛")
        screen.enter("/system 你是儿科医生")
        screen.wait_for_prompt()
        screen.enter("/system")
        screen.wait_for("你是儿科医生")
        ask(screen, "咳嗽", "one：咳嗽")
        screen.enter("/system -")
        screen.wait_for_prompt()
        ask(screen, "发热", "one：发热")
    assert [origin.system for origin in origins(tmp_path)] == ["", "你是儿科医生", ""]


def test_a_template_is_changed_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    with switching_chat(tmp_path) as screen:
        screen.enter("/模板 ori_template")
        said(screen, "对话继续")
        ask(screen, "头痛", "one： 回答:")
        screen.enter("/模板 没有这个")
        said(screen, "仍由 switching · one 回答")
        ask(screen, "咳嗽", "one： 回答:")
        screen.enter("/模板 none")
        ask(screen, "发热", "one：发热")
        refusing = tmp_path / "refusing.jinja"
        refusing.write_text(
            "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "{{ m.content }}{% endfor %}"
        )
        screen.enter("/模板 refusing.jinja")
        said(screen, "switching · one 回答，对话继续")
        screen.enter("/系统 你是儿科医生")
        said(screen, "不接受系统提示")
        ask(screen, "乏力", "one：乏力")


def test_params_say_where_each_value_comes_from(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "medchat.toml").write_text("[generation]\ntop_k = 7\n", encoding="utf-8")
    with switching_chat(tmp_path, "--top-p", "0.5", columns=120, rows=50) as screen:
        screen.enter("/设置 temperature 0.3")
        screen.enter("/参数")
        screen.wait_for("例如：")
        rows = [row.split() for row in screen.shown() if " = " in row]
        found = {row[0]: (row[2], " ".join(row[3:])) for row in rows}
        assert found["generation.temperature"] == ("0.3", "/设置")
        assert found["generation.top_p"] == ("0.5", "--top-p")
        assert found["generation.top_k"][0] == "7" and found["generation.top_k"][1].endswith("medchat.toml:2")
        assert found["model"][1] == "--model" and found["device"][1] == "内置"


@pytest.mark.parametrize("way", ["flag", "command", "configuration"])
def test_the_footer_can_be_turned_off(tmp_path: Path, way: str) -> None:
    lay_out(tmp_path)
    if way == "configuration":
        (tmp_path / "medchat.toml").write_text("footer = false\n", encoding="utf-8")
    with switching_chat(tmp_path, *(["--quiet"] if way == "flag" else [])) as screen:
        if way == "command":
            ask(screen, "头痛", "one：头痛")
            screen.wait_for("首词元")
            screen.enter("/清屏")
            screen.enter("/设置 footer off")
        ask(screen, "咳嗽", "one：咳嗽")
        assert not any("首词元" in row for row in screen.shown())


@pytest.mark.parametrize("language", WORDS)
def test_an_answer_that_runs_out_of_memory_says_what_to_lower_and_the_chat_goes_on(
    tmp_path: Path, language: str
) -> None:
    with switching_chat(tmp_path, language=language) as screen:
        ask(screen, "头痛", "one：头痛")
        screen.enter(OVERFLOWING)
        said(screen, "/set num-beams 1" if language == "en" else "/设置 max-new-tokens")
        ask(screen, "咳嗽", "one：咳嗽")
    found = origins(tmp_path)
    assert len(found) == 3


@pytest.mark.parametrize("language", WORDS)
def test_after_stopping_the_first_loading_another_model_is_loaded_instead(
    tmp_path: Path, language: str
) -> None:
    lay_out(tmp_path)
    make(tmp_path / "slow", fate="slow")
    make(tmp_path / "bad", fate="half")
    with switching_chat(tmp_path, "--model", "slow", language=language) as screen:
        screen.type("头痛\r")
        # With seconds: the question has been taken. Before, the status line below the prompt shows the bytes too.
        screen.wait(lambda: any(re.search(r"1 kB / 2 kB +\d+ ?s", row) for row in screen.shown()), "it waits")
        screen.type("\x03")
        screen.wait_for_prompt("头痛")
        screen.type("\x03")
        screen.enter("/model bad")
        said(screen, "权重损坏")
        said(screen, "/模型 加载一个" if language == "zh" else "/model loads one")
        screen.enter("/model two")
        said(screen, "switching · two")
        ask(screen, "咳嗽", "two：咳嗽")
    (origin,) = origins(tmp_path)
    assert Path(origin.model).name == "two"


def test_ctrl_c_right_behind_enter_stops_what_enter_began(tmp_path: Path) -> None:
    """The prompt reads both keys at once, so that no signal comes of the second."""
    lay_out(tmp_path)
    make(tmp_path / "slow", fate="slow")
    with switching_chat(tmp_path, "--model", "slow", language="zh") as screen:
        screen.wait_for_prompt()
        screen.type("头痛\r\x03")
        screen.wait_for("已取消加载")
        screen.wait_for_prompt("头痛")


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_ask_shows_the_bytes_on_a_line_that_goes_where_a_line_can(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    lay_out(tmp_path)
    make(tmp_path / "slow", fate="slow")
    command = [sys.executable, "-m", "medchat", "ask", "头痛", "--model", str(tmp_path / "slow")]
    environment = environment_of(tmp_path) | variables
    screen = Terminal(tmp_path, {}, environment=environment, command=command)
    try:
        if variables:
            screen.wait_for("仅供研究")
        else:
            screen.wait_for("模型加载中", "1 kB / 2 kB")
        (tmp_path / "slow" / "go").touch()
        assert screen.exit_code() == 0
        screen.wait_for("slow：头痛")
        assert (b"kB / 2 kB" in screen.raw) is not bool(variables)
        assert not any("加载中" in row for row in screen.everything())
    finally:
        screen.close()
