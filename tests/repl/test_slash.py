"""Slash commands: what is a command, which one was meant, and what `/set` accepts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from locations import ROOT
from scripted_chat import ScriptedModel, WholeHistory

from medchat.api import GENERATION_RANGES, GenerationConfig
from medchat.chat.session import ChatSession
from medchat.errors import UsageError
from medchat.language import set_language
from medchat.repl.chat import Chat
from medchat.repl.commands import COMMANDS
from medchat.repl.set_command import (
    ON_SCREEN,
    apply_setting,
    screen_setting,
    setting_names,
    typed_setting,
    values_in_force,
)
from medchat.repl.slash import ReplCommand, Typed, find, parse


@pytest.fixture
def session(tmp_path: Path) -> ChatSession:
    return ChatSession(ScriptedModel(tmp_path, {}), WholeHistory(), GenerationConfig())


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("/undo 2", Typed("undo", "2")),
        ("/撤销", Typed("撤销", "")),
        ("／帮助", Typed("帮助", "")),
        ("  /set  top-p   0.5 ", Typed("set", "top-p   0.5")),
        ("/", Typed("", "")),
        ("//etc 是什么", "/etc 是什么"),
        ("／／", "／"),
        ("头痛 /help", "头痛 /help"),
        ("  头痛\n发烧 ", "  头痛\n发烧 "),
    ],
)
def test_a_line_is_a_command_or_a_question(line: str, meaning: Typed | str) -> None:
    assert parse(line) == meaning


@given(st.text().filter(lambda text: not text.lstrip().startswith(("/", "／"))))
def test_a_question_without_a_slash_goes_to_the_model_unchanged(line: str) -> None:
    assert parse(line) == line


def test_every_command_of_this_release_is_there_in_both_languages() -> None:
    pairs = {
        "regen": "重答",
        "continue": "续写",
        "edit": "编辑",
        "undo": "撤销",
        "redo": "重做",
        "copy": "复制",
        "branch": "分支",
        "new": "新建",
        "history": "历史",
        "clear": "清屏",
        "save": "保存",
        "load": "载入",
        "sessions": "会话",
        "search": "搜索",
        "rename": "改名",
        "fork": "分叉",
        "export": "导出",
        "compare": "对比",
        "file": "文件",
        "preset": "预设",
        "model": "模型",
        "adapter": "适配器",
        "system": "系统",
        "template": "模板",
        "set": "设置",
        "params": "参数",
        "stats": "统计",
        "context": "上下文",
        "raw": "原文",
        "lang": "语言",
        "theme": "配色",
        "thinking": "思考",
        "disclaimer": "声明",
        "hotlines": "热线",
        "redact": "脱敏",
        "help": "帮助",
        "exit": "退出",
    }
    assert {command.name: command.zh_name for command in COMMANDS} == pairs


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_command_is_explained_in_both_languages_with_a_line_that_calls_it(
    command: ReplCommand[Chat],
) -> None:
    assert command.zh and command.en
    assert bool(command.more[0]) is bool(command.more[1])
    assert bool(command.words) is bool(command.examples[0]) is bool(command.examples[1])
    for example in command.examples if command.words else ():
        called = parse(example)
        assert isinstance(called, Typed) and called.name in (command.name, command.zh_name)


@pytest.mark.parametrize(
    ("typed", "name"), [("u", "undo"), ("撤", "撤销"), ("REGEN", "regen"), ("续", "续写")]
)
def test_a_unique_beginning_is_enough(typed: str, name: str) -> None:
    found = find(typed, COMMANDS)
    assert name in (found.name, found.zh_name)


def test_an_ambiguous_beginning_names_the_candidates() -> None:
    with pytest.raises(UsageError) as caught:
        find("h", COMMANDS)
    assert "/help" in caught.value.remedy and "/history" in caught.value.remedy


@pytest.mark.parametrize(("typed", "meant"), [("hlep", "/help"), ("撤消", "/撤销"), ("undoo", "/undo")])
def test_a_misspelt_command_gets_a_suggestion(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(typed, COMMANDS)
    assert meant in caught.value.remedy


def test_an_unknown_command_cannot_print_what_the_terminal_obeys() -> None:
    with pytest.raises(UsageError) as caught:
        find("\x1b[2J▌", COMMANDS)
    assert "\x1b" not in caught.value.what and "▌" not in caught.value.what


# ---------------------------------------------------------------- /set


def apply(session: ChatSession, words: str) -> str:
    """Do what `/set` does with `words`; return the setting's name."""
    name, value = typed_setting(words)
    if name in ON_SCREEN:
        screen_setting(name, value)
    else:
        apply_setting(session, name, value)
    return name


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("temperature 0.7", "temperature", 0.7),
        ("--top-p=0.8", "top_p", 0.8),
        ("max_new_tokens 64", "max_new_tokens", 64),
        ("temp 1.2", "temperature", 1.2),
        ("greedy on", "greedy", True),
        ("greedy 关", "greedy", False),
        ("seed 7", "seed", 7),
        ("seed none", "seed", None),
        ("speculate off", "speculate", "off"),
    ],
)
def test_a_setting_takes_effect(session: ChatSession, words: str, name: str, value: object) -> None:
    apply(session, words)
    assert getattr(session.config, name) == value


