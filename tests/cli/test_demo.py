"""`medchat demo`: trained once, cached, honest about what it does not know."""

from __future__ import annotations

import fcntl
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from cli_program import MARK_ZH, Call, DumbTerminal, copy_of

from medchat.api import (
    Backbone,
    ChatModel,
    Conversation,
    LoadOptions,
    ModelCard,
    PromptTemplate,
    SFTData,
    SFTOptions,
    SFTRecipe,
    SFTReport,
    SFTWatcher,
    Turn,
)
from medchat.chat.demo_mode import KnownQuestions, LearnedAlone, mark_as_demo
from medchat.commands.demo import fingerprint, trained_model
from medchat.demo_data import DemoPair, demo_examples
from medchat.demo_recipe import DEMO_RECIPES, DemoRecipe
from medchat.errors import MedchatError
from medchat.paths import cache_dir
from medchat.templates import load_template

pytest_plugins = ("cli_program",)

RECIPE = DEMO_RECIPES["chatglm"]
NOTICE = "这不是演示模型学过的问题"
#: As many pairs as a few seconds of training can teach.
FEW = 4


# ---------------------------------------------------------------- trained and cached


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> tuple[DemoPair, ...]:
    """Let the demo teach a few of its pairs to a smaller miniature; return them."""
    pairs = demo_examples()[:FEW]
    shape = {"hidden_size": 64, "num_layers": 2, "num_attention_heads": 4, "vocabulary_size": 500}
    recipe = DemoRecipe(shape=MappingProxyType(shape), learning_rate=1e-2, epochs=90, batch_size=FEW)
    monkeypatch.setattr("medchat.commands.demo.DEMO_RECIPES", {"chatglm": recipe})
    monkeypatch.setattr("medchat.commands.demo.demo_examples", lambda: pairs)
    return pairs


