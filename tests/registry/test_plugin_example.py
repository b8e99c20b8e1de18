"""The example plugins: a whole backbone, and an extension with a command."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from cli_program import Call
from plugin_sites import TALK, echo_site, example_site

from medchat import paths
from medchat.api import Finish, GenerationConfig, LoadOptions
from medchat.registry import Registry
from medchat.templates import fit

pytest_plugins = ("plugin_sites", "cli_program")


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


def test_the_example_extension_adds_to_a_chat_to_doctor_and_to_the_commands(
    site: Path, call: Call, tmp_path: Path
) -> None:
    echo_site(site)
    example_site(site, "medchat-triage")
    Registry().backbone("echo").tiny(tmp_path / "model")
    asked = call("ask", "发烧五天了，胸口剧痛，喘不上气", "--model", str(tmp_path / "model"), "--no-save")
    assert asked.code == 0 and "发热已 5 天" in asked.err
    assert "120" in asked.err and asked.err.index("120") < asked.err.index("发热已 5 天")
    assert call("triage", "发热2天").out == "没有发现\n"
    path = paths.config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[plugin.triage]\ndays = 2\n", encoding="utf-8")
    assert call("triage", "发热2天").out == "发热已 2 天：请到医院就诊，查明原因。\n"
    assert "发热 2 天起提示" in call("doctor").out
    (command,) = Registry().extensions().slash_commands()
    assert (command.name, command.zh_name) == ("triage", "分诊")
    assert command.run(TALK, "") == "没有发现" and "发热已 3 天" in command.run(TALK, "fever 3 days")
    path.write_text("[plugin.triage]\ndays = 0\n", encoding="utf-8")
    refused = call("triage", "发热2天")
    assert refused.code == 2 and f"{path}:2" in refused.failure()[0]
