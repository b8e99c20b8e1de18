"""A plugin's command that does not come back: the user leaves it, or the chat, and nothing is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from pseudo_terminal import terminal
from scripted_chat import BLOCKING

pytestmark = pytest.mark.terminal

CTRL_C = "\x03"
NAMES = [name for name, _, _ in BLOCKING]
SCRIPT = {"answers": {"问": ["甲"], "再问": ["乙"]}}


@pytest.mark.parametrize("name", NAMES)
def test_ctrl_c_leaves_the_command_and_the_conversation_goes_on(tmp_path: Path, name: str) -> None:
    with terminal(tmp_path, SCRIPT) as screen:
        screen.wait_for_prompt()
        screen.enter("问")
        screen.wait_for("甲")
        screen.wait_for_prompt()
        screen.enter(f"/{name}")
        screen.wait_for(f"/{name}…")
        screen.process.send_signal(signal.SIGINT)
        screen.wait_for(f"不再等待插件 medchat-pulse 的 /{name}")
        screen.wait_for_prompt()
        screen.enter("再问")
        screen.wait_for("乙")
        screen.wait_for_prompt()
        screen.enter("/exit")
        assert screen.exit_code() == 0
        assert screen.attributes() == screen.attributes_before
        assert [row["save"][1] for row in screen.journal()] == ["甲", "乙"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("name", NAMES)
def test_one_signal_ends_a_chat_that_waits_for_the_command(
    tmp_path: Path, name: str, number: signal.Signals, code: int
) -> None:
    with terminal(tmp_path, SCRIPT) as screen:
        screen.wait_for_prompt()
        screen.enter("问")
        screen.wait_for("甲")
        screen.wait_for_prompt()
        screen.enter(f"/{name}")
        screen.wait_for(f"/{name}…")
        os.kill(screen.process.pid, number)
        assert screen.exit_code() == code
        assert screen.attributes() == screen.attributes_before
        assert f"▌ 不再等待插件 medchat-pulse 的 /{name}；对话没有变化" in screen.everything()
        assert [row["save"][1] for row in screen.journal()] == ["甲"]
