"""A backbone with an option of each type; it answers any question with its options.

(PYTEST_DONT_REWRITE: imported by name.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sound_plugin import SoundBackbone, SoundModel, SoundRecipe

from medchat import api
from medchat.hookspecs import hookimpl

medchat_api_version = 1


class Told(SoundModel):
    """Says the options it was loaded with, as Python writes them."""

    def __init__(self, extra: Mapping[str, Any]) -> None:
        self.answer = repr(dict(sorted(extra.items())))

    def go_on(self, segments: Any, answer: str, config: Any, cancel: Any) -> Any:
        yield api.Delta(self.answer, 1, 1)
        yield api.Delta("", 1, 1, finish=api.Finish.STOP)

    def generate_batch(self, prompts: Any, config: Any) -> list[api.Completion]:
        return [api.Completion(self.answer, api.Finish.STOP, 1, 1) for _ in prompts]


class TellingRecipe(SoundRecipe):
    """Puts the options of the run on disk."""

    def run(self, data: Any, options: api.SFTOptions, watch: Any) -> api.SFTReport:
        options.output.mkdir(exist_ok=True)
        (options.output / "options.txt").write_text(repr(dict(sorted(options.extra.items()))))
        return super().run(data, options, watch)


class Optional(SoundBackbone):
    """The backbone `optional`."""

    name = "optional"
    load_keys: Mapping[str, api.Option | tuple[str, ...]] = {
        "tone": api.Option(choices=("dry", "warm"), summary={"zh": "语气", "en": "the tone"}),
        "depth": api.Option(kind=int, low=1, high=8, default=3),
        "heat": api.Option(kind=float, low=0),
        "weight": api.Option(kind=float),
        "fast": api.Option(kind=bool),
        "notes": api.Option(kind=Path),
        "label": api.Option(),
        "old": ("one", "two"),
    }

    def load(self, options: api.LoadOptions) -> api.ChatModel:
        return Told(options.extra)

    def inspect(self, path: Path) -> api.ModelCard | None:
        if not (path / "optional").exists():
            return None
        return api.ModelCard(backbone="optional", family="optional", path=path, context_length=4096)

    @property
    def recipes(self) -> Mapping[str, api.SFTRecipe]:
        return {"full": TellingRecipe()}


@hookimpl
def medchat_backbones() -> list[api.Backbone]:
    return [Optional()]
