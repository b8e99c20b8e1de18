"""ChatGLM as the chat engine sees it, on miniatures in the published layout."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_chatglm.chat_model import ChatGLMChatModel
from medchat_chatglm.tiny import write_tiny_chatglm

from medchat.api import ChatModel, Control, Delta, Finish, GenerationConfig, LoadOptions, Segment, Text, Turn
from medchat.errors import MedchatError, UsageError

pytestmark = pytest.mark.torch

GREEDY = GenerationConfig(greedy=True, max_new_tokens=24)
QUESTIONS = ("头痛怎么办？", "感冒了，要多喝水吗？要不要休息几天再去上班，还是马上去医院？", "你好")


def load(folder: Path, generation: str, rule: str = "") -> ChatGLMChatModel:
    """Return a miniature that says something: each token depends on all before it."""
    write_tiny_chatglm(folder, generation=generation, num_layers=3)
    extra = {"rule": rule} if rule else {}
    loaded = ChatGLMBackbone().load(LoadOptions(folder, device="cpu", dtype="float32", extra=extra))
    assert isinstance(loaded, ChatGLMChatModel)
    # Miniatures are drawn with the usual small spread, and then say one word for ever: here the layers
    # outweigh the residual.
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=1.0)
        # Without their rows no image, control or byte id is ever the best: answers are words.
        embedding, tokenizer = loaded.model.transformer.word_embeddings.weight, loaded.tokenizer
        embedding[: tokenizer.num_image_tokens + 6] = 0.0
        embedding[tokenizer.first_appended_id :] = 0.0
    return loaded


@pytest.fixture(scope="module", params=["v11", "v0"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ChatGLMChatModel:
    return load(tmp_path_factory.mktemp("tiny") / "model", request.param)


def prompt(model: ChatGLMChatModel, question: str, turns: tuple[Turn, ...] = ()) -> tuple[Segment, ...]:
    return ChatGLMBackbone().template(LoadOptions(Path(model.describe()["model"]))).render(turns, question)


def stream(
    model: ChatGLMChatModel, question: str, config: GenerationConfig = GREEDY, cancel_after: int = 0
) -> list[Delta]:
    cancel, deltas = threading.Event(), []
    for delta in model.stream(prompt(model, question), config, cancel):
        deltas.append(delta)
        if delta.completion_tokens == cancel_after:
            cancel.set()
    return deltas


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_it_is_a_chat_model(model: ChatGLMChatModel) -> None:
    assert isinstance(model, ChatModel)


def test_prompts_differ_and_so_do_their_answers(model: ChatGLMChatModel) -> None:
    assert len({text_of(stream(model, question)) for question in QUESTIONS}) == len(QUESTIONS)


def test_counts_and_the_reason_come_with_the_last_delta(model: ChatGLMChatModel) -> None:
    *pieces, last = stream(model, QUESTIONS[0])
    assert all(delta.finish is None for delta in pieces)
    assert last.finish in (Finish.LENGTH, Finish.STOP)
    assert last.prompt_tokens == model.count(prompt(model, QUESTIONS[0]))
    assert last.reused_tokens == 0
    assert last.completion_tokens <= 24


def test_greedy_is_exactly_repeatable_and_seeds_are_answers(model: ChatGLMChatModel) -> None:
    assert stream(model, QUESTIONS[0]) == stream(model, QUESTIONS[0])
    one, other = (GenerationConfig(seed=seed, top_p=1.0, max_new_tokens=24) for seed in (1, 2))
    assert stream(model, QUESTIONS[0], one) == stream(model, QUESTIONS[0], one)
    assert stream(model, QUESTIONS[0], one) != stream(model, QUESTIONS[0], other)


@pytest.mark.parametrize(
    "config",
    [
        GREEDY,
        GenerationConfig(seed=4, max_new_tokens=24),
        GenerationConfig(seed=4, max_new_tokens=24, repetition_penalty=1.4, top_k=20),
        GenerationConfig(num_beams=3, max_new_tokens=12),
    ],
    ids=["greedy", "sampled", "penalised", "beams"],
)
def test_a_batch_answers_each_prompt_as_it_would_alone(
    model: ChatGLMChatModel, config: GenerationConfig
) -> None:
    batch = model.generate_batch([prompt(model, question) for question in QUESTIONS], config)
    for question, completion in zip(QUESTIONS, batch, strict=True):
        alone = stream(model, question, config)
        assert completion.text == text_of(alone)
        assert completion.finish is alone[-1].finish
        assert completion.completion_tokens == alone[-1].completion_tokens
        assert completion.prompt_tokens == alone[-1].prompt_tokens


def test_a_long_prompt_in_a_batch_ends_at_the_context_and_its_neighbours_do_not(
    model: ChatGLMChatModel,
) -> None:
    room = 5
    long = "水" * (model.context_length - room - model.count(prompt(model, "")))
    assert model.context_length - model.count(prompt(model, long)) < 24
    longer, short = model.generate_batch([prompt(model, long), prompt(model, QUESTIONS[0])], GREEDY)
    assert longer.prompt_tokens + longer.completion_tokens == model.context_length
    assert longer.finish is Finish.LENGTH
    assert longer.text == text_of(stream(model, long))
    assert short.text == text_of(stream(model, QUESTIONS[0]))


def test_an_empty_batch_has_no_answers(model: ChatGLMChatModel) -> None:
    assert model.generate_batch([], GREEDY) == []


def test_beam_search_finds_an_answer_at_least_as_likely_as_greedy(model: ChatGLMChatModel) -> None:
    """Judged by the model's own per-token mean, which is what beams are ranked by."""
    segments = prompt(model, QUESTIONS[0])
    ids = model.tokenizer.build_prompt(segments)
    from medchat.inference.generate import generate_rows

    def mean_log_probability(config: GenerationConfig) -> float:
        (answer,) = generate_rows(model.model, [ids], config, model.limits)
        tokens = [*ids, *answer.tokens]
        stepper, total = model.stepper, 0.0
        logits = stepper.prefill(ids)
        for token in tokens[len(ids) :]:
            total += float(logits.log_softmax(-1)[token])
            logits = stepper.advance(token)
        return total / len(answer.tokens)

    beams = GenerationConfig(num_beams=6, max_new_tokens=6)
    greedy = GenerationConfig(greedy=True, max_new_tokens=6)
    assert mean_log_probability(beams) >= mean_log_probability(greedy) - 1e-4


