"""`medchat data stats` with a model, with tests beside, and as a page: tokens, truncation, contamination, pictures."""

from __future__ import annotations

import re
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call
from knowledge_files import write_lines
from medchat_data.histogram import bar_width, histogram

pytest_plugins = ("cli_program", "evaluated_models")

TALK = [
    ("user", "一？"),
    ("assistant", "正确。"),
    ("user", "选项是什么？" * 9),
    ("assistant", "单项选择题。"),
]
RECORDS: list[dict[str, Any]] = [
    {"instruction": "单项选择题", "output": "正确的选项"},
    {"instruction": "请选出正确的选项。" * 8, "output": "正确"},
    {"instruction": "请选出", "output": "正确的选项是。" * 30},
    {"messages": [{"role": role, "content": text} for role, text in TALK]},
]


def counted(call: Call, *words: str) -> dict[str, Any]:
    done = call("data", "stats", *words, "--json")
    assert done.code == 0, done.err
    printed = done.one()
    assert (printed["schema"], printed["version"]) == ("medchat-data-stats", 1)
    (found,) = printed["files"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "data.jsonl", RECORDS)


@pytest.mark.torch
def test_what_training_would_cut_is_what_training_says_it_cuts(
    call: Call, data: Path, tiny_llama: Path
) -> None:
    model = ("--backbone", "llama", "--model", str(tiny_llama))
    for length in (150, 400):
        tokens = counted(call, str(data), *model, "--max-length", str(length))["tokens"]
        flags = ("--data", str(data), "--max-length", str(length), "--val-size", "0", "--allow-truncation")
        said = call("sft", *model, *flags, "--output", str(data.parent / "out"), "--dry-run", "--json").one()
        survey = said["survey"]
        assert tokens["examples"] == survey["records"] == 5  # each answer of a conversation is one
        for name in ("lost_turns", "cut_questions", "cut_answers"):
            assert tokens[name] == survey[name], name
        assert (tokens["template"], tokens["max_length"]) == (survey["template"], length)
        assert (tokens["too_long"] > 0) is (tokens["cut_answers"] > 0) is (length == 150)
    refused = call("data", "stats", str(data), *model, "--max-length", "8")
    assert refused.code == 6 and "--max-length" in refused.failure()[1]


@pytest.mark.torch
def test_a_folder_without_weights_is_a_vocabulary_and_no_model_to_train(
    call: Call, data: Path, tiny_llama: Path
) -> None:
    folder = data.parent / "vocabulary"
    shutil.copytree(tiny_llama, folder, ignore=shutil.ignore_patterns("*.safetensors*", "*.bin*"))
    model = ("--backbone", "llama", "--model", str(folder))
    whole = counted(call, str(data), "--backbone", "llama", "--model", str(tiny_llama))["tokens"]
    assert counted(call, str(data), *model)["tokens"] == {**whole, "model": str(folder)}
    flags = ("--data", str(data), "--output", str(data.parent / "out"), "--dry-run")
    assert call("sft", *model, *flags).code == 3


def test_questions_of_tests_that_stand_in_the_data_are_counted_by_kind(call: Call, data: Path) -> None:
    known = [
        {"question": text} for text in ("单项选择题", "请选出正确的选项。" * 8, "完全不同的另一个问题？")
    ]
    changed = [{"question": "请选出正确的选项。" * 7 + "请选出正确的选顶。"}]
    tests = [write_lines(data.with_name(f"{at}.jsonl"), rows) for at, rows in enumerate((known, changed))]
    against = [word for test in tests for word in ("--against", str(test))]
    first, second = counted(call, str(data), *against)["against"]
    assert (first["questions"], first["found"], first["exact"]) == (3, 2, 2)
    assert (second["questions"], second["found"], second["one-character"]) == (1, 1, 1)
    assert "0.jsonl 的题目在数据里：2 (66.7%) (exact 2)" in call("data", "stats", str(data), *against).out


def test_the_page_shows_the_same_counts_with_pictures_and_loads_nothing(call: Call, data: Path) -> None:
    page = data.with_name("页.html")
    named = data.rename(data.with_name("<script>alert(1)</script>.jsonl".replace("/", "∕")))
    words = ("data", "stats", str(named), "--output", str(page))
    shown = call(*words)
    assert shown.code == 0 and page.stat().st_mode & 0o777 == 0o600
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "default-src 'none'" in text
    assert all(
        source.startswith("data:image/svg+xml;base64,") for source in re.findall(r'src="([^"]*)"', text)
    )
    pictures = [b64decode(code).decode() for code in re.findall(r"base64,([^\"]+)", text)]
    assert len(pictures) == 3 and all("http" not in picture.partition(">")[2] for picture in pictures)
    for line in shown.out.splitlines()[1:]:
        name, _, value = line.strip().partition("：")
        assert f"<td>{name}</td><td>{value}</td>" in text
    assert call(*words).code == 2 and call(*words, "--overwrite").code == 0
    assert call("data", "stats", str(named), "--output", str(named), "--overwrite").code == 2


def test_a_family_that_cannot_be_trained_has_no_truncation_to_tell(call: Call, data: Path) -> None:
    model = ("--backbone", "remote", "--model", "http://127.0.0.1:9/v1#tiny")
    refused = call("data", "stats", str(data), *model)
    assert refused.code == 2 and "remote" in refused.failure()[0]


@pytest.mark.parametrize(
    ("sizes", "limit"), [((), None), ((0,), None), ((5,) * 7, 3), (range(1000), 64), ((1, 10**6), 10**7)]
)
def test_a_histogram_draws_every_text_once(sizes: Any, limit: int | None) -> None:
    drawn = histogram(sizes, "字数 <&>", limit)
    counts = [int(count) for count in re.findall(r"<title>[^:]*: (\d+)</title>", drawn)]
    assert sum(counts) == len(sizes) and len(counts) <= 40
    assert ("#d62728" in drawn) is (limit is not None) and "字数 &lt;&amp;&gt;" in drawn
    edges = [float(x) for x in re.findall(r'<rect x="([\d.]+)" y', drawn)]
    assert all(60 <= x < 704 for x in edges)


@pytest.mark.parametrize(
    ("longest", "width"), [(1, 1), (39, 1), (40, 2), (79, 2), (80, 5), (200, 10), (10**6, 50000)]
)
def test_bars_have_round_widths_and_are_forty_at_the_most(longest: int, width: int) -> None:
    assert bar_width(longest) == width and longest // width < 40
