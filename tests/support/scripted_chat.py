"""A chat with a scripted model, run as a program: its one argument is a folder with `script.json`.

Answers are scripted by question: a list of pieces, where {"gate": NAME} waits until the test opens that gate
and {"endless": TEXT} says TEXT until it is stopped. {"stuck": SECONDS} is a model that hangs for that long
and cannot be stopped; nothing else waits for a fixed time.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medchat.api import (
    Completion,
    Conversation,
    Delta,
    Finish,
    GenerationConfig,
    Notice,
    Segment,
    SlashCommand,
    Text,
    Turn,
)
from medchat.chat.collaborators import NoRecorder
from medchat.errors import CheckpointError
from medchat.registry.extensions import guarded_command
from medchat.registry.metadata import EXTENSIONS, PluginEntry


class WholeHistory:
    """A template that is the question alone, after the earlier ones."""

    name = "scripted"
    stop: tuple[str, ...] = ()
    multi_turn = True

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """One segment a turn."""
        return (*(Text(turn.question + turn.answer) for turn in turns), Text(question))


class ScriptedModel:
    """Answers by the script. One character is one token."""

    def __init__(self, folder: Path, script: Mapping[str, Any]) -> None:
        self.context_length = int(script.get("context_length", 2048))
        self._folder = folder
        self._answers = {question: list(pieces) for question, pieces in script.get("answers", {}).items()}
        self._asked = 0

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Yield the scripted pieces; each time the same question is asked, its next script if it has several."""
        question = segments[-1].text if isinstance(segments[-1], Text) else ""
        self._asked += 1
        pieces = self._answers.get(question, [f"第{self._asked}次回答：{question}"])
        prompt, count = self.count(segments), 0
        for text in self._texts(pieces, cancel):
            if cancel.is_set():
                yield Delta("", count, prompt, 0, Finish.CANCELLED)
                return
            count += len(text)
            yield Delta(text, count, prompt)
        finish = Finish.LENGTH if count >= config.max_new_tokens else Finish.STOP
        yield Delta("", count, prompt, 0, Finish.CANCELLED if cancel.is_set() else finish)

    def _texts(self, pieces: Sequence[Any], cancel: threading.Event) -> Iterator[str]:
        for piece in pieces:
            if isinstance(piece, str):
                yield piece
            elif "gate" in piece:
                _wait_for_gate(self._folder / piece["gate"], cancel)
            elif "endless" in piece:
                while not cancel.is_set():
                    yield piece["endless"]
                    time.sleep(0.005)
            elif "stuck" in piece:
                time.sleep(piece["stuck"])
            elif "fail" in piece:
                raise RuntimeError(piece["fail"])

    def generate_batch(
        self, prompts: Sequence[Sequence[Segment]], config: GenerationConfig
    ) -> list[Completion]:
        """Fail the test: a chat asks for one answer at a time, as a stream."""
        raise AssertionError("a chat asked for more than a stream")

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        """Fail the test: a chat asks for one answer at a time, as a stream."""
        raise AssertionError("a chat asked for more than a stream")

    def count(self, segments: Sequence[Segment]) -> int:
        """One token a character."""
        return sum(len(segment.text) for segment in segments if isinstance(segment, Text))

    def describe(self) -> dict[str, Any]:
        """What `/stats` shows."""
        facts = {"backbone": "scripted", "model": "tiny", "dtype": "float32", "device": "cpu"}
        return facts | {"adapters": ("folder/first",), "notes": ["注意其一", "注意其二"]}

    def close(self) -> None:
        """Nothing to give back."""


class Journal(NoRecorder):
    """A recorder without branches that writes each change to a file, as the session store would."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, turn: Turn, stats: object, context: object, *, instead_of: int = 0) -> None:
        """Append one turn, or put it in place of the last ones."""
        said = [turn.question, turn.answer, turn.finish.value]
        self._write({"replace": said} if instead_of else {"save": said})

    def extend(self, turn: Turn, stats: object, context: object) -> None:
        """Put a longer answer into the last turn."""
        self._write({"extend": [turn.question, turn.answer, turn.finish.value]})

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Change every text."""
        self._write({"rewrite": change("我叫张三")})

    def undo(self, count: int) -> None:
        """Take back turns."""
        self._write({"undo": count})

    def _write(self, entry: object) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()


