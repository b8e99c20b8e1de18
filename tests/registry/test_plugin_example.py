"""The example plugin is a whole backbone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from plugin_sites import TALK, echo_site

from medchat.api import Finish, GenerationConfig, LoadOptions
from medchat.registry import Registry
from medchat.templates import fit

pytest_plugins = ("plugin_sites",)


def test_the_example_plugin_is_a_whole_backbone(site: Path, tmp_path: Path) -> None:
    echo_site(site)
    backbone = Registry().backbone("echo")
    assert backbone.inspect(tmp_path) is None
    backbone.tiny(tmp_path / "model", context_length=8)
    card = backbone.inspect(tmp_path / "model")
    assert card is not None
    assert card.backbone == "echo"

    options = LoadOptions(tmp_path / "model")
    model, template = backbone.load(options), backbone.template(options)
    fitted = fit(template, TALK, "头痛", model.count, model.context_length)
    config, running = GenerationConfig(), threading.Event()
    deltas = list(model.stream(fitted.segments, config, running))
    assert "".join(delta.text for delta in deltas) == "头痛"
    assert [delta.finish for delta in deltas] == [None, None, Finish.STOP]
    assert model.generate_batch([fitted.segments], config)[0].text == "头痛"
    assert model.score(fitted.segments, "头痛") == (0.0, 0.0, 0.0)
    assert (
        finishes(model.stream(fitted.segments, GenerationConfig(max_new_tokens=1), running)) is Finish.LENGTH
    )
    running.set()
    assert finishes(model.stream(fitted.segments, config, running)) is Finish.CANCELLED
    model.close()


def finishes(deltas: Iterator[object]) -> object:
    return [delta.finish for delta in deltas][-1]  # type: ignore[attr-defined]
