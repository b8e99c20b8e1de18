"""A backbone without torch for tests of the command line: starts at once and gives scripted answers.

It repeats every question, one character per token; 没完 is answered without end, 坏掉 fails half-way, 控制 is
answered with terminal escapes, and 停下 sends the program a signal before the answer. Questions that begin with
长 get a long answer: see `long_answer`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medchat import api
from medchat.errors import CheckpointError
from medchat.hookspecs import hookimpl
from medchat.templates import load_template

medchat_api_version = 1
Prompt = Sequence[api.Segment]

MARKER = "scripted.txt"
#: A model folder with this file sends the program a signal while it loads.
STOPPED_LOADING = "stop"
#: One with this file cannot be loaded.
BROKEN = "broken"
ENDLESS, FAILING, HOSTILE, STOPPED = "没完", "坏掉", "控制", "停下"
LONG, LONG_PIECES = "长", 100
HOSTILE_TEXT = "\x1b]52;c;aGk=\x07\x1b[2J多喝水\u202e"


class ScriptedModel:
    """Fulfils `medchat.api.ChatModel`."""

    context_length = 4096

    def __init__(self, path: Path) -> None:
        self.path = path

    def stream(
        self, segments: Prompt, config: api.GenerationConfig, cancel: threading.Event
    ) -> Iterator[api.Delta]:
        yield from self._say(_answer(_question(segments)), self.count(segments), config, cancel)

    def go_on(
        self, segments: Prompt, answer: str, config: api.GenerationConfig, cancel: threading.Event
    ) -> Iterator[api.Delta]:
        rest = iter("".join(_answer(_question(segments))).removeprefix(answer))
        yield from self._say(rest, self.count(segments) + len(answer), config, cancel)

    def _say(
        self, texts: Iterator[str], prompt: int, config: api.GenerationConfig, cancel: threading.Event
    ) -> Iterator[api.Delta]:
        said = 0
        for text in texts:
            if cancel.is_set():
                yield api.Delta("", said, prompt, finish=api.Finish.CANCELLED)
                return
            said += len(text)
            yield api.Delta(text, said, prompt)
            if said >= config.max_new_tokens:
                yield api.Delta("", said, prompt, finish=api.Finish.LENGTH)
                return
        yield api.Delta("", said, prompt, finish=api.Finish.STOP)

    def generate_batch(self, prompts: Sequence[Prompt], config: api.GenerationConfig) -> list[api.Completion]:
        raise AssertionError("a chat asked for more than a stream")

    def score(self, segments: Prompt, answer: str) -> tuple[float, ...]:
        raise AssertionError("a chat asked for more than a stream")

    def count(self, segments: Prompt) -> int:
        return sum(len(segment.text) if isinstance(segment, api.Text) else 1 for segment in segments)

    def describe(self) -> Mapping[str, Any]:
        return {"backbone": "scripted", "model": str(self.path), "dtype": "none", "device": "cpu"}

    def close(self) -> None:
        pass


def _question(segments: Prompt) -> str:
    return segments[-1].text if isinstance(segments[-1], api.Text) else ""


def long_answer(question: str) -> list[str]:
    """The pieces of the answer to a question that begins with 长, one each two milliseconds."""
    return [f"{question}：", *(f"第{number:02}；" for number in range(LONG_PIECES))]


def _answer(question: str) -> Iterator[str]:
    if question.startswith(LONG):
        for piece in long_answer(question):
            time.sleep(0.002)
            yield piece
        return
    if question == STOPPED:
        os.kill(os.getpid(), signal.SIGTERM)
    while question in (ENDLESS, STOPPED):
        yield "水" if question == ENDLESS else ""
        time.sleep(0.01)
    if question == FAILING:
        yield "多喝"
        raise RuntimeError("the device is gone")
    yield from (HOSTILE_TEXT,) if question == HOSTILE else f"你问的是{question}"


class Scripted(api.Backbone):
    """The backbone `scripted`; its checkpoint is a folder with an empty file in it."""

    name = "scripted"
    summary: Mapping[str, str] = {"zh": "测试用", "en": "for tests"}

    def load(self, options: api.LoadOptions) -> api.ChatModel:
        if (options.model / BROKEN).exists():
            raise CheckpointError("broken", "medchat models show")
        if (options.model / STOPPED_LOADING).exists():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        return ScriptedModel(options.model)

    def template(self, options: api.LoadOptions) -> api.PromptTemplate:
        return load_template("bare")

    def inspect(self, path: Path) -> api.ModelCard | None:
        if not (path / MARKER).is_file():
            return None
        return api.ModelCard("scripted", "scripted", path, 0x110000, 0, 0, 0, (), 0, 4096, "bare")

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        path.mkdir(parents=True)
        (path / MARKER).touch()


@hookimpl
def medchat_backbones() -> list[api.Backbone]:
    return [Scripted()]
