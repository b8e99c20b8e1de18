"""A backbone's own options: by flag, variable, profile and table, in their types, checked before anything is loaded."""

from __future__ import annotations

import json
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call
from plugin_packages import write_distribution

from medchat import paths
from medchat.plugin_kit import Option, open_model, plugin_settings

pytest_plugins = ("plugin_sites", "cli_program")


@pytest.fixture
def model(site: Path, tmp_path: Path) -> str:
    """Install the backbone `optional`; return a folder that it recognises."""
    write_distribution(site, "medchat-optional", {"medchat": {"optional": "optional_backbone"}})
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "optional").touch()
    return str(folder)


def told(call: Call, model: str, *words: str) -> dict[str, Any]:
    """Return the options that came to the backbone."""
    asked = call("ask", "头痛", "--no-save", "--json", "--model", model, *words)
    assert asked.code == 0, asked.err
    found: dict[str, Any] = literal_eval(asked.one()["answer"].replace("PosixPath", ""))
    return found


def own_configuration(text: str) -> Path:
    path = paths.config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("tone=warm", {"tone": "warm"}),
        ("depth=8", {"depth": 8}),
        ("heat=0", {"heat": 0.0}),
        ("fast=no", {"fast": False}),
        ("fast=是", {"fast": True}),
        ("label=a=b c", {"label": "a=b c"}),
        ("label=007", {"label": "007"}),
        ("old=two", {"old": "two"}),
    ],
)
def test_a_value_comes_in_the_type_that_was_declared(
    call: Call, model: str, typed: str, value: dict[str, Any]
) -> None:
    found = told(call, model, "--option", typed)
    assert found == {"depth": 3, **value}
    assert {name: type(one) for name, one in found.items()} == {
        "depth": int,
        **{name: type(one) for name, one in value.items()},
    }


def test_a_path_is_one_that_is_there(call: Call, model: str, tmp_path: Path) -> None:
    (tmp_path / "n.txt").touch()
    assert told(call, model, "--option", f"notes={tmp_path}/n.txt")["notes"] == f"{tmp_path}/n.txt"
    refused = call("ask", "头痛", "--model", model, "--option", f"notes={tmp_path}/none.txt")
    assert refused.code == 2 and "none.txt" in refused.failure()[0]


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("tone=cold", "dry | warm"),
        ("depth=0", "[1, 8]"),
        ("depth=9", "[1, 8]"),
        ("depth=2.5", "整数"),
        ("heat=-1", "[0, inf]"),
        ("heat=nan", "[0, inf]"),
        ("fast=perhaps", "true"),
        ("old=three", "one | two"),
        ("tome=dry", "tone"),
        ("tone", "键=值"),
        ("=dry", "键=值"),
        ("tone=", "键=值"),
    ],
)
@pytest.mark.parametrize("verb", ["ask", "infer", "sft"])
def test_what_is_not_taken_is_refused_before_anything_is_loaded(
    call: Call, model: str, tmp_path: Path, verb: str, typed: str, named: str
) -> None:
    data = tmp_path / "q.jsonl"
    data.write_text('{"question": "头痛", "answer": "休息"}\n' * 30, encoding="utf-8")
    words = {
        "ask": ("ask", "头痛"),
        "infer": ("infer", "--data", str(data), "--output", str(tmp_path / "o.jsonl")),
        "sft": ("sft", "--data", str(data), "--output", str(tmp_path / "out"), "--yes"),
    }[verb]
    refused = call(*words, "--model", model, "--option", typed)
    assert refused.code == 2, refused.err
    assert named in " ".join(refused.failure())
    assert not (tmp_path / "o.jsonl").exists() and not (tmp_path / "out").exists()


def test_a_backbone_without_options_says_so(call: Call, model: str, site: Path, tmp_path: Path) -> None:
    write_distribution(site, "medchat-scripted", {"medchat": {"scripted": "scripted_backbone"}})
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "scripted.txt").touch()
    refused = call("ask", "头痛", "--model", str(tmp_path / "plain"), "--option", "tone=dry")
    assert refused.code == 2 and "scripted" in refused.failure()[0]


