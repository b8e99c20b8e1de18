"""`ask --server auto` with whatever chooses a model: answer, saved session and model are those without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from bloom_adapters import write_adapter
from cli_program import Call, saved_turns
from medchat_bloom.backbone import BloomBackbone
from medchat_serve.command import serve
from medchat_serve.guard import Guard
from served_model import serving

from medchat.chat.setup import ChatSetup, read_settings, resolve_setup
from medchat.commands.ask_server import RunningServer, serve_flags, server_key
from medchat.paths import config_file
from medchat.plugin_kit import open_model

pytest_plugins = ("served_model",)
pytestmark = pytest.mark.torch

CORPUS = ["头痛怎么办？", "多喝水，多休息。", "发热了。", "说中文"] * 4
TOKEN = "a-token-of-the-tests"
#: A configuration file, and the flags beside it. `{}` is where the weights lie.
CHOICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "flags": ("", ("--model", "{}/bloom", "--adapter", "{}/one")),
    "two adapters": ("", ("--model", "{}/bloom", "--adapter", "{}/one", "--adapter", "{}/two")),
    "file and flag": (
        'model = "{}/bloom"\nadapter = ["{}/one"]\ntemplate = "alpaca"\nsystem = "说中文"',
        ("--adapter", "{}/two"),
    ),
    "file": ('model = "{}/bloom"\nadapter = ["{}/one"]\ntemplate = "alpaca"\nsystem = "说中文"', ()),
    "profile": (
        'model = "{}/bloom"\n[profile.a]\nadapter = ["{}/two"]\nsystem = "说中文"',
        ("--profile", "a"),
    ),
    "decoding": (
        'model = "{}/bloom"\nquantize = "int8"\n[generation]\nrepetition_penalty = 1.5\ngreedy = false',
        ("--seed", "3"),
    ),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    BloomBackbone().tiny(folder / "bloom", corpus=CORPUS)
    write_adapter(folder / "one", scale=2.0)
    write_adapter(folder / "two", scale=2.0, seed=2)
    return folder


@pytest.fixture
def background(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ChatSetup]]:
    """Have the servers in the background run in this process, and give what they were started for."""
    started: list[ChatSetup] = []
    with ExitStack() as running:

        def served(opening: ChatSetup) -> RunningServer:
            started.append(opening)
            flags: dict[str, Any] = serve.make_context("serve", serve_flags(opening)).params
            opened = running.enter_context(open_model(flags))
            server = running.enter_context(serving(opened, guard=Guard(token=TOKEN)))
            return RunningServer(server.url, TOKEN, os.getpid())

        monkeypatch.setattr("medchat.commands.ask_server.server_for", served)
        yield started


def configured(text: str, weights: Path) -> None:
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text(text.replace("{}", str(weights)), encoding="utf-8")


@pytest.mark.parametrize(
    "choice",
    [
        choice if choice == "file and flag" else pytest.param(choice, marks=pytest.mark.slow)
        for choice in CHOICES
    ],
)
def test_the_answer_is_the_one_without_a_server(
    call: Call, background: list[ChatSetup], weights: Path, choice: str
) -> None:
    text, flags = CHOICES[choice]
    configured(text, weights)
    asked = ["头痛怎么办？", *(flag.replace("{}", str(weights)) for flag in flags), "--no-save"]
    asked += [] if "--seed" in flags else ["--greedy"]
    here = call("ask", *asked, "--max-new-tokens", "8")
    there = call("ask", *asked, "--max-new-tokens", "8", "--server", "auto")
    assert (there.code, there.out) == (0, here.out), there.err
    assert len(background) == 1 and here.out.strip()
    config_file().unlink()
    assert call("ask", *asked[:1], "--model", f"{weights}/bloom", "--greedy", "--no-save").out != here.out


@pytest.mark.slow
def test_a_session_that_a_server_answered_goes_on_without_it_and_the_other_way_round(
    call: Call, background: list[ChatSetup], weights: Path
) -> None:
    model = ("--model", str(weights / "bloom"), "--adapter", str(weights / "one"))
    asking = ("--greedy", "--max-new-tokens", "4", "--session", "甲")
    call("ask", "头痛", *model, *asking, "--server", "auto")
    call("ask", "发热", *asking)
    third = call("ask", "说中文", *asking, "--server", "auto")
    assert third.code == 0, third.err
    origins = {(turn.origin.backbone, turn.origin.model, turn.origin.adapters) for turn in saved_turns()}
    assert origins == {("bloom", str(weights / "bloom"), (str(weights / "one"),))}
    assert (
        len(saved_turns()) == 3 and [one.options.adapters for one in background] == [(weights / "one",)] * 2
    )


def test_a_server_at_an_address_answers_whatever_model_the_file_chooses(
    call: Call, weights: Path, tmp_path: Path
) -> None:
    with open_model(model=str(weights / "bloom"), device="cpu") as opened, serving(opened) as served:
        asking = ("ask", "头痛怎么办？", "--greedy", "--max-new-tokens", "8", "--server", served.url)
        wanted = call(*asking).out
        configured(f'adapter = ["{tmp_path}"]\ntemplate = "alpaca"\noption = ["none=1"]', weights)
        found = call(*asking)
        assert (found.code, found.out) == (0, wanted), found.err


@pytest.fixture
def key(weights: Path, tmp_path: Path) -> Callable[..., str]:
    """Return what tells the server of these flags from others. The weights are a copy that may be changed."""
    for name in ("bloom", "one", "two"):
        copied = tmp_path / name
        copied.mkdir()
        for file in (weights / name).iterdir():
            (copied / file.name).write_bytes(file.read_bytes())
    (tmp_path / "alpaca.json").write_text('{"prompt_no_input": "{instruction}:"}', encoding="utf-8")

    def of(**flags: Any) -> str:
        return server_key(resolve_setup(read_settings({"model": str(tmp_path / "bloom"), **flags})))

    return of


def test_a_server_is_that_of_one_model_loaded_in_one_way(key: Callable[..., str], tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    different = [
        *({}, {"adapter": [one]}, {"adapter": [two]}, {"adapter": [one, two]}, {"adapter": [two, one]}),
        *({"template": "alpaca"}, {"template": str(tmp_path / "alpaca.json")}, {"dtype": "float32"}),
        *({"quantize": "int8"}, {"device": "cpu"}, {"engine": "torch"}),
    ]
    assert len({key(**flags) for flags in different}) == len(different)
    same: list[dict[str, Any]] = [{"greedy": True}, {"seed": 3}, {"system": "说中文"}, {"top_p": 0.5}]
    assert {key(**flags) for flags in same} == {key()}


@pytest.mark.parametrize(
    "changed", ["bloom/config.json", "bloom/tokenizer.json", "one/adapter_config.json", "alpaca.json"]
)
def test_a_checkpoint_that_has_changed_is_another_model(
    key: Callable[..., str], tmp_path: Path, changed: str
) -> None:
    flags = {"adapter": [str(tmp_path / "one")], "template": str(tmp_path / "alpaca.json")}
    before = key(**flags)
    assert key(**flags) == before
    file = tmp_path / changed
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert key(**flags) != before
