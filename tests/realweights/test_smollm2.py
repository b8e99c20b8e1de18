"""A published chat model, SmolLM2-135M-Instruct, through `examples/medchat-hf`: talk, ids, cache, LoRA, the kit."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from child_process import SOURCES, TORCH
from cli_program import run
from plugin_packages import write_distribution
from plugin_sites import import_example
from transformers import AutoTokenizer

from medchat.api import GenerationConfig, LoadOptions, Turn
from medchat.inference.chat_model import TokenChatModel
from medchat.testing import BackboneTests
from medchat.testing.running import run_properties

pytest_plugins = ("smollm2", "cli_program", "plugin_sites")
pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.realweights]

BACKBONE = import_example("medchat-hf").medchat_backbones()[0]
TALK = (Turn("What is the capital of France?", "The capital of France is Paris."),)
GREEDY = GenerationConfig(greedy=True, max_new_tokens=24)
#: About the vocabulary: blanks, line breaks, several scripts, what looks like its control tokens.
QUESTIONS = (
    "How do I treat a cold?",
    "a  b\n\n\nc ",
    "头痛怎么办？",
    "🙂👨‍👩‍👧 ¿qué?",
    "I'll pay 12345, don't!",
)


def options(folder: Path, *adapters: Path) -> LoadOptions:
    return LoadOptions(folder, adapters=adapters, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def model(smollm2: Path) -> TokenChatModel:
    loaded = BACKBONE.load(options(smollm2))
    assert isinstance(loaded, TokenChatModel)
    return loaded


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("site")
    write_distribution(folder, "medchat-hf", {"medchat": {"hf": "medchat_hf"}})
    example = str(Path(import_example("medchat-hf").__file__ or "").parent)
    return ":".join([*SOURCES, str(folder), example])


def test_it_converses_in_english_over_three_turns(smollm2: Path, site: str) -> None:
    asked = "What is the capital of France?\nWhich river runs through it?\nThank you. Say goodbye.\n/exit\n"
    flags = (
        "--backbone",
        "hf",
        "--model",
        str(smollm2),
        "--greedy",
        "--max-new-tokens",
        "40",
        "--dtype",
        "float32",
    )
    talk = run("chat", *flags, stdin=asked, imported=TORCH, timeout=500, PYTHONPATH=site, MEDCHAT_LANG="en")
    assert talk.code == 0, talk.err
    assert "Paris" in talk.out and "Seine" in talk.out and "\ufffd" not in talk.out


@pytest.mark.parametrize("question", QUESTIONS)
def test_its_ids_are_those_of_apply_chat_template(
    smollm2: Path, model: TokenChatModel, question: str
) -> None:
    library = AutoTokenizer.from_pretrained(smollm2)
    messages = [
        {"role": "user", "content": TALK[0].question},
        {"role": "assistant", "content": TALK[0].answer},
    ]
    wanted = library.apply_chat_template(
        [*messages, {"role": "user", "content": question}], add_generation_prompt=True
    )
    prompt = BACKBONE.template(options(smollm2)).render(TALK, question)
    assert list(model.prompt_ids(prompt)) == list(wanted["input_ids"])


def test_its_kept_cache_gives_the_logits_of_a_fresh_one(smollm2: Path, model: TokenChatModel) -> None:
    template, never = BACKBONE.template(options(smollm2)), threading.Event()
    first = model.prompt_ids(template.render((), TALK[0].question))
    further = model.prompt_ids(template.render(TALK, "Which river runs through it?"))
    model.stepper.forget()
    fresh = model.stepper.prefill(further, never)
    assert model.stepper.reused_tokens == 0
    model.stepper.forget()
    model.stepper.prefill(first, never)
    kept = model.stepper.prefill(further, never)
    assert model.stepper.reused_tokens > 20
    torch.testing.assert_close(kept, fresh, rtol=1e-3, atol=1e-3)


def test_lora_on_eight_records_changes_its_answers(smollm2: Path, site: str, tmp_path: Path) -> None:
    data, trained = tmp_path / "data.jsonl", tmp_path / "lora"
    record = {"instruction": TALK[0].question, "output": "Ask a doctor about that."}
    data.write_text("".join(json.dumps(record) + "\n" for _ in range(8)), encoding="utf-8")
    done = run(
        "sft", "--backbone", "hf", "--model", str(smollm2), "--data", str(data), "--output", str(trained),
        "--method", "lora", "--learning-rate", "0.002", "--num-epochs", "4", "--batch-size", "4", "--samples", "0",
        "--micro-batch-size", "4", "--precision", "float32", "--device", "cpu", "--yes",
        imported=TORCH, timeout=900, PYTHONPATH=site,
    )  # fmt: skip
    assert done.code == 0, done.err
    prompt = BACKBONE.template(options(smollm2)).render((), TALK[0].question)
    before, after = (
        BACKBONE.load(one).generate_batch([prompt], GREEDY)[0].text
        for one in (options(smollm2), options(smollm2, trained))
    )
    assert "Paris" in before and after != before
    kinds = {path.suffix for path in trained.rglob("*") if path.is_file()}
    assert ".safetensors" in kinds and not kinds & {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


#: Those that random weights say little about; all of them would take half an hour.
TRIED = (
    "test_a_batch_answers_as_each_prompt_alone",
    "test_a_cancel_ends_the_answer",
    "test_every_cut_leaves_whole_characters",
    "test_no_words_become_a_control_token",
    "test_special_tokens_are_those_of_the_vocabulary",
    "test_stop_texts_end_an_answer",
)


@pytest.mark.parametrize("name", TRIED)
def test_it_has_a_property_of_the_kit(smollm2: Path, name: str) -> None:
    tests = type("Tests", (BackboneTests,), {"backbone": BACKBONE, "model": smollm2})
    (result,) = run_properties(tests, [name])
    assert (result.outcome, result.detail) == ("passed", "")
