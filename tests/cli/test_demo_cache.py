"""Where the demo keeps its trained miniature: made once, whole or not at all, made again when anything changes."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cli_program import Call

from medchat.api import (
    Backbone,
    ChatModel,
    LoadOptions,
    ModelCard,
    PromptTemplate,
    SFTData,
    SFTOptions,
    SFTRecipe,
    SFTReport,
    SFTWatcher,
)
from medchat.commands.demo import fingerprint, trained_model
from medchat.demo_data import demo_examples
from medchat.demo_recipe import DEMO_RECIPES, DemoRecipe
from medchat.errors import MedchatError
from medchat.paths import cache_dir

pytest_plugins = ("cli_program",)

RECIPE = DEMO_RECIPES["chatglm"]


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