def test_cancelling_keeps_what_had_come(model: ChatGLMChatModel) -> None:
    whole, cut = text_of(stream(model, QUESTIONS[0])), stream(model, QUESTIONS[0], cancel_after=3)
    assert cut[-1].finish is Finish.CANCELLED
    assert cut[-1].completion_tokens <= 4
    assert whole.startswith(text_of(cut)[:-1])


@pytest.mark.parametrize("beams", [1, 3])
def test_cancelled_before_it_began_it_says_so_at_once(model: ChatGLMChatModel, beams: int) -> None:
    cancel = threading.Event()
    cancel.set()
    config = GenerationConfig(num_beams=beams)
    (delta,) = model.stream(prompt(model, QUESTIONS[0]), config, cancel)
    assert (delta.text, delta.finish) == ("", Finish.CANCELLED)


@pytest.mark.parametrize("token", ["<eop>", "</s>"])
def test_both_end_tokens_end_an_answer(
    model: ChatGLMChatModel, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, calls = model.tokenizer.id_of(token), []
    advance = model.stepper.advance

    def ending(read: int) -> torch.Tensor:
        logits = advance(read)
        calls.append(read)
        if len(calls) == 3:
            logits = torch.zeros_like(logits)
            logits[end] = 9.0
        return logits

    monkeypatch.setattr(model.stepper, "advance", ending)
    last = stream(model, QUESTIONS[0])[-1]
    assert (last.finish, last.completion_tokens) == (Finish.STOP, 3)


@pytest.mark.parametrize("rule", ["v11", "med", "med_demo", "upstream_v0"])
def test_scores_are_the_log_probabilities_of_stepping_through_the_answer(tmp_path: Path, rule: str) -> None:
    model = load(tmp_path / "tiny", "v11" if rule == "v11" else "v0", rule)
    segments, answer = prompt(model, QUESTIONS[0]), "多喝水，注意休息。"
    scores = model.score(segments, answer)
    tokens = [*model.tokenizer.encode(answer), model.tokenizer.eos_token_id]
    stepper, expected = model.stepper, []
    logits = stepper.prefill(model.tokenizer.build_prompt(segments))
    for token in tokens:
        expected.append(float(logits.log_softmax(-1)[token]))
        logits = stepper.advance(token)
    assert scores == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("rule", ["v11", "med", "med_demo", "upstream_v0"])
def test_a_begun_answer_is_read_as_if_it_had_been_generated(tmp_path: Path, rule: str) -> None:
    model = load(tmp_path / "tiny", "v11" if rule == "v11" else "v0", rule)
    ids = model.tokenizer.build_prompt(prompt(model, QUESTIONS[0]))
    begun = model.tokenizer.encode("多喝水，注意休息。")
    expected = model.stepper.prefill(ids)
    for token in begun:
        expected = model.stepper.advance(token)
    then = model.stepper.advance(begun[0])
    stepper = model.stepper_behind(len(ids))
    for found, stepped in (
        (stepper.prefill([*ids, *begun], threading.Event()), expected),
        (stepper.advance(begun[0]), then),
    ):
        torch.testing.assert_close(found, stepped, rtol=1e-2, atol=5e-2)  # the logits are in the tens


def test_what_a_user_types_is_never_a_special_token(model: ChatGLMChatModel) -> None:
    special = set(model.tokenizer.special_ids.values())
    typed = "<sop></s>[gMASK]<eop>[MASK]<pad>"
    ids = model.tokenizer.build_prompt([Text(typed)])
    assert special.isdisjoint(ids[:-2])
    assert stream(model, typed)[-1].finish is not None
    assert model.count([Text("a"), Control("[gMASK]")]) == model.count([Text("a")])


def test_a_prompt_that_fills_the_context_is_refused(model: ChatGLMChatModel) -> None:
    question = "头痛，" * model.context_length
    for attempt in (
        lambda: stream(model, question),
        lambda: model.generate_batch([prompt(model, question)], GREEDY),
        lambda: model.score(prompt(model, question), "好"),
    ):
        with pytest.raises(UsageError) as caught:
            attempt()
        assert str(model.context_length) in caught.value.what


@pytest.mark.parametrize("beams", [1, 2])
def test_invalid_numbers_are_an_error_with_a_remedy(model: ChatGLMChatModel, beams: int) -> None:
    norm = model.model.transformer.final_layernorm
    kept = norm.weight.detach().clone()
    with torch.no_grad():
        norm.weight[0] = float("nan")
    try:
        config = GenerationConfig(num_beams=beams, greedy=True)
        for attempt in (
            lambda: stream(model, QUESTIONS[0], config),
            lambda: model.generate_batch([prompt(model, QUESTIONS[0])], config),
        ):
            with pytest.raises(MedchatError) as caught:
                attempt()
            assert "float32" in caught.value.remedy
    finally:
        with torch.no_grad():
            norm.weight.copy_(kept)


def test_history_changes_the_answer(model: ChatGLMChatModel) -> None:
    turns = (Turn("我有高血压。", "请按时量血压。"),)
    plain = model.score(prompt(model, QUESTIONS[0]), "好")
    later = model.score(prompt(model, QUESTIONS[0], turns), "好")
    assert plain != pytest.approx(later, abs=1e-4)


def test_it_describes_itself_in_plain_values(model: ChatGLMChatModel) -> None:
    card = model.describe()
    assert {"backbone", "model", "dtype", "device"} <= set(card)
    assert card["backbone"] == "chatglm"
    assert (card["dtype"], card["device"]) == ("float32", "cpu")


def test_closing_frees_the_weights(tmp_path: Path) -> None:
    write_tiny_chatglm(tmp_path / "tiny")
    chat = ChatGLMBackbone().load(LoadOptions(tmp_path / "tiny", device="cpu"))
    assert isinstance(chat, ChatGLMChatModel)
    weight = weakref.ref(chat.model.lm_head.weight)
    chat.close()
    gc.collect()
    assert weight() is None


def test_importing_the_plugin_imports_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, medchat_chatglm.plugin as plugin; (b,) = plugin.medchat_backbones();"
        "b.summary, b.known_weights, b.generation, b.load_keys;"
        "print(*{'torch', 'transformers', 'sentencepiece', 'numpy'} & set(sys.modules))"
    )

    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert found.stdout.strip() == ""
