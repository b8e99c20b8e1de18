"""A backbone without torch whose models and adapters are folders of a few small files, for tests of switching.

A model answers with its own name and those of its adapters and then the question. The file `fate` of a folder
scripts its loading: see `FATES`. Loading reads a hundred bytes per step and reports progress.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medchat import api
from medchat.errors import CheckpointError, MemoryShortageError
from medchat.hookspecs import hookimpl
from medchat.templates import load_template

medchat_api_version = 1

#: `missing` and `memory` refuse at once, `half` breaks off with damaged weights, `crash` with a defect of the
#: plugin, `crowded` finds no memory while another model is open, `slow` reads until the file `go` is there.
FATES = ("missing", "memory", "half", "crash", "crowded", "slow")
#: A model with this file in it cannot exchange adapters in place.
FIXED = "fixed"
#: A question that runs out of memory in the middle of its answer.
OVERFLOWING = "溢出"
#: A question that is answered until stopped, and a file that makes a model answer every question so.
ENDLESS, ENDLESS_FILE = "没完", "endless"
#: A file whose text a model says behind the question.
SPEECH = "speech.md"
STEPS = 20

#: The models that were loaded and not closed, in this process.
OPEN: list[SwitchingModel] = []


class SwitchingModel:
    """Fulfils `medchat.api.ChatModel`; one character a token."""

    def __init__(self, options: api.LoadOptions) -> None:
        self.options = options
        self.context_length = 400
        OPEN.append(self)

    @property
    def voice(self) -> str:
        """Its name in answers: `base+adapter`."""
        return "+".join(path.name for path in (self.options.model, *self.options.adapters))

    def stream(
        self, segments: Sequence[api.Segment], config: api.GenerationConfig, cancel: threading.Event
    ) -> Iterator[api.Delta]:
        if self not in OPEN:
            raise AssertionError("a model that was given back was asked")
        last = segments[-1]
        question = last.text if isinstance(last, api.Text) else ""
        said, prompt = 0, self.count(segments)
        for text in (f"{self.voice}：", question[-40:]):
            said += len(text)
            yield api.Delta(text, said, prompt)
            if OVERFLOWING in question:
                raise MemoryShortageError("运行中内存不足", "请调低 --max-new-tokens")
        while not cancel.is_set() and (ENDLESS in question or (self.options.model / ENDLESS_FILE).exists()):
            time.sleep(0.01)
            yield api.Delta("又", said, prompt)
        if (speech := self.options.model / SPEECH).exists():
            for letter in speech.read_text(encoding="utf-8"):
                yield api.Delta(letter, said, prompt)
        finish = api.Finish.CANCELLED if cancel.is_set() else api.Finish.STOP
        yield api.Delta("", said, prompt, finish=finish)

    def generate_batch(
        self, prompts: Sequence[Sequence[api.Segment]], config: api.GenerationConfig
    ) -> list[api.Completion]:
        raise AssertionError("a chat asked for more than a stream")

    def score(self, segments: Sequence[api.Segment], answer: str) -> tuple[float, ...]:
        raise AssertionError("a chat asked for more than a stream")

    def count(self, segments: Sequence[api.Segment]) -> int:
        return sum(len(part.text) if isinstance(part, api.Text) else 1 for part in segments)

    def describe(self) -> Mapping[str, Any]:
        return {"backbone": "switching", "model": str(self.options.model), "dtype": "none", "device": "cpu"}

    def close(self) -> None:
        OPEN.remove(self)


class Switching(api.Backbone):
    """The backbone `switching`: a folder with the file `model` is a model, one with `adapter` an adapter."""

    name = "switching"
    summary: Mapping[str, str] = {"zh": "测试用", "en": "for tests"}

    def load(self, options: api.LoadOptions) -> api.ChatModel:
        for folder in (options.model, *options.adapters):
            _meet_fate(folder, options)
        return SwitchingModel(options)

    def exchange_adapters(self, model: api.ChatModel, options: api.LoadOptions) -> api.ChatModel | None:
        if not isinstance(model, SwitchingModel) or (options.model / FIXED).exists():
            return None
        for folder in options.adapters:
            _meet_fate(folder, options)
        exchanged = SwitchingModel(options)
        OPEN.remove(model)
        return exchanged

    def template(self, options: api.LoadOptions) -> api.PromptTemplate:
        return load_template("bare")

    def inspect(self, path: Path) -> api.ModelCard | None:
        if not (path / "model").is_file():
            return None
        return api.ModelCard("switching", "switching", path, 1, 0, 0, 0, (), 0, 400, "bare")

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        make(path)


def make(path: Path, kind: str = "model", fate: str = "") -> Path:
    """Write the folder of a model or an `adapter`."""
    path.mkdir(parents=True)
    (path / kind).touch()
    if fate:
        (path / "fate").write_text(fate, encoding="utf-8")
    return path


def _meet_fate(folder: Path, options: api.LoadOptions) -> None:
    if not folder.is_dir():
        raise CheckpointError("没有这个目录", "请检查路径", where=str(folder))
    file = folder / "fate"
    fate = file.read_text(encoding="utf-8") if file.exists() else ""
    if fate == "missing":
        raise CheckpointError("权重不全", "请重新下载", where=str(folder))
    if fate == "memory" or (fate == "crowded" and OPEN):
        raise MemoryShortageError("内存不足：加载需要约 900 GiB", "请加上 --quantize int8")
    for step in range(1, STEPS + 1):
        if options.watch is not None:
            options.watch(100 * step, 100 * STEPS)
        while fate == "slow" and step == STEPS // 2 and not (folder / "go").exists():
            time.sleep(0.01)
            if options.watch is not None:
                options.watch(100 * step, 100 * STEPS)
        if step == STEPS // 2 and fate in ("half", "crash"):
            raise CheckpointError("权重损坏", "请重新下载") if fate == "half" else RuntimeError("a defect")


@hookimpl
def medchat_backbones() -> list[api.Backbone]:
    return [Switching()]
