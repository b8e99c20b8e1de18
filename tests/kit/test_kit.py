"""The kit of `medchat.testing`: a sound backbone passes, each broken one fails where it is broken and nowhere else."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from abacus_backbone import Abacus, Template
from locations import ROOT

from medchat.api import Backbone, Capabilities, ChatModel, LoadOptions, PromptTemplate, Segment, Turn
from medchat.errors import UsageError
from medchat.testing import PROPERTIES, BackboneTests
from medchat.testing.running import run_properties

BROKEN = Path(__file__).parent / "broken"
NAMES = sorted(path.stem for path in BROKEN.glob("*.py"))
#: Each imports a module in a process of its own, and those of the broken plugins import what the sound one does.
OF_THE_MODULE = ("test_inspect_imports_no_torch", "test_the_import_does_nothing", "test_the_import_is_light")


class TestAbacus(BackboneTests):
    backbone = Abacus()


class Scoreless(Abacus):
    """Says that it tells no scores, and raises where it is asked for them."""

    capabilities = Capabilities(beams=False, score=False)

    def load(self, options: LoadOptions) -> ChatModel:
        model = super().load(options)
        model.score = None  # type: ignore[assignment]
        return model


def test_scores_are_not_asked_of_a_backbone_that_declares_none() -> None:
    names = [name for name in PROPERTIES if "score" in name]
    results = run_properties(type("Tests", (BackboneTests,), {"backbone": Scoreless()}), names)
    assert [result.outcome for result in results] == ["skipped"] * 2


class WithoutSystem(Template):
    """Refuses a system text, as Gemma's chat template does."""

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        if system:
            raise UsageError("no system role")
        return super().render(turns, question)


class Refusing(Abacus):
    """Sound, with that template."""

    def template(self, options: LoadOptions) -> PromptTemplate:
        return WithoutSystem()


def test_a_template_may_refuse_a_system_text() -> None:
    names = ["test_no_words_become_a_control_token"]
    results = run_properties(type("Tests", (BackboneTests,), {"backbone": Refusing()}), names)
    assert [result.outcome for result in results] == ["passed"], results


def test_a_family_that_writes_adapters_and_merges_none_has_to_say_so() -> None:
    name = "test_a_merge_agrees_with_its_adapter"
    unmerged = type("Unmerged", (Abacus,), {"save_merged": Backbone.save_merged})
    for declared, outcome in (
        ({}, "failed"),
        ({name: "the adapter is a table beside the weights"}, "skipped"),
    ):
        tests = type("Tests", (BackboneTests,), {"backbone": unmerged(), "not_applicable": dict(declared)})
        (result,) = run_properties(tests, (name,))
        assert result.outcome == outcome, result


@pytest.fixture(params=NAMES)
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BROKEN))
    before, handler = set(sys.modules), signal.getsignal(signal.SIGUSR1)
    yield import_module(request.param)
    signal.signal(signal.SIGUSR1, handler)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_broken_plugin_fails_where_it_is_broken_and_nowhere_else(broken: ModuleType) -> None:
    others = {name: "as of the sound one" for name in OF_THE_MODULE if name != broken.FAILS}
    tests = type("Tests", (BackboneTests,), {"backbone": broken.Broken(), "not_applicable": others})
    failed = {result.name: result.detail for result in run_properties(tests) if result.outcome == "failed"}
    assert list(failed) == [broken.FAILS], failed
    assert "When it fails:" in (PROPERTIES[broken.FAILS].__doc__ or "")


def test_each_property_has_a_plugin_that_fails_it() -> None:
    sources = [path.read_text(encoding="utf-8") for path in BROKEN.glob("*.py")]
    without = [name for name in PROPERTIES if not any(f'FAILS = "{name}"' in source for source in sources)]
    assert without == ["test_nothing_is_left_out"]


# ---------------------------------------------------------------- what weakens the kit


def test_a_subclass_that_overrides_a_property_is_refused_unless_it_says_why() -> None:
    name, other = "test_close_may_be_called_twice", "test_greedy_answers_repeat"
    for instead in (lambda self: None, None, "gone"):
        with pytest.raises(TypeError, match=name):
            type("Weak", (BackboneTests,), {"backbone": Abacus(), name: instead})
    mixin = type("Mixin", (), {name: lambda self: None})
    with pytest.raises(TypeError, match=name):
        type("Weak", (mixin, BackboneTests), {"backbone": Abacus()})
    with pytest.raises(TypeError, match="no property"):
        type("Weak", (BackboneTests,), {"not_applicable": {"test_closed": "no such thing"}})
    with pytest.raises(TypeError, match="no reason"):
        type("Weak", (BackboneTests,), {"not_applicable": {name: " "}})
    said = type(
        "Said", (BackboneTests,), {"backbone": Abacus(), "not_applicable": {name: "why", other: "why"}}
    )
    results = {
        result.name: result for result in run_properties(said, (name, other, "test_nothing_is_left_out"))
    }
    assert [result.outcome for result in results.values()] == ["skipped", "skipped", "passed"]
    assert results[name].detail == "why"


def test_a_property_that_is_taken_away_later_fails_the_one_that_counts_them() -> None:
    tests = type("Tests", (BackboneTests,), {"backbone": Abacus()})
    tests.test_greedy_answers_repeat = lambda self: None  # type: ignore[attr-defined,method-assign]
    (counted,) = run_properties(tests, ("test_nothing_is_left_out",))
    assert counted.outcome == "failed" and "test_greedy_answers_repeat" in counted.detail


def test_each_property_says_what_it_proves_and_what_to_do_and_stands_in_the_page() -> None:
    page = (ROOT / "docs" / "plugins" / "testing.md").read_text(encoding="utf-8")
    for name, test in PROPERTIES.items():
        first, _, rest = (test.__doc__ or "").strip().partition("\n")
        assert first.rstrip(".") != first and "When it fails:" in rest, name
        assert f"| `{name}` | {first} |" in page
    assert page.count("| `test_") == len(PROPERTIES)
