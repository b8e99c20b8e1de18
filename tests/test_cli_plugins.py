"""The command line with broken third-party plugins installed: only what concerns them changes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_fixtures import PAIRS, Call, Outcome, Scripted, run
from plugin_fixtures import BACKBONE_MODULE, write_distribution

pytest_plugins = ("cli_fixtures",)

HEAD = "from medchat.hookspecs import hookimpl\nmedchat_api_version = 1\n"
BROKEN = {
    "import error": "import no_such_module_at_all",
    "exit": "raise SystemExit(0)",
    "wrong version": "medchat_api_version = 99",
    "misspelt hook": HEAD + "@hookimpl\ndef medchat_bakcbones(): return []\n",
    "loud": "print('noise')\nraise RuntimeError",
}


def install(site: Path, source: str) -> None:
    """Install one distribution whose backbone and extension are both broken."""
    groups = {"medchat": {"broken": "broken_one"}, "medchat.extensions": {"broken": "broken_one"}}
    write_distribution(site, "third-party", groups, {"broken_one": source})


def install_conflict(site: Path) -> None:
    """Install two distributions that claim one backbone."""
    for who in ("first", "second"):
        source = BACKBONE_MODULE.replace("NAME", "broken")
        write_distribution(
            site, f"third-{who}", {"medchat": {"broken": f"broken_{who}"}}, {f"broken_{who}": source}
        )


KINDS: dict[str, Callable[[Path], None]] = {
    **{kind: lambda site, source=source: install(site, source) for kind, source in BROKEN.items()},  # type: ignore[misc]
    "two distributions": install_conflict,
}


@pytest.fixture(params=list(KINDS))
def broken(request: pytest.FixtureRequest, scripted: Scripted, tmp_path: Path) -> Scripted:
    """Give the program with the scripted backbone and, beside it, a broken plugin named `broken`."""
    site = tmp_path / "third"
    KINDS[request.param](site)
    return Scripted(Path(os.pathsep.join([str(scripted.site), str(site)])), scripted.model)


def test_help_is_the_same_byte_for_byte(scripted: Scripted, broken: Scripted) -> None:
    for page in (("--help",), ("ask", "--help"), ("--version",)):
        clean = run(*page, PYTHONPATH=scripted.python_path)
        assert run(*page, PYTHONPATH=broken.python_path) == clean and clean.code == 0


def test_the_list_gains_the_broken_plugins_own_rows_and_nothing_else(
    scripted: Scripted, broken: Scripted
) -> None:
    clean, listed = scripted.run("plugins", "list"), broken.run("plugins", "list")
    own = [line for line in listed.out.splitlines() if "third-" in line]
    rest = [line for line in listed.out.splitlines() if "third-" not in line]
    assert (listed.code, listed.err, rest) == (0, "", clean.out.splitlines())
    assert len(own) == 2
    rows = broken.run("plugins", "list", "--json").one()
    assert len([row for row in rows if row["distribution"].startswith("third-")]) == 2


def test_an_answer_by_another_backbone_is_the_same_but_for_one_line_at_most(
    scripted: Scripted, broken: Scripted
) -> None:
    scripted.run("ask", "先说一次")  # the full disclaimer is said once
    clean, found = scripted.run("ask", "头痛"), broken.run("ask", "头痛")
    assert (found.code, found.out) == (clean.code, clean.out) == (0, "你问的是头痛\n")
    added = [line for line in found.err.splitlines() if line not in clean.err.splitlines()]
    named = [line for line in added if "third-" in line]
    assert len(named) == 1 and set(added) - set(named) <= {"noise"}  # what it printed to stdout itself


@pytest.mark.parametrize(
    "arguments",
    [("ask", "头痛", "--json"), ("ask", "头痛", "--events"), ("models", "show", "MODEL", "--json")],
)
def test_what_a_plugin_prints_never_mixes_with_the_answer(
    scripted: Scripted, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    install(tmp_path / "third", BROKEN["loud"])
    loud = Scripted(Path(os.pathsep.join([str(scripted.site), str(tmp_path / "third")])), scripted.model)
    outcome = loud.run(*(str(loud.model) if word == "MODEL" else word for word in arguments))
    assert outcome.code == 0 and "noise" in outcome.err
    assert "noise" not in outcome.out and outcome.out.startswith("{")
    assert loud.run("chat", stdin="头痛\n").out == "你问的是头痛\n"


def test_the_broken_plugin_itself_is_exit_5_in_two_lines(broken: Scripted) -> None:
    for arguments in (
        ("plugins", "show", "broken"),
        ("ask", "头痛", "--backbone", "broken", "--model", str(broken.model)),
        ("models", "show", str(broken.model), "--backbone", "broken"),
    ):
        outcome = run(*arguments, PYTHONPATH=broken.python_path)
        what, remedy = outcome.failure()
        assert outcome.code == 5, outcome.err
        assert "third-" in what and "pip uninstall third-" in remedy


def test_a_folder_is_still_recognised_by_who_knows_it(broken: Scripted) -> None:
    shown = run("models", "show", str(broken.model), "--json", PYTHONPATH=broken.python_path)
    assert shown.code == 0 and shown.one()["backbone"] == "scripted"


def test_doctor_warns_of_it_and_does_not_fail(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medchat.commands.doctor._torch", lambda: iter(()))
    install(tmp_path / "site", BROKEN["exit"])
    monkeypatch.syspath_prepend(tmp_path / "site")
    report = call("doctor", "--json").one()
    about = [item for item in report["findings"] if "broken" in item["name"]]
    assert report["ok"] and about and {item["status"] for item in about} == {"warn"}


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["exit", "two distributions"])
def test_a_chat_with_chatglm_is_the_same_but_for_one_line(
    call: Call, talker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def asked() -> Outcome:
        question = next(iter(PAIRS))
        return call("ask", question, "--backbone", "chatglm", "--model", str(talker), "--greedy", "--no-save")

    clean = asked()
    KINDS[kind](tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = asked()
    assert (found.code, found.out) == (clean.code, clean.out) == (0, next(iter(PAIRS.values())) + "\n")
    added = [line for line in found.err.splitlines() if line not in clean.err.splitlines()]
    assert len(added) == 1 and "third-" in added[0]
    assert "broken_one" not in sys.modules


ADVISER = (
    HEAD
    + """
