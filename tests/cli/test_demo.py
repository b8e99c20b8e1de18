"""`medchat demo`: trained once, cached, honest about what it does not know."""

from __future__ import annotations

import fcntl
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from cli_program import MARK_ZH, Call, DumbTerminal, copy_of
from hypothesis import given
from hypothesis import strategies as st
from scripted_session import ScriptedModel, session_of

from medchat.api import (
    Backbone,
    ChatModel,
    LoadOptions,
    ModelCard,
    Notice,
    PromptTemplate,
    SFTData,
    SFTOptions,
    SFTRecipe,
    SFTReport,
    SFTWatcher,
    Turn,
)
from medchat.chat.demo_mode import DemoGate, KnownQuestions, LearnedAlone, UnknownToDemo, mark_as_demo
from medchat.chat.events import Advice
from medchat.commands.demo import fingerprint, trained_model
from medchat.demo_data import DemoPair, demo_examples
from medchat.demo_recipe import DEMO_RECIPES, DemoRecipe
from medchat.errors import MedchatError
from medchat.paths import cache_dir
from medchat.templates import load_template

pytest_plugins = ("cli_program",)

RECIPE = DEMO_RECIPES["chatglm"]
NOTICE = "这不是演示模型学过的问题"
REFUSAL = "演示模型没有学过这个问题"
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
def test_on_a_terminal_a_question_it_has_not_learned_gets_learned_ones_to_choose_from_and_no_answer(
    prepared: Path,
) -> None:
    known = demo_examples()[0].question
    with DumbTerminal("demo", "--no-save") as screen:
        opening = screen.wait_for("› ")
        assert "120" in opening and "可以问：" in opening and "正在用真实的微调代码训练它" not in opening
        screen.type("/硬答")
        screen.wait_for("没有被拒绝的问题")
        screen.type("我爸胸口闷，出冷汗")
        offer = screen.wait_for("写出来的没有意义")
        assert offer.count(REFUSAL) == 1 and MARK_ZH not in offer
        assert "1  胸口疼什么时候很危险？" in offer and "没有意义" in offer
        screen.type("1")
        chosen = screen.wait_for(MARK_ZH)
        assert "› 胸口疼什么时候很危险？" in chosen and NOTICE not in chosen
        screen.type("量子力学是什么？")
        screen.wait_for("写出来的没有意义")
        screen.type("/硬答")
        forced = screen.wait_for(MARK_ZH)
        assert forced.count(NOTICE) == 1
        answer = forced.rpartition(NOTICE)[2].partition("\n")[2].partition(MARK_ZH)[0]
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
            known.check(asked)
            assert known.warnings(asked) == ()


def test_a_question_is_sent_alone_and_as_it_was_learned() -> None:
    pair = demo_examples()[0]
    before = (Turn("别的问题", "别的回答"),)
    form = LearnedAlone(load_template("bare"), KnownQuestions(demo_examples()))
    learned = load_template("bare").render((), pair.question)
    assert form.render(before, pair.question.rstrip("？") + "?") == learned
    assert form.render(before, "没学过的") == load_template("bare").render((), "没学过的")


@pytest.mark.torch
@pytest.mark.safety
def test_the_refusal_stays_with_the_miniature_when_another_command_loads_it(
    call: Call, quick: Sequence[DemoPair]
) -> None:
    assert call("demo").code == 0
    pair = quick[-1]
    again = call("chat", "-c", stdin=f"{pair.question.rstrip('？')}\n量子力学是什么？\n")
    assert again.code == 2, again.err
    assert again.out == f"{pair.answer}\n"
    assert REFUSAL in again.err
    (trained,) = (path for path in (cache_dir() / "demo").iterdir() if path.is_dir())
    model = copy_of(trained, cache_dir() / "elsewhere")
    refused = call("ask", "量子力学是什么？", "--model", str(model), "--json")
    assert refused.code == 2 and REFUSAL in refused.err and "--force-answer" in refused.failure()[1]
    assert (refused.one()["answer"], refused.one()["finish"]) == ("", "refused")
    forced = call("ask", "量子力学是什么？", "--model", str(model), "--json", "--force-answer").one()
    assert NOTICE in forced["safety"][0]["text"] and forced["greedy"] is True and forced["answer"]


