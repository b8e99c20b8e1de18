"""What `medchat sft` and `medchat infer` say of the fields of their data, and the flags that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from batch_program import Parrot, rows
from cli_program import Call
from scripted_recipe import Pupil
from sft_arguments import sft

pytest_plugins = ("cli_program",)

RECORDS = [
    {"ask": f"问题{number}？", "answer": f"回答{number}。", "title": "题目", "Input": f"背景{number}"}
    for number in range(3)
]


def written(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def pupil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pupil:
    made = Pupil(tmp_path / "pupil", RECORDS)
    monkeypatch.syspath_prepend(made.site)
    return made


def test_a_dry_run_names_the_fields_it_reads_and_counts_those_it_does_not(pupil: Pupil, call: Call) -> None:
    shown = call(*pupil.flags, "--template", "literature_template", "--dry-run").out
    assert "字段：ask → 问题、Input → 输入、answer → 答案" in shown and "未使用的字段：title × 3" in shown
    (file,) = call(*pupil.flags, "--template", "literature_template", "--dry-run", "--json").one()["data"]
    assert file["unused"] == {"title": 3} and (file["unanswered"], file["unlearned"]) == (0, 0)
    assert file["fields"] == {"question": {"ask": 3}, "answer": {"answer": 3}, "input": {"Input": 3}}


def test_an_input_that_the_template_has_no_place_for_is_unused(pupil: Pupil, call: Call) -> None:
    flags = (*pupil.flags, "--template", "med_template", "--dry-run")
    shown = call(*flags).out
    assert "未使用的字段：Input × 3（模板 med_template 没有它的位置）" in shown
    assert call(*flags, "--json").one()["data"][0]["unused"] == {"title": 3, "Input": 3}


def test_flags_and_keys_name_the_fields_and_stay_in_the_settings(pupil: Pupil, call: Call) -> None:
    pupil.data.write_text(json.dumps({"q": "甲", "question": "乙", "answer": "丙"}), encoding="utf-8")
    config = pupil.folder / "run.toml"
    config.write_text('question_field = "q"\n', encoding="utf-8")
    for more in (("--question-field", "q"), ("--config", str(config))):
        told = call(*pupil.flags, *more, "--dry-run", "--json").one()
        assert told["data"][0]["fields"]["question"] == {"q": 1}
        assert told["settings"]["question_field"]["value"] == "q"
    assert call(*pupil.flags, "--question-field", "q").code == 0
    assert 'question_field = "q"' in (pupil.output / "sft.toml").read_text(encoding="utf-8")


def test_the_report_and_the_card_say_what_is_unused(pupil: Pupil, call: Call) -> None:
    assert call(*pupil.flags).code == 0
    for name in ("report.md", "README.md"):
        assert "未使用的字段：title × 3" in (pupil.output / name).read_text(encoding="utf-8")
    assert call("sft", "--report", "--output", str(pupil.output)).code == 0


def test_two_candidates_end_both_commands_with_6_and_a_remedy_that_works(
    pupil: Pupil, call: Call, tmp_path: Path
) -> None:
    record = {"instruction": "像医生那样", "question": "头痛？", "answer": "休息。"}
    pupil.data.write_text(json.dumps(record), encoding="utf-8")
    refused = call(*pupil.flags, "--dry-run")
    assert refused.code == 6 and "--question-field question" in refused.err and "data.json:1" in refused.err
    assert call(*pupil.flags, "--dry-run", "--question-field", "question").code == 0
    parrot, output = Parrot(tmp_path / "parrot"), tmp_path / "answers.jsonl"
    ended = parrot.infer(pupil.data, output)
    assert ended.returncode == 6 and "--question-field question" in ended.stderr and not output.exists()
    assert parrot.infer(pupil.data, output, "--question-field", "question").returncode == 0
    assert rows(output)[0]["question"] == "头痛？"


def test_infer_reads_a_table_and_says_its_fields(tmp_path: Path) -> None:
    parrot, output = Parrot(tmp_path / "parrot"), tmp_path / "answers.jsonl"
    data = tmp_path / "q.csv"
    data.write_bytes("\ufeffdepartment,title,ask,answer\r\n内科,头痛,头痛怎么办？,多休息\r\n".encode())
    ended = parrot.infer(data, output)
    assert ended.returncode == 0 and "CSV" in ended.stderr
    assert "未使用的字段：department × 1、title × 1" in ended.stderr
    (line,) = rows(output)
    assert (line["question"], line["reference"]) == ("头痛怎么办？", "多休息")
    assert line["extra"] == {"department": "内科", "title": "头痛"}


def test_infer_says_which_wordings_it_does_not_ask(tmp_path: Path) -> None:
    parrot, output = Parrot(tmp_path / "parrot"), tmp_path / "answers.jsonl"
    data = written(tmp_path / "data.jsonl", [{"questions": [["一", "二", "三"]], "answers": ["答"]}] * 2)
    ended = parrot.infer(data, output)
    assert [line["question"] for line in rows(output)] == ["一", "一"] and "4 种问法未使用" in ended.stderr


@pytest.mark.parametrize("name", ["context", "input"])
def test_answers_to_a_question_with_another_context_are_not_gone_on_with(name: str, tmp_path: Path) -> None:
    parrot, output = Parrot(tmp_path / "parrot"), tmp_path / "answers.jsonl"
    data = written(tmp_path / "data.jsonl", [{"question": "怎么办？", name: "血压 180/110"}])
    assert parrot.infer(data, output).returncode == 0
    written(data, [{"question": "怎么办？", name: "血压 110/70"}])
    assert parrot.infer(data, output, "--resume").returncode == 6


@pytest.mark.torch
def test_the_record_of_a_run_counts_what_is_unused(tmp_path: Path, call: Call) -> None:
    output = tmp_path / "out"
    words = list(sft(tmp_path, "--output", str(output), "--num-epochs", "1", "--samples", "0"))
    data = Path(words[words.index("--data") + 1])
    written(data, [{**record, "id": 3} for record in RECORDS])
    assert call(*words).code == 0
    run = json.loads((output / "run.json").read_text(encoding="utf-8"))
    assert run["unused_fields"] == {"title": 3}
