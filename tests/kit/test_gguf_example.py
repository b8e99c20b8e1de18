"""llama.cpp through `examples/medchat-gguf`, on a miniature of our own: the kit, and the program's commands."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from cli_program import Call
from gguf_miniature import write_gguf
from plugin_sites import example_site, import_example

from medchat.api import GenerationConfig, LoadOptions
from medchat.errors import CheckpointError
from medchat.testing import BackboneTests
from medchat.testing.running import run_properties
from medchat.testing.subject import CORPUS

pytest_plugins = ("cli_program", "plugin_sites")
BACKBONE = import_example("medchat-gguf").medchat_backbones()[0]
EXTRA = {"context": 512, "threads": 1}
QUESTION = "头痛怎么办？"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, CORPUS)
    return path


@pytest.mark.slow
def test_it_keeps_to_the_properties_of_the_kit(model: Path) -> None:
    tests = type("Tests", (BackboneTests,), {"backbone": BACKBONE, "model": model})
    results = {one.name: one for one in run_properties(tests)}
    assert not {name: one.detail for name, one in results.items() if one.outcome == "failed"}
    skipped = {one.detail for one in results.values() if one.outcome == "skipped"}
    assert skipped == {"the model was given", "the backbone has no recipes"}


def test_its_commands_give_one_answer(model: Path, site: Path, call: Call, tmp_path: Path) -> None:
    example_site(site, "medchat-gguf")
    chosen = ("--model", str(model.parent), "--greedy", "--max-new-tokens", "12", "--option", "threads=1")
    asked = call("ask", QUESTION, "--json", "--no-save", *chosen)
    assert asked.code == 0, asked.err
    answer = asked.one()["answer"]
    assert answer
    chatted = call("chat", "--no-save", *chosen, stdin=f"{QUESTION}\n/exit\n")
    assert chatted.code == 0 and answer in chatted.out, chatted.err
    questions, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    questions.write_text(json.dumps({"question": QUESTION}) + "\n", encoding="utf-8")
    inferred = call("infer", "--data", str(questions), "--output", str(answers), *chosen)
    assert inferred.code == 0, inferred.err
    assert json.loads(answers.read_text(encoding="utf-8"))["answer"] == answer
    shown = call("models", "show", str(model), "--json")
    assert (shown.one()["backbone"], shown.one()["context_length"]) == ("gguf", 512)


def test_a_file_that_llama_cpp_cannot_open_is_a_damaged_checkpoint(model: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[:-100_000])
    with pytest.raises(CheckpointError) as refused:
        BACKBONE.load(LoadOptions(cut, extra=EXTRA))
    assert refused.value.where == str(cut)


def test_penalties_reach_llama_cpp(model: Path) -> None:
    options = LoadOptions(model, extra=EXTRA)
    loaded, prompt = BACKBONE.load(options), BACKBONE.template(options).render((), QUESTION)

    def answer(**settings: float) -> str:
        config = GenerationConfig(max_new_tokens=24, greedy=True, **settings)  # type: ignore[arg-type]
        return "".join(delta.text for delta in loaded.stream(prompt, config, threading.Event()))

    assert answer() != answer(repetition_penalty=2.0)
    loaded.close()