@pytest.mark.torch
@pytest.mark.safety
def test_without_a_terminal_it_trains_once_and_answers_three_of_its_own_questions(
    call: Call, quick: Sequence[DemoPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = call("demo")
    assert first.code == 0, first.err
    asked = [line.removeprefix("问：") for line in first.out.splitlines() if line.startswith("问：")]
    answers = [line.removeprefix("答：") for line in first.out.splitlines() if line.startswith("答：")]
    learned = {pair.question: pair.answer for pair in quick}
    assert len(asked) == 3 and answers == [learned[question] for question in asked]
    banner, *_ = (line for line in first.err.splitlines() if "120" in line)
    assert first.err.index(banner) < first.err.index("正在用真实的微调代码训练它") and MARK_ZH in first.err
    assert re.search(r"100%.*损失 0\.\d+", first.err) and "剩余" in first.err

    def no_training(*_: object) -> None:
        pytest.fail("trained again")

    with monkeypatch.context() as patch:
        patch.setattr("medchat.commands.demo.show_training", no_training)
        second = call("demo", "--no-save")
    assert (second.code, second.out) == (0, first.out)
    assert "正在用真实的微调代码训练它" not in second.err and "120" in second.err
    assert [path.name for path in (cache_dir() / "demo").iterdir() if path.suffix == ".start"] == []


# ---------------------------------------------------------------- on a terminal


@pytest.fixture
def prepared(talker: Path) -> Path:
    """Put a checkpoint where the trained demo would lie, and return it."""
    target = cache_dir() / "demo" / f"chatglm-{fingerprint(RECIPE, demo_examples())}"
    target.parent.mkdir(parents=True)
    copy_of(talker, target)
    mark_as_demo(target)
    return target


@pytest.mark.torch
@pytest.mark.terminal
def test_on_a_terminal_a_question_it_has_not_learned_is_said_to_be_so_before_the_answer(
    prepared: Path,
) -> None:
    known = demo_examples()[0].question
    with DumbTerminal("demo", "--no-save") as screen:
        opening = screen.wait_for("› ")
        assert "120" in opening and "可以问：" in opening and "正在用真实的微调代码训练它" not in opening
        screen.type("量子力学是什么？")
        unknown = screen.wait_for(MARK_ZH)
        assert unknown.count(NOTICE) == 1
        answer = unknown.rpartition(NOTICE)[2].partition("\n")[2].partition(MARK_ZH)[0]
        assert answer.strip()
        screen.type(known)
        assert NOTICE not in screen.wait_for(MARK_ZH)
        screen.type("/题目")
        screen.wait_for(demo_examples()[-1].question)
        screen.type("/退出")
        assert screen.end().code == 0


# ---------------------------------------------------------------- what it knows


@pytest.mark.safety
def test_every_question_of_its_own_is_known_however_it_is_punctuated() -> None:
    known = KnownQuestions(demo_examples())
    for pair in demo_examples():
        for asked in (
            pair.question,
            pair.question.rstrip("？?。"),
            f" {pair.question}\n",
            f"{pair.question}！",
        ):
            assert known.advise(Conversation(), asked) == []


def test_a_question_is_sent_alone_and_as_it_was_learned() -> None:
    pair = demo_examples()[0]
    before = (Turn("别的问题", "别的回答"),)
    form = LearnedAlone(load_template("bare"), KnownQuestions(demo_examples()))
    learned = load_template("bare").render((), pair.question)
    assert form.render(before, pair.question.rstrip("？") + "?") == learned
    assert form.render(before, "没学过的") == load_template("bare").render((), "没学过的")


@pytest.mark.torch
@pytest.mark.safety
def test_the_warning_stays_with_the_miniature_when_another_command_loads_it(
    call: Call, quick: Sequence[DemoPair]
) -> None:
    assert call("demo").code == 0
    pair = quick[-1]
    again = call("chat", "-c", stdin=f"{pair.question.rstrip('？')}\n量子力学是什么？\n")
    assert again.code == 0, again.err
    assert again.out.splitlines()[0] == pair.answer
    assert NOTICE in again.err
    (trained,) = (path for path in (cache_dir() / "demo").iterdir() if path.is_dir())
    model = copy_of(trained, cache_dir() / "elsewhere")
    asked = call("ask", "量子力学是什么？", "--model", str(model), "--json").one()
    assert NOTICE in asked["safety"][0]["text"] and asked["greedy"] is True


@pytest.mark.safety
@pytest.mark.parametrize("asked", ["量子力学是什么？", "我胸口很痛，喘不上气", "hello", "？？？", "高血压"])
def test_any_other_question_is_said_to_be_none_of_its_own(asked: str) -> None:
    (notice,) = KnownQuestions(demo_examples()).advise(Conversation(), asked)
    assert NOTICE in notice.text


def test_a_question_that_is_nearly_one_is_told_which() -> None:
    pair = demo_examples()[0]
    (notice,) = KnownQuestions(demo_examples()).advise(Conversation(), pair.question[1:])
    assert pair.question in notice.text


# ---------------------------------------------------------------- the cache


class Recipe(SFTRecipe):
    """A recipe that writes an empty folder, after running `meanwhile`."""

    method = "full"

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.runs = 0
        self._meanwhile = meanwhile

    def run(self, data: SFTData, options: SFTOptions, watch: SFTWatcher) -> SFTReport:
        self.runs += 1
        self._meanwhile()
        options.output.mkdir()
        return SFTReport(options.output, 1, len(data.train), 1, 1.0, 0.1, 0.1)


class Pretended(Backbone):
    """A backbone called chatglm whose training costs nothing."""

    name = "chatglm"
    summary: Mapping[str, str] = {"zh": "", "en": ""}

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        return {"full": self._recipe}

    def load(self, options: LoadOptions) -> ChatModel:
        raise AssertionError("nothing but training is asked of it")

    def template(self, options: LoadOptions) -> PromptTemplate:
        raise AssertionError("nothing but training is asked of it")

    def inspect(self, path: Path) -> ModelCard | None:
        raise AssertionError("nothing but training is asked of it")

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        path.mkdir()


def test_a_trained_demo_is_used_again_and_retrained_when_asked() -> None:
    recipe = Recipe()
    folders = [
        trained_model(Pretended(recipe), demo_examples(), retrain=retrain) for retrain in (False, False, True)
    ]
    assert recipe.runs == 2 and len(set(folders)) == 1
    assert folders[0].is_dir() and folders[0].parent.stat().st_mode & 0o777 == 0o700


def test_other_pairs_or_another_recipe_are_another_demo() -> None:
    pairs = demo_examples()
    other = (replace(pairs[0], answer=pairs[0].answer + "。"), *pairs[1:])
    assert (
        len(
            {fingerprint(RECIPE, pairs), fingerprint(RECIPE, other), fingerprint(DemoRecipe(epochs=1), pairs)}
        )
        == 3
    )


@pytest.mark.parametrize("failure", [MedchatError("no"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_a_training_that_ends_early_leaves_nothing_that_looks_trained(failure: BaseException) -> None:
    def fail() -> None:
        raise failure

    with pytest.raises(type(failure)):
        trained_model(Pretended(Recipe(fail)), demo_examples())
    assert [path.name for path in (cache_dir() / "demo").iterdir()] == ["lock"]
    recipe = Recipe()
    assert trained_model(Pretended(recipe), demo_examples()).is_dir() and recipe.runs == 1


def test_two_demos_at_once_train_once_and_the_second_says_that_it_waits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    training, waited = threading.Event(), threading.Event()

    def hold() -> None:
        training.set()
        waited.wait(10)

    recipe = Recipe(hold)
    first = threading.Thread(target=trained_model, args=(Pretended(recipe), demo_examples()))
    second = threading.Thread(target=trained_model, args=(Pretended(recipe), demo_examples()))
    first.start()
    assert training.wait(10)
    second.start()
    said = ""
    deadline = time.monotonic() + 10
    while "另一个 medchat demo" not in said and time.monotonic() < deadline:
        said += capsys.readouterr().err
        time.sleep(0.01)
    waited.set()
    for thread in (first, second):
        thread.join(10)
    assert "另一个 medchat demo" in said and recipe.runs == 1


def test_a_lock_left_by_a_killed_demo_does_not_block() -> None:
    (cache_dir() / "demo").mkdir(parents=True)
    lock = cache_dir() / "demo" / "lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    assert trained_model(Pretended(Recipe()), demo_examples()).is_dir()


def test_a_backbone_without_a_demo_is_refused_naming_one_that_has(
    call: Call, scripted_site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(scripted_site)
    outcome = call("demo", "--backbone", "scripted")
    assert outcome.code == 2 and "medchat demo --backbone chatglm" in outcome.failure()[1]