# ---------------------------------------------------------------- a flag of its own


AS_FLAGS = (
    ("--tone", "dry"),
    ("--tone=dry",),
    ("--tone", "dry", "--backbone", "optional"),
    ("--backbone=optional", "--tone=dry"),
)


@pytest.mark.parametrize("words", AS_FLAGS)
def test_an_option_may_be_typed_as_a_flag(call: Call, model: str, words: tuple[str, ...]) -> None:
    assert told(call, model, *words) == {"depth": 3, "tone": "dry"}


def test_two_options_as_flags_and_one_that_is_repeated(call: Call, model: str) -> None:
    assert told(call, model, "--tone", "dry", "--old=one", "--option", "tone=warm") == {
        "depth": 3,
        "old": "one",
        "tone": "warm",
    }


NOBODYS = {
    "a slip": ("--tune", "dry"),
    "without a value": ("--tone",),
    "a slip of one of ours": ("--temprature", "0.5"),
    "of another backbone than is named": ("--backbone", "chatglm", "--tone=dry"),
}


@pytest.mark.parametrize("case", NOBODYS)
def test_a_flag_that_nobody_has_is_refused_as_before(call: Call, model: str, case: str) -> None:
    refused = call("ask", "头痛", "--model", model, *NOBODYS[case])
    flag = next(word for word in NOBODYS[case] if word.startswith("--t")).partition("=")[0]
    assert refused.code == 2 and flag in refused.failure()[0]


def test_words_behind_the_double_dash_are_no_flags(call: Call, model: str) -> None:
    asked = call("ask", "--no-save", "--json", "--model", model, "--", "--tone")
    assert asked.code == 0 and "tone" not in asked.one()["answer"]
    refused = call("ask", "--no-save", "--model", model, "--tone", "--", "dry")
    assert refused.code == 2 and "--tone" in refused.failure()[0]


# ---------------------------------------------------------------- where else they are set


