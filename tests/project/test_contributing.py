"""The contributor's door: the checks are listed once, the matrix reports truly, both pages name the same files."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from locations import ROOT
from script_runs import program

PAGES = ("CONTRIBUTING.md", "CONTRIBUTING_EN.md")
TASKS = {
    "数据格式": ("medchat/datafiles/record.py", "medchat/sft_job/data.py", "tests/sft_job/test_data.py"),
    "停止规则": (
        "medchat/inference/detokenizer.py",
        "medchat/inference/decode.py",
        "tests/inference/test_decode.py",
    ),
    "斜杠命令": ("medchat/repl/commands.py", "tests/repl/test_slash_commands.py"),
    "优化器": (
        "medchat/training/update_rules.py",
        "medchat/training/optimizers.py",
        "tests/training/test_optimizers.py",
    ),
    "适配器": (
        "medchat/checkpoints/adapter_folder.py",
        "medchat/inference/adapters/",
        "medchat/training/methods/",
    ),
    "配置项": ("medchat/settings/keys.py", "tests/settings/test_settings.py"),
    "模板": ("templates/", "tests/templates/test_templates.py"),
    "模型家族": ("plugins/", "medchat/builtin.py", "examples/medchat-echo"),
    "子命令": ("medchat/commands/", "medchat/cli/front.py"),
    "提示": ("medchat/language.py", "medchat/medical_safety/"),
    "钩子": ("medchat/hookspecs.py", "medchat/registry/extensions.py", "tests/registry/test_hookspecs.py"),
}


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(page: str) -> list[str]:
    """Return the rows of the map from a task to its files."""
    lines = [line for line in text_of(page).splitlines() if line.startswith("| ")]
    return [line for line in lines if "`medchat/" in line or "`templates/" in line or "`plugins/" in line]


def paths(text: str) -> list[str]:
    spans = re.findall(r"`([\w./*-]+/[\w./*-]*)`", text)
    return [span for span in spans if not span.startswith("/")]


# ---------------------------------------------------------------- the pages


@pytest.mark.parametrize("task", TASKS)
def test_the_map_leads_from_a_task_to_its_files_and_tests(task: str) -> None:
    (row,) = [row for row in rows(PAGES[0]) if task in row.split("|")[1]]
    for path in TASKS[task]:
        assert f"`{path}" in row, path
    assert "`tests/" in row


def test_both_pages_name_the_same_files_in_the_same_rows() -> None:
    assert len(rows(PAGES[0])) >= len(TASKS)
    assert [paths(row) for row in rows(PAGES[0])] == [paths(row) for row in rows(PAGES[1])]
    assert sorted(set(paths(text_of(PAGES[0])))) == sorted(set(paths(text_of(PAGES[1]))))


def test_every_name_that_the_map_gives_is_in_the_file_it_names() -> None:
    named = re.findall(r"`(\w+)` (?:in|of) `([\w./-]+\.py)`", "\n".join(rows("CONTRIBUTING_EN.md")))
    assert len(named) >= 8
    assert [(name, path) for name, path in named if not re.search(rf"\b{name}\b", text_of(path))] == []


@pytest.mark.parametrize("page", [*PAGES, "docs/threat-model.md"])
def test_every_path_of_the_page_exists(page: str) -> None:
    named = [path for path in paths(text_of(page)) if "NAME" not in path]
    assert named
    missing = [path for path in named if not any(ROOT.glob(path.rstrip("/")))]
    assert missing == ["dist/"] * missing.count("dist/")


@pytest.mark.parametrize(("readme", "page"), [("README.md", PAGES[0]), ("README_EN.md", PAGES[1])])
def test_the_readme_leads_to_the_contributors_page_and_the_security_policy(readme: str, page: str) -> None:
    for target in (page, "SECURITY.md"):
        assert f"]({target})" in text_of(readme)
    assert "scripts/check.sh" in text_of(readme)


def test_the_security_policy_names_no_address_that_nobody_reads() -> None:
    assert not re.search(r"[\w.]+@[\w-]+\.\w+", text_of("SECURITY.md"))


# ---------------------------------------------------------------- the checks are listed once


def test_the_whole_test_runs_the_linters_of_the_fast_check() -> None:
    whole, fast = text_of("scripts/test.sh"), text_of("scripts/check.sh")
    assert "sh scripts/check.sh linters" in whole
    for command in ("ruff check", "ruff format --check", "mypy", "lint-imports", "deptry"):
        assert command in fast and command not in whole, command


def test_the_hooks_before_a_commit_fetch_nothing_and_run_commands_of_the_fast_check() -> None:
    text = text_of(".pre-commit-config.yaml")
    assert re.findall(r"repo: (.*)", text) == ["local"]
    entries = re.findall(r"entry: (.*)", text)
    assert len(entries) == 4 and re.findall(r"language: (.*)", text) == ["system"] * 4
    for entry in entries:
        assert entry.removesuffix(" --force-exclude") in text_of("scripts/check.sh")


def test_the_fast_check_refuses_a_word_it_does_not_know() -> None:
    command = ["sh", str(ROOT / "scripts" / "check.sh"), "linter"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and "check.sh [linters]" in ended.stderr


@pytest.mark.parametrize("failing", ["", "ruff", "deptry", "mypy"])
def test_any_linter_that_fails_fails_the_linters_and_what_each_said_is_shown(
    tmp_path: Path, failing: str
) -> None:
    """mypy too, which runs beside the others."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "check.sh", tmp_path / "scripts")
    (tmp_path / "scripts" / "environment.sh").write_text(
        "venv=$PWD/venv\ninstall() { :; }\n", encoding="utf-8"
    )
    for name in ("ruff", "mypy", "lint-imports", "deptry"):
        ends = 3 if name == failing else 0
        program(tmp_path / "venv" / "bin", f"echo said by {name}; exit {ends}", name)
    command = ["sh", "scripts/check.sh", "linters"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == (1 if failing else 0), ended.stderr
    assert f"said by {failing or 'deptry'}" in ended.stdout and "said by mypy" in ended.stdout


@pytest.mark.parametrize("number", range(5))
def test_coverage_traces_the_first_three_inputs_of_a_test_and_no_others(
    request: pytest.FixtureRequest, number: int
) -> None:
    test = request.node.nodeid.partition("[")[0]
    inputs = [item for item in request.session.items if item.nodeid.partition("[")[0] == test]
    untraced = [item.get_closest_marker("no_cover") is not None for item in inputs]
    assert untraced == [False, False, False, True, True][: len(inputs)]


# ---------------------------------------------------------------- several versions of Python


@pytest.mark.parametrize(
    ("installed", "code", "summary"),
    [
        ({"3.11": 0}, 0, "passed: 3.11  失败 / failed: -  跳过 / skipped: 3.12 3.13"),
        ({"3.11": 0, "3.13": 1}, 1, "passed: 3.11  失败 / failed: 3.13  跳过 / skipped: 3.12"),
        ({}, 1, "passed: -  失败 / failed: -  跳过 / skipped: 3.11 3.12 3.13"),
    ],
)
def test_the_matrix_fails_where_a_version_failed_or_none_was_there(
    tmp_path: Path, installed: dict[str, int], code: int, summary: str
) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "matrix.sh", tmp_path / "scripts")
    failing = " ".join(f"python{version}" for version, ends in installed.items() if ends) or "none"
    (tmp_path / "scripts" / "test.sh").write_text(
        f'echo "$PYTHON in $(basename "$MEDCHAT_VENV") with $*"\ncase $PYTHON in {failing}) exit 1 ;; esac\n',
        encoding="utf-8",
    )
    for version in ("3.11", "3.12", "3.13"):
        program(tmp_path / "bin", "exit 0" if version in installed else "exit 1", f"python{version}")
    ended = subprocess.run(
        ["sh", "scripts/matrix.sh", "-k", "word"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
    )
    assert ended.returncode == code
    assert ended.stderr.splitlines()[-1].endswith(summary)
    assert ended.stdout.splitlines() == [
        f"python{version} in .venv-{version} with -k word" for version in installed
    ]
