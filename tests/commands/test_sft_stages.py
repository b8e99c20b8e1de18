"""What a run says before its first step, and that from its first word on it can be continued."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from child_process import TORCH, child_environment, command, start_python
from cli_program import Call
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_chatglm.tiny import write_tiny_chatglm
from pseudo_terminal import Terminal
from scripted_recipe import Pupil
from sft_watcher import Watcher

from medchat.api import Example, LoadOptions, SFTData, SFTEvent, SFTOptions, SFTProgress, SFTStatus
from medchat.errors import MedchatError, UsageError
from medchat.inference import generate
from medchat.inference.chat_model import TokenChatModel
from medchat.training.recipe import FamilyRecipe

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.torch

EXAMPLES = tuple(Example(f"问题{number}？", f"回答{number}。") for number in range(4))


def base(folder: Path) -> Path:
    corpus = [text for example in EXAMPLES for text in (example.question, example.answer)]
    write_tiny_chatglm(folder / "base", corpus=corpus, hidden_size=32, num_layers=2)
    return folder / "base"


def recipe(method: str) -> FamilyRecipe:
    found = ChatGLMBackbone().recipes[method]
    assert isinstance(found, FamilyRecipe)
    return found


def options(folder: Path, **changes: object) -> SFTOptions:
    plain: dict[str, object] = {"num_epochs": 1, "batch_size": 2, "micro_batch_size": 2, "logging_steps": 1}
    return SFTOptions(model=base(folder), output=folder / "out", device="cpu", **{**plain, **changes})  # type: ignore[arg-type]


def test_answering_before_training_is_announced(tmp_path: Path) -> None:
    watcher = Watcher()
    recipe("full").run(SFTData(EXAMPLES), options(tmp_path, samples=2), watcher)
    first_step = next(at for at, event in enumerate(watcher.events) if isinstance(event, SFTProgress))
    before = [event.text for event in watcher.events[:first_step] if isinstance(event, SFTStatus)]
    assert any("先答 2 题" in text for text in before)
    assert "答" not in before[-1], "it would seem to answer until the first step is logged"


def test_asked_to_stop_while_it_answers_before_training_it_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering = generate.answer_room

    def asked(*arguments: Any) -> int:
        watcher.cancel.set()
        return answering(*arguments)

    watcher, chosen, wanted = Watcher(), recipe("full"), options(tmp_path, samples=2)
    with monkeypatch.context() as patch:
        patch.setattr(generate, "answer_room", asked)  # called when an answer begins
        with pytest.raises(MedchatError, match="还没有开始") as caught:
            chosen.run(SFTData(EXAMPLES), wanted, watcher)
    assert "重新运行" in caught.value.remedy and not watcher.progress
    assert chosen.run(SFTData(EXAMPLES), replace(wanted, resume=True), Watcher()).samples


def test_asked_to_stop_while_it_answers_after_training_it_keeps_what_it_learned(tmp_path: Path) -> None:
    def on_event(event: SFTEvent) -> None:
        if isinstance(event, SFTStatus) and "再答" in event.text:
            watcher.cancel.set()

    watcher = Watcher(on_event)
    report = recipe("full").run(SFTData(EXAMPLES), options(tmp_path, samples=2), watcher)
    assert report.samples == () and watcher.finished == [(tmp_path / "out", report)]


def test_a_run_speaks_as_soon_as_its_folder_is_open_and_before_it_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loading(Exception):
        pass

    def load(options: LoadOptions) -> TokenChatModel:
        raise Loading

    chosen, seen = recipe("full"), []

    def on_event(event: SFTEvent) -> None:
        seen.append((type(event), (tmp_path / "out" / "run.json").is_file()))

    monkeypatch.setattr(chosen.family, "load", load)
    with pytest.raises(Loading):
        chosen.run(SFTData(EXAMPLES), options(tmp_path), Watcher(on_event))
    assert seen == [(SFTStatus, True)]


def test_a_run_killed_at_its_first_word_goes_on_by_its_output_alone(tmp_path: Path, call: Call) -> None:
    model, output, data = base(tmp_path), tmp_path / "out", tmp_path / "data.json"
    rows = [{"instruction": each.question, "output": each.answer} for each in EXAMPLES]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = (
        "sft",
        "--model",
        str(model),
        "--data",
        str(data),
        "--output",
        str(output),
        "--num-epochs",
        "1",
        "--samples",
        "0",
    )
    child = start_python(
        *command(*words, "--device", "cpu")[1:],
        environment=child_environment(),
        imported=TORCH,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    with child, child.stderr:
        assert any("加载权重" in line for line in child.stderr)
        child.send_signal(signal.SIGKILL)
    assert (output / "run.json").is_file() and not (output / "manifest.json").exists()
    ended = call("sft", "--output", str(output), "--resume")
    assert ended.code == 0, ended.err
    assert (output / "manifest.json").is_file()


def test_a_survey_before_going_on_refuses_what_the_run_would(tmp_path: Path) -> None:
    wanted = options(tmp_path, resume=True)
    wanted.output.mkdir()
    (wanted.output / "mine").write_text("mine")
    with pytest.raises(UsageError):
        recipe("full").survey(SFTData(EXAMPLES), wanted)


@pytest.mark.terminal
def test_the_bar_says_what_is_done_before_the_first_step(tmp_path: Path) -> None:
    pupil = Pupil(tmp_path / "pupil", steps=3, waits=2)
    screen = Terminal(tmp_path, {}, rows=40, command=command(*pupil.flags), environment=pupil.environment)
    try:
        screen.wait(lambda: any(re.search("训练 .*先想一想……", row) for row in screen.shown()), "the stage")
        assert screen.exit_code() == 0
        assert not any("先想一想" in row for row in screen.everything())
    finally:
        screen.close()
