"""`medchat chat` with the backbone of `switching_backbone` on a terminal, beside its models and adapters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from child_process import SOURCES, command
from plugin_packages import write_distribution
from pseudo_terminal import Terminal
from switching_backbone import make


def lay_out(folder: Path, site: Path | None = None) -> None:
    """Write models `one` and `two`, adapters `lora` and `other`, and the backbone's distribution in `site`."""
    for name in ("one", "two"):
        make(folder / name)
    for name in ("lora", "other"):
        make(folder / name, "adapter")
    write_distribution(
        site or folder / "site", "medchat-switching", {"medchat": {"switching": "switching_backbone"}}
    )


def environment_of(folder: Path, language: str = "zh") -> dict[str, str]:
    """Return the variables under which the program finds the backbone and keeps to `folder`."""
    return {
        "PYTHONPATH": os.pathsep.join([*SOURCES, str(folder / "site")]),
        "MEDCHAT_HOME": str(folder / "home"),
        "MEDCHAT_LANG": language,
    }


def ask(screen: Terminal, question: str, answer: str) -> None:
    """Ask, and wait for a row that is the answer and for the next prompt."""
    screen.enter(question)
    screen.wait(lambda: answer in screen.everything(), answer)
    screen.wait_for_prompt()


@contextmanager
def switching_chat(folder: Path, *flags: str, language: str = "zh", **options: Any) -> Iterator[Terminal]:
    """Chat with the model `one` of `folder`, in it; relative paths are seen from there."""
    if not (folder / "site").exists():
        lay_out(folder)
    environment = environment_of(folder, language)
    given = flags if "--model" in flags or "--profile" in flags else ("--model", "one", *flags)
    opened = Terminal(
        folder, {}, environment=environment, command=command("chat", *given), cwd=folder, **options
    )
    try:
        opened.wait_for_prompt()
        yield opened
    finally:
        opened.close()
