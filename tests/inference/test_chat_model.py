"""The chat model of causal families, on tiny LLaMA and Bloom models with a vocabulary of single letters."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BloomConfig, BloomForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from medchat.api import ChatModel, ContinuingModel, Control, Delta, Finish, GenerationConfig, Segment, Text
from medchat.errors import MedchatError, MemoryShortageError, UsageError
from medchat.inference.causal_chat_model import CausalChatModel
from medchat.inference.detokenizer import StreamText
from medchat.inference.postprocess import StreamingCleanup
from medchat.inference.token_answers import ModelFacts

pytestmark = pytest.mark.torch

LETTERS = "abcdefghijklmnopqrstuvwxyz 头痛感冒休息喝水。？"
UNKNOWN, BEGIN, END, OTHER_END, FIRST = 0, 1, 2, 3, 4
CONTEXT = 160
FACTS = ModelFacts("llama", Path("tiny"), CONTEXT)
GREEDY = GenerationConfig(greedy=True, max_new_tokens=20)
QUESTIONS = ("头痛？", "感冒 what to do？ 休息 or 喝水。", "a")
NEVER = threading.Event()


class Letters:
    """One id a letter; what is no letter is the unknown id."""

    pad_token_id, eos_token_id = UNKNOWN, END
    stop_ids = frozenset({END, OTHER_END})

    def build_prompt(self, segments: Sequence[Segment]) -> list[int]:
        ids = [BEGIN]
        for segment in segments:
            ids += [END] if isinstance(segment, Control) else self.encode(segment.text)
        return ids

    def encode(self, text: str) -> list[int]:
        return [LETTERS.find(letter) + FIRST if letter in LETTERS else UNKNOWN for letter in text]

    def stream(self) -> StreamText:
        return StreamText(lambda ids: "".join(LETTERS[token - FIRST] for token in ids if token >= FIRST))


def build(family: str) -> PreTrainedModel:
    torch.manual_seed(5)
    rows = FIRST + len(LETTERS)
    if family == "llama":
        model: PreTrainedModel = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=rows,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=3,
                num_attention_heads=4,
                initializer_range=0.4,
            )
        )
    else:
        model = BloomForCausalLM(
            BloomConfig(vocab_size=rows, hidden_size=32, n_layer=3, n_head=4, initializer_range=0.4)
        )
    with torch.no_grad():
        # Answers are letters: no special id is ever the best unless a test makes it so.
        model.get_input_embeddings().weight[:FIRST] = 0.0
        model.get_output_embeddings().weight[:FIRST] = 0.0
    return model


@pytest.fixture(scope="module", params=["llama", "bloom"])
def model(request: pytest.FixtureRequest) -> CausalChatModel:
    facts = ModelFacts(str(request.param), Path("tiny"), CONTEXT, {"rows": 4}, ("a note",))
    return CausalChatModel(build(request.param), Letters(), facts)


def stream(
    model: CausalChatModel, text: str, config: GenerationConfig = GREEDY, cancel_after: int = 0
) -> list[Delta]:
    cancel, deltas = threading.Event(), []
    for delta in model.stream([Text(text)], config, cancel):
        deltas.append(delta)
        if cancel_after and delta.completion_tokens >= cancel_after:
            cancel.set()
    return deltas


def text_of(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_it_is_a_chat_model_with_the_facts_it_was_given(model: CausalChatModel) -> None:
    assert isinstance(model, ChatModel)
    card = model.describe()
    assert (card["model"], card["context_length"], card["rows"]) == ("tiny", CONTEXT, 4)
    assert (card["dtype"], card["device"], card["notes"]) == ("float32", "cpu", ("a note",))


def test_prompts_differ_and_so_do_their_answers(model: CausalChatModel) -> None:
    assert len({text_of(stream(model, question)) for question in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize(
    "config",
    [
        GREEDY,
        GenerationConfig(seed=4, max_new_tokens=20),
        GenerationConfig(seed=4, max_new_tokens=20, repetition_penalty=1.4, top_k=20),
        GenerationConfig(num_beams=4, max_new_tokens=12),
    ],
    ids=["greedy", "sampled", "penalised", "beams"],
)
def test_a_batch_answers_each_prompt_as_it_would_alone(
    model: CausalChatModel, config: GenerationConfig
) -> None:
    batch = model.generate_batch([[Text(question)] for question in QUESTIONS], config)
    for question, completion in zip(QUESTIONS, batch, strict=True):
        alone = stream(model, question, config)
        assert completion.text == text_of(alone) != ""
        assert completion.finish is alone[-1].finish
        assert completion.completion_tokens == alone[-1].completion_tokens
        assert completion.prompt_tokens == alone[-1].prompt_tokens


def test_an_empty_batch_has_no_answers(model: CausalChatModel) -> None:
    assert model.generate_batch([], GREEDY) == []


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.text(LETTERS, min_size=1, max_size=12), min_size=1, max_size=4))
def test_a_chat_with_kept_states_answers_as_one_without(model: CausalChatModel, turns: list[str]) -> None:
    said = ""
    for turn in turns:
        said += turn
        kept = stream(model, said, GenerationConfig(greedy=True, max_new_tokens=6))
        model.stepper.forget()
        fresh = stream(model, said, GenerationConfig(greedy=True, max_new_tokens=6))
        assert text_of(kept) == text_of(fresh)
        said += text_of(kept)


def test_the_second_turn_reads_only_what_is_new(model: CausalChatModel) -> None:
    model.stepper.forget()
    first = stream(model, "头痛？")
    answer = text_of(first)
    second = stream(model, "头痛？" + answer + "感冒？")
    assert first[-1].reused_tokens == 0
    # The last token of an answer that ran out of room was never read.
    assert second[-1].reused_tokens == first[-1].prompt_tokens + first[-1].completion_tokens - 1


def test_beams_find_an_answer_at_least_as_likely_as_greedy(model: CausalChatModel) -> None:
    def mean(config: GenerationConfig) -> float:
        (completion,) = model.generate_batch([[Text(QUESTIONS[0])]], config)
        scores = model.score([Text(QUESTIONS[0])], completion.text)[:-1]
        return sum(scores) / len(scores)

    beams = mean(GenerationConfig(num_beams=6, max_new_tokens=6))
    assert beams >= mean(GenerationConfig(greedy=True, max_new_tokens=6)) - 1e-4


def test_scores_are_the_log_probabilities_of_stepping_through_the_answer(model: CausalChatModel) -> None:
    segments, answer = [Text(QUESTIONS[1])], "多喝水。"
    ids, expected = model.tokenizer.build_prompt(segments), []
    logits = model.stepper.prefill(ids, NEVER)
    for token in [*model.tokenizer.encode(answer), END]:
        expected.append(float(logits.log_softmax(-1)[token]))
        logits = model.stepper.advance(token)
    assert model.score(segments, answer) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("token", [END, OTHER_END, 9])
def test_every_stop_id_ends_an_answer_and_is_no_part_of_it(
    model: CausalChatModel, token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = CausalChatModel(model.model, Letters(), FACTS, stop_ids=[9])
    prefill, advance = stopping.stepper.prefill, stopping.stepper.advance
    calls: list[int] = []

    def without_ends(logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[[END, OTHER_END, 9]] = -99.0
        return logits

    def ending(read: int) -> torch.Tensor:
        logits = without_ends(advance(read))
        calls.append(read)
        if len(calls) == 3:
            logits[token] = 99.0
        return logits

    monkeypatch.setattr(stopping.stepper, "prefill", lambda *given: without_ends(prefill(*given)))
    monkeypatch.setattr(stopping.stepper, "advance", ending)
    deltas = stream(stopping, QUESTIONS[0])
    assert (deltas[-1].finish, deltas[-1].completion_tokens) == (Finish.STOP, 3)
    assert len(text_of(deltas)) == 3


def test_a_stop_text_ends_an_answer_alone_and_in_a_batch(model: CausalChatModel) -> None:
    whole = text_of(stream(model, QUESTIONS[0]))
    stop = whole[5:7]
    config = GenerationConfig(greedy=True, max_new_tokens=20, stop=(stop,))
    wanted = whole[: whole.index(stop)]
    deltas = stream(model, QUESTIONS[0], config)
    (completion,) = model.generate_batch([[Text(QUESTIONS[0])]], config)
    assert (text_of(deltas), deltas[-1].finish) == (wanted, Finish.STOP)
    assert (completion.text, completion.finish) == (wanted, Finish.STOP)


def test_the_clean_up_sees_one_answer_at_a_time(model: CausalChatModel) -> None:
    class Capitals:
        def feed(self, text: str) -> str:
            return text.upper()

        def finish(self) -> str:
            return "!"

    shouting = CausalChatModel(model.model, Letters(), FACTS, cleanup=Capitals)
    plain = text_of(stream(model, QUESTIONS[0]))
    assert text_of(stream(shouting, QUESTIONS[0])) == plain.upper() + "!"
    (completion,) = shouting.generate_batch([[Text(QUESTIONS[0])]], GREEDY)
    assert completion.text == plain.upper() + "!"


@pytest.mark.parametrize("cut", [1, 2, 7, 19])
def test_an_answer_that_was_cut_off_goes_on_as_it_would_have(model: CausalChatModel, cut: int) -> None:
    for question in QUESTIONS:
        whole = text_of(stream(model, question))
        begun = whole[:cut]
        assert isinstance(model, ContinuingModel)
        rest = list(model.go_on([Text(question)], begun, GREEDY, NEVER))
        assert (begun + text_of(rest)).startswith(whole)
        assert rest[-1].prompt_tokens == model.count([Text(question)]) + len(begun)


def test_no_letter_held_back_of_the_beginning_is_said_twice(model: CausalChatModel) -> None:
    widening = CausalChatModel(
        model.model, model.tokenizer, FACTS, cleanup=lambda: StreamingCleanup(replaced={"头痛": "痛"})
    )
    rest = list(widening.go_on([Text("a")], "喝水头", GREEDY, NEVER))
    assert not text_of(rest).startswith("头")


def test_beam_search_does_not_go_on_with_an_answer(model: CausalChatModel) -> None:
    with pytest.raises(UsageError, match="束搜索"):
        list(model.go_on([Text("a")], "头", GREEDY.with_settings(num_beams=2), NEVER))


def test_cancelling_keeps_what_had_come(model: CausalChatModel) -> None:
    whole, cut = text_of(stream(model, QUESTIONS[0])), stream(model, QUESTIONS[0], cancel_after=3)
    assert (cut[-1].finish, cut[-1].completion_tokens) == (Finish.CANCELLED, 3)
    assert whole.startswith(text_of(cut))


@pytest.mark.parametrize("beams", [1, 3])
def test_cancelled_before_it_began_it_says_so_at_once(model: CausalChatModel, beams: int) -> None:
    cancel = threading.Event()
    cancel.set()
    (delta,) = model.stream([Text(QUESTIONS[0])], GenerationConfig(num_beams=beams), cancel)
    assert (delta.text, delta.finish) == ("", Finish.CANCELLED)


def test_a_prompt_that_fills_the_context_is_refused(model: CausalChatModel) -> None:
    question = "头痛" * CONTEXT
    for attempt in (
        lambda: stream(model, question),
        lambda: model.generate_batch([[Text(question)]], GREEDY),
        lambda: model.score([Text(question)], "好"),
    ):
        with pytest.raises(UsageError) as caught:
            attempt()
        assert str(CONTEXT) in caught.value.what


def test_prompt_and_answer_together_never_pass_the_context(model: CausalChatModel) -> None:
    question = "a" * (CONTEXT - 6)
    last = stream(model, question)[-1]
    assert last.prompt_tokens + last.completion_tokens == CONTEXT
    assert last.finish is Finish.LENGTH


def test_memory_that_runs_out_half_way_is_told_and_the_next_answer_is_right(
    model: CausalChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = text_of(stream(model, QUESTIONS[0]))
    model.stepper.forget()
    forward, calls = model.model.forward, []

    def failing(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise torch.OutOfMemoryError("no more")
        return forward(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(model.model, "forward", failing)
        with pytest.raises(MemoryShortageError):
            stream(model, QUESTIONS[0])
    assert text_of(stream(model, QUESTIONS[0])) == whole


def test_invalid_numbers_are_an_error_with_a_remedy(model: CausalChatModel) -> None:
    head = model.model.get_output_embeddings().weight
    kept = head.detach().clone()
    with torch.no_grad():
        head[7] = float("nan")
    try:
        with pytest.raises(MedchatError) as caught:
            stream(model, QUESTIONS[0])
        assert "float32" in caught.value.remedy
    finally:
        with torch.no_grad():
            head.copy_(kept)


def test_closing_frees_the_weights() -> None:
    chat = CausalChatModel(build("llama"), Letters(), ModelFacts("llama", Path("tiny"), CONTEXT))
    stream(chat, QUESTIONS[0])
    weight = weakref.ref(chat.model.get_output_embeddings().weight)
    chat.close()
    gc.collect()
    assert weight() is None


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("greedy", [True, False])
def test_rows_without_a_token_are_never_chosen(beams: int, greedy: bool) -> None:
    network = build("llama")
    rows = network.config.vocab_size
    with torch.no_grad():
        network.get_output_embeddings().weight[rows - 6 :] *= 40
    config = GenerationConfig(greedy=greedy, num_beams=beams, max_new_tokens=12, seed=1)
    facts = ModelFacts("llama", Path("tiny"), CONTEXT)
    # The letters of those rows show that they would be chosen.
    for token_count, expected in ((None, True), (rows - 6, False)):
        padded = CausalChatModel(network, Letters(), facts, token_count=token_count)
        answers = [text_of(stream(padded, QUESTIONS[0], config))]
        answers += [answer.text for answer in padded.generate_batch([[Text(q)] for q in QUESTIONS], config)]
        assert all(bool(set(LETTERS[-6:]).intersection(answer)) is expected for answer in answers)


@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_that_runs_out_of_memory_gives_it_back_and_the_next_one_comes(
    monkeypatch: pytest.MonkeyPatch, beams: int
) -> None:
    network = build("llama")
    chat = CausalChatModel(network, Letters(), FACTS)
    config = GenerationConfig(greedy=True, max_new_tokens=20, num_beams=beams)
    expected = list(chat.stream([Text(QUESTIONS[0])], config, NEVER))
    held: list[weakref.ref[torch.Tensor]] = []
    whole = type(network).forward

    def short_of_memory(*args: object, **given: object) -> object:
        output = whole(*args, **given)  # type: ignore[arg-type]
        held.append(weakref.ref(output.logits))  # type: ignore[union-attr]
        if len(held) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return output

    monkeypatch.setattr(type(network), "forward", short_of_memory)
    with pytest.raises(MemoryShortageError) as info:
        list(chat.stream([Text(QUESTIONS[0])], config, NEVER))
    assert info.value.remedy and len(held) == 4
    assert not any(logits() is not None for logits in held), "the error holds what failed"
    monkeypatch.undo()
    again = list(chat.stream([Text(QUESTIONS[0])], config, NEVER))
    assert [delta.text for delta in again] == [delta.text for delta in expected]
    assert again[-1].reused_tokens == 0
