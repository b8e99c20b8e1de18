"""The READMEs' part on several users, and the first commands of docs/serve.md: what they type works."""

from __future__ import annotations

import re
import shlex
import signal
from itertools import pairwise

import httpx2
import pytest
from cli_program import Scripted, run
from locations import ROOT
from served_model import SECONDS
from test_serve_command import started

pytest_plugins = ("served_model",)

PORT = re.compile(r"http://127\.0\.0\.1:8321")


OTHERS = ("README_EN.md", "docs/serve.md", "docs/zh/serve.md")


@pytest.mark.parametrize(
    "page", ["README.md", *(pytest.param(page, marks=pytest.mark.slow) for page in OTHERS)]
)
def test_the_commands_for_several_users_do_what_the_page_says(scripted: Scripted, page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^medchat .*", text, re.MULTILINE)
    (serve, ask) = next(pair for pair in pairwise(lines) if pair[0].startswith("medchat serve "))
    assert [word for word in shlex.split(serve) if word.startswith("--")] == ["--backbone", "--model"]
    with started(scripted) as (process, url, _):
        words = shlex.split(PORT.sub(url, ask))
        answered = run(*words[1:])
        assert answered.out == "你问的是头痛怎么办？\n", answered.err
        shown = httpx2.get(url, timeout=SECONDS, trust_env=False)
        assert "<title>MedChat</title>" in shown.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 143
    assert "--port" not in serve and PORT.search(ask), "8321 is the port where none is named"
