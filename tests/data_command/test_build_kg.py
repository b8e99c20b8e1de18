"""`medchat data build kg`: what is built, from where, what is rejected, and that nothing is lost or built twice."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call, Outcome, run, start
from knowledge_files import RECORDS, lines_of, write_lines
from medchat_data.prompt_forms import FORMS
from medchat_data.verifying import mentions_word, values_named

from medchat.sft_job.data import read_training_data

pytest_plugins = ("cli_program",)


@pytest.fixture
def knowledge(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "知识.jsonl", RECORDS)


def build(call: Call, knowledge: Path, *flags: str, name: str = "train.jsonl") -> Outcome:
    return call("data", "build", "kg", str(knowledge), "--output", str(knowledge.with_name(name)), *flags)


def built(knowledge: Path, name: str = "train.jsonl") -> list[dict[str, Any]]:
    return lines_of(knowledge.with_name(name))


def of_form(rows: list[dict[str, Any]], form: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["provenance"]["form"] == form]


# ---------------------------------------------------------------- what is built


def test_every_form_makes_something_and_every_record_says_where_it_is_from(
    call: Call, knowledge: Path
) -> None:
    done = build(call, knowledge)
    assert (done.code, done.out) == (0, "")
    rows = built(knowledge)
    assert len(FORMS) >= 6 and {row["provenance"]["form"] for row in rows} == set(FORMS)
    assert [row["index"] for row in rows] == list(range(len(rows)))
    digests = set()
    for row in rows:
        origin = row["provenance"]
        assert origin["writer"] == "template" and origin["seed"] == 0
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", origin["date"]) and origin["form_version"] >= 1
        source = origin["sources"][0]
        record = RECORDS[source["line"] - 1]
        assert (source["file"], source["id"]) == ("知识.jsonl", str(source["line"]))
        digests.add((source["line"], source["sha256"]))
        assert set(origin["relations"]) <= set(record)
        said = [record["中心词"], *(value for name in origin["relations"] for value in record[name])]
        assert origin["verified"]["values_named"] and set(origin["verified"]["values_named"]) <= set(said)
        assert all(value in row["output"] for value in origin["verified"]["values_named"])
    assert len(digests) == len(RECORDS)
    assert f"{len(rows)} 条" in done.err


def test_what_was_built_is_training_data_as_it_is(call: Call, knowledge: Path) -> None:
    build(call, knowledge)
    read = read_training_data(knowledge.with_name("train.jsonl"))
    rows = built(knowledge)
    assert len(read.examples) == len(rows) and not read.bad
    dialogues = [example for example in read.examples if example.turns]
    assert len(dialogues) == len(of_form(rows, "follow-up")) == len(RECORDS)
    assert all(len(example.turns) == 1 and example.turns[0].answer for example in dialogues)


def test_a_story_hides_the_centre_word_and_sends_to_help_first(call: Call, knowledge: Path) -> None:
    build(call, knowledge, "--forms", "case")
    rows = built(knowledge)
    assert [row["provenance"]["sources"][0]["line"] for row in rows] == [1, 2, 3]
    for row, record in zip(rows, RECORDS, strict=False):
        assert record["中心词"] not in row["instruction"] and record["中心词"] in row["output"]
        assert sum(symptom in row["instruction"] for symptom in record["临床表现"]) >= 2
    assert rows[0]["output"].startswith("喘不上气，立即拨打120。")


def test_a_comparison_says_what_is_said_of_both(call: Call, tmp_path: Path) -> None:
    records = [{"中心词": "甲病", "检查": ["一", "二"]}, {"中心词": "乙病", "检查": ["二", "三"]}]
    knowledge = write_lines(tmp_path / "k.jsonl", records)
    build(call, knowledge, "--forms", "compare")
    first, second = built(knowledge)
    assert [source["line"] for source in first["provenance"]["sources"]] == [1, 2]
    assert (
        first["output"] == "甲病常用的检查有一、二。乙病常用的检查有二、三。两者相同的有二。"
        "这里只列出主要的几项，没有列出的不等于没有。"
    )
    assert [source["line"] for source in second["provenance"]["sources"]] == [2, 1]


def test_a_check_is_answered_by_yes_for_what_the_record_says_and_is_left_open_for_what_another_says(
    call: Call, knowledge: Path
) -> None:
    answers = Counter()
    for seed in range(12):
        build(call, knowledge, "--forms", "check", "--seed", str(seed), "--overwrite")
        for row in built(knowledge):
            record = RECORDS[row["provenance"]["sources"][0]["line"] - 1]
            own = record[row["provenance"]["relations"][0]]
            asked = [value for value in own if row["instruction"].startswith(value)]
            assert row["output"].startswith("是。" if asked else "不能肯定。")
            answers[bool(asked)] += 1
    assert min(answers[True], answers[False]) > 10


def test_what_several_records_say_is_never_called_open(call: Call, tmp_path: Path) -> None:
    records = [
        {"中心词": "甲病", "临床表现": ["发热"]},
        {"中心词": "乙病", "临床表现": ["乏力"]},
        {"中心词": "丙病", "临床表现": ["乏力"]},
    ]
    knowledge = write_lines(tmp_path / "k.jsonl", records)
    for seed in range(12):
        build(call, knowledge, "--forms", "check", "--seed", str(seed), "--overwrite")
        left_open = [row["instruction"] for row in built(knowledge) if not row["output"].startswith("是。")]
        assert all("发热" in question for question in left_open)


@pytest.mark.safety
def test_only_what_a_record_calls_a_misconception_is_denied(call: Call, tmp_path: Path) -> None:
    myths = ["甲病不用治——其实要治", "甲病会传染"]
    records = [{"中心词": "甲病", "检查": ["一"], "常见误解": myths}, {"中心词": "乙病", "检查": ["二"]}]
    knowledge = write_lines(tmp_path / "k.jsonl", records)
    answers = {}
    for seed in range(24):
        build(call, knowledge, "--forms", "check", "--seed", str(seed), "--overwrite")
        answers |= {row["instruction"]: row["output"] for row in built(knowledge)}
    assert answers["“甲病不用治”，这种说法对吗？"] == "不对。其实要治。"
    assert answers["“甲病会传染”，这种说法对吗？"] == "“甲病会传染”不对。"
    others = [answer for question, answer in answers.items() if "说法" not in question]
    assert others and not [answer for answer in others if answer.startswith(("不对", "不是", "一般不是"))]


@pytest.mark.safety
@pytest.mark.parametrize("relation", ["临床表现", "就诊科室"])
def test_who_asks_for_symptoms_or_a_department_hears_when_to_call_for_help(
    call: Call, tmp_path: Path, relation: str
) -> None:
    record = {"中心词": "甲病", relation: ["某项"], "就医提示": ["喘不上气，立即拨打120"]}
    knowledge = write_lines(tmp_path / "k.jsonl", [record])
    for form in ("direct", "follow-up", "check"):
        build(call, knowledge, "--forms", form, "--overwrite")
        for row in built(knowledge):
            assert "立即拨打120" in row["instruction"] + row["output"]


def test_a_long_list_is_cut_and_a_strange_name_of_a_relation_is_text(call: Call, tmp_path: Path) -> None:
    record = {"中心词": "{0}", "{e.__class__}{": [f"第{number}项" for number in range(40)]}
    knowledge = write_lines(tmp_path / "k.jsonl", [record])
    assert build(call, knowledge, "--forms", "direct").code == 0
    (row,) = built(knowledge)
    assert "{0}" in row["instruction"] and "{e.__class__}{" in row["instruction"] + row["output"]
    assert "第11项等。" in row["output"] and "第12项" not in row["output"]


# ---------------------------------------------------------------- what is rejected


def test_a_story_that_names_what_it_hides_is_kept_beside_with_the_reason(call: Call, tmp_path: Path) -> None:
    records = [
        {"中心词": "头痛", "临床表现": ["搏动性头痛", "恶心"]},
        {"中心词": "甲病", "临床表现": ["发热", "咳嗽"]},
    ]
    knowledge = write_lines(tmp_path / "k.jsonl", records)
    done = build(call, knowledge, "--forms", "case")
    assert done.code == 0 and "names-what-it-hides 1" in done.err
    assert [row["provenance"]["sources"][0]["line"] for row in built(knowledge)] == [2]
    (reject,) = built(knowledge, "train.rejects.jsonl")
    assert reject["code"] == "names-what-it-hides" and "中心词" in reject["reason"]
    assert reject["instruction"] and reject["provenance"]["sources"][0]["line"] == 1


def test_an_answer_that_names_no_value_is_a_reject(call: Call, tmp_path: Path) -> None:
    knowledge = write_lines(tmp_path / "k.jsonl", [{"中心词": "甲病", "分级": ["★★"], "检查": ["甲项检查"]}])
    build(call, knowledge, "--forms", "direct")
    (reject,) = built(knowledge, "train.rejects.jsonl")
    assert reject["code"] == "no-value-named" and reject["provenance"]["verified"]["values_named"] == []
    assert [row["provenance"]["relations"] for row in built(knowledge)] == [["检查"]]


def test_a_question_is_built_once_even_where_two_records_ask_it(call: Call, tmp_path: Path) -> None:
    records = [{"中心词": "甲病", "科别": ["一"]}, {"中心词": "甲病", "科别": ["二"]}] * 3
    knowledge = write_lines(tmp_path / "k.jsonl", records)
    build(call, knowledge, "--forms", "direct")
    questions = [row["instruction"] for row in built(knowledge)]
    assert len(questions) == len(set(questions)) < len(records)
    rejects = built(knowledge, "train.rejects.jsonl")
    assert {row["code"] for row in rejects} == {"question-repeated"}
    assert len(rejects) + len(questions) == len(records)


def test_a_bad_knowledge_record_is_a_reject_with_its_line_and_the_exit_code_says_so(
    call: Call, tmp_path: Path
) -> None:
    knowledge = write_lines(tmp_path / "k.jsonl", [*RECORDS, {"中心词": "戊病"}])
    done = build(call, knowledge)
    assert done.code == 6 and "bad-record 1" in done.err
    assert built(knowledge, "train.rejects.jsonl")[0]["where"] == "k.jsonl:5"
    assert {row["provenance"]["sources"][0]["line"] for row in built(knowledge)} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("answer", "values", "named"),
    [
        ("常见的有发热。", ["发热", "咳嗽"], ("发热",)),
        ("用ＣＴ检查", ["CT"], ("CT",)),
        ("做 B 超", ["B超"], ("B超",)),
        ("多休息", ["发热", "咳嗽"], ()),
        ("发，热", ["发热"], ("发热",)),
        ("任何回答", ["……", ""], ()),
    ],
)
def test_an_answer_names_a_value_whatever_its_width_case_and_marks(
    answer: str, values: list[str], named: tuple[str, ...]
) -> None:
    assert values_named(answer, values) == named
    assert mentions_word(answer, values[0]) == (values[0] in named)


# ---------------------------------------------------------------- the same again, killed or not


def test_the_seed_decides_and_the_order_of_records_does_not(call: Call, knowledge: Path) -> None:
    build(call, knowledge)
    build(call, knowledge, name="again.jsonl")
    build(call, knowledge, "--seed", "1", name="other.jsonl")
    first, again, other = (
        knowledge.with_name(f"{name}.jsonl").read_bytes() for name in ("train", "again", "other")
    )
    assert first == again != other
    turned = write_lines(knowledge.with_name("turned.jsonl"), RECORDS[::-1])
    build(call, turned, "--forms", "direct", name="turned-out.jsonl")
    asked = [
        {row["instruction"] for row in of_form(built(knowledge, name), "direct")}
        for name in ("train.jsonl", "turned-out.jsonl")
    ]
    assert asked[0] == asked[1]


def test_a_run_cut_anywhere_goes_on_to_the_same_file(call: Call, tmp_path: Path) -> None:
    records = [*RECORDS, {"中心词": "头痛", "临床表现": ["搏动性头痛", "恶心"]}, {"中心词": "戊病"}]
    knowledge = write_lines(tmp_path / "k.jsonl", records)
    build(call, knowledge)
    kept, rejected = (knowledge.with_name(name) for name in ("train.jsonl", "train.rejects.jsonl"))
    whole = kept.read_bytes(), rejected.read_bytes()
    assert all(whole)
    for share in (0, 1, 3, 7, 9):
        for file, content in zip((kept, rejected), whole, strict=True):
            file.write_bytes(content[: len(content) * share // 9])
        assert build(call, knowledge, "--resume").code == 6
        assert (kept.read_bytes(), rejected.read_bytes()) == whole
    assert kept.stat().st_mode & 0o777 == rejected.stat().st_mode & 0o777 == 0o600


def test_a_finished_run_is_not_written_anew(call: Call, knowledge: Path) -> None:
    build(call, knowledge)
    before = knowledge.with_name("train.jsonl").stat().st_ino
    assert build(call, knowledge, "--resume").code == 0
    assert knowledge.with_name("train.jsonl").stat().st_ino == before


def test_what_goes_on_bears_the_date_of_the_run_that_began(call: Call, knowledge: Path) -> None:
    build(call, knowledge)
    kept = knowledge.with_name("train.jsonl")
    today = json.loads(kept.read_bytes().splitlines()[0])["provenance"]["date"]
    begun = kept.read_text(encoding="utf-8").replace(today, "2020-01-31")
    kept.write_text("".join(begun.splitlines(keepends=True)[:5]), encoding="utf-8")
    assert build(call, knowledge, "--resume").code == 0
    assert kept.read_text(encoding="utf-8") == begun


@pytest.mark.parametrize("flags", [("--seed", "1"), ("--forms", "direct")])
def test_other_options_or_other_knowledge_are_not_mixed_in(
    call: Call, knowledge: Path, flags: tuple[str, ...]
) -> None:
    build(call, knowledge)
    before = knowledge.with_name("train.jsonl").read_bytes()
    what, remedy = build(call, knowledge, "--resume", *flags).failure()
    assert "train.jsonl" in what and "--overwrite" in remedy
    write_lines(knowledge, [{"中心词": "别的", "检查": ["一"]}])
    assert build(call, knowledge, "--resume").code == 2
    assert knowledge.with_name("train.jsonl").read_bytes() == before


def test_what_is_there_is_replaced_only_when_asked_and_the_knowledge_never(
    call: Call, knowledge: Path
) -> None:
    build(call, knowledge)
    assert build(call, knowledge).code == 2
    assert build(call, knowledge, "--overwrite", "--seed", "3").code == 0
    assert built(knowledge)[0]["provenance"]["seed"] == 3
    before = knowledge.read_bytes()
    assert build(call, knowledge, "--overwrite", name=knowledge.name).code == 2
    assert knowledge.read_bytes() == before


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_files(tmp_path: Path) -> None:
    records = [
        {**record, "中心词": f"{record['中心词']}{number}"} for number in range(80) for record in RECORDS
    ]
    knowledge = write_lines(tmp_path / "k.jsonl", records)
    words = ("data", "build", "kg", str(knowledge), "--output")
    assert run(*words, str(tmp_path / "whole.jsonl")).code == 0
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    kills = 0
    for share in (0.1, 0.6):
        process = start(*words, str(cut), "--resume")
        while process.poll() is None and (
            not cut.exists() or cut.stat().st_size < share * whole.stat().st_size
        ):
            time.sleep(0.002)
        kills += process.poll() is None
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()
    assert kills
    assert run(*words, str(cut), "--resume").code == 0
    assert cut.read_bytes() == whole.read_bytes()


# ---------------------------------------------------------------- the command


def test_a_dry_run_shows_three_records_and_writes_nothing(call: Call, knowledge: Path) -> None:
    shown = call("data", "build", "kg", str(knowledge), "--dry-run")
    assert shown.code == 0 and "[direct] " in shown.out and "[follow-up] " in shown.out
    assert "丙病" in shown.out and "丁药" not in shown.out
    assert [path.name for path in knowledge.parent.iterdir()] == [knowledge.name]


def test_no_control_character_of_the_knowledge_reaches_the_screen(call: Call, tmp_path: Path) -> None:
    knowledge = write_lines(tmp_path / "k.jsonl", [{"中心词": "甲\x1b[2J病", "检查": ["一\u202e二"]}])
    shown = call("data", "build", "kg", str(knowledge), "--dry-run")
    assert "甲病" in shown.out and "\x1b" not in shown.out + shown.err and "\u202e" not in shown.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--forms", "direct,其他"), "其他"),
        (("--forms", ","), "问法"),
        (("--writer", "model"), "--writer"),
        ((), "--output"),
    ],
)
def test_a_wrong_flag_is_answered_with_what_to_type(
    call: Call, knowledge: Path, flags: tuple[str, ...], said: str
) -> None:
    output = ("--output", str(knowledge.with_name("t.jsonl"))) if flags else ()
    refused = call("data", "build", "kg", str(knowledge), *output, *flags)
    what, remedy = refused.failure()
    assert refused.code == 2 and said in what and "--" in what + remedy
