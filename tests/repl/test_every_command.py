"""Every command of the chat, typed one after another on a terminal of 40, 80 and 120 columns, in both languages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pseudo_terminal import Terminal
from rich.cells import cell_len
from switching_chat import lay_out, switching_chat

from medchat.repl.commands import COMMANDS

pytestmark = pytest.mark.terminal

#: Command, what is typed behind it, and what is then on the screen in Chinese and in English. In this order they fit.
TYPED = (
    ("help", "raw", "发给模型的提示词原文", "the exact prompt"),
    ("system", "你是中医", "系统提示", "system prompt"),
    ("set", "max-new-tokens 30", "max-new-tokens", "max-new-tokens"),
    ("params", "", "temperature", "temperature"),
    ("edit", "1 q 头痛一", "one：头痛一", "one：头痛一"),
    ("history", "1", "one：头痛一", "one：头痛一"),
    ("branch", "", "/分支 1 1", "/branch 1 1"),
    ("undo", "", "已撤销 1 轮", "Took back 1"),
    ("redo", "", "对话现在有 1 轮", "1 turns now"),
    ("regen", "", "one：头痛一", "one：头痛一"),
    ("continue", "", "没有中断", "was not cut off"),
    ("copy", "", "已交给终端的剪贴板", "clipboard"),
    ("rename", "复诊", "会话名为：复诊", "name: 复诊"),
    ("save", "", "每一轮都已保存", "Every turn is saved already"),
    ("search", "头痛一", "【头痛一】", "【头痛一】"),
    ("fork", "另一个", "对话已复制为新的会话", "copied into a session"),
    ("export", "出口.md", "已导出：", "Exported: "),
    ("file", "出口.md", "附件：出口.md", "Attached: 出口.md"),
    ("file", "none", "已去掉附件", "no longer attached"),
    ("preset", "病历 咳嗽", "one：总结：咳嗽", "one：总结：咳嗽"),
    ("raw", "咳嗽", "会发送的提示词：", "What would be sent:"),
    ("context", "", "上下文：", "Context: "),
    ("stats", "", "上一个回答：", "Last answer: "),
    ("thinking", "", "没有思考", "No reasoning"),
    ("template", "bare", "bare", "bare"),
    ("adapter", "lora", "lora", "lora"),
    ("compare", "底座", "对比的回答不进入对话", "does not become part of the conversation"),
    ("model", "two", "two", "two"),
    ("load", "复诊", "继续会话 复诊", "continuing session 复诊"),
    ("redact", "", "脱敏", "mask"),
    ("disclaimer", "", "仅供研究", "Research use only"),
    ("hotlines", "", "120", "120"),
    ("theme", "mono", "配色改为 mono", "The theme is mono"),
    ("new", "", "已开始新会话", "A new conversation"),
    ("sessions", "", "回车打开", "Enter opens"),
    ("lang", "{other}", "", ""),
    ("clear", "", "", ""),
    ("exit", "", "", ""),
)


def test_every_command_is_typed() -> None:
    assert {name for name, *_ in TYPED} == {command.name for command in COMMANDS}


@pytest.fixture
def chat(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    columns, language = request.param
    lay_out(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text('[preset]\n"病历" = "总结：{内容}"\n', encoding="utf-8")
    with switching_chat(tmp_path, columns=columns, rows=60, language=language) as screen:
        screen.enter("头痛")
        screen.wait_for("one：头痛")
        screen.wait_for_prompt()
        yield screen


def words_of(screen: Terminal) -> str:
    """Return all that is on the screen without blanks and what our lines begin with."""
    return "".join(screen.shown()).replace(" ", "").replace("▌", "")


@pytest.mark.parametrize(
    "chat",
    [(40, "zh"), (80, "en"), pytest.param((120, "zh"), marks=pytest.mark.slow)],
    indirect=True,
    ids=["40 zh", "80 en", "120 zh"],
)
def test_each_command_does_what_it_says_and_keeps_within_the_screen(
    chat: Terminal, request: pytest.FixtureRequest
) -> None:
    columns, language = request.node.callspec.params["chat"]
    names = {command.name: command.zh_name for command in COMMANDS}
    for name, words, chinese, english in TYPED:
        called, shown = (names[name], chinese) if language == "zh" else (name, english)
        typed = f"/{called} {words}".rstrip().format(other="en" if language == "zh" else "zh")
        chat.wait_for_prompt()
        chat.type("\x0c")  # an empty screen, so that nothing of before is treated as what comes
        chat.type(typed)
        chat.wait_for_prompt(typed)
        chat.type("\r")
        if name == "exit":
            break
        if name == "clear":
            chat.wait(lambda: [row for row in chat.shown() if row][:-1] == ["›"], "the prompt alone")
        flat = shown.replace(" ", "")  # lines may break anywhere
        chat.wait(lambda flat=flat: flat in words_of(chat), f"{shown!r} behind {typed!r}")
        if name == "sessions":
            chat.type("\x1b")
    assert chat.exit_code() == 0
    assert chat.attributes() == chat.attributes_before
    assert all(cell_len(row) <= columns for row in chat.everything())
