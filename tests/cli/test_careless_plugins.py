"""Whatever a careless plugin does, the program names it and its method, exits with 5, and keeps what was said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from careless_models import CARELESS_ANSWERS, CARELESS_MODELS
from careless_offers import CARELESS_BACKBONES, CARELESS_HOOKS, CARELESS_MODULES, CARELESS_RECIPES
from careless_plugins import DISTRIBUTION, Careless
from cli_program import Call, Outcome, saved_turns
from sound_plugin import ANSWER

pytest_plugins = ("cli_program", "plugin_sites")

SOUND = Careless("")
CARELESS = {
    **CARELESS_ANSWERS,
    **CARELESS_MODELS,
    **CARELESS_BACKBONES,
    **CARELESS_RECIPES,
    **CARELESS_MODULES,
}


class Installed:
    """A plugin, and the program that uses it."""

    def __init__(self, plugin: Careless, site: Path, call: Call) -> None:
        plugin.install(site)
        self._plugin, self._call, self.folder = plugin, call, site.parent
        (self.folder / "model").mkdir()
        questions = [{"instruction": f"问{number}", "output": "答"} for number in range(4)]
        (self.folder / "data.json").write_text(json.dumps(questions), encoding="utf-8")

    def run(self) -> Outcome:
        """Type the command by which one comes upon it."""
        verb, *more = self._plugin.verb.split()
        model = str(self.folder / "model")
        chosen = ["--backbone", "careless", "--model", model]
        data = ["--data", str(self.folder / "data.json"), "--output", str(self.folder / "out")]
        words = {
            "ask": ["头痛", *chosen],
            "chat": chosen,
            "infer": [*data, *chosen],
            "sft": [*data, *chosen],
            "models": [model, "--backbone", "careless"],
            "plugins": ["careless"],
        }.get(verb, [])
        return self._call(verb, *more, *words, stdin=self._plugin.typed)


@pytest.mark.parametrize("case", CARELESS)
def test_a_careless_plugin_is_named_with_its_method(case: str, site: Path, call: Call) -> None:
    plugin = CARELESS[case]
    outcome = Installed(plugin, site, call).run()
    assert outcome.code == plugin.code, outcome
    assert plugin.says in outcome.err and "内部错误" not in outcome.err, outcome.err
    if plugin.code == 5:
        assert DISTRIBUTION in outcome.err and f"{plugin.where}: " in outcome.err, outcome.err
    if plugin.code == 5 and plugin.ends_the_program:
        what, remedy = outcome.failure()
        assert DISTRIBUTION in what and "MEDCHAT_STRICT=1" in remedy
    if plugin.kept:
        (turn,) = saved_turns()
        assert turn.turn.answer == plugin.kept


@pytest.mark.parametrize("case", CARELESS_HOOKS)
def test_a_careless_hook_is_named_once_and_the_answer_stays(case: str, site: Path, call: Call) -> None:
    plugin = CARELESS_HOOKS[case]
    outcome = Installed(plugin, site, call).run()
    named = [line for line in outcome.err.splitlines() if DISTRIBUTION in line and plugin.where in line]
    assert (outcome.code, outcome.out, len(named)) == (0, f"{ANSWER}\n", 1), outcome
    assert saved_turns()[0].turn.answer == ANSWER


@pytest.mark.parametrize("verb", ["ask", "infer", "infer --check", "sft", "models show"])
def test_the_sound_plugin_that_they_are_made_of_works(verb: str, site: Path, call: Call) -> None:
    outcome = Installed(replace(SOUND, verb=verb), site, call).run()
    assert outcome.code == 0 and DISTRIBUTION not in outcome.err, outcome