import sys
from medchat.api import Notice

@hookimpl
def medchat_advise(conversation, text):
    return [Notice("请立即拨打 120", urgent=True), Notice("少熬夜")] if "胸痛" in text else []

@hookimpl
def medchat_turn_saved(conversation, turn):
    print("saved", len(conversation.turns), turn.answer, file=sys.stderr)
"""
)


@pytest.fixture
def advised(scripted: Scripted, tmp_path: Path) -> Scripted:
    """Give the program with an extension that looks at the user's words and hears of saved turns."""
    write_distribution(
        tmp_path / "third", "adviser", {"medchat.extensions": {"adviser": "adviser"}}, {"adviser": ADVISER}
    )
    return Scripted(Path(os.pathsep.join([str(scripted.site), str(tmp_path / "third")])), scripted.model)


@pytest.mark.safety
def test_an_urgent_notice_stands_before_the_answer_on_both_streams_and_apart_in_json(
    advised: Scripted,
) -> None:
    text = advised.run("ask", "胸痛")
    assert text.out == "请立即拨打 120\n你问的是胸痛\n"
    assert "请立即拨打 120" in text.err and "少熬夜" in text.err
    whole = advised.run("ask", "胸痛", "--json").one()
    assert whole["answer"] == "你问的是胸痛"
    assert whole["safety"] == [
        {"text": "请立即拨打 120", "urgent": True},
        {"text": "少熬夜", "urgent": False},
    ]
    kinds = [line["event"] for line in advised.run("ask", "胸痛", "--events").lines()]
    assert kinds[:4] == ["start", "notice", "notice", "delta"] and kinds[-1] == "end"
    assert advised.run("ask", "头痛", "--json").one()["safety"] == []


def test_a_plugin_hears_of_every_turn(advised: Scripted) -> None:
    assert "saved 1 你问的是头痛" in advised.run("ask", "头痛").err
    told = advised.run("chat", "-c", stdin="一\n二\n").err
    assert "saved 2 你问的是一" in told and "saved 3 你问的是二" in told


def test_the_allow_list_silences_a_broken_plugin(broken: Scripted) -> None:
    found = broken.run("ask", "头痛", MEDCHAT_PLUGINS="scripted")
    assert found.code == 0 and "third-" not in found.err
    refused = run("plugins", "show", "broken", PYTHONPATH=broken.python_path, MEDCHAT_PLUGINS="scripted")
    assert refused.code == 2 and "MEDCHAT_PLUGINS" in refused.failure()[1]


def test_what_a_plugin_offers_is_shown_in_the_interface_language(scripted: Scripted) -> None:
    assert "测试用" in scripted.run("plugins", "show", "scripted").out
    assert "for tests" in scripted.run("plugins", "show", "scripted", "--lang", "en").out
    whole = scripted.run("plugins", "show", "scripted", "--json").one()
    assert whole["distribution"] == "medchat-scripted" and whole["module"] == "scripted_backbone"


def test_metadata_that_would_move_the_cursor_is_shown_inert(tmp_path: Path) -> None:
    groups = "[medchat]\nevil\x1b[2J = evil\n"
    write_distribution(tmp_path / "site", "evil", groups, version="1.0\x1b]52;c;aGk=\x07")
    listed = run("plugins", "list", PYTHONPATH=os.pathsep.join([*sys.path, str(tmp_path / "site")]))
    assert listed.code == 0 and "evil" in listed.out and not set("\x1b\x07") & set(listed.out)
