"""Hook-only plugins: none stops or silences another."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest
from plugin_packages import BACKBONE_MODULE, write_distribution
from plugin_sites import ADVISER, HEAD, TALK, add_backbone, add_extension, notices

from medchat.errors import UsageError
from medchat.hookspecs import Finding
from medchat.registry import Registry

pytest_plugins = ("plugin_sites",)

BAD_ADVISERS = {
    "raises": "@hookimpl\ndef medchat_advise(text): raise RuntimeError('no')",
    "exits": "@hookimpl\ndef medchat_advise(text): raise SystemExit(3)",
    "recurses": "@hookimpl\ndef medchat_advise(text): return medchat_advise(text)",
    "one notice, no list": "from medchat import api\n@hookimpl\ndef medchat_advise(): return api.Notice('x')",
    "list of text": "@hookimpl\ndef medchat_advise(): return ['x']",
    "no list but empty": "@hookimpl\ndef medchat_advise(): return ''",
    "import fails": "import no_such_module_at_all",
    "misspelt": "@hookimpl\ndef medchat_advice(text): return []",
    "version": "medchat_api_version = 7",
    "wrapper that removes": "@hookimpl(wrapper=True)\ndef medchat_advise():\n    yield\n    return []",
    "wrapper that raises": "@hookimpl(wrapper=True)\ndef medchat_advise():\n    yield\n    raise OSError",
    "says it is first": "@hookimpl(tryfirst=True)\ndef medchat_advise(): raise OSError",
}


@pytest.mark.parametrize("case", BAD_ADVISERS)
def test_a_bad_extension_neither_stops_nor_silences_the_others(site: Path, case: str) -> None:
    add_extension(site, "a", ADVISER.replace("NAME", "a"))
    add_extension(site, "b", BAD_ADVISERS[case])
    add_extension(site, "c", ADVISER.replace("NAME", "c"))
    registry = Registry()
    extensions = registry.extensions()
    for _ in range(2):
        advice = extensions.advise(TALK, "头痛")
        assert sorted(advice, key=lambda notice: notice.text) == [notices("a"), notices("c")]
    expected = [] if case == "wrapper that removes" else ["medchat-b"]
    assert [failure.distribution for failure in registry.failures] == expected
    for failure in registry.failures:
        assert failure.entry == "b"
        assert "\n" not in str(failure)
        assert "medchat-b" in str(failure)


def test_extensions_in_conflict_are_not_imported_but_reported(site: Path) -> None:
    for distribution in ("one", "two"):
        write_distribution(site, distribution, {"medchat.extensions": {"same": "x"}}, {"x": HEAD + "1 / 0"})
    registry = Registry()
    assert registry.extensions().advise(TALK, "头痛") == ()
    assert "x" not in sys.modules
    assert len(registry.failures) == 1


def test_every_hook_reaches_the_plugin_and_comes_back_typed(site: Path) -> None:
    add_extension(
        site,
        "all",
        """
from medchat.api import Notice, SFTRecipe, SlashCommand
from medchat.hookspecs import Finding
from medchat.templates import load_template
saved = []
class Own(SFTRecipe):
    method = "own"
    def run(self, data, options, watch): raise AssertionError("the registry lists recipes and runs none")
@hookimpl
def medchat_templates(): return (load_template("bare"),)
@hookimpl
def medchat_sft_recipes(): return {"chatglm": [Own()], "llama": []}
@hookimpl
def medchat_slash_commands(): return [SlashCommand("hi", "你好", {}, lambda talk, words: words)]
@hookimpl
def medchat_turn_saved(conversation, turn): saved.append((conversation, turn))
@hookimpl
def medchat_doctor(settings): return [Finding(True, settings["lang"])]
""",
    )
    registry = Registry()
    extensions = registry.extensions()
    assert [template.name for template in extensions.templates()] == ["bare"]
    assert [recipe.method for recipe in extensions.sft_recipes("chatglm")] == ["own"]
    assert extensions.sft_recipes("bloom") == ()
    assert [command.zh_name for command in extensions.slash_commands()] == ["你好"]
    extensions.turn_saved(TALK, TALK.turns[0])
    assert sys.modules["all_module"].saved == [(TALK, TALK.turns[0])]
    assert extensions.doctor({"lang": "zh"}) == (Finding(True, "zh"),)
    assert registry.failures == ()


def test_recipes_of_the_wrong_shape_are_reported(site: Path) -> None:
    add_extension(site, "bad", "@hookimpl\ndef medchat_sft_recipes(): return ['lora']")
    registry = Registry()
    assert registry.extensions().sft_recipes("chatglm") == ()
    assert len(registry.failures) == 1


def test_the_chosen_backbones_plugin_takes_part_in_hooks_and_others_do_not(site: Path) -> None:
    for name in ("chosen", "other"):
        add_backbone(site, name, BACKBONE_MODULE.replace("NAME", name) + ADVISER.replace("NAME", name))
    registry = Registry()
    extensions = registry.extensions()
    assert extensions.advise(TALK, "头痛") == ()
    registry.backbone("chosen")
    registry.backbone("chosen")
    assert extensions.advise(TALK, "头痛") == (notices("chosen"),)


def test_a_plugin_that_is_both_backbone_and_extension_is_asked_once(site: Path) -> None:
    source = BACKBONE_MODULE.replace("NAME", "both") + ADVISER.replace("NAME", "both")
    groups = {"medchat": {"both": "both_module"}, "medchat.extensions": {"both": "both_module"}}
    write_distribution(site, "medchat-both", groups, {"both_module": source})
    registry = Registry()
    registry.backbone("both")
    assert registry.extensions().advise(TALK, "头痛") == (notices("both"),)


def test_a_command_plugin_is_imported_when_its_command_is_asked_for(site: Path) -> None:
    source = HEAD + "import click\n@hookimpl\ndef medchat_commands(): return [click.Command('greet')]"
    write_distribution(site, "greeter", {"medchat.commands": {"greet": "greeter"}}, {"greeter": source})
    registry = Registry()
    assert "greeter" not in sys.modules
    command, entry = registry.command("greet", click.Command)
    assert command.name == "greet" and entry.name == "greet"
    with pytest.raises(UsageError):
        registry.command("greed", click.Command)
