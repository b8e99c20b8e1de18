"""The command line with broken third-party plugins installed: only what concerns them changes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_program import PAIRS, Call, Outcome, Scripted, run
from plugin_packages import BACKBONE_MODULE, write_distribution
from plugin_sites import BROKEN_MODULES, HEAD

pytest_plugins = ("cli_program",)


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
    **{kind: lambda site, source=source: install(site, source) for kind, source in BROKEN_MODULES.items()},  # type: ignore[misc]
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
    install(tmp_path / "third", BROKEN_MODULES["loud"])
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
    monkeypatch.setattr("medchat.commands.doctor.torch_devices", lambda: iter(()))
    install(tmp_path / "site", BROKEN_MODULES["exit"])
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
        {"key": "", "text": "请立即拨打 120", "urgent": True},
        {"key": "", "text": "少熬夜", "urgent": False},
    ]
    kinds = [line["event"] for line in advised.run("ask", "胸痛", "--events").lines()]
    assert kinds[:4] == ["start", "notice", "notice", "delta"] and kinds[-1] == "end"
    assert advised.run("ask", "头痛", "--json").one()["safety"] == []


def test_a_plugin_hears_of_every_turn(advised: Scripted) -> None:
    assert "saved 1 你问的是头痛" in advised.run("ask", "头痛").err
    told = advised.run("chat", stdin="一\n二\n").err
    assert "saved 1 你问的是一" in told and "saved 2 你问的是二" in told
    assert "saved 3 你问的是三" in advised.run("chat", "-c", stdin="三\n").err


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


# ---------------------------------------------------------------- what a backbone itself does

RUDE = {
    "inspect raises": "    def inspect(self, path): raise RuntimeError('rude')\n",
    "inspect exits": "    def inspect(self, path): raise SystemExit(0)\n",
    "inspect answers nonsense": "    def inspect(self, path): return 'mine'\n",
    "known_weights raises": "    @property\n    def known_weights(self): raise RuntimeError('rude')\n",
    "known_weights exits": "    @property\n    def known_weights(self): raise SystemExit(0)\n",
    "known_weights is nonsense": "    known_weights = (1,)\n",
}


def with_backbone(scripted: Scripted, site: Path, body: str, name: str = "a_rude") -> Scripted:
    """Install a backbone whose class ends with `body`; its name sorts before the one that knows the folder."""
    source = BACKBONE_MODULE.replace("NAME", name).replace("\n@hookimpl", f"{body}\n@hookimpl")
    write_distribution(site, "third-rude", {"medchat": {name: "rude_module"}}, {"rude_module": source})
    return Scripted(Path(os.pathsep.join([str(scripted.site), str(site)])), scripted.model)


@pytest.mark.parametrize("case", [case for case in RUDE if case.startswith("inspect")])
def test_a_backbone_that_fails_to_recognise_is_passed_over_with_one_line(
    scripted: Scripted, tmp_path: Path, case: str
) -> None:
    rude = with_backbone(scripted, tmp_path / "third", RUDE[case])
    asked = run("ask", "头痛", "--model", str(rude.model), PYTHONPATH=rude.python_path)
    assert (asked.code, asked.out) == (0, "你问的是头痛\n"), asked.err
    assert len([line for line in asked.err.splitlines() if "third-rude" in line]) == 1
    shown = run("models", "show", str(rude.model), "--json", PYTHONPATH=rude.python_path)
    assert shown.one()["backbone"] == "scripted" and "third-rude" in shown.err
    named = run("models", "show", str(rude.model), "--backbone", "a_rude", PYTHONPATH=rude.python_path)
    assert named.code == 5 and "third-rude" in named.failure()[0]


@pytest.mark.parametrize("case", [case for case in RUDE if case.startswith("known")])
def test_a_backbone_that_fails_to_name_weights_hides_nobody_elses(
    scripted: Scripted, tmp_path: Path, case: str
) -> None:
    rude = with_backbone(scripted, tmp_path / "third", RUDE[case])
    listed, clean = rude.run("models", "list", "--json"), scripted.run("models", "list", "--json")
    assert (listed.code, listed.out) == (0, clean.out) and "third-rude" in listed.err
    for arguments in (
        ("ask", "头痛", "--model", "tiny"),
        ("models", "show", "tiny"),
        ("models", "verify", "x"),
    ):
        missing = run(*arguments, PYTHONPATH=rude.python_path)
        assert missing.code == 3 and missing.failure(), missing.err


@pytest.mark.parametrize(
    "method",
    ["address(self, value)", "notices(self, options)", "template(self, options)", "load(self, options)"],
)
@pytest.mark.parametrize("error", ["ValueError('rude')", "SystemExit(0)"])
def test_a_backbone_asked_for_by_name_that_fails_is_exit_5(
    scripted: Scripted, tmp_path: Path, method: str, error: str
) -> None:
    own = "    def template(self, options):\n        from medchat.templates import load_template\n"
    body = own + f"        return load_template('bare', ())\n    def {method}: raise {error}\n"
    rude = with_backbone(scripted, tmp_path / "third", body)
    flags = ("--backbone", "a_rude", "--model", str(rude.model))
    outcome = run("ask", "头痛", *flags, PYTHONPATH=rude.python_path)
    assert outcome.code == 5 and "third-rude" in outcome.failure()[0], outcome.err


def test_a_signal_while_a_backbone_is_asked_is_not_its_failure(scripted: Scripted, tmp_path: Path) -> None:
    body = "    def inspect(self, path):\n        import os, signal\n        os.kill(os.getpid(), signal.SIGTERM)\n"
    rude = with_backbone(scripted, tmp_path / "third", body)
    outcome = run("ask", "头痛", "--model", str(rude.model), PYTHONPATH=rude.python_path)
    assert (outcome.code, outcome.out) == (143, "") and "third-rude" not in outcome.err


def test_what_a_backbone_says_on_purpose_counts_unless_another_knows_the_folder(
    scripted: Scripted, tmp_path: Path
) -> None:
    body = "    def inspect(self, path):\n        from medchat.errors import CheckpointError\n"
    damaged = with_backbone(
        scripted, tmp_path / "third", body + "        raise CheckpointError('half a file')\n"
    )
    known = run("models", "show", str(damaged.model), "--json", PYTHONPATH=damaged.python_path)
    assert known.one()["backbone"] == "scripted"
    (tmp_path / "other").mkdir()
    for flags in ((), ("--backbone", "a_rude")):
        outcome = run("models", "show", str(tmp_path / "other"), *flags, PYTHONPATH=damaged.python_path)
        assert outcome.code == 3 and "half a file" in outcome.err


# ---------------------------------------------------------------- the allow-list in the configuration


def test_the_allow_list_in_the_configuration_holds_everywhere(scripted: Scripted, tmp_path: Path) -> None:
    site, trace = tmp_path / "third", tmp_path / "imported"
    groups = {kind: {"foreign": "foreign"} for kind in ("medchat", "medchat.extensions", "medchat.commands")}
    source = f"open({str(trace)!r}, 'w').close()\n"
    write_distribution(site, "third-foreign", groups, {"foreign": source})
    path = os.pathsep.join([scripted.python_path, str(site)])
    assert "third-foreign" in run("--help", PYTHONPATH=path).out
    home = Path(os.environ["MEDCHAT_HOME"])
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text('plugins = ["scripted"]\n', encoding="utf-8")
    assert "third-foreign" not in run("--help", PYTHONPATH=path).out
    for arguments in (
        ("models", "list"),
        ("models", "show", str(scripted.model)),
        ("models", "verify", str(scripted.model)),
        ("ask", "头痛", "--model", str(scripted.model)),
    ):
        assert run(*arguments, PYTHONPATH=path).code == 0
    assert run("plugins", "show", "foreign", PYTHONPATH=path).code == 2
    assert run("foreign", PYTHONPATH=path).code == 2
    assert not trace.exists()
    rows = run("plugins", "list", "--json", PYTHONPATH=path).one()
    ready = {row["name"] for row in rows if row["status"] == "ready"}
    table = run("plugins", "list", PYTHONPATH=path).out.splitlines()
    assert ready == {"scripted"} and sum("就绪" in line for line in table) == 1
    opened = run("plugins", "list", PYTHONPATH=path, MEDCHAT_PLUGINS="foreign").out
    assert sum("就绪" in line for line in opened.splitlines()) == 3
