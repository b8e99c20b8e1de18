"""`medchat demo`: trained once, cached, honest about what it does not know."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import pytest
from child_process import TORCH
from cli_program import MARK_ZH, Call, DumbTerminal, copy_of

from medchat.chat.demo_mode import mark_as_demo
from medchat.commands.demo import fingerprint
from medchat.demo_data import DemoPair, demo_examples
from medchat.demo_recipe import DEMO_RECIPES, DemoRecipe
from medchat.paths import cache_dir

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
    with DumbTerminal("demo", "--no-save", imported=TORCH) as screen:
        opening = screen.wait_for("› ")
        assert "120" in opening and "可以问：" in opening and "正在用真实的微调代码训练它" not in opening
        screen.type("/硬答")
        screen.wait_for("没有被拒绝的问题")
        screen.type("我爸胸口闷，出冷汗")
        offer = screen.wait_for("但内容没有意义")
        assert offer.count(REFUSAL) == 1 and MARK_ZH not in offer
        assert "1  胸口疼什么时候很危险？" in offer and "没有意义" in offer
        screen.type("1")
        chosen = screen.wait_for(MARK_ZH)
        assert "› 胸口疼什么时候很危险？" in chosen and NOTICE not in chosen
        screen.type("量子力学是什么？")
        screen.wait_for("但内容没有意义")
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
