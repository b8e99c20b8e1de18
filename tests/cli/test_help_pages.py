"""Help pages and what is said of wrong usage: all of it in one language, and columns that line up on a screen."""

from __future__ import annotations

import io
import re

import click
import pytest
from cli_program import Call, run
from command_tree import help_page, tree_of_commands
from rich.cells import cell_len

from medchat.cli.confirm import confirmed
from medchat.cli.group import LocalizedCommand
from medchat.cli.help_page import in_words

pytest_plugins = ("cli_program",)

COMMANDS = sorted(tree_of_commands())
#: Two English words in a row, and a placeholder that was left in English.
ENGLISH = re.compile(r"(?<![-\w.])(?:[a-z]{2,} [a-z]{2,}|[A-Z]{2,})(?![\w.])")
#: What stays as it is: commands to type, names of flags, names of things.
NAMES = re.compile(
    r"medchat( [a-z]+(-[a-z]+)*)*|export|--[\w-]+|\[[a-z0-9|]+\]|JSONL?|TOML|YAML|CSV|LoRA|MLP|CPU|GGUF|OpenAI"
    r"|ShareGPT|ModelScope|CMB|CMMLU|ROUGE|BLEU"
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("columns", [60, 80, 100])
def test_a_page_fits_its_columns_and_every_meaning_begins_in_the_same_one(
    words: tuple[str, ...], columns: int
) -> None:
    page = help_page(words, columns)
    lines = page.splitlines()
    terms = [line for line in lines if cell_len(line) > columns]
    assert all(len(line.split()) == 2 and line.lstrip().startswith("--") for line in terms), terms
    for section in page.split("\n\n"):
        heading, *rows = section.splitlines()
        if not heading.endswith("："):
            continue
        starts = {
            cell_len(match[0])
            for row in rows
            if (match := re.match(r"  \S.*?\S {2,}(?=\S)| {10,}(?=\S)", row)) is not None
        }
        assert len(starts) == 1, section


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_chinese_pages_hold_no_english_of_click(words: tuple[str, ...]) -> None:
    page = help_page(words)
    headings = [line for line in page.splitlines() if re.fullmatch(r"\S+[:：]", line)]
    assert headings and all(heading.endswith("：") for heading in headings)
    assert not ENGLISH.search(NAMES.sub("", page)), ENGLISH.findall(NAMES.sub("", page))


def test_what_a_flag_takes_stands_behind_its_meaning_in_either_language() -> None:
    chinese, english = (run("infer", "--help", MEDCHAT_LANG=lang, COLUMNS="100").out for lang in ("zh", "en"))
    assert "--data 文件" in chinese and "问题文件（必填）" in chinese
    assert "--data FILE" in english and "the file with the questions (required)" in english
    for page in (chinese, english):
        assert "[1, 4096]" in page and "[1, ∞)" in page and "x>=" not in page
    assert chinese.startswith("用法：medchat infer [选项]") and "\n选项：\n" in chinese
    assert english.startswith("Usage: medchat infer [OPTIONS]") and "\nOptions:\n" in english


def test_a_default_that_click_shows_is_named_in_chinese() -> None:
    @click.command(cls=LocalizedCommand)
    @click.option(
        "--pages", type=click.FloatRange(0, 2, min_open=True), default=1.5, show_default=True, help="页数"
    )
    def pages() -> None:
        """Stand in for a plugin's command."""

    page = pages.get_help(pages.context_class(pages, info_name="pages"))
    assert re.search(r"--pages 数 范围 +页数（默认：1\.5） \(0, 2\]", page)


def test_only_placeholders_are_translated() -> None:
    assert in_words("--model PATH|NAME|URL") == "--model 路径|名称|网址"
    assert in_words("[LABEL=]FILE…") == "[列名=]文件…"
    assert in_words("--device auto|cpu|cuda[:N]|mps") == "--device auto|cpu|cuda[:N]|mps"


WRONG = {
    "a value that a switch does not take": ("ask", "q", "--json=3"),
    "a flag without its value": ("sessions", "delete", "--since"),
    "no argument": ("ask",),
    "no flag that is required": ("infer", "--data", "x"),
    "one argument too many": ("sessions", "show", "a", "b"),
    "two arguments too many": ("models", "show", "a", "b", "c"),
    "none of the choices": ("demo", "--style", "q"),
    "no number": ("sessions", "list", "--limit", "viele"),
    "a number out of range": ("infer", "--data", "x", "--output", "y", "--batch-size", "5000"),
    "a flag that is none": ("models", "list", "--wide"),
    "no argument of a plugin's command": ("data", "build", "kg"),
    "no command": ("sessions", "erase"),
    "a switch of two forms": ("sft", "--no-fused-backward=1"),
    "a short flag without a command": ("-x",),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_answered_in_chinese_with_the_page_of_that_command(call: Call, case: str) -> None:
    outcome = call(*WRONG[case])
    what, remedy = outcome.failure()
    assert outcome.code == 2
    assert not ENGLISH.search(NAMES.sub("", what)), what
    path = next(words for end in (3, 2, 1, 0) if (words := WRONG[case][:end]) in (*COMMANDS, ()))
    assert f"{' '.join(('medchat', *path))} --help" in remedy


@pytest.mark.parametrize(("value", "valid"), [("0", "[1, 4096]"), ("zwei", "[1, 4096]")])
def test_a_number_out_of_range_is_told_what_the_range_is(call: Call, value: str, valid: str) -> None:
    what, _ = call("infer", "--data", "x", "--output", "y", "--batch-size", value).failure()
    assert "--batch-size" in what and valid in what


@pytest.mark.parametrize(
    ("typed", "default", "answer"),
    [
        ("\n", True, True),
        ("\n", False, False),
        ("y\n", False, True),
        ("是\n", False, True),
        ("YES\n", False, True),
        ("n\n", True, False),
        ("否\n", True, False),
        ("", True, False),
        ("嗯\nmaybe\n\n", False, False),
        ("嗯\ny\n", False, True),
    ],
)
def test_a_question_is_answered_by_yes_no_or_enter_and_the_end_of_the_input_is_no(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    default: bool,
    answer: bool,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert confirmed("开始训练？", default=default) is answer
    asked = capsys.readouterr().err
    assert asked.startswith(f"开始训练？ {'[Y/n]' if default else '[y/N]'} ")
    assert asked.count("请输入 y 或 n：") == typed.count("嗯") + typed.count("maybe")
