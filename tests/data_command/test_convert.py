"""`medchat data convert`: what a form can hold goes there and back unchanged, what it cannot hold is named."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call
from knowledge_files import lines_of, write_lines
from locations import SHARED
from medchat_data.converting import WRITERS, converted

from medchat.plugin_kit import RecordError, parse_record

pytest_plugins = ("cli_program",)

SINGLE = {"instruction": "头痛怎么办？", "input": "", "output": "先休息。"}
DIALOGUE = {"instruction": " <user>: 一？ <bot>: 二。 <user>: 三？", "output": "四。", "input": ""}


def messages(*said: tuple[str, str], **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in said], **fields}


TALK = messages(("user", "一？"), ("assistant", "二。"), ("user", "三？"), ("assistant", "四。"))


def there_and_back(record: dict[str, Any], there: str, back: str) -> dict[str, Any]:
    return converted(parse_record(converted(parse_record(record), there)), back)


@pytest.mark.parametrize("form", WRITERS)
def test_a_single_question_goes_into_every_form_and_back(form: str) -> None:
    record = {**SINGLE, "id": 7, "科室": "神经内科"}
    written = converted(parse_record(record), form)
    assert parse_record(written).form == form
    assert there_and_back(record, form, "alpaca") == record


@pytest.mark.parametrize("form", ["messages", "sharegpt", "literature"])
def test_a_dialogue_goes_into_every_form_that_has_turns_and_back(form: str) -> None:
    assert there_and_back({**DIALOGUE, "id": "a"}, form, "literature") == {**DIALOGUE, "id": "a"}


@pytest.mark.parametrize(
    "record",
    [
        TALK,
        messages(("system", "你是医生。"), ("user", "一？"), ("assistant", "二。")),
        messages(("assistant", "您好。"), ("user", "一？"), ("assistant", "二。")),
        messages(("user", "一？"), ("assistant", "二。"), ("user", "谢谢")),
    ],
)
def test_a_conversation_goes_into_sharegpt_and_back(record: dict[str, Any]) -> None:
    assert there_and_back(record, "sharegpt", "messages") == record


def test_what_is_learned_of_a_dialogue_is_its_last_answer_in_other_forms_too() -> None:
    said = converted(parse_record(DIALOGUE), "messages")["messages"]
    assert [one.get("weight") for one in said] == [None, 0, None, None]


@pytest.mark.parametrize(
    ("record", "form", "named"),
    [
        (DIALOGUE, "alpaca", "之前的对话"),
        (DIALOGUE, "ptuning", "之前的对话"),
        (DIALOGUE, "med-chatglm", "之前的对话"),
        (TALK, "literature", "哪些回答要学习"),
        (messages(("system", "你是医生。"), ("user", "一？"), ("assistant", "二。")), "alpaca", "系统提示"),
        ({**SINGLE, "input": "男，60 岁"}, "messages", "input"),
        ({**SINGLE, "input": "男，60 岁"}, "med-chatglm", "input"),
        ({"instruction": "“ <bot>: ”是什么？", "output": "标记。"}, "literature", "最后一问"),
        ({"question": "一？", "answer": "二。", "messages": "附注"}, "messages", "messages"),
        ({"question": "一？", "answer": "二。", "text": {"a": 1}, "output": "三。"}, "alpaca", "output"),
        ({"questions": ["一？", "二？"], "answers": ["三。"]}, "alpaca", "多种问法"),
        ({"question": "一？"}, "messages", "哪些回答要学习"),
    ],
)
def test_what_a_form_cannot_hold_is_named(record: dict[str, Any], form: str, named: str) -> None:
    with pytest.raises(RecordError, match=named):
        converted(parse_record(record), form)


def test_the_command_writes_all_records_or_none(call: Call, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", [SINGLE, SINGLE, DIALOGUE])
    output = tmp_path / "out.jsonl"
    words = ("data", "convert", str(data), "--output", str(output), "--to")
    what, remedy = call(*words, "alpaca").failure()
    assert f"{data}:3" in what and "--to messages" in remedy and not output.exists()
    assert call(*words, "messages").code == 0
    assert len(lines_of(output)) == 3 and output.stat().st_mode & 0o777 == 0o600


def test_the_command_replaces_nothing_unasked_and_never_its_own_data(call: Call, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", [SINGLE])
    output = write_lines(tmp_path / "out.jsonl", [{"a": 1}])
    words = ("data", "convert", str(data), "--to", "ptuning", "--output")
    assert call(*words, str(output)).code == 2 and lines_of(output) == [{"a": 1}]
    assert call(*words, str(output), "--overwrite").code == 0 and "content" in lines_of(output)[0]
    assert call(*words, str(data), "--overwrite").code == 2 and lines_of(data) == [SINGLE]


def test_a_bad_record_is_named_and_nothing_is_written(call: Call, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps(SINGLE) + "\n{\n", encoding="utf-8")
    refused = call("data", "convert", str(data), "--to", "alpaca", "--output", str(tmp_path / "o.jsonl"))
    assert refused.code == 6 and f"{data}:2" in refused.failure()[0]
    assert not (tmp_path / "o.jsonl").exists()


def test_cases_and_tasks_that_others_publish_go_into_messages_and_keep_what_stands_beside() -> None:
    pairs = [{"question": "诊断？", "solution": "疝。"}, {"question": "治疗？", "solution": "手术。"}]
    case = {"id": 0, "title": "病例", "description": "男，49 岁，腹痛。", "QA_pairs": pairs}
    written = converted(parse_record(case), "messages")
    said = [
        ("user", "男，49 岁，腹痛。\n诊断？"),
        ("assistant", "疝。"),
        ("user", "治疗？"),
        ("assistant", "手术。"),
    ]
    assert written == messages(*said, id=0, title="病例")
    with pytest.raises(RecordError, match="之前的对话"):
        converted(parse_record(case), "alpaca")
    task = {"input": "给出回复：\n患者：痛。\n答：", "target": "休息。", "task_type": "response_generation"}
    asked = {"instruction": "给出回复：\n患者：痛。", "input": "", "output": "休息。", "id": "dev-1"}
    assert converted(parse_record({**task, "sample_id": "dev-1"}), "alpaca") == {
        **asked,
        "task_type": "response_generation",
    }


# ---------------------------------------------------------------- published files


def published(name: str) -> list[dict[str, Any]]:
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    text = path.read_text(encoding="utf-8")
    records: list[dict[str, Any]] = (
        json.loads(text) if text.startswith("[") else [*map(json.loads, text.splitlines())]
    )
    return records


SINGLE_FORMS = ("med-chatglm", "ptuning", "messages", "sharegpt", "literature", "alpaca")
TURNS = ("messages", "sharegpt", "literature")
PUBLISHED = [
    *(("llama_data.json", form, "alpaca") for form in SINGLE_FORMS),
    *(("med_chatglm_train.txt", form, "med-chatglm") for form in SINGLE_FORMS),
    *(("liver_cancer.json", form, "literature") for form in TURNS),
]


def holds(records: Iterable[dict[str, Any]], there: str, back: str) -> None:
    for record in records:
        assert there_and_back(record, there, back) == record


@pytest.mark.parametrize(("name", "there", "back"), PUBLISHED)
def test_published_records_go_there_and_back(name: str, there: str, back: str) -> None:
    holds(published(name)[::50], there, back)


@pytest.mark.parametrize(("name", "turns"), [("infer.json", 1), ("samples/cmtmedqa_test.json", 3)])
@pytest.mark.parametrize("there", TURNS)
def test_published_dialogues_in_other_forms_keep_every_turn(name: str, turns: int, there: str) -> None:
    records = published(name)
    parsed = [parse_record(record) for record in records]
    assert max(len(asked.turns) + 1 for asked in parsed) >= turns
    for record, asked in zip(records, parsed, strict=True):
        written = parse_record(converted(asked, there))
        assert (written.turns, written.last, written.reference) == (asked.turns, asked.last, asked.reference)
        assert converted(written, "messages") == converted(parse_record(record), "messages")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "there", "back"), PUBLISHED)
def test_every_published_record_goes_there_and_back(name: str, there: str, back: str) -> None:
    holds(published(name), there, back)