def test_history_none_sends_each_question_alone(session: ChatSession) -> None:
    apply(session, "history none")
    assert session.remember_history is False
    assert dict(values_in_force(session))["history"] == "none"


@pytest.mark.parametrize("name", sorted(GENERATION_RANGES))
def test_a_value_out_of_range_changes_nothing_and_names_the_range(session: ChatSession, name: str) -> None:
    before = session.config
    for value in ("-1", str(10**30)):
        with pytest.raises(UsageError) as caught:
            apply(session, f"{name} {value}")
        assert str(GENERATION_RANGES[name]) in caught.value.remedy
    assert session.config == before


@pytest.mark.parametrize(
    "words",
    [
        "temperature",
        "temperature warm",
        "temperature nan",
        "max-new-tokens 1.5",
        "greedy maybe",
        "history some",
        "speculate always",
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_a_remedy(session: ChatSession, words: str) -> None:
    before = session.config
    with pytest.raises(UsageError) as caught:
        apply(session, words)
    assert caught.value.remedy
    assert session.config == before


@given(st.text(max_size=30))
def test_whatever_is_set_is_a_setting_or_a_usage_error(words: str) -> None:
    session = ChatSession(ScriptedModel.__new__(ScriptedModel), WholeHistory(), GenerationConfig())
    try:
        name = apply(session, words)
    except UsageError:
        assert session.config == GenerationConfig()
    else:
        assert name in setting_names()


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.words], ids=lambda each: each.name
)
def test_what_may_follow_a_command_is_named_in_the_language_of_the_interface(
    command: ReplCommand[Chat],
) -> None:
    as_typed = {"q", "a", "n", "k", "none", "profile", "base", "adapter", "model", "zh", "en", "save"}
    assert set(re.findall("[a-z]+", command.placeholders)) <= as_typed
    set_language("en")
    try:
        assert command.placeholders == command.words
    finally:
        set_language("zh")


# ---------------------------------------------------------------- the page


@pytest.mark.parametrize("chinese", [False, True])
def test_the_page_lists_exactly_the_commands_of_the_code(chinese: bool) -> None:
    page = (ROOT / "docs" / ("zh/terminal.md" if chinese else "terminal.md")).read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `/")]
    expected = []
    for command in COMMANDS:
        words = (command.placeholders if chinese else command.words).replace("|", "\\|")
        called = f"`/{command.name}` `/{command.zh_name}`" + f" `{words}`" * bool(words)
        expected.append(f"| {called} | {command.zh if chinese else command.en} |")
    assert rows == expected


@pytest.mark.parametrize("chinese", [False, True])
def test_the_page_lists_every_key_that_the_prompt_binds(chinese: bool) -> None:
    bound = set()
    for module in ("prompt", "keyboard"):
        source = (ROOT / "medchat" / "repl" / f"{module}.py").read_text(encoding="utf-8")
        for keys in re.findall(r"@keys\.add\(((?:\"[a-z-]+\",? ?)+)", source):
            *before, key = re.findall(r'"([a-z-]+)"', keys)
            name = f"Ctrl-{key[2:].upper()}" if key.startswith("c-") else key.capitalize()
            bound.add("Alt+" * (before == ["escape"]) + name)
    page = (ROOT / "docs" / ("zh/terminal.md" if chinese else "terminal.md")).read_text(encoding="utf-8")
    table = page.partition("\n## ")[2].partition("\n\n")[2].partition("\n\n")[0]
    listed = {key for row in table.splitlines() for key in re.findall(r"[A-Z][\w+-]+", row.split("|")[1])}
    assert {"Enter", "Alt+Enter", "Ctrl-G"} <= bound <= listed
