"""Bloom as a user meets it: streamed, in batches, turn after turn, and through the commands."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from bloom_adapters import write_adapter
from cli_program import MARK_ZH, Call
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.loading import BLOOM

from medchat.api import ChatModel, Delta, Finish, GenerationConfig, LoadOptions, Segment, Text, Turn
from medchat.errors import UsageError

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.torch

GREEDY = GenerationConfig(greedy=True, max_new_tokens=12)
QUESTIONS = ("头痛怎么办？", "最近总是咳嗽，喉咙有点痛，需要去医院看看吗？ I have a question.", "你好")
NEVER = threading.Event()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bloom") / "Bloom 微型"
    BloomBackbone().tiny(path, hidden_size=32, n_layer=3)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> ChatModel:
    return BloomBackbone().load(LoadOptions(folder, device="cpu", dtype="float32"))


def prompt(question: str, turns: Sequence[Turn] = ()) -> tuple[Segment, ...]:
    return BloomBackbone().template(LoadOptions(Path("nowhere"))).render(turns, question)


def stream(model: ChatModel, segments: Sequence[Segment], config: GenerationConfig = GREEDY) -> list[Delta]:
    return list(model.stream(segments, config, NEVER))


def text_of(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_without_an_adapter_the_question_stands_alone(model: ChatModel) -> None:
    assert prompt("头痛怎么办？") == (Text("头痛怎么办？"),)
    assert model.describe()["backbone"] == "bloom"


@pytest.mark.parametrize(
    "config", [GREEDY, GenerationConfig(num_beams=4, max_new_tokens=8)], ids=["greedy", "beams"]
)
def test_left_padding_changes_no_answer(model: ChatModel, config: GenerationConfig) -> None:
    prompts = [prompt(question) for question in QUESTIONS]
    together = model.generate_batch(prompts, config)
    alone = [model.generate_batch([one], config)[0] for one in prompts]
    assert together == alone
    assert [answer.text for answer in together] == [text_of(stream(model, one, config)) for one in prompts]
    assert len({answer.text for answer in together}) == len(prompts)


def test_the_second_turn_reuses_the_first_and_answers_as_if_it_had_not(folder: Path) -> None:
    kept = BloomBackbone().load(LoadOptions(folder, device="cpu", dtype="float32"))
    fresh = BloomBackbone().load(LoadOptions(folder, device="cpu", dtype="float32"))
    answer = text_of(stream(kept, prompt(QUESTIONS[0])))
    second = prompt(QUESTIONS[1], [Turn(QUESTIONS[0], answer)])
    reusing, anew = stream(kept, second), stream(fresh, second)
    assert reusing[-1].reused_tokens > 0 == anew[-1].reused_tokens
    assert text_of(reusing) == text_of(anew)


def test_an_end_token_ends_the_answer_and_is_not_shown(folder: Path) -> None:
    loaded = BLOOM.load(LoadOptions(folder, device="cpu", dtype="float32"))
    model = BloomBackbone().load(LoadOptions(folder, device="cpu", dtype="float32"))
    said = model.generate_batch([prompt(QUESTIONS[0])], GREEDY)[0]
    ids = loaded.tokenizer.build_prompt(prompt(QUESTIONS[0]))
    with torch.no_grad():
        best = int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax())
        weight = model.model.get_input_embeddings().weight  # type: ignore[attr-defined]
        weight[[best, loaded.tokenizer.eos_token_id]] = weight[[loaded.tokenizer.eos_token_id, best]]
    ended = stream(model, prompt(QUESTIONS[0]))
    assert said.completion_tokens == GREEDY.max_new_tokens
    assert (text_of(ended), ended[-1].completion_tokens, ended[-1].finish) == ("", 0, Finish.STOP)


def test_the_end_tokens_that_the_configuration_names_end_an_answer_too(folder: Path, tmp_path: Path) -> None:
    loaded = BLOOM.load(LoadOptions(folder, device="cpu", dtype="float32"))
    ids = loaded.tokenizer.build_prompt(prompt(QUESTIONS[0]))
    with torch.no_grad():
        best = int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax())
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "eos_token_id": [2, best]}))
    ended = stream(
        BloomBackbone().load(LoadOptions(copy, device="cpu", dtype="float32")), prompt(QUESTIONS[0])
    )
    assert (text_of(ended), ended[-1].finish) == ("", Finish.STOP)


@pytest.mark.parametrize("beams", [1, 4])
def test_rows_without_a_token_are_never_chosen(folder: Path, beams: int) -> None:
    model = BloomBackbone().load(LoadOptions(folder, device="cpu", dtype="float32"))
    facts = model.describe()
    assert facts["tokens"] < facts["vocab_size"]
    with torch.no_grad():
        # Opposite rows: whatever the model thinks, one of them has the largest logit of all.
        weight = model.model.get_input_embeddings().weight  # type: ignore[attr-defined]
        weight[facts["tokens"] :] = (
            9 * torch.cat([weight[5:6], -weight[5:6]]).repeat(64, 1)[: len(weight) - facts["tokens"]]
        )
    config = GenerationConfig(greedy=True, num_beams=beams, max_new_tokens=8)
    said = model.generate_batch([prompt(question) for question in QUESTIONS], config)
    # Such a row has no text, so an answer made of them would be empty.
    assert all(answer.text and answer.completion_tokens == 8 for answer in said)


def test_score_counts_every_token_and_the_end(model: ChatModel) -> None:
    answer = "多喝温水，注意休息。"
    scores = model.score(prompt(QUESTIONS[0]), answer)
    assert len(scores) == model.count([Text(answer)]) + 1
    assert all(score < 0 for score in scores)


def test_a_prompt_that_fills_the_context_is_refused(model: ChatModel) -> None:
    assert model.context_length == 2048
    with pytest.raises(UsageError, match="2048"):
        stream(model, [Text("头" * 3000)])


# ---------------------------------------------------------------- as typed


def test_show_says_what_the_folder_is(call: Call, folder: Path) -> None:
    for chosen in ((), ("--backbone", "bloom")):
        outcome = call("models", "show", str(folder), *chosen)
        assert outcome.code == 0, outcome.err
        assert "--backbone bloom" in outcome.out and "bloomz-7b1" in outcome.out
    outcome = call("models", "show", str(folder), "--backbone", "huozi")
    assert outcome.code == 3


def test_ask_answers_twice_the_same_and_chat_remembers(call: Call, folder: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "lora", layers=3, width=32)
    flags = ("--backbone", "bloom", "--model", str(folder), "--adapter", str(adapter), "--greedy")
    settings = ("--max-new-tokens", "8", "--seed", "1", "--device", "cpu", "--dtype", "float32")
    first, again = (call("ask", "-", *flags, *settings, stdin="头痛怎么办？\n") for _ in range(2))
    assert first.code == 0, first.err
    assert first.out == again.out != "\n"
    assert MARK_ZH in first.err and "bloomz-7b1" in first.err
    chat = call("chat", *flags, *settings, stdin="头痛怎么办？\n你好\n")
    assert chat.code == 0, chat.err
    assert chat.out.startswith(first.out.strip())


def test_a_bad_adapter_ends_with_exit_code_3(call: Call, folder: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "lora", layers=3, width=32, scale=0.0)
    outcome = call("ask", "你好", "--backbone", "bloom", "--model", str(folder), "--adapter", str(adapter))
    assert outcome.code == 3 and not outcome.out
    what, remedy = outcome.failure()
    assert "适配器" in what and "下一步" in remedy
