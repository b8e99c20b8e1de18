"""`plugins new`: what it writes passes its tests at once; what it cannot write it says, and touches nothing."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_program import Call, tree
from locations import ROOT
from openai_server import free_port
from plugin_packages import write_distribution
from plugin_sites import add_backbone

from medchat.commands.new_plugin import FAMILIES, distribution_files

pytest_plugins = ("plugin_sites", "cli_program")
PUBLIC = ("medchat.plugin_kit", "medchat.hf", "medchat.testing", "medchat_own")


def written(call: Call, folder: Path, family: str, name: str = "own") -> Path:
    """Write a new plugin; return its folder."""
    done = call("plugins", "new", name, "--family", family, "--output", str(folder))
    assert done.code == 0, done.err
    return folder / f"medchat-{name}"


def installed(call: Call, site: Path, folder: Path, family: str) -> None:
    """Write a new plugin `own` and put it into `site`, as an installation does."""
    made = written(call, folder, family)
    shutil.copytree(made / "medchat_own", site / "medchat_own")
    write_distribution(site, "medchat-own", {"medchat": {"own": "medchat_own"}})


# ---------------------------------------------------------------- at birth


@pytest.mark.parametrize(
    "family",
    [pytest.param("transformers", marks=[pytest.mark.slow, pytest.mark.torch]), "custom", "file", "remote"],
)
def test_it_passes_its_tests_at_birth(call: Call, tmp_path: Path, family: str) -> None:
    made = written(call, tmp_path, family)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(made)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    passed = int(done.stdout.strip().splitlines()[-1].split(" passed")[0].split()[-1])
    assert passed >= 15


@pytest.mark.parametrize("family", FAMILIES)
def test_it_stands_on_what_is_public_and_is_clean(call: Call, tmp_path: Path, family: str) -> None:
    made = written(call, tmp_path, family)
    sources = sorted(made.rglob("*.py"))
    assert len(sources) >= 2
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = (
                    [f"medchat.{one.name}" for one in node.names]
                    if node.module == "medchat"
                    else [node.module]
                )
                assert all(not str(one).startswith("medchat") or str(one).startswith(PUBLIC) for one in names)
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", "."],
        cwd=made,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_a_model_of_ones_own_answers_in_the_program(call: Call, site: Path, tmp_path: Path) -> None:
    installed(call, site, tmp_path, "custom")
    import medchat_own

    medchat_own.Own().tiny(tmp_path / "model")
    asked = call("ask", "头痛怎么办", "--model", str(tmp_path / "model"))
    assert asked.code == 0 and asked.out.startswith("多休息，多喝水。")
    assert call("ask", "头痛", "--model", str(tmp_path / "model"), "--num-beams", "2").code == 2
    assert call("plugins", "list", "--check").code == 0
    shown = call("plugins", "show", "own").out
    assert "medchat-own" in shown and "devices cpu" in shown


def test_a_model_that_is_a_file_answers_in_the_program(call: Call, site: Path, tmp_path: Path) -> None:
    installed(call, site, tmp_path, "file")
    import medchat_own

    medchat_own.Own().tiny(tmp_path / "model")
    for place in ("model", "model/tiny.own"):
        assert call("ask", "头痛", "--model", str(tmp_path / place)).out.startswith("多休息，多喝水。")
    shutil.copyfile(tmp_path / "model" / "tiny.own", tmp_path / "model" / "other.own")
    refused = call("ask", "头痛", "--model", str(tmp_path / "model"))
    assert refused.code == 3 and "tiny.own" in refused.failure()[1]


def test_a_service_says_where_the_words_go_and_that_it_is_not_there(
    call: Call, site: Path, tmp_path: Path
) -> None:
    installed(call, site, tmp_path, "remote")
    address = f"http://127.0.0.1:{free_port()}/answer"
    asked = call("ask", "头痛", "--backbone", "own", "--model", address)
    assert asked.code == 1 and address in asked.failure()[0]
    assert f"问题会发送到 {address.split('/')[2]}" in asked.err
    assert call("ask", "头痛", "--backbone", "own", "--model", "here").code == 2


# ---------------------------------------------------------------- what it writes


def test_folder_distribution_and_package_have_the_name(call: Call, tmp_path: Path) -> None:
    made = written(call, tmp_path, "custom", "tcm_4b")
    assert sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()) == [
        "README.md",
        "medchat_tcm_4b/__init__.py",
        "medchat_tcm_4b/model.py",
        "pyproject.toml",
        "tests/test_medchat_tcm_4b.py",
    ]
    project = (made / "pyproject.toml").read_text(encoding="utf-8")
    assert 'name = "medchat-tcm_4b"' in project and 'tcm_4b = "medchat_tcm_4b"' in project
    assert "class Tcm4b(" in (made / "medchat_tcm_4b" / "__init__.py").read_text(encoding="utf-8")


def test_what_to_type_next_is_on_stdout(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "with a blank"
    folder.mkdir()
    done = call("plugins", "new", "own", "--output", str(folder))
    assert f"python -m pip install -e '{folder}/medchat-own'" in done.out
    assert "medchat plugins test own" in done.out


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_to_begin_with_is_named_before_the_commands(call: Call, tmp_path: Path, family: str) -> None:
    done = call("plugins", "new", "own", "--family", family, "--output", str(tmp_path))
    first = tmp_path / "medchat-own" / "medchat_own" / "__init__.py"
    assert f"从 {first} 改起" in done.err and first.is_file()
    assert first.name not in done.out


def test_every_template_is_used_and_leaves_nothing_open() -> None:
    templates = {path.name for path in (ROOT / "medchat" / "plugin_templates").iterdir()}
    used = {f"{template}.tmpl" for files in FAMILIES.values() for template in files.values()}
    assert templates == used | {"pyproject.toml.tmpl", "README.md.tmpl"}
    for family in FAMILIES:
        assert all("$" not in text for text in distribution_files("own", family).values())


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "name",
    [
        "",
        "4b",
        "my-model",
        "Mine",
        "模型",
        "a b",
        "../x",
        "class",
        "match",
        "_x",
        "a" * 41,
        "$x",
        "own\n",
        "x.y",
        "é",
    ],
)
def test_what_can_be_no_name_is_refused_with_one_that_can(call: Call, tmp_path: Path, name: str) -> None:
    refused = call("plugins", "new", name, "--output", str(tmp_path))
    assert refused.code == 2 and refused.failure()
    assert list(tmp_path.iterdir()) == []
    if name in ("my-model", "Mine"):
        assert name.lower().replace("-", "_") in refused.failure()[1]


@pytest.mark.parametrize("name", ["chatglm", "remote", "templates", "third"])
def test_a_name_that_is_taken_is_refused(call: Call, site: Path, tmp_path: Path, name: str) -> None:
    add_backbone(site, "third", None, "somebodys-models")
    (tmp_path / "here").mkdir()
    refused = call("plugins", "new", name, "--output", str(tmp_path / "here"))
    assert refused.code == 2 and name in refused.failure()[0]
    assert list((tmp_path / "here").iterdir()) == []


def test_what_is_there_is_left_alone(call: Call, tmp_path: Path) -> None:
    (tmp_path / "medchat-own").mkdir()
    (tmp_path / "medchat-own" / "mine.py").write_text("precious")
    before = tree(tmp_path)
    assert call("plugins", "new", "own", "--output", str(tmp_path)).code == 2
    assert tree(tmp_path) == before
    assert call("plugins", "new", "own", "--output", str(tmp_path / "none")).code == 2
    assert call("plugins", "new", "own", "--family", "jax", "--output", str(tmp_path)).code == 2
