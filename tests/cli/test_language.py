"""What is always said, and in which language."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_program import FULL_EN, FULL_ZH, MARK_EN, MARK_ZH, START_EN, START_ZH, Outcome, Scripted, run

pytest_plugins = ("cli_program",)


@pytest.mark.safety
def test_the_full_disclaimer_comes_once_per_install_the_line_and_the_mark_always(scripted: Scripted) -> None:
    outcomes = [scripted.run("ask", "你好") for _ in range(3)]
    assert [outcome.err.count(FULL_ZH) for outcome in outcomes] == [1, 0, 0]
    assert all(outcome.err.count(START_ZH) - outcome.err.count(FULL_ZH) == 1 for outcome in outcomes)
    assert all(outcome.err.count(MARK_ZH) == 1 for outcome in outcomes)
    assert scripted.run("ask", "你好", MEDCHAT_HOME=str(scripted.model / "新")).err.count(FULL_ZH) == 1


def spoken(outcome: Outcome) -> str:
    """Return the language of a run: every line of ours in one, and none in the other."""
    assert outcome.code == 0, outcome.err
    languages = {"zh": (START_ZH, MARK_ZH, FULL_ZH), "en": (START_EN, MARK_EN, FULL_EN)}
    (language,) = (name for name, texts in languages.items() if any(text in outcome.err for text in texts))
    assert all(text in outcome.err for text in languages[language])
    return language


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "C.UTF-8"}, "zh"),
        ({"LC_ALL": "C"}, "zh"),
        ({"LC_ALL": "POSIX", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LANG": ""}, "zh"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_GB.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "C.UTF-8", "MEDCHAT_LANG": "en"}, "en"),
        ({"LANG": "en_US.UTF-8", "MEDCHAT_LANG": "zh"}, "zh"),
    ],
)
def test_the_environment_chooses_the_language(
    scripted: Scripted, environment: dict[str, str], language: str
) -> None:
    assert spoken(scripted.run("ask", "你好", **environment)) == language


def configure(text: str) -> None:
    home = Path(os.environ["MEDCHAT_HOME"])
    home.mkdir()
    (home / "config.toml").write_text(text, encoding="utf-8")


def test_a_flag_goes_over_the_variable_the_variable_over_the_file_the_file_over_the_locale(
    scripted: Scripted,
) -> None:
    configure('lang = "en"\n')
    assert spoken(scripted.run("ask", "你好", LANG="zh_CN.UTF-8")) == "en"
    assert "Commands:" in run("--help").out and "Usage: medchat ask" in run("ask", "--help").out
    assert "ready" in run("plugins", "list").out
    assert "命令：" in run("--help", MEDCHAT_LANG="zh").out
    assert MARK_ZH in scripted.run("ask", "你好", MEDCHAT_LANG="zh").err
    assert MARK_EN in scripted.run("ask", "你好", "--lang", "en", MEDCHAT_LANG="zh").err
    assert "Commands:" in run("--help", "--lang=en", MEDCHAT_LANG="zh").out


@pytest.mark.parametrize("variable", ["HOME", "XDG_CONFIG_HOME"])
def test_the_language_is_found_wherever_the_configuration_is(tmp_path: Path, variable: str) -> None:
    environment = {"MEDCHAT_HOME": "", "XDG_CONFIG_HOME": "", variable: str(tmp_path)}
    path = Path(run("config", "path", **environment).out.rstrip())
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text('lang = "en"\n', encoding="utf-8")
    assert "Commands:" in run("--help", **environment).out


def test_the_folder_one_works_in_may_choose_the_language_too(tmp_path: Path) -> None:
    (tmp_path / "medchat.toml").write_text('lang = "en"\n', encoding="utf-8")
    assert "Commands:" in run("--help", cwd=tmp_path).out