@pytest.mark.torch
@pytest.mark.safety
def test_infer_refuses_what_the_miniature_has_not_learned_unless_it_is_forced(
    call: Call, quick: Sequence[DemoPair], tmp_path: Path
) -> None:
    assert call("demo").code == 0
    (model,) = (path for path in (cache_dir() / "demo").iterdir() if path.is_dir())
    data, output = tmp_path / "questions.txt", tmp_path / "answers.jsonl"
    learned, near = quick[0], quick[1].question[1:]
    data.write_text(f"{learned.question.rstrip('？')}\n{near}\n", encoding="utf-8")
    flags = ("infer", "--data", str(data), "--output", str(output), "--model", str(model))
    refused = call(*flags)
    first, second = map(json.loads, output.read_text("utf-8").splitlines())
    assert refused.code == 6 and "--force-answer" in refused.err
    assert (first["answer"], first["safety"]) == (learned.answer, [])
    assert (second["answer"], second["finish"]) == ("", "error")
    assert REFUSAL in second["error"] and quick[1].question in second["error"]
    forced = call(*flags, "--resume", "--force-answer")
    first, second = map(json.loads, output.read_text("utf-8").splitlines())
    assert forced.code == 0, forced.err
    assert first["safety"] == [] and NOTICE in second["safety"][0]["text"] and second["answer"]


@pytest.mark.safety
@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        ("我爸胸口闷，出冷汗", "胸口疼什么时候很危险？"),
        ("不想活了", "朋友说不想活了我该做什么？"),
        ("怀孕出血", "怀孕后出血怎么办？"),
        ("怎么打喷嚏", "咳嗽打喷嚏时怎么做？"),
        ("高血压", "血压多高算高血压？"),
        ("打120要说啥", "打120时要说什么？"),
        ("12356", "12356是什么电话？"),
    ],
)
def test_any_other_question_is_refused_with_the_nearest_ones_first(asked: str, offered: str) -> None:
    with pytest.raises(UnknownToDemo) as refused:
        KnownQuestions(demo_examples()).check(asked)
    assert refused.value.nearest[0] == offered and offered in refused.value.what
    assert len(refused.value.nearest) <= 3 and "--force-answer" in refused.value.remedy


@pytest.mark.safety
@pytest.mark.parametrize(
    "asked", ["量子力学是什么？", "hello", "13812345678", "？？？", "", "怎么办", "\x00\u202e"]
)
def test_a_question_that_shares_nothing_with_a_learned_one_is_refused_without_an_offer(asked: str) -> None:
    with pytest.raises(UnknownToDemo) as refused:
        KnownQuestions(demo_examples()).check(asked)
    assert refused.value.nearest == ()


@given(st.text(max_size=40))
def test_whatever_is_asked_is_learned_or_refused_and_every_offer_was_learned(asked: str) -> None:
    known = KnownQuestions(demo_examples())
    try:
        known.check(asked)
    except UnknownToDemo as refused:
        assert all(known.learned(question) == question for question in refused.nearest)
        assert known.warnings(asked)


def test_a_number_chooses_from_the_last_offer_alone() -> None:
    gate = DemoGate(KnownQuestions(demo_examples()))
    assert gate.meant("1") == "1"  # nothing was offered
    with pytest.raises(UnknownToDemo) as refused:
        gate.admit("高血压", insist=False)
    first, second = refused.value.nearest
    assert [gate.meant(typed) for typed in ("1", " ２ ", "0", "3", "99999999999999999999", "-1")] == [
        first, second, "0", "3", "99999999999999999999", "-1",
    ]  # fmt: skip
    assert gate.refused == "高血压"
    assert gate.admit(first, insist=False) == ()
    assert (gate.meant("1"), gate.refused) == ("1", "")


@pytest.mark.safety
def test_an_emergency_is_noticed_before_the_miniature_refuses_and_before_it_is_made_to_answer() -> None:
    model = ScriptedModel()
    notice = Notice("请拨打 120", urgent=True)
    gate = DemoGate(KnownQuestions(demo_examples()))
    session = session_of(model, gate=gate, advisers=(lambda before, question: [notice],))
    events = session.ask("我爸胸口闷，出冷汗", threading.Event())
    assert next(events) == Advice(notice)
    with pytest.raises(UnknownToDemo):
        next(events)
    assert model.sent == [] and session.conversation.turns == ()
    insisted = list(session.ask(gate.refused, threading.Event(), insist=True))
    assert insisted[0] == Advice(notice) and NOTICE in str(insisted[1])
    again = list(session.regenerate(threading.Event()))
    assert again[0] == Advice(notice) and NOTICE in str(again[1])


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


def test_a_trained_demo_starts_without_what_trains() -> None:
    class NeverAskedForRecipes(Pretended):
        @property
        def recipes(self) -> Mapping[str, SFTRecipe]:
            raise AssertionError("training brings torch with it, seconds before the first prompt")

    trained = trained_model(Pretended(Recipe()), demo_examples())
    assert trained_model(NeverAskedForRecipes(Recipe()), demo_examples()) == trained


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
