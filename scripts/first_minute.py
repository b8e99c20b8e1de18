"""Record a first minute with MedChat: the real program on a terminal, as pages and as the READMEs' screens.

    python scripts/first_minute.py [--home DIR]

Writes docs/first-minute.md and docs/zh/first-minute.md, and the screens in both READMEs. The chat is that of `medchat
demo`; `--home DIR` is a MEDCHAT_HOME in which it has been trained already. What differs from one recording to the
next (session ids, speeds, folders, how far an answer had come when it was stopped) is put in one form.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from pseudo_terminal import Terminal  # noqa: E402

COLUMNS, ROWS = 80, 40
#: What the pages have in place of the folder, as long as that, so that lines break alike.
SHOWN_FOLDER = "/home/zhang/medchat"
#: Characters that are shown of the answer that was stopped, and how often stopping one in time is tried.
KEPT, TRIES = 12, 8
#: Steps whose screens the READMEs have.
IN_README = (1, 2, 3)
BEGIN, END = "<!-- first-minute -->", "<!-- /first-minute -->"

#: What is never the same twice, and what stands for it.
VARYING = (
    (re.compile(r"\b\d{8}-[a-z0-9]{4}\b"), "20260101-k3f9"),
    (re.compile(r"\bchatglm-[0-9a-f]{16}\b"), "chatglm-0123456789abcdef"),
    (re.compile(r"[\d.]+(?= 词元/秒| tokens?/s)"), "…"),
    (re.compile(r"(?<=首词元 )[\d.]+|(?<=first token )[\d.]+"), "…"),
)
#: The figures of an answer that was stopped differ too.
VARYING_STOPPED = re.compile(r"(?<=输出 )\d+|(?<=out )\d+|\d+(?=/\d+$)")

QUESTION, STOPPED, OTHER = "二手烟对人有害吗？", "胸外按压怎么做？", "癌症可以预防吗？"


@dataclass(frozen=True)
class Step:
    """A heading, what is said of the step, and what is typed: a command in the shell, or a line in the chat."""

    title: str
    said: str
    typed: str
    in_shell: bool = False
    stop: bool = False


@dataclass(frozen=True)
class Page:
    """The page in one language: what is above the steps, and the steps."""

    language: str
    path: str
    readme: str
    head: str
    steps: tuple[Step, ...]


CHINESE = Page(
    "zh",
    "docs/zh/first-minute.md",
    "README.md",
    """# 第一分钟

[English](../first-minute.md) · [终端](terminal.md)

以下是真实程序在 80 列终端上的画面，由 `python scripts/first_minute.py` 录制：微型模型已经训练好，\
`$` 后面是在 shell 里输入的命令，`›` 后面是在对话里输入的内容。\
会话编号、速度和目录换成了固定的写法，停下的回答只留开头几个字。
""",
    (
        Step("启动", "演示不需要权重。第一次启动会显示完整的使用声明。", "medchat demo", in_shell=True),
        Step("提问", "回答边生成边显示；下面两行是人工智能标识和统计。", QUESTION),
        Step("停下", "回答时按 Ctrl-C：已有的部分保留。", STOPPED, stop=True),
        Step("重答", "再答一次，原来的回答留在另一个分支。", "/重答"),
        Step("编辑", "改写任意一轮的问题，从那里继续。", f"/编辑 2 问 {OTHER}"),
        Step("搜索", "在全部会话里搜索，别的分支里的也能找到。", "/搜索 按压"),
        Step("导出", "后缀决定格式：`.md`、`.html`、`.json`、`.jsonl`。", "/导出 问答.md"),
        Step("接着聊", "按 Ctrl-D 退出；每一轮都已保存，随时可以接着聊。", "medchat chat -c", in_shell=True),
    ),
)
ENGLISH = Page(
    "en",
    "docs/first-minute.md",
    "README_EN.md",
    """# The first minute

[中文](zh/first-minute.md) · [The terminal](terminal.md)

