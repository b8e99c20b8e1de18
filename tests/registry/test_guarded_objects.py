"""What no command asks a plugin for in passing is guarded as well; what the guard lets through is what was given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from plugin_sites import add_extension
from sound_plugin import ANSWER, SoundBackbone, SoundModel, SoundRecipe

from medchat.api import (
    AnswerIds,
    Backbone,
    ChatModel,
    ContinuingModel,
    Control,
    Delta,
    Finish,
    GenerationConfig,
    LoadOptions,
    PromptIds,
    PromptParts,
    Text,
)
from medchat.errors import Interruption, PluginError
from medchat.registry import GuardedBackbone, Registry
from medchat.registry.guarded_model import given_model
from medchat.registry.metadata import BACKBONES, PluginEntry

pytest_plugins = ("plugin_sites",)

ENTRY = PluginEntry(BACKBONES, "careless", "careless_module", "third-careless", "1.0")
OPTIONS, PROMPT, CONFIG = LoadOptions(Path()), (Text("头痛"),), GenerationConfig()


def with_model(**members: Any) -> ChatModel:
    """Return the sound model with other `members`, behind its guard."""
    model = type("Model", (SoundModel,), members)()
    return with_backbone(load=lambda self, options: model).load(OPTIONS)


def with_backbone(**members: Any) -> Backbone:
    """Return the sound backbone with other `members`, behind its guard."""
    return GuardedBackbone(type("Mine", (SoundBackbone,), members)(), ENTRY)


@pytest.mark.parametrize("scores", [None, "-1", 0.5, (), (0.5,), (float("nan"),), ("-1",), iter((-1.0,))])
def test_scores_are_log_probabilities(scores: object) -> None:
    with pytest.raises(PluginError, match=r"third-careless.*score: "):
        with_model(score=lambda self, segments, answer: scores).score(PROMPT, "多")


@pytest.mark.parametrize(
    "scores", [None, [], [[(-1.0,)]], [[(-1.0,), ()]], [[(-1.0,), (0.5,)]], [[-1.0, -2.0]]]
)
def test_scores_of_a_batch_are_log_probabilities_for_each_answer(scores: object) -> None:
    model: Any = with_model(score_batch=lambda self, prompts, answers: scores)
    with pytest.raises(PluginError, match=r"third-careless.*score_batch: "):
        model.score_batch([PROMPT], [("多", "少")])


def test_a_model_without_a_batch_scores_one_answer_after_the_other() -> None:
    model: Any = with_model(score=lambda self, segments, answer: (-1.0,) * len(answer))
    scored = model.score_batch([PROMPT, PROMPT], [("多", "多喝水"), ("少",)])
    assert scored == [[(-1.0,), (-1.0, -1.0, -1.0)], [(-1.0,)]]


def test_a_model_that_streams_no_batches_answers_alone_and_what_it_says_of_them_is_checked() -> None:
    plain: Any = with_model()
    assert plain.exact_in_batch is False
    deltas = list(plain.stream_in_batch(PROMPT, CONFIG, threading.Event()))
    assert "".join(delta.text for delta in deltas) == ANSWER
    pieces = {"stream_in_batch": lambda self, *given: iter([Delta("多", 1, 2, finish=Finish.STOP)])}
    batching: Any = with_model(exact_in_batch=True, **pieces)
    assert batching.exact_in_batch is True
    assert [delta.text for delta in batching.stream_in_batch(PROMPT, CONFIG, threading.Event())] == ["多"]
    vague: Any = with_model(exact_in_batch="yes", stream_in_batch=lambda self, *given: iter(["多"]))
    with pytest.raises(PluginError, match="exact_in_batch"):
        vague.exact_in_batch  # noqa: B018
    with pytest.raises(PluginError, match="stream_in_batch"):
        list(vague.stream_in_batch(PROMPT, CONFIG, threading.Event()))


WRONG: dict[str, tuple[dict[str, Any], Callable[[Backbone], object]]] = {
    "inspect_adapter": (
        {"inspect_adapter": lambda self, path: "lora"},
        lambda backbone: backbone.inspect_adapter(Path()),
    ),
    "tiny": ({"tiny": lambda self, path, corpus: None}, lambda backbone: backbone.tiny(Path())),
    "exchange_adapters": (
        {"exchange_adapters": lambda self, model, options: True},
        lambda backbone: backbone.exchange_adapters(backbone.load(OPTIONS), OPTIONS),
    ),
    "special_tokens": (
        {"special_tokens": lambda self, options: {"</s>": 2}},
        lambda backbone: backbone.special_tokens(OPTIONS),
    ),
}


@pytest.mark.parametrize("method", WRONG)
def test_other_methods_of_a_backbone_are_named(method: str) -> None:
    members, question = WRONG[method]
    with pytest.raises(PluginError, match=rf"third-careless.*{method}: "):
        question(with_backbone(**members))


@pytest.mark.parametrize(
    ("hook", "body", "ask"),
    [
        ("medchat_templates", "return ['bare']", lambda extensions: extensions.templates()),
        ("medchat_templates", "return {'bare': 1}", lambda extensions: extensions.templates()),
        (
            "medchat_sft_recipes",
            "return {'llama': ['lora']}",
            lambda extensions: extensions.sft_recipes("llama"),
        ),
        (
            "medchat_sft_recipes",
            "return {'llama': 'lora'}",
            lambda extensions: extensions.sft_recipes("llama"),
        ),
        ("medchat_slash_commands", "return [print]", lambda extensions: extensions.slash_commands()),
        ("medchat_doctor", "return ['fine']", lambda extensions: extensions.doctor({})),
        ("medchat_doctor", "raise KeyboardInterrupt", lambda extensions: extensions.doctor({})),
    ],
)
def test_a_hook_that_gives_something_else_adds_nothing_and_is_named(
    site: Path, hook: str, body: str, ask: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "signal.getsignal", lambda number: None
    )  # as while the program runs: Ctrl-C has a handler
    add_extension(site, "bad", f"@hookimpl\ndef {hook}(): {body}")
    registry = Registry()
    assert not ask(registry.extensions())
    (failure,) = registry.failures
    assert failure.distribution == "medchat-bad" and failure.reason.startswith(f"{hook}: ")


def test_settings_for_doctor_cannot_be_changed(site: Path) -> None:
    add_extension(site, "bad", "@hookimpl\ndef medchat_doctor(settings): settings['lang'] = 'en'")
    registry, settings = Registry(), {"lang": "zh"}
    registry.extensions().doctor(settings)
    assert settings == {"lang": "zh"} and "medchat_doctor" in registry.failures[0].reason


def test_a_model_is_asked_for_what_it_can_do_and_no_more() -> None:
    whole, plain = with_model(), with_model(go_on=None, prompt_ids=None)
    assert isinstance(whole, ContinuingModel) and isinstance(whole, PromptIds)
    assert not isinstance(plain, ContinuingModel) and not isinstance(plain, PromptIds)
    assert "".join(delta.text for delta in whole.go_on(PROMPT, "多", CONFIG, threading.Event())) == ANSWER[1:]
    assert list(whole.prompt_ids(PROMPT)) == [0, 1]
    assert isinstance(whole, PromptParts) and whole.prompt_parts(PROMPT) == PROMPT  # its family tells no more
    assert not isinstance(plain, PromptParts)
    more = (*PROMPT, Control("<sop>"))
    telling = with_model(prompt_parts=lambda self, segments: more)
    assert isinstance(telling, PromptParts) and telling.prompt_parts(PROMPT) == more
    assert isinstance(whole, AnswerIds) and not whole.answer_ids("多")
    beginning = with_model(answer_ids=lambda self, answer: [ord(letter) for letter in answer])
    assert isinstance(beginning, AnswerIds) and list(beginning.answer_ids("多")) == [22810]
    careless = with_model(
        prompt_parts=lambda self, segments: ["<sop>"], answer_ids=lambda self, answer: answer
    )
    with pytest.raises(PluginError):
        careless.answer_ids("多")  # type: ignore[attr-defined]
    with pytest.raises(PluginError):
        careless.prompt_parts(PROMPT)  # type: ignore[attr-defined]


def test_a_plugin_gets_its_own_model_back_and_it_is_closed_once() -> None:
    given: list[object] = []
    backbone = with_backbone(exchange_adapters=lambda self, model, options: given.append(model) or model)
    model = backbone.load(OPTIONS)
    assert backbone.exchange_adapters(model, OPTIONS) is model and given == [given_model(model)]
    closed: list[int] = []
    once = with_model(close=lambda self: closed.append(1))
    once.close()
    once.close()
    assert closed == [1]


def test_an_abandoned_answer_is_closed_and_a_signal_in_it_is_no_failure_of_the_plugin() -> None:
    closed: list[str] = []

    def stream(self: Any, *given: Any) -> Iterator[Delta]:
        try:
            yield Delta("多", 1, 2)
            raise Interruption
        except Interruption as error:
            raise RuntimeError("engine stopped") from error  # as libraries do
        finally:
            closed.append("yes")

    answer = with_model(stream=stream).stream(PROMPT, CONFIG, threading.Event())
    next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert closed == ["yes"]
    with pytest.raises(Interruption):
        list(with_model(stream=stream).stream(PROMPT, CONFIG, threading.Event()))


def test_an_answer_that_does_not_look_at_cancel_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medchat.registry.guarded_model.PATIENCE", 0.0)

    def endless(self: Any, *given: Any) -> Iterator[Delta]:
        for count in range(1, 10**9):
            yield Delta("水", count, 2)

    cancel = threading.Event()
    cancel.set()
    *_, last = with_model(stream=endless).stream(PROMPT, CONFIG, cancel)
    assert last.finish is Finish.CANCELLED and last.completion_tokens < 1000


@pytest.mark.parametrize(
    "pieces",
    [
        ("哈", "哈哈", "哈哈哈", "哈哈哈哈"),
        ("1", "10", "1", "100"),
        ("水",) * 9,
        ("你", "你好"),
        ("多", "", "喝"),
    ],
)
def test_answers_that_only_look_repeated_are_let_through(pieces: tuple[str, ...]) -> None:
    def stream(self: Any, *given: Any) -> Iterator[Delta]:
        yield from (Delta(text, count, 2) for count, text in enumerate(pieces, start=1))
        yield Delta("", len(pieces), 2, finish=Finish.STOP)

    answer = with_model(stream=stream).stream(PROMPT, CONFIG, threading.Event())
    assert "".join(delta.text for delta in answer) == "".join(pieces)


def test_a_recipe_keeps_its_name_defaults_and_collators() -> None:
    recipe = type("Mine", (SoundRecipe,), {"defaults": {"seed": 1}, "collators": ("own",)})()
    guarded = with_backbone(recipes={"full": recipe}).recipes["full"]
    assert (guarded.method, guarded.defaults, guarded.collators) == ("full", {"seed": 1}, ("own",))
