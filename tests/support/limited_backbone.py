"""Two backbones with few capabilities: `limited`, whose models are folders, and `filed`, whose models are files.

A model of `filed` is a file whose name ends in `.words`. (PYTEST_DONT_REWRITE: imported by name.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sound_plugin import SoundBackbone, SoundModel

from medchat import api
from medchat.hookspecs import hookimpl

medchat_api_version = 1


class LimitedModel(SoundModel):
    """Answers with how it was loaded, and with the batch size."""

    def __init__(self, options: api.LoadOptions) -> None:
        self.answer = f"{options.model.name} {options.device} {options.dtype} {options.quantize}"

    def go_on(self, segments: Any, answer: str, config: Any, cancel: Any) -> Any:
        yield api.Delta(self.answer, 1, 1)
        yield api.Delta("", 1, 1, finish=api.Finish.STOP)

    def generate_batch(self, prompts: Any, config: Any) -> list[api.Completion]:
        return [api.Completion(f"{len(prompts)}", api.Finish.STOP, 1, 1) for _ in prompts]


class Limited(SoundBackbone):
    """The backbone `limited`."""

    name = "limited"
    capabilities = api.Capabilities(
        beams=False,
        score=False,
        adapters=False,
        batch=False,
        devices=("cpu",),
        dtypes=("float32",),
        quantize=(),
    )

    def load(self, options: api.LoadOptions) -> api.ChatModel:
        return LimitedModel(options)

    def inspect(self, path: Path) -> api.ModelCard | None:
        if not (path / "limited").exists():
            return None
        return api.ModelCard(
            backbone="limited", family="limited", path=path, context_length=64, template="sound"
        )

    @property
    def recipes(self) -> Mapping[str, api.SFTRecipe]:
        return {}


class Filed(Limited):
    """The backbone `filed`."""

    name = "filed"

    def models_in(self, path: Path) -> tuple[Path, ...]:
        if path.is_file():
            return (path,) if path.suffix == ".words" else ()
        return tuple(sorted(path.glob("*.words")))

    def inspect(self, path: Path) -> api.ModelCard | None:
        if path.suffix != ".words":
            return None
        return api.ModelCard(
            backbone="filed",
            family="words",
            path=path,
            parameters=8_000_000,
            weight_bytes=path.stat().st_size,
            context_length=64,
            template="sound",
        )


@hookimpl
def medchat_backbones() -> list[api.Backbone]:
    return [Limited(), Filed()]
