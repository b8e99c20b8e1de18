"""Whatever a careless plugin does, the program names it and its method, exits with 5, and keeps what was said."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from careless_models import CARELESS_ANSWERS, CARELESS_MODELS
from careless_offers import CARELESS_BACKBONES, CARELESS_HOOKS, CARELESS_MODULES, CARELESS_RECIPES
from careless_plugins import DISTRIBUTION, Careless, Installed, path_with
from cli_program import Call, read_until, run, saved_turns, start
from locations import ROOT
from sound_plugin import ANSWER

from medchat import api
from medchat.__main__ import LEAVING_SECONDS
from medchat.cli.stuck import SECOND_WISH
from medchat.hookspecs import Hooks

pytest_plugins = ("cli_program", "plugin_sites")

SOUND = Careless("")
CARELESS = {
    **CARELESS_ANSWERS,
    **CARELESS_MODELS,
    **CARELESS_BACKBONES,
    **CARELESS_RECIPES,
    **CARELESS_MODULES,
}


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
    if plugin.code == 0:
        assert DISTRIBUTION in outcome.err and plugin.where in outcome.err, outcome.err
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


def test_every_method_and_every_hook_has_a_careless_plugin() -> None:
    tried = {plugin.where.partition(":")[0] for plugin in (*CARELESS.values(), *CARELESS_HOOKS.values())}
    tried |= {"medchat_slash_commands"} if any("/" in where for where in tried) else set()
    # Nothing that can be typed comes upon the others: their objects are tried by themselves.
    objects = "".join(
        (ROOT / "tests" / name).read_text(encoding="utf-8")
        for name in (
            "registry/test_guarded_objects.py",
            "commands/test_sft_eval.py",
            "commands/test_compare.py",
        )
    )
    written = {
        *public(api.Backbone),
        *(name for kind in (api.ChatModel, api.ContinuingModel, api.PromptParts) for name in public(kind)),
        *(f"recipe.{name}" for name in public(api.SFTRecipe)),
        *(f"template.{name}" for name in public(api.PromptTemplate)),
        *(name for name in public(Hooks)),
    }
    missing = [name for name in sorted(written - tried) if name not in objects]
    assert missing == ["not_applicable"]  # which `medchat plugins test` alone reads
    assert len(CARELESS) + len(CARELESS_HOOKS) >= 130


def public(kind: type) -> list[str]:
    """Return the public attributes that a class of the interface states."""
    return [name for name in (*vars(kind), *getattr(kind, "__annotations__", {})) if not name.startswith("_")]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_model_that_never_comes_back_is_left_at_the_second_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    blocked = "def stream(self, s, c, e):\n    yield Delta('多', 1, 4)\n    __import__('time').sleep(20)"
    Careless("stream", blocked).install(tmp_path / "site")
    flags = ("--backbone", "careless", "--model", str(tmp_path))
    path = path_with(tmp_path / "site")
    with start("ask", "头痛", *flags, PYTHONPATH=path) as process:
        read_until(process, 3)
        process.send_signal(number)
        time.sleep(SECOND_WISH + 0.2)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(10) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    (saved,) = saved_turns()
    assert (saved.turn.answer, saved.turn.finish) == ("多", "cancelled")


@pytest.mark.parametrize(
    "left_behind",
    [
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n",
        pytest.param("import atexit, time\natexit.register(time.sleep, 60)\n", marks=pytest.mark.slow),
    ],
)
def test_what_a_plugin_leaves_behind_does_not_keep_the_program(tmp_path: Path, left_behind: str) -> None:
    replace(SOUND, module=left_behind).install(tmp_path / "site")
    flags = ("--backbone", "careless", "--model", str(tmp_path))
    path = path_with(tmp_path / "site")
    with start("ask", "头痛", *flags, PYTHONPATH=path) as process:
        assert process.wait(LEAVING_SECONDS + 12) == 0
        assert process.stdout is not None and process.stdout.read().decode() == f"{ANSWER}\n"


BLOCKED = {
    "infer": Careless(
        "generate_batch",
        "def generate_batch(self, p, c): Path('blocked').touch(); __import__('time').sleep(60)",
        verb="infer",
    ),
    "sft": Careless(
        "recipe.run",
        recipe="def run(self, d, o, w): Path('blocked').touch(); __import__('time').sleep(60)",
        verb="sft",
    ),
}


@pytest.mark.parametrize("verb", BLOCKED)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_plugin_that_blocks_is_left_at_the_second_signal_at_the_latest(
    verb: str, number: signal.Signals, site: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = Installed(BLOCKED[verb], site, call)
    monkeypatch.chdir(installed.folder)
    path = path_with(site)
    with start(*installed.words(), PYTHONPATH=path) as process:
        deadline = time.monotonic() + 30
        while not Path("blocked").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECOND_WISH + 0.2)
        if process.poll() is None:
            process.send_signal(number)
        assert process.wait(10) == {signal.SIGINT: 130, signal.SIGHUP: 129}[number]
        said = process.stderr.read().decode() if process.stderr else ""
    assert "Traceback" not in said and "内部错误" not in said


NOISY = "def {}: __import__('os').write(2, b'llama_model_loader: \\x1b[2J noise\\n'); return {}"


@pytest.mark.parametrize("verb", ["ask", "infer", "chat"])
@pytest.mark.parametrize(
    "noise",
    [
        {"backbone": NOISY.format("load(self, options)", "Model()")},
        {"model": NOISY.format("count(self, segments)", "super().count(segments)")},
    ],
    ids=["loading", "answering"],
)
def test_native_output_on_stderr_is_shown_on_debug_alone(
    noise: dict[str, str], verb: str, site: Path, call: Call
) -> None:
    plugin = replace(SOUND, verb=verb, typed="头痛\n/exit\n" if verb == "chat" else "", **noise)
    words = Installed(plugin, site, call).words()
    found = {
        flag: run(
            *flag,
            *words,
            "--overwrite" if verb == "infer" else "--no-save",
            stdin=plugin.typed,
            PYTHONPATH=path_with(site),
        )
        for flag in ((), ("--debug",))
    }
    assert [outcome.code for outcome in found.values()] == [0, 0]
    assert "noise" not in found[()].err + found[()].out and "仅供研究" in found[()].err
    assert "noise" in found[("--debug",)].err


def test_native_output_is_shown_where_it_may_tell_why_something_failed(site: Path, call: Call) -> None:
    fails = NOISY.format("load(self, options)", "{}['no']")
    words = Installed(replace(SOUND, backbone=fails), site, call).words()
    outcome = run(*words, PYTHONPATH=path_with(site))
    assert outcome.code == 5 and "llama_model_loader:" in outcome.err and "\x1b" not in outcome.err
    assert outcome.failure()


@pytest.mark.parametrize("verb", ["ask", "infer", "infer --check", "sft", "models show"])
def test_the_sound_plugin_that_they_are_made_of_works(verb: str, site: Path, call: Call) -> None:
    outcome = Installed(replace(SOUND, verb=verb), site, call).run()
    assert outcome.code == 0 and DISTRIBUTION not in outcome.err, outcome
