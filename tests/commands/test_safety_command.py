"""`medchat safety check` and `medchat safety test` as a user runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_program import Call
from locations import ROOT

from medchat.commands.safety.check import scope_in_words
from medchat.language import set_language
from medchat.medical_safety import find_red_flags

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.safety

SENTENCES = ROOT / "tests" / "data" / "red_flags" / "seen.jsonl"
PAST_AND_NOW = "我爸去年中风过，现在右手又抬不起来"


def test_check_shows_the_notice_the_words_the_scopes_and_the_source(call: Call) -> None:
    told = call("safety", "check", PAST_AND_NOW)
    assert told.code == 0
    assert told.out.startswith("[stroke] 请马上拨打 120")
    assert "“中风” 4-6 ill.stroke" in told.out and "未触发（过去的事）" in told.out
    assert "右手又抬不起来" in told.out and "来源：Zhao and Liu, Stroke 1-2-0" in told.out


def test_every_scope_of_the_labelled_sentences_is_told_in_words() -> None:
    rows = [json.loads(line) for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    flags = [find_red_flags(row["text"], row.get("previous")) for row in rows]
    evidence = [each for found in flags for each in (*found.evidence, *found.silenced)]
    names = {name for each in evidence for name in (*each.scopes, each.silenced_by)} - {""}
    assert len(names) >= 14
    for language, foreign in (("zh", r"[A-Za-z]"), ("en", r"[^\x00-\x7f]|\w\.\w")):
        set_language(language)
        assert not [name for name in names if re.search(foreign, scope_in_words(name))]
    set_language("zh")


def test_check_as_json_holds_spans_of_the_text(call: Call) -> None:
    whole = call("safety", "check", PAST_AND_NOW, "--json").one()
    assert [notice["key"] for notice in whole["notices"]] == ["stroke"]
    for evidence in whole["evidence"] + whole["silenced"]:
        for mention in evidence["mentions"]:
            assert PAST_AND_NOW[mention["start"] : mention["end"]] == mention["text"]
    assert {each["silenced_by"] for each in whole["silenced"]} == {"past"}


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_check_reads_a_file_or_stdin(call: Call, tmp_path: Path, way: str) -> None:
    path = tmp_path / "话.txt"
    path.write_text("\ufeff我想自杀\n", encoding="utf-8")
    told = (
        call("safety", "check", str(path))
        if way == "file"
        else call("safety", "check", "-", stdin="我想自杀")
    )
    assert told.code == 0 and "[self-harm]" in told.out


def test_check_takes_the_turn_before(call: Call) -> None:
    assert call("safety", "check", "舌头肿了").out == ""
    told = call("safety", "check", "舌头肿了", "--previous", "刚吃了虾")
    assert "[anaphylaxis]" in told.out and "（上一句）" in told.out


def test_check_says_that_no_notice_does_not_mean_safe(call: Call) -> None:
    told = call("safety", "check", "感冒了吃什么好？")
    assert (told.code, told.out) == (0, "")
    assert "不等于安全" in told.err
    assert "does not mean it is safe" in call("--lang", "en", "safety", "check", "hello").err


@pytest.mark.parametrize(
    ("content", "code", "what"),
    [("胸痛".encode("gb18030"), 6, "UTF-8"), (b"x" * ((1 << 20) + 1), 6, "1 MiB"), (b" \n", 2, "没有要检查的文字")],
)  # fmt: skip
def test_check_refuses_what_is_no_text(
    call: Call, tmp_path: Path, content: bytes, code: int, what: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    told = call("safety", "check", str(path))
    assert told.code == code and what in told.failure()[0]


def test_test_prints_recall_false_alarms_and_intervals_by_group(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "sentences.jsonl"
    rows = [
        {"text": "我爸没呼吸了", "must": True, "category": "breathing", "lang": "zh", "vital": True},
        {"text": "my dad is not breathing", "must": True, "category": "breathing", "lang": "en"},
        {"text": "笑死我了", "must": False, "category": "slang", "lang": "zh"},
        {"text": "我爸没呼吸了", "must": False, "category": "slang", "lang": "zh"},
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    told = call("safety", "test", str(path), "--wrong")
    assert told.code == 0
    recall, vital, false = told.out.splitlines()[:3]
    assert "2 / 2" in recall and "100.0%" in recall and "1 / 1" in vital and "1 / 2" in false
    assert "breathing  应当触发" in told.out and "4: 误报" in told.out
    whole = call("safety", "test", str(path), "--json").one()
    assert whole["false_alarms"] == {"fired": 1, "total": 2, "share": 0.5, "interval": [0.0945, 0.9055]}
    assert {(row["name"], row["must"]) for row in whole["by_language"]} == {
        ("zh", True), ("en", True), ("zh", False),
    }  # fmt: skip


def test_test_names_the_line_that_is_no_labelled_sentence(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "sentences.jsonl"
    path.write_text('{"text": "好", "must": false}\n{"text": "好"}\n', encoding="utf-8")
    told = call("safety", "test", str(path))
    assert told.code == 6 and "must" in told.failure()[0] and f"{path}:2" in told.failure()[0]


def test_test_refuses_a_file_without_sentences(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("\n", encoding="utf-8")
    assert call("safety", "test", str(path)).code == 6