def test_tables_variables_profiles_and_flags_go_over_each_other(
    call: Call, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_configuration(
        '[plugin.optional]\ntone = "dry"\ndepth = 2\nfast = true\n[plugin.other]\ndepth = 99\n'
        '[profile.warm]\nbackbone = "optional"\noption = ["tone=warm"]\n'
    )
    assert told(call, model) == {"depth": 2, "fast": True, "tone": "dry"}
    monkeypatch.setenv("MEDCHAT_OPTION", "depth=4,heat=0.5")
    assert told(call, model) == {"depth": 4, "fast": True, "heat": 0.5, "tone": "dry"}
    assert told(call, model, "--profile", "warm")["tone"] == "warm"
    assert told(call, model, "--option", "depth=5")["depth"] == 5


FAULTS = {
    "a word for a number": ('depth = "two"', 2, "depth"),
    "out of range": ("depth = 9", 2, "[1, 8]"),
    "a misspelt key": ("\ndebt = 1", 3, "depth"),
    "a number for a truth value": ("fast = 1", 2, "fast"),
    "no number": ("weight = nan", 2, "weight"),
    "no finite number": ("weight = -inf", 2, "weight"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_in_a_table_is_named_with_its_line(call: Call, model: str, case: str) -> None:
    table, line, named = FAULTS[case]
    path = own_configuration(f"[plugin.optional]\n{table}\n")
    refused = call("ask", "头痛", "--model", model)
    what, remedy = refused.failure()
    assert refused.code == 2 and f"{path}:{line}" in what and named in what + remedy


def test_a_folder_chooses_neither_paths_nor_addresses(
    call: Call, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "n.txt").touch()
    monkeypatch.chdir(tmp_path)
    allowed = tmp_path / "medchat.toml"
    allowed.write_text('[plugin.optional]\ntone = "warm"\n', encoding="utf-8")
    assert told(call, model)["tone"] == "warm"
    for text in (
        f'[plugin.optional]\nnotes = "{tmp_path}/n.txt"\n',
        '[plugin.optional]\nlabel = "https://example.org"\n',
        f'option = ["notes={tmp_path}/n.txt"]\n',
    ):
        allowed.write_text(text, encoding="utf-8")
        refused = call("ask", "头痛", "--model", model)
        assert refused.code == 2 and "medchat.toml" in refused.failure()[0], text


def test_batches_fine_tuning_and_commands_get_them_too(call: Call, model: str, tmp_path: Path) -> None:
    data, output = tmp_path / "q.jsonl", tmp_path / "o.jsonl"
    data.write_text('{"question": "头痛", "answer": "休息"}\n' * 30, encoding="utf-8")
    own_configuration("[plugin.optional]\nheat = 1.5\n")
    done = call(
        "infer",
        "--data",
        str(data),
        "--output",
        str(output),
        "--limit",
        "1",
        "--model",
        model,
        "--tone",
        "dry",
    )
    assert done.code == 0, done.err
    assert (
        json.loads(output.read_text(encoding="utf-8"))["answer"] == "{'depth': 3, 'heat': 1.5, 'tone': 'dry'}"
    )
    out = tmp_path / "out"
    trained = call(
        "sft", "--data", str(data), "--output", str(out), "--model", model, "--old", "two", "--yes"
    )
    assert trained.code == 0, trained.err
    assert (out / "options.txt").read_text() == "{'depth': 3, 'heat': 1.5, 'old': 'two'}"
    with open_model(model=model, option=["fast=on"]) as opened:
        assert opened.ask("头痛").text == "{'depth': 3, 'fast': True, 'heat': 1.5}"


def test_a_command_reads_its_own_table() -> None:
    own_configuration('[plugin.answers]\nrows = 5\nfile = "."\n')
    options = {"rows": Option(kind=int, low=1), "file": Option(kind=Path), "tone": Option(default="dry")}
    assert plugin_settings("answers", options) == {"rows": 5, "file": Path(), "tone": "dry"}
    assert plugin_settings("another", options) == {"tone": "dry"}


def test_a_saved_session_goes_on_with_its_options(call: Call, model: str, tmp_path: Path) -> None:
    own = ("ask", "头痛", "--json", "--session", "one")

    def kept(*words: str) -> Any:
        asked = call(*own, *words)
        assert asked.code == 0, asked.err
        return literal_eval(asked.one()["answer"])

    assert kept("--model", model, "--tone", "dry", "--option", "depth=4") == {"depth": 4, "tone": "dry"}
    assert kept() == {"depth": 4, "tone": "dry"}
    assert kept("--tone", "warm") == {"depth": 4, "tone": "warm"}
    assert kept() == {"depth": 4, "tone": "warm"}
    assert "option tone=dry depth=4" in call("sessions", "show", "one").out
    assert kept("--model", model) == {"depth": 3}


@pytest.mark.parametrize(
    "wrong", [{"kind": list}, {"kind": int, "choices": ("1",)}, {"low": 1}, {"kind": int, "default": "3"}]
)
def test_what_cannot_be_declared_is_the_authors_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Option"):
        Option(**wrong)


# ---------------------------------------------------------------- what there is


def test_plugins_show_tells_them(call: Call, model: str) -> None:
    shown = call("plugins", "show", "optional").out
    for line in (
        "--option tone=dry|warm 语气",
        "--option depth=INT [1, 8]（默认 3）",
        "--option notes=PATH",
    ):
        assert line in shown
    options = call("plugins", "show", "optional", "--json").one()["options"]
    assert options["depth"] == {
        "type": "int", "choices": [], "low": 1, "high": 8, "default": "3", "summary": {}
    }  # fmt: skip
    assert set(options) == {"tone", "depth", "heat", "weight", "fast", "notes", "label", "old"}
