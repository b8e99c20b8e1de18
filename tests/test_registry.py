"""Plugins are loaded one by one; whatever one of them does, the others and the program go on."""

from __future__ import annotations

import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from plugin_fixtures import BACKBONE_MODULE, write_distribution

from medchat import hookspecs
from medchat.api import Conversation, Finish, GenerationConfig, LoadOptions, Notice, Turn
from medchat.errors import PluginError, UsageError
from medchat.hookspecs import Finding
from medchat.registry import Registry
from medchat.registry.metadata import GROUPS
from medchat.templates import fit

ROOT = Path(__file__).resolve().parent.parent
HEAD = "from medchat.hookspecs import hookimpl\nmedchat_api_version = 1\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path; what is imported from it is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def add_backbone(site: Path, name: str, source: str | None = None, distribution: str = "") -> None:
    module = f"{distribution or name}_module".replace("-", "_")
    source = BACKBONE_MODULE.replace("NAME", name) if source is None else source
    write_distribution(site, distribution or f"medchat-{name}", {"medchat": {name: module}}, {module: source})


def add_extension(site: Path, name: str, source: str) -> None:
    entry_points = {"medchat.extensions": {name: f"{name}_module"}}
    write_distribution(site, f"medchat-{name}", entry_points, {f"{name}_module": HEAD + source})


# ---------------------------------------------------------------- backbones


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


# ---------------------------------------------------------------- extensions

ADVISER = """
from medchat.api import Notice
@hookimpl
def medchat_advise(conversation, text):
    return [Notice(f"NAME: {text} {len(conversation.turns)}")]
"""
TALK = Conversation((Turn("一", "甲"),))


def notices(name: str) -> Notice:
    return Notice(f"{name}: 头痛 1")


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
from medchat.api import Notice, SlashCommand
from medchat.hookspecs import Finding
from medchat.templates import load_template
saved = []
@hookimpl
def medchat_templates(): return (load_template("bare"),)
@hookimpl
def medchat_sft_recipes(): return {"chatglm": ["recipe"], "llama": ["other"]}
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
    assert extensions.sft_recipes("chatglm") == ("recipe",)
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
    assert [command.name for command in registry.commands("greet")] == ["greet"]  # type: ignore[attr-defined]
    with pytest.raises(UsageError):
        registry.commands("greed")


# ---------------------------------------------------------------- the example


def echo_site(site: Path) -> None:
    folder = ROOT / "examples" / "medchat-echo"
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    modules = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    write_distribution(site, project["name"], project["entry-points"], modules, version=project["version"])


def test_the_example_plugin_is_a_whole_backbone_in_under_100_lines(site: Path, tmp_path: Path) -> None:
    source = (ROOT / "examples" / "medchat-echo" / "medchat_echo.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 100
    echo_site(site)
    backbone = Registry().backbone("echo")
    assert backbone.inspect(tmp_path) is None
    backbone.tiny(tmp_path / "model", context_length=8)
    card = backbone.inspect(tmp_path / "model")
    assert card is not None
    assert card.backbone == "echo"

    options = LoadOptions(tmp_path / "model")
    model, template = backbone.load(options), backbone.template(options)
    fitted = fit(template, TALK, "头痛", model.count, model.context_length)
    config, running = GenerationConfig(), threading.Event()
    deltas = list(model.stream(fitted.segments, config, running))
    assert "".join(delta.text for delta in deltas) == "头痛"
    assert [delta.finish for delta in deltas] == [None, None, Finish.STOP]
    assert model.generate_batch([fitted.segments], config)[0].text == "头痛"
    assert model.score(fitted.segments, "头痛") == (0.0, 0.0, 0.0)
    assert (
        finishes(model.stream(fitted.segments, GenerationConfig(max_new_tokens=1), running)) is Finish.LENGTH
    )
    running.set()
    assert finishes(model.stream(fitted.segments, config, running)) is Finish.CANCELLED
    model.close()


def finishes(deltas: Iterator[object]) -> object:
    return [delta.finish for delta in deltas][-1]  # type: ignore[attr-defined]


# ---------------------------------------------------------------- from outside


def run(arguments: Sequence[str], home: Path, *folders: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PYTHONPATH": ":".join(map(str, [ROOT, ROOT / "plugins" / "chatglm", *folders])),
        "MEDCHAT_HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }
    command = [sys.executable, "-m", "medchat", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def break_everything(site: Path) -> None:
    groups = {group: {"broken": "broken_module"} for group in ("medchat", "medchat.extensions")}
    write_distribution(site, "broken", groups, {"broken_module": "raise SystemExit(3)"})


def test_a_broken_third_party_plugin_does_not_change_help(tmp_path: Path) -> None:
    break_everything(tmp_path / "site")
    clean, broken = run(["--help"], tmp_path), run(["--help"], tmp_path, tmp_path / "site")
    assert clean.returncode == 0
    assert (broken.returncode, broken.stdout, broken.stderr) == (0, clean.stdout, clean.stderr)


def test_a_broken_third_party_plugin_only_adds_its_rows_to_the_list(tmp_path: Path) -> None:
    break_everything(tmp_path / "site")
    clean = run(["plugins", "list"], tmp_path)
    broken = run(["plugins", "list"], tmp_path, tmp_path / "site")
    assert (broken.returncode, broken.stderr) == (0, clean.stderr)
    others = [line for line in broken.stdout.splitlines() if not line.startswith("broken")]
    assert others == clean.stdout.splitlines()
    assert any(line.startswith("chatglm") for line in others)


def test_a_chat_with_another_backbone_gains_one_line_naming_the_broken_plugin(tmp_path: Path) -> None:
    fine, site = tmp_path / "fine", tmp_path / "site"
    echo_site(fine)
    break_everything(site)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "echo.json").write_text('{"context_length": 64}', encoding="utf-8")
    question = ["ask", "头痛怎么办？", "--backbone", "echo", "--model", str(tmp_path / "model")]
    clean, broken = run(question, tmp_path / "a", fine), run(question, tmp_path / "b", fine, site)
    assert (clean.returncode, clean.stdout) == (0, "头痛怎么办？\n")
    assert (broken.returncode, broken.stdout) == (clean.returncode, clean.stdout)
    added = [line for line in broken.stderr.splitlines() if line not in clean.stderr.splitlines()]
    assert len(added) == 1
    assert "broken" in added[0]


# ---------------------------------------------------------------- the documentation


def test_every_hook_and_group_is_documented() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(hookspecs.Hooks) if name.startswith("medchat_")]
    assert len(hooks) == 8
    for name in [*hooks, *GROUPS, "medchat_api_version", "MEDCHAT_PLUGINS", "MEDCHAT_STRICT"]:
        assert f"`{name}" in page, name
    for name in hooks:
        assert len((getattr(hookspecs.Hooks, name).__doc__ or "").split()) > 10, name


def test_no_hook_stops_at_the_first_result() -> None:
    for name in vars(hookspecs.Hooks):
        if name.startswith("medchat_"):
            assert getattr(hookspecs.Hooks, name).medchat_spec["firstresult"] is False
