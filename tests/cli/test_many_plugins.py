"""Twenty plugins in order, five that are broken and one with hostile metadata installed at once."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest
from child_process import child_environment
from cli_program import PAIRS, Call, run
from locations import ROOT
from plugin_packages import BACKBONE_MODULE, write_distribution
from plugin_sites import BROKEN_MODULES, HEAD

sys.path.insert(0, str(ROOT / "benchmarks"))  # scripts beside one another, no package
from startup import RATIO_BAR, time_pages

pytest_plugins = ("cli_program",)

GOOD = 20
ADVISER = HEAD + "@hookimpl\ndef medchat_advise(text): return []\n"


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the distributions; a backbone and an extension each."""
    site = tmp_path_factory.mktemp("crowd")
    for number in range(GOOD):
        name, module = f"good{number:02}", f"good_module{number:02}"
        source = ADVISER + BACKBONE_MODULE.replace("NAME", name)
        groups = {"medchat": {name: module}, "medchat.extensions": {name: module}}
        write_distribution(site, f"medchat-{name}", groups, {module: source})
    for number, source in enumerate(BROKEN_MODULES.values()):
        name, module = f"broken{number}", f"broken_module{number}"
        groups = {"medchat": {name: module}, "medchat.extensions": {name: module}}
        write_distribution(site, f"medchat-{name}", groups, {module: source})
    endless = "[medchat]\n" + "".join(f"x{number} = no_module\n" for number in range(3))
    write_distribution(site, "medchat-hostile", endless + "evil\x1b[2J = no_module\n" + "#" * (1 << 20))
    return site


def test_help_is_the_same_and_the_list_has_a_row_for_each(crowd: Path) -> None:
    path = str(crowd)
    assert run("--help", PYTHONPATH=path) == run("--help")
    listed = run("plugins", "list", PYTHONPATH=path)
    assert listed.code == 0 and "\x1b" not in listed.out
    rows = [line.split()[:2] for line in listed.out.splitlines()]
    for number in range(GOOD):
        assert all([f"good{number:02}", kind] in rows for kind in ("backbone", "extension"))
    assert sum(row[0].startswith("broken") for row in rows) == 2 * len(BROKEN_MODULES)


@pytest.mark.torch
def test_a_chat_with_chatglm_names_each_broken_one_once_and_answers(
    crowd: Path, call: Call, talker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(crowd))
    question, answer = next(iter(PAIRS.items()))
    chosen = ("--backbone", "chatglm", "--model", str(talker), "--greedy", "--no-save")
    done = call("chat", *chosen, stdin=f"{question}\n/exit\n")
    assert done.code == 0 and answer in done.out and "noise" not in done.out, done.err
    for number in range(len(BROKEN_MODULES)):
        assert done.err.count(f"medchat-broken{number}") == 1, done.err
    assert "medchat-good" not in done.err


def test_starting_stays_within_its_bar(crowd: Path) -> None:
    variables = child_environment(PYTHONPATH=f"{crowd}:{ROOT}")
    worst = 0.0
    for _ in range(3):  # another process may take the processors in the middle of one run, not of three
        taken = time_pages(7, variables)
        bare, *pages = (statistics.median(times) for times in taken.values())
        worst = max(pages) / bare
        if worst <= RATIO_BAR:
            return
    pytest.fail(f"{worst:.1f} times the start of Python itself, bar {RATIO_BAR}")
