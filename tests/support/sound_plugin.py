"""A complete, correct plugin: those of `careless_plugins` differ from it in one place each.

It answers every question with 多喝水, one character a token. (PYTEST_DONT_REWRITE: imported by name.)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medchat import api

Prompt = Sequence[api.Segment]
ANSWER = "多喝水"


class SoundTemplate:
    """Fulfils `medchat.api.PromptTemplate`."""

    name: str = "sound"
    stop: tuple[str, ...] = ()
    multi_turn: bool = True

    def render(self, turns: Sequence[api.Turn], question: str, system: str = "") -> tuple[api.Segment, ...]:
        said = "".join(f"{turn.question}{turn.answer}" for turn in turns)
        return (api.Text(system + said + question),)


class SoundModel:
    """Fulfils `medchat.api.ContinuingModel` and `medchat.api.PromptIds`."""

    context_length = 4096

    def stream(
        self, segments: Prompt, config: api.GenerationConfig, cancel: threading.Event
    ) -> Iterator[api.Delta]:
        yield from self.go_on(segments, "", config, cancel)

    def go_on(
        self, segments: Prompt, answer: str, config: api.GenerationConfig, cancel: threading.Event
    ) -> Iterator[api.Delta]:
        prompt, rest = self.count(segments) + len(answer), ANSWER.removeprefix(answer)
        for said, character in enumerate(rest, start=1):
            if cancel.is_set():
                yield api.Delta("", said - 1, prompt, finish=api.Finish.CANCELLED)
                return
            yield api.Delta(character, said, prompt)
        yield api.Delta("", len(rest), prompt, finish=api.Finish.STOP)

    def generate_batch(self, prompts: Sequence[Prompt], config: api.GenerationConfig) -> list[api.Completion]:
        return [
            api.Completion(ANSWER, api.Finish.STOP, self.count(prompt), len(ANSWER)) for prompt in prompts
        ]

    def score(self, segments: Prompt, answer: str) -> tuple[float, ...]:
        return (-1.0,) * (len(answer) + 1)

    def count(self, segments: Prompt) -> int:
        return sum(len(part.text) if isinstance(part, api.Text) else 1 for part in segments)

    def prompt_ids(self, segments: Prompt) -> Sequence[int]:
        return list(range(self.count(segments)))

    def describe(self) -> Mapping[str, Any]:
        return {"backbone": "careless", "model": "m", "dtype": "none", "device": "cpu"}

    def close(self) -> None:
        pass


class SoundRecipe(api.SFTRecipe):
    """Trains nothing and reports it correctly."""

    method = "full"

    def template(self, options: api.SFTOptions) -> api.PromptTemplate | None:
        return SoundTemplate()

    def run(self, data: api.SFTData, options: api.SFTOptions, watch: api.SFTWatcher) -> api.SFTReport:
        options.output.mkdir(exist_ok=True)
        watch.on_event(api.SFTProgress(1, 1, 1.0, 1e-4, 1.0, 1.0))
        report = api.SFTReport(options.output, 1, len(data.train), 1, 1.0, 1.0, 1.0)
        watch.finish(options.output, report)
        return report


class SoundBackbone(api.Backbone):
    """The backbone `careless`; any folder is its checkpoint."""

    name = "careless"
    summary: Mapping[str, str] = {"zh": "测试用", "en": "for tests"}

    def load(self, options: api.LoadOptions) -> api.ChatModel:
        return SoundModel()

    def template(self, options: api.LoadOptions) -> api.PromptTemplate:
        return SoundTemplate()

    def inspect(self, path: Path) -> api.ModelCard | None:
        return api.ModelCard("careless", "careless", path, 1, 1, 1, 1, ("float32",), 1, 4096, "sound")

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        path.mkdir(parents=True)

    @property
    def recipes(self) -> Mapping[str, api.SFTRecipe]:
        return {"full": SoundRecipe()}