These are screens of the real program on a terminal of 80 columns, recorded by `python scripts/first_minute.py`.
The miniature model has been trained already; what follows `$` was typed in the shell, what follows `›` in the chat.
Session ids, speeds and folders have been put in one form; of the answer that was stopped only the beginning is kept.
""",
    (
        Step(
            "Start",
            "The demo needs no weights. The first start shows the whole disclaimer.",
            "medchat demo",
            True,
        ),
        Step("Ask", "The answer appears as it is generated; below it the AI mark and the figures.", QUESTION),
        Step("Stop", "Ctrl-C while it answers: what has come is kept.", STOPPED, stop=True),
        Step("Answer again", "The former answer stays on another branch.", "/regen"),
        Step("Edit", "Change the question of any turn, and go on from there.", f"/edit 2 q {OTHER}"),
        Step("Search", "All sessions are searched, turns on other branches too.", "/search 按压"),
        Step("Export", "The suffix chooses the form: `.md`, `.html`, `.json`, `.jsonl`.", "/export chat.md"),
        Step("Go on", "Ctrl-D leaves; every turn is saved, and the chat can go on.", "medchat chat -c", True),
    ),
)


class TooLate(Exception):
    """The answer had come to its end before it was stopped."""


def record(page: Page, home: Path) -> str:
    """Return the page with what the program shows. `home` gets the trained demo where it has none, and no session."""
    command = [sys.executable, "-m", "medchat", "demo", "--no-save"]
    environment = {**os.environ, "MEDCHAT_HOME": str(home)}
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=True)
    for _ in range(TRIES):
        with tempfile.TemporaryDirectory(prefix="first-", dir="/tmp") as folder:
            Path(folder, "home").mkdir()
            Path(folder, "home", "cache").symlink_to(home / "cache")
            try:
                return _written(page, list(_screens(page, Path(folder)))).replace(folder, SHOWN_FOLDER)
            except TooLate:
                continue
    raise SystemExit(f"no answer was stopped in time in {TRIES} tries: is the machine too fast?")


def with_screens(readme: str, page: str) -> str:
    """Return a README with the screens of a recorded page between the marks."""
    blocks = re.findall(r"^```text\n(.*?)^```\n", page, re.DOTALL | re.MULTILINE)
    shown = "```text\n" + "\n".join(blocks[step] for step in IN_README) + "```\n"
    before, _, rest = readme.partition(BEGIN + "\n")
    return before + BEGIN + "\n" + shown + END + rest.partition(END)[2]


def _screens(page: Page, folder: Path) -> Iterator[list[str]]:
    """Hold the chat; give the rows of each step."""
    from medchat.demo_data import demo_examples

    answers = {pair.question: pair.answer for pair in demo_examples()}
    chat: _Chat | None = None
    try:
        for step in page.steps:
            if step.in_shell:
                if chat is not None:
                    chat.leave()
                chat = _Chat(step.typed, page.language, folder)
                yield [f"$ {step.typed}", *chat.rows()]
            elif chat is not None and step.stop:
                yield chat.stopped(step.typed, answers[step.typed])
            elif chat is not None:
                chat.enter(step.typed)
                yield chat.rows()
    finally:
        if chat is not None:
            chat.close()


class _Chat:
    """The program on its terminal, and how many rows of it have been taken."""

    def __init__(self, command: str, language: str, folder: Path) -> None:
        home = folder / "home"
        program = f"cd {folder} && exec {shlex.quote(sys.executable)} -m {command}"
        environment = {"MEDCHAT_HOME": str(home), "MEDCHAT_LANG": language, "OMP_NUM_THREADS": "1"}
        self._terminal = Terminal(
            home, {}, columns=COLUMNS, rows=ROWS, environment=environment, command=["sh", "-c", program]
        )
        self._taken = 0
        # The status line names the model once it is there; before, it says that it is being loaded.
        self._terminal.wait(lambda: self._terminal.shown()[-1].startswith("chatglm"), "the model", 120)

    def rows(self) -> list[str]:
        """Return the rows up to the empty prompt that have not been taken yet."""
        terminal = self._terminal
        terminal.wait(lambda: self._prompt_below(), "a prompt", 60)
        everything = terminal.everything()
        end = max(at for at, row in enumerate(everything) if row == "›")
        rows, self._taken = everything[self._taken : end], end
        return rows

    def _prompt_below(self) -> bool:
        rows = self._terminal.everything()
        return self._terminal.cursor_row() == "›" and "›" in rows[self._taken + (self._taken > 0) :]

    def enter(self, line: str) -> None:
        """Type a line and send it."""
        self._terminal.enter(line)

    def stopped(self, question: str, answer: str) -> list[str]:
        """Ask, stop the answer when it has begun, and return the rows with so much of it as is always kept.

        Raises TooLate where it was whole by then.
        """
        self.enter(question)
        self._terminal.wait(
            lambda: any(row.startswith(answer[:4]) for row in self._terminal.shown()), "the answer"
        )
        self._terminal.type("\x03")
        rows = self.rows()
        begin = next(at for at, row in enumerate(rows) if row.startswith(answer[:4]))
        end = next(at for at in range(begin, len(rows)) if rows[at].startswith("▌"))
        came = "".join(rows[begin:end])
        if len(came) >= len(answer) or not answer.startswith(came):
            raise TooLate
        return [*rows[:begin], answer[:KEPT], *(VARYING_STOPPED.sub("…", row) for row in rows[end:])]

    def leave(self) -> None:
        """Press Ctrl-D and wait for the end."""
        self._terminal.type("\x04")
        self._terminal.exit_code()
        self.close()

    def close(self) -> None:
        """End the program, whatever it does."""
        self._terminal.close()


def _written(page: Page, screens: Sequence[Sequence[str]]) -> str:
    parts = [page.head]
    for step, rows in zip(page.steps, screens, strict=True):
        shown = "\n".join(rows).strip("\n")
        for varying, fixed in VARYING:
            shown = varying.sub(fixed, shown)
        parts.append(f"## {step.title}\n\n{step.said}\n\n```text\n{shown}\n```\n")
    return "\n".join(parts)


def main() -> None:
    """Train the demo if need be, record both pages and write them, and the READMEs' screens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", type=Path, help="a MEDCHAT_HOME with the trained demo")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = (given.home or Path(folder)).absolute()
        for page in (CHINESE, ENGLISH):
            text = record(page, home)
            (ROOT / page.path).write_text(text, encoding="utf-8")
            readme = ROOT / page.readme
            readme.write_text(with_screens(readme.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()
