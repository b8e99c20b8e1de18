"""Questions with placeholders in the chat."""

from __future__ import annotations

from pathlib import Path

import pytest
from switching_chat import lay_out, switching_chat


@pytest.mark.terminal
@pytest.mark.parametrize("language", ["zh", "en"])
def test_presets_on_the_terminal(tmp_path: Path, language: str) -> None:
    lay_out(tmp_path)
    (tmp_path / "home").mkdir()
    text = '[preset]\n"病历" = "总结：{内容}"\nslash = "/etc {x}"\n"没有占位" = "早"\n'
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
        screen.enter("/preset 没有占位 多余的话")
        screen.wait_for("没有地方填入这些文字" if language == "zh" else "has no place for these words")
        screen.enter("/preset 病例")
        screen.wait_for("现有：病历" if language == "zh" else "there are: 病历")
