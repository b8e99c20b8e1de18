"""`medchat data validate` names every bad record, and `stats` counts what is planted and what was published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call, run
from knowledge_files import write_lines
from locations import SHARED
from medchat_data.measuring import AGREEING, DANGLING, DOSE, Exchange, measure

pytest_plugins = ("cli_program",)

FORMS: dict[str, str] = {
    "alpaca": '{"instruction": "头痛怎么办？", "input": "", "output": "先休息。"}',
    "med-chatglm": r'{"context": "问题：头痛怎么办？\n回答: ", "target": "先休息。"}',
    "literature": '{"instruction": " <user>: 一？ <bot>: 二。 <user>: 三？", "output": "四。", "input": ""}',
    "sharegpt": '{"conversations": [{"from": "human", "value": "一？"}, {"from": "gpt", "value": "二。"}]}',
    "messages": '{"messages": [{"role": "user", "content": "一？"}, {"role": "assistant", "content": "二。"}]}',
    "cmb-clin": '{"description": "男，49 岁。", "QA_pairs": [{"question": "一？", "solution": "二。"}]}',
    "promptcblue": r'{"input": "头痛怎么办？\n答：", "target": "先休息。", "sample_id": "dev-1"}',
    "ptuning": '{"content": "头痛怎么办？", "summary": "先休息。"}',
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_that_training_reads_is_valid(call: Call, tmp_path: Path, form: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(FORMS[form] + "\n", encoding="utf-8")
    done = call("data", "validate", str(path))
    assert done.code == 0 and "1 条可用，0 条有误" in done.out
    assert call("data", "stats", str(path), "--json").one()["files"][0]["forms"] == {form: 1}


def test_every_bad_record_is_named_with_file_and_line_on_stdout(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    bad = [
        "{",
        '{"instruction": "一？"}',
        '{"instruction": "", "output": "二"}',
        '{"instruction": "三？", "output": 3}',
    ]
    path.write_text("\n".join([FORMS["alpaca"], *bad]), encoding="utf-8")
    done = call("data", "validate", str(path))
    assert done.code == 6
    assert [line.split("：")[0] for line in done.out.splitlines()] == [
        *(f"{path}:{number}" for number in range(2, 6)),
        str(path),
    ]
    assert "1 条可用，4 条有误" in done.out


def test_of_many_bad_records_the_first_are_named_and_the_rest_counted(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(FORMS["alpaca"] + "\n{" * 30, encoding="utf-8")
    done = call("data", "validate", str(path))
    assert f"{path}:21：" in done.out and f"{path}:22：" not in done.out and "还有 10 条有误" in done.out


def test_one_bad_file_does_not_hide_the_others(call: Call, tmp_path: Path) -> None:
    good = write_lines(tmp_path / "good.jsonl", [json.loads(FORMS["alpaca"])])
    empty, text = tmp_path / "empty.jsonl", tmp_path / "text.csv"
    empty.write_bytes(b"")
    text.write_text("甲,乙\n一,二\n", encoding="utf-8")
    done = call("data", "validate", str(empty), str(text), str(good))
    assert done.code == 6
    assert [
        str(path) in line for path, line in zip((empty, text, good), done.out.splitlines(), strict=True)
    ] == [True] * 3
    assert call("data", "validate", str(tmp_path / "absent.jsonl")).code == 3


@pytest.mark.parametrize(
    "rows", [[{"question": "头痛？", "id": 1}] * 3, [{"question": "头痛？", "回复": "休息。"}]]
)
def test_a_file_without_one_good_record_says_what_its_records_lack(
    rows: list[dict[str, object]], call: Call, tmp_path: Path
) -> None:
    done = call("data", "validate", str(write_lines(tmp_path / "questions.jsonl", rows)))
    assert done.code == 6 and "没有答案" in done.out and "questions.jsonl:1" in done.out
    assert f"{len(rows)} 条都有误" in done.out and ("--answer-field" in done.out or "output" in done.out)


def test_the_fields_of_a_file_are_named_by_flags(call: Call, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", [{"主诉": "头痛怎么办？", "建议": "先休息。"}])
    named = ("--question-field", "主诉", "--answer-field", "建议")
    assert call("data", "validate", str(path)).code == 6
    assert call("data", "validate", str(path), *named).code == 0
    assert call("data", "stats", str(path), *named, "--json").one()["files"][0]["answers"] == 1


# ---------------------------------------------------------------- stats


def test_what_is_planted_is_counted() -> None:
    counts = measure(
        [
            Exchange(("这个病怎么治？",), ("是的，可以治。",), source="a", form="alpaca"),
            Exchange(("头痛？ ",), ("口服 20mg，随后复查并观察。",), source="a", form="alpaca"),
            Exchange(("头痛？",), ("多休息、多喝水，观察两天。",), input="补充", form="alpaca"),
            Exchange(("头痛？",), ("没错，多休息、多喝水、少熬夜。",), source="b", form="alpaca"),
            Exchange(("一？", "这呢？"), ("很短", "对，每天 2 次，饭后服用为宜。"), form="messages"),
            Exchange(("谁？",), (), form="messages"),
        ]
    )
    assert counts.as_json() == {
        "records": 6,
        "forms": {"alpaca": 4, "messages": 2},
        "turns": {1: 5, 2: 1},
        "answers": 6,
        "question_characters": {"median": 3.0, "p90": 7, "longest": 7},
        "answer_characters": {"median": 14.0, "p90": 16, "longest": 16},
        "without_input": 5,
        "without_answer": 1,
        "repeated_questions": 1,
        "with_id": 3,
        "sources": 2,
        "short_answers": 2,
        "agreeing": 3,
        "dangling": 1,
        "doses": 2,
    }


@pytest.mark.parametrize("text", ["是的，有效。", "对，可以。", "没错。", " 是的"])
def test_an_answer_that_agrees_is_seen(text: str) -> None:
    assert AGREEING.match(text)


@pytest.mark.parametrize("text", ["不是的。", "这是的确有效的", "可以，对症治疗。"])
def test_an_answer_that_only_has_the_word_is_not(text: str) -> None:
    assert not AGREEING.match(text)


@pytest.mark.parametrize("text", ["该病会遗传吗？", "上述症状怎么办？", "她需要手术吗？"])
def test_a_dangling_pronoun_is_seen_at_the_beginning_alone(text: str) -> None:
    assert DANGLING.match(text) and not DANGLING.match("患者" + text)


@pytest.mark.parametrize("text", ["20mg", "1.5 g", "500μg", "两片加 3 片", "每天 2 次", "100万单位", "5ML"])
def test_a_dose_is_seen(text: str) -> None:
    assert DOSE.search(text)


@pytest.mark.parametrize("text", ["2 型糖尿病", "3 天后复查", "血压 140/90 mmHg", "多次复查", "CT", "60 岁"])
def test_another_number_is_no_dose(text: str) -> None:
    assert not DOSE.search(text)


def test_stats_count_every_answer_of_a_conversation_and_the_last_one_of_a_dialogue(
    call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "data.jsonl"
    two = (
        '{"messages": ['
        + ",".join(
            f'{{"role": "{role}", "content": "{text}"}}'
            for role, text in (
                ("user", "一？"),
                ("assistant", "是的。"),
                ("user", "二？"),
                ("assistant", "是的。"),
            )
        )
        + "]}"
    )
    path.write_text(f"{two}\n{FORMS['literature']}\n", encoding="utf-8")
    (counts,) = call("data", "stats", str(path), "--json").one()["files"]
    assert (counts["answers"], counts["agreeing"], counts["turns"]) == (3, 2, {"2": 2})


def test_stats_read_what_is_good_and_the_exit_code_tells_of_the_bad(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(FORMS["alpaca"] + "\n{\n", encoding="utf-8")
    done = call("data", "stats", str(path))
    assert done.code == 6 and "有误的记录：1" in done.out and "记录：1 (alpaca 1)" in done.out
    path.write_text('{"question": 3}\n', encoding="utf-8")
    what, _ = call("data", "stats", str(path)).failure()
    assert f"{path}:1" in what


def test_both_commands_speak_english_too(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(FORMS["alpaca"] + "\n{\n", encoding="utf-8")
    for name, said in (("validate", "1 good, 1 bad"), ("stats", "repeated questions: 0")):
        done = run("data", name, str(path), MEDCHAT_LANG="en")
        assert done.code == 6 and said in done.out
        assert not any("\u4e00" <= character <= "\u9fff" for character in done.out.replace(str(path), ""))


#: docs/data.md, "Published files".
PUBLISHED: dict[str, dict[str, Any]] = {
    "liver_cancer.json": {
        "records": 1000,
        "forms": {"literature": 1000},
        "turns": {"1": 292, "2": 285, "3": 272, "4": 126, "5": 22, "6": 3},
        "without_input": 1000,
        "with_id": 211,
        "sources": 181,
        "agreeing": 171,
    },
    "llama_data.json": {
        "records": 8658,
        "without_input": 8658,
        "question_characters": {"median": 41.0, "p90": 62, "longest": 134},
        "answer_characters": {"median": 54.0, "p90": 95, "longest": 372},
        "short_answers": 146,
        "repeated_questions": 7,
        "dangling": 53,
        "doses": 24,
    },
    "med_chatglm_train.txt": {"records": 7622, "forms": {"med-chatglm": 7622}},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_files_are_counted_as_documented(call: Call, name: str) -> None:
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    (counts,) = call("data", "stats", str(path), "--json").one()["files"]
    assert {key: counts[key] for key in PUBLISHED[name]} == PUBLISHED[name]