def _wait_for_gate(gate: Path, cancel: threading.Event | None = None) -> None:
    while not gate.exists() and not (cancel is not None and cancel.is_set()):
        time.sleep(0.005)


def _startup(folder: Path, script: Mapping[str, Any]) -> Any:
    from medchat.chat.session import ChatSession
    from medchat.medical_safety import advise, review_answer
    from medchat.repl import Startup

    notices = [Notice(text, urgent) for text, urgent in script.get("notices", [])]

    said_early: set[str] = set()

    def open_session() -> ChatSession:
        if gate := script.get("load_gate"):
            _wait_for_gate(folder / gate)
        for line in script.get("load_prints", []):
            print(line, file=sys.stderr)
        if reason := script.get("load_fails"):
            raise CheckpointError(reason, "medchat models show 目录")
        return ChatSession(
            ScriptedModel(folder, script),
            WholeHistory(),
            GenerationConfig(**script.get("generation", {})),
            recorder=Journal(folder / "journal.jsonl"),
            advisers=(
                lambda conversation, question: notices,
                *((advise,) if script.get("red_flags") else ()),
            ),
            reviewers=(review_answer,),
            guard_loops=bool(script.get("guard_loops")),
            said_early=said_early,
        )

    def early_notices(question: str) -> list[Notice]:
        due = [notice for notice in advise(Conversation(), question) if script.get("red_flags")]
        said_early.update(notice.text for notice in due)
        return due

    def remember(text: str) -> None:
        with (folder / "inputs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(text, ensure_ascii=False) + "\n")

    return Startup(
        open_session=open_session,
        model_label=script.get("model_label", "scripted"),
        opening=tuple(script.get("opening", ())),
        style=script.get("style", "rich"),
        bell=bool(script.get("bell")),
        bell_after=float(script.get("bell_after", 10)),
        past_inputs=tuple(script.get("past_inputs", ())),
        remember_input=remember,
        early_notices=early_notices,
        ready_lines=lambda session: tuple(script.get("ready_lines", ())),
        slash_commands=lambda: (
            SlashCommand("pulse", "脉搏", {"zh": "测试插件"}, lambda conversation, words: f"脉搏 {words}"),
            guarded_command(
                SlashCommand("crash", "崩溃", {"zh": "测试插件"}, lambda conversation, words: words[99]),
                PluginEntry(EXTENSIONS, "pulse", "pulse", "medchat-pulse", "1.0"),
            ),
            *(
                guarded_command(
                    SlashCommand(name, zh_name, {"zh": "不会返回"}, blocking),
                    PluginEntry(EXTENSIONS, "pulse", "pulse", "medchat-pulse", "1.0"),
                )
                for name, zh_name, blocking in BLOCKING
            ),
            SlashCommand("exit", "离开", {"zh": "想取代内置命令"}, lambda conversation, words: "被取代"),
        ),
    )


def _sleep(conversation: Conversation, words: str) -> str:
    time.sleep(1e6)
    return words


def _swallow(conversation: Conversation, words: str) -> str:
    while True:
        try:
            time.sleep(1e6)
        except BaseException:
            continue


def _native(conversation: Conversation, words: str) -> str:
    ctypes.CDLL(None).sleep(10**6)
    return words


#: Commands that do not come back, each in another way.
BLOCKING = (("sleep", "睡眠", _sleep), ("swallow", "吞掉", _swallow), ("native", "本机代码", _native))


def run_scripted_chat(folder: Path) -> int:
    """Run the chat of `folder/script.json` on this process's terminal and return its exit code."""
    from medchat.cli.program import show_failure
    from medchat.repl import run_lines, run_repl

    script = json.loads((folder / "script.json").read_text(encoding="utf-8"))
    try:
        startup = _startup(folder, script)
        return run_lines(startup, sys.stdin.buffer) if script.get("lines") else run_repl(startup)
    except Exception as error:
        return show_failure(error, debug=bool(os.environ.get("MEDCHAT_TEST_DEBUG")))


if __name__ == "__main__":
    sys.exit(run_scripted_chat(Path(sys.argv[1])))
