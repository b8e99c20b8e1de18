"""Backbones are found by entry point, one at a time, each failure contained."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from locations import ROOT
from plugin_packages import BACKBONE_MODULE, write_distribution
from plugin_sites import ADVISER, HEAD, TALK, add_backbone, notices

from medchat.errors import PluginError, UsageError
from medchat.registry import Registry

pytest_plugins = ("plugin_sites",)


def test_asking_for_one_backbone_imports_that_plugin_alone(site: Path) -> None:
    add_backbone(site, "first")
    add_backbone(site, "second")
    registry = Registry()
    assert {"chatglm", "first", "second"} <= set(registry.names())
    assert "first_module" not in sys.modules
    assert registry.backbone("first").name == "first"
    assert "first_module" in sys.modules
    assert "second_module" not in sys.modules
    assert registry.failures == ()


def test_the_builtin_backbone_loads_without_torch() -> None:
    code = (
        "import sys; from medchat.registry import Registry; backbone = Registry().backbone('chatglm');"
        "assert backbone.name == 'chatglm'; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins' / 'chatglm'}", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_an_unknown_backbone_is_a_usage_error_with_suggestions(site: Path) -> None:
    add_backbone(site, "first")
    with pytest.raises(UsageError) as caught:
        Registry().backbone("chatgml")
    assert "chatgml" in caught.value.what
    assert "chatglm" in caught.value.remedy
    assert "first" not in caught.value.remedy
    with pytest.raises(UsageError) as caught:
        Registry().backbone("zzz")
    assert "first" in caught.value.remedy


BROKEN = {
    "import error": ("import no_such_module_at_all", "ModuleNotFoundError"),
    "syntax error": ("def (:", "SyntaxError"),
    "exit": ("raise SystemExit(0)", "SystemExit"),
    "exit with a message": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "base exception": ("class Mine(BaseException): pass\nraise Mine('a\\nb\\x1b[2J')", "Mine: a b"),
    "error that cannot be shown": (
        "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute",
        "Mute",
    ),
    "no version": ("x = 1", "medchat_api_version"),
    "later version": ("medchat_api_version = 2", "2"),
    "version as text": ("medchat_api_version = '1'", "'1'"),
    "true is no version": ("medchat_api_version = True", "True"),
    "misspelt hook": (HEAD + "@hookimpl\ndef medchat_bakcbones(): return []", "medchat_bakcbones"),
    "wrong argument": (HEAD + "@hookimpl\ndef medchat_backbones(model): return []", "model"),
    "no hook": (HEAD, "NAME"),
    "unmarked hook": (HEAD + "def medchat_backbones(): return []", "@hookimpl"),
    "other name": (BACKBONE_MODULE.replace('name = "NAME"', 'name = "other"'), "NAME"),
    "name missing": (BACKBONE_MODULE.replace('    name = "NAME"\n', ""), "AttributeError"),
    "abstract": (BACKBONE_MODULE.replace("    def inspect(self, path): return None\n", ""), "TypeError"),
    "twice": (BACKBONE_MODULE.replace("[Plain()]", "[Plain(), Plain()]"), "2"),
    "raising hook": (HEAD + "@hookimpl\ndef medchat_backbones(): 1 / 0", "ZeroDivisionError"),
    "exiting hook": (HEAD + "@hookimpl\ndef medchat_backbones(): raise SystemExit", "SystemExit"),
    "no list": (HEAD + "@hookimpl\ndef medchat_backbones(): return 'abc'", "str"),
    "no backbones": (HEAD + "@hookimpl\ndef medchat_backbones(): return [1]", "int"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_backbone_plugin_is_exit_5_naming_it_and_harms_no_other(site: Path, case: str) -> None:
    source, words = BROKEN[case]
    add_backbone(site, "NAME", source, distribution="broken")
    add_backbone(site, "good")
    registry = Registry()
    with pytest.raises(PluginError) as caught:
        registry.backbone("NAME")
    assert caught.value.exit_code == 5
    assert "broken" in caught.value.what
    assert words in caught.value.what
    assert caught.value.remedy
    assert not set(caught.value.what) & set("\n\x1b")
    assert registry.backbone("good").name == "good"
    assert [backbone.name for backbone in registry.backbones() if backbone.name in ("NAME", "good")] == [
        "good"
    ]
    assert [failure.distribution for failure in registry.failures] == ["broken"]


def test_a_value_may_name_an_object_in_a_module(site: Path) -> None:
    source = (
        BACKBONE_MODULE.replace("NAME", "object")
        + """
class Plugin:
    medchat_api_version = 1
    @hookimpl
    def medchat_backbones(self): return [Plain()]

class Shelf:
    plugin = Plugin()
"""
    )
    entries = {"object": "holder:Shelf.plugin [extra]", "lost": "holder:gone"}
    write_distribution(site, "by-object", {"medchat": entries}, {"holder": source})
    assert Registry().backbone("object").name == "object"
    with pytest.raises(PluginError, match="gone"):
        Registry().backbone("lost")


def test_ctrl_c_during_an_import_is_not_swallowed(site: Path) -> None:
    add_backbone(site, "slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry().backbone("slow")


def test_strict_lets_the_original_error_through(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_backbone(site, "bad", "1 / 0")
    monkeypatch.setenv("MEDCHAT_STRICT", "1")
    with pytest.raises(ZeroDivisionError):
        Registry().backbone("bad")


def test_two_distributions_claiming_one_backbone_are_both_refused_and_named(site: Path) -> None:
    add_backbone(site, "same", distribution="one")
    add_backbone(site, "same", distribution="two")
    add_backbone(site, "good")
    registry = Registry()
    assert "same" not in registry.names()
    with pytest.raises(PluginError) as caught:
        registry.backbone("same")
    assert "one 1.0" in caught.value.what
    assert "two 1.0" in caught.value.what
    assert "pip uninstall" in caught.value.remedy
    assert "one_module" not in sys.modules
    assert registry.backbone("good").name == "good"
    assert len(registry.failures) == 1


def test_the_allow_list_leaves_the_rest_alone_and_says_so(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_backbone(site, "wanted")
    add_backbone(site, "unwanted")
    monkeypatch.setenv("MEDCHAT_PLUGINS", "wanted, chatglm")
    registry = Registry()
    assert registry.names() == ("chatglm", "wanted")
    with pytest.raises(UsageError, match="unwanted") as caught:
        registry.backbone("unwanted")
    assert "MEDCHAT_PLUGINS" in caught.value.remedy
    assert Registry(allowed=["unwanted"]).names() == ("unwanted",)


def test_several_threads_import_a_plugin_once(site: Path) -> None:
    source = BACKBONE_MODULE.replace("NAME", "slow") + ADVISER.replace("NAME", "slow")
    add_backbone(site, "slow", f"import time\ntime.sleep(0.05)\n{source}")
    registry = Registry()
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(registry.backbone("slow"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert registry.extensions().advise(TALK, "头痛") == (notices("slow"),)
