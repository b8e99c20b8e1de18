"""`medchat compare`: joined by question, exact in JSON, and a table that no answer can break out of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from locations import ROOT

from medchat.batch.rows import as_line
from medchat.cli.program import run
from medchat.medical_safety import ai_mark
from medchat.plugin_kit import AnswerScores, hookimpl
from medchat.sanitize import escape_cell, sanitize


def result(path: Path, answers: dict[str, str | None], **fields: Any) -> Path:
    """Write a result file; None is a question that failed."""
    rows = [
        {
            "index": index,
            "question": question,
            "answer": answer or "",
            "finish": "error" if answer is None else "stop",
            "tokens": 3,
            "seconds": 0.5,
            "model": "llama-7b",
            "adapter": [path.stem],
            "template": "med_template",
            "decoding": {"max_new_tokens": 9},
            **fields,
        }
        for index, (question, answer) in enumerate(answers.items())
    ]
    path.write_bytes(b"".join(map(as_line, rows)))
    return path


def compare(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = run(["compare", *map(str, words)], language="zh", debug=False)
    told = capsys.readouterr()
    return code, told.out, told.err


def table(page: str) -> list[list[str]]:
    """Return the table's rows as Markdown cuts them: at bars that no backslash escapes."""
    lines = [line for line in page.split("\n") if line.startswith("|")]
    return [[part.strip() for part in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]] for line in lines]


@pytest.fixture
def results(tmp_path: Path) -> tuple[Path, Path]:
    first = result(tmp_path / "plain.jsonl", {"头痛": "问题：头痛", "发热": None}, reference="休息")
    second = result(tmp_path / "med.jsonl", {"咳嗽": "喝水", "头痛": "多休息"})
    return first, second


