"""`medchat plugins test`: the properties of `medchat.testing` for people."""

from __future__ import annotations

import json
from pathlib import Path

from cli_program import Call
from plugin_sites import HEAD, add_backbone, echo_site

from medchat.testing import PROPERTIES

pytest_plugins = ("cli_program", "plugin_sites")

FORGETFUL = """
from abacus_backbone import Abacus, AbacusModel

class Model(AbacusModel):
    def describe(self): return {"backbone": "abacus", "model": "m\\x1b[2J"}

class Forgetful(Abacus):
    model_class = Model
    not_applicable = {"test_a_seed_repeats_an_answer": "no luck in it"}

@hookimpl
def medchat_backbones(): return [Forgetful()]
"""


def test_a_sound_plugin_ends_with_0(site: Path, call: Call) -> None:
    echo_site(site)
    done = call("plugins", "test", "echo")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line.split()[1].partition("：")[0] for line in lines[:-1]] == list(PROPERTIES)
    assert "不符合" not in "".join(lines[:-1]) and "0 项不符合" in lines[-1]


def test_a_broken_one_ends_with_5_and_what_to_do(site: Path, call: Call) -> None:
    add_backbone(site, "abacus", HEAD + FORGETFUL)
    named = ("test_describe_says_what_is_loaded", "test_a_seed_repeats_an_answer")
    only = [word for name in named for word in ("--only", name)]
    done = call("plugins", "test", "abacus", *only)
    assert done.code == 5
    assert "不符合  test_describe_says_what_is_loaded：describe lacks dtype, device" in done.out
    assert "When it fails:" in done.out and "不适用  test_a_seed_repeats_an_answer：no luck in it" in done.out
    rows = call("plugins", "test", "abacus", *only, "--json").one()
    assert {row["name"]: row["outcome"] for row in rows} == {named[0]: "failed", named[1]: "skipped"}
    assert json.dumps(rows)


def test_a_given_model_is_the_one_that_is_tried(site: Path, tmp_path: Path, call: Call) -> None:
    echo_site(site)
    model = tmp_path / "short"
    model.mkdir()
    (model / "echo.json").write_text('{"context_length": 1}')
    done = call("plugins", "test", "echo", "--model", str(model), "--only", "test_greedy_answers_repeat")
    assert done.code == 5 and "UsageError" in done.out


def test_what_to_do_about_an_error_is_printed_with_it(site: Path, call: Call) -> None:
    raising = """    model_class = Model
    def load(self, options):
        from medchat.plugin_kit import CheckpointError
        raise CheckpointError("no weights", "fetch them: medchat models pull abacus")
"""
    add_backbone(site, "abacus", HEAD + FORGETFUL.replace("    model_class = Model\n", raising))
    done = call("plugins", "test", "abacus", "--only", "test_describe_says_what_is_loaded")
    assert "CheckpointError: no weights" in done.out
    assert "下一步：fetch them: medchat models pull abacus" in done.out


def test_what_cannot_be_tried_is_refused_at_once(site: Path, call: Call) -> None:
    assert call("plugins", "test", "remote").code == 2
    assert call("plugins", "test", "chatglm", "--only", "test_luck").code == 2
    assert call("plugins", "test", "no-such-backbone").code == 2
