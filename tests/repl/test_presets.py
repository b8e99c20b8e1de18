"""Questions with placeholders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from switching_chat import lay_out, switching_chat

from medchat.repl.preset_commands import filled


@pytest.mark.parametrize(
    ("text", "words", "question", "missing"),
    [
        ("总结：{内容}", "发热 三天", "总结：发热 三天", []),
        ("总结：{内容}", "内容=发热", "总结：发热", []),
        ("总结：{内容}", "内容='发热 三天'", "总结：发热 三天", []),
        ("总结：{内容}", "血压=高", "总结：血压=高", []),
        ("总结：{内容}", "it's", "总结：it's", []),
        ("总结：{内容}", "", "总结：{内容}", ["内容"]),
        ("{a} 和 {b}", "a=甲", "甲 和 {b}", ["b"]),
        ("{a} 和 {b}", "a={b} b=乙", "{b} 和 乙", []),
        ("{a}{a}", "甲", "甲甲", []),
        ("没有占位", "", "没有占位", []),
        ("{} {a b} {{a}}", "甲", "{} {a b} {甲}", []),
    ],
)
def test_placeholders_are_filled(text: str, words: str, question: str, missing: list[str]) -> None:
    assert filled(text, words) == (question, missing)


@given(st.text(max_size=40))
def test_whatever_is_typed_fills_the_only_placeholder_to_the_letter(words: str) -> None:
    whole, missing = filled("<{x}>", words)
    assert bool(missing) is not bool(words)
    if words and not words.startswith("x="):
        assert whole == f"<{words}>"


@pytest.mark.terminal
@pytest.mark.parametrize("language", ["zh", "en"])
def test_presets_on_the_terminal(tmp_path: Path, language: str) -> None:
    lay_out(tmp_path)
    (tmp_path / "home").mkdir()
    text = '[preset]\n"病历" = "总结：{内容}"\nslash = "/etc {x}"\n'
    (tmp_path / "home" / "config.toml").write_text(text, encoding="utf-8")
    with switching_chat(tmp_path, language=language) as screen:
        screen.enter("/preset")
        screen.wait_for("病历", "总结：{内容}")
        screen.enter("/preset 病历 发热三天")
        screen.wait_for("one：总结：发热三天")
        screen.enter("/preset 病历")
        screen.wait_for_prompt("总结：{内容}")
        screen.type("\x03")
        screen.enter("/preset slash 是什么")
        screen.wait_for("one：/etc 是什么")
        screen.enter("/preset 病例")
        screen.wait_for("现有：病历" if language == "zh" else "there are: 病历")