def test_the_same_questions_stand_side_by_side(
    results: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, page, err = compare(capsys, f"LLaMA={results[0]}", results[1])
    assert code == 0
    assert table(page) == [
        ["问题", "参考答案", "LLaMA", "得分", "med", "得分"],
        [":---", ":---", ":---", "---:", ":---", "---:"],
        ["头痛", "休息", "问题：头痛", "0.000", "多休息", "0.800"],
        ["发热", "休息", "（没有回答）", "", "（没有回答）", ""],
        ["咳嗽", "", "（没有回答）", "", "喝水", ""],
        ["指标", "LLaMA", "med", "随机水平"],
        [":---"] * 4,
        *table(page)[7:],
    ]
    assert any(row[0].startswith("rouge") and re.search(r"0\.800.*n = 1$", row[2]) for row in table(page)[7:])
    assert ai_mark() in page
    label = json.loads(page.split("---\n")[1].removeprefix("AIGC: "))
    assert label["Label"] == "1" and all(isinstance(value, str) for value in label.values())
    assert "llama-7b" in page and "med\\_template" in page
    assert "LLaMA：2 个" in err and "med：1 个" in err


def test_json_holds_the_answers_exactly(
    results: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "一|\x1b[2J\n<b>\u202e"
    third = result(tmp_path / "odd.jsonl", {"头痛": words})
    code, out, _ = compare(capsys, "--json", *results, third)
    content = json.loads(out)
    assert code == 0 and content["disclaimer"] == ai_mark() and content["AIGC"]["Label"] == "1"
    assert [column["label"] for column in content["columns"]] == ["plain", "med", "odd"]
    assert content["columns"][0]["adapter"] == ["plain"]
    first = content["questions"][0]
    assert (first["question"], first["reference"]) == ("头痛", "休息")
    assert {label: answer["answer"] for label, answer in first["answers"].items()} == {
        "plain": "问题：头痛",
        "med": "多休息",
        "odd": words,
    }


CHOICE = "哪一项是四肢骨？\nA. 股骨\nB. 胸骨\nC. 颅骨"


def test_a_choice_scores_what_it_chooses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = result(tmp_path / "right.jsonl", {CHOICE: "选A，股骨。"}, reference="A")
    wrong = result(tmp_path / "wrong.jsonl", {CHOICE: "我认为是B。"}, reference="A")
    content = json.loads(compare(capsys, "--json", right, wrong)[1])
    answers = content["questions"][0]["answers"]
    assert (answers["right"]["score"], answers["wrong"]["score"]) == (1, 0)
    assert [column["metrics"]["accuracy"]["value"] for column in content["columns"]] == [1, 0]
    assert content["columns"][0]["metrics"]["accuracy"]["chance"] == pytest.approx(1 / 3)
    page = compare(capsys, right, wrong)[1]
    assert "0.333" in table(page)[-1]


def test_without_a_plugin_that_scores_the_answers_stand_alone(
    results: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCHAT_PLUGINS", "llama")
    code, page, err = compare(capsys, *results)
    assert code == 0 and table(page)[0] == ["问题", "参考答案", "plain", "med"] and "得分" not in page + err


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (AnswerScores([1.0], {}), "2 个回答，却有 1 个得分"),
        (AnswerScores(["high"], {}), "AnswerScores.scores"),  # type: ignore[list-item]
        ({"scores": []}, "AnswerScores"),
    ],
)
def test_a_plugin_that_scores_wrongly_costs_the_scores_alone(
    returned: object,
    said: str,
    results: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @hookimpl
    def medchat_score_answers(answers: object) -> object:
        return returned

    monkeypatch.setattr("medchat_eval.plugin.medchat_score_answers", medchat_score_answers)
    code, page, err = compare(capsys, results[1], results[0])
    assert code == 0 and table(page)[0] == ["问题", "参考答案", "med", "plain"]
    assert "没有得分" in err and "medchat_score_answers: " in err and said in err


def test_equal_questions_are_joined_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for name, answers in (("a", ("1", "2")), ("b", ("3", "4"))):
        path = result(tmp_path / f"{name}.jsonl", {"问": answers[0]})
        more = result(tmp_path / "more.jsonl", {"问": answers[1]}).read_bytes()
        path.write_bytes(path.read_bytes() + more.replace(b'"index": 0', b'"index": 1'))
        paths.append(path)
    _, page, _ = compare(capsys, *paths)
    assert [row[1:] for row in table(page)[2:]] == [["1", "3"], ["2", "4"]]


SAID = st.text(st.characters(codec=None)) | st.text("|\\`*_[]<>&!~\n\r\t:/w.@$#x1 \x1b\x9b\u202e")


@given(SAID)
def test_no_text_breaks_out_of_its_cell(text: str) -> None:
    shown = escape_cell(text)
    assert "\n" not in shown and "\r" not in shown
    assert shown == sanitize(shown)
    unescaped = re.sub(r"\\[!-/:-@\[-`{-~]", "", shown.replace("<br>", ""))
    assert not set(unescaped) & set("|`*_[]<>~$#!\\@")
    assert "://" not in unescaped and "www." not in unescaped
    # What a reader sees is what was said.
    seen = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", shown.replace("<br>", "\n"))
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        seen = seen.replace(entity, character)
    assert seen == sanitize(text).strip().replace("\t", " ")


def test_the_table_can_go_to_a_file(
    results: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "reports" / "comparison.md"
    code, out, err = compare(capsys, *results, "--output", output)
    assert (code, out) == (0, "") and ai_mark() in err
    assert len(table(output.read_text(encoding="utf-8"))) > 5
    assert output.stat().st_mode & 0o777 == 0o600
    assert compare(capsys, *results, "--output", tmp_path / "page.html")[0] == 0
    assert "<td>多休息</td>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert compare(capsys, *results, "--output", tmp_path / "data.json")[0] == 0
    assert json.loads((tmp_path / "data.json").read_text(encoding="utf-8"))["questions"]
    before = results[0].read_bytes()
    code, _, err = compare(capsys, *results, "--output", results[0])
    assert code == 2 and "--output" in err and results[0].read_bytes() == before
    hard = tmp_path / "hard.jsonl"
    hard.hardlink_to(results[0])
    code, _, err = compare(capsys, *results, "--output", hard)
    assert code == 2 and "--output" in err and results[0].read_bytes() == before
    output.chmod(0o644)
    assert compare(capsys, *results, "--output", output)[0] == 0
    assert output.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_compared_is_refused(
    results: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, foreign = tmp_path / "empty.jsonl", tmp_path / "foreign.jsonl"
    empty.touch()
    foreign.write_text("[1]\n", encoding="utf-8")
    for words, code, names in (
        ([results[0], tmp_path / "none.jsonl"], 3, "none.jsonl"),
        ([results[0], empty], 6, "empty.jsonl"),
        ([results[0], foreign], 6, "foreign.jsonl:1"),
        ([results[0], results[0]], 2, "plain"),
        ([], 2, "medchat compare"),
    ):
        refused, out, err = compare(capsys, *words)
        assert (refused, out) == (code, "") and names in err and "下一步" in err, err


def test_a_torn_last_line_is_said(results: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    results[1].write_bytes(results[1].read_bytes() + b'{"index": 2, "que')
    code, page, err = compare(capsys, *results)
    assert code == 0 and "med.jsonl 的最后一行不完整" in err and len(table(page)) > 5


def test_comparing_imports_no_torch(results: tuple[Path, Path]) -> None:
    source = (
        "import sys; from medchat.cli.program import run;"
        f" run(['compare', {str(results[0])!r}], language='zh', debug=False);"
        " sys.exit(any(name in sys.modules for name in ('torch', 'prompt_toolkit', 'rich.console')))"
    )
    ended = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
