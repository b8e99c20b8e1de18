"""Training files: each published form is recognised, every answer is kept, every bad record is named."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from locations import SHARED

from medchat.api import Example, Turn
from medchat.datafiles.fields import FieldChoice
from medchat.errors import CheckpointError, DataError, UsageError
from medchat.language import set_language
from medchat.sft_job.data import read_training_data, split

real_data = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the published data is not here")

DIALOGUE = " <user>: 甲？ <bot>: 乙。 <user>: 丙？"
CHAT = [("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2")]
NAMES = {"user": "human", "assistant": "gpt"}

#: form -> (a record of it, what it teaches)
FORMS: dict[str, tuple[dict[str, Any], list[Example]]] = {
    "alpaca": (
        {"instruction": "问", "input": "材料", "output": "答"},
        [Example("问", "答", input="材料")],
    ),
    "literature": (
        {"instruction": DIALOGUE, "input": "", "output": "丁。", "id": 3},
        [Example("丙？", "丁。", (Turn("甲？", "乙。"),), dialogue=DIALOGUE)],
    ),
    "med-chatglm": (
        {"context": "问题：头痛？\n回答: ", "target": "休息。"},
        [Example("头痛？", "休息。")],
    ),
    "ptuning": (
        {"content": "问", "summary": "答", "history": [["一", "二"]]},
        [Example("问", "答", (Turn("一", "二"),))],
    ),
    "messages": (
        {
            "messages": [
                {"role": "system", "content": "s"},
                *({"role": role, "content": text} for role, text in CHAT),
            ]
        },
        [Example("q1", "a1", system="s"), Example("q2", "a2", (Turn("q1", "a1"),), system="s")],
    ),
    "sharegpt": (
        {"conversations": [{"from": NAMES[role], "value": text} for role, text in CHAT]},
        [Example("q1", "a1"), Example("q2", "a2", (Turn("q1", "a1"),))],
    ),
    "pairs": ({"question": "问", "answer": "答"}, [Example("问", "答")]),
}


@pytest.fixture
def english() -> Iterator[None]:
    set_language("en")
    yield
    set_language("zh")


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def without_place(examples: Sequence[Example]) -> list[Example]:
    return [Example(e.question, e.answer, e.turns, e.system, e.input, e.dialogue) for e in examples]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", ["array", "lines"])
def test_every_published_form_is_recognised_in_both_layouts(form: str, layout: str, tmp_path: Path) -> None:
    record, taught = FORMS[form]
    path = tmp_path / "data.json"
    if layout == "lines":
        write_lines(path, [record, record])
    else:
        path.write_text(json.dumps([record, record], indent=1), encoding="utf-8")
    read = read_training_data(path)
    assert (read.layout, read.forms, read.records, read.bad) == (layout, {form: 2}, 2, ())
    assert without_place(read.examples) == taught * 2
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_each_example_knows_the_line_it_came_from(english: None, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    record = '{"instruction": "问", "output": "答"}'
    path.write_bytes(b"\xef\xbb\xbf" + f"{record}\r\n\n{record}\n".encode())
    assert [e.where for e in read_training_data(path).examples] == [f"{path}:1", f"{path}:3"]
    path.write_bytes(b"\xef\xbb\xbf" + f"[{record},\n{record}, {record}]".encode())
    places = [e.where for e in read_training_data(path).examples]
    assert places == [f"{path}:1 (record 1)", f"{path}:2 (record 2)", f"{path}:2 (record 3)"]


def test_mixed_forms_are_counted_one_by_one_and_said(tmp_path: Path) -> None:
    records = [FORMS["alpaca"][0], FORMS["alpaca"][0], FORMS["ptuning"][0]]
    read = read_training_data(write_lines(tmp_path / "mixed.jsonl", records))
    assert read.forms == {"alpaca": 2, "ptuning": 1}
    assert "Alpaca" in read.described and "× 2" in read.described
    assert "P-tuning" in read.described and "× 1" in read.described


GOOD = {"instruction": "问", "output": "答"}
BAD: list[Any] = [
    {"instruction": "问"},
    {"instruction": "问", "output": ""},
    {"instruction": "问", "output": " \n"},
    {"instruction": "问", "output": None},
    {"instruction": "问", "output": ["答"]},
    {"instruction": "问", "output": "\ud800"},
    {"instruction": "", "output": "答"},
    {"output": "答"},
    {"messages": [{"role": "user", "content": "问"}]},
    {"messages": [{"role": "assistant", "content": "答"}]},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 0}]},
    {"messages": [{"role": r, "content": t if t != "a1" else " "} for r, t in CHAT]},
    "a bare text",
    ["a", "b"],
    7,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: json.dumps(bad)[:50])
@pytest.mark.parametrize("layout", ["array", "lines"])
def test_a_bad_record_is_refused_with_its_line_or_skipped_and_counted(
    bad: Any, layout: str, tmp_path: Path
) -> None:
    path = tmp_path / "data.json"
    records = [GOOD, bad, GOOD]
    if layout == "lines":
        write_lines(path, records)
    else:
        path.write_text("[" + ",\n".join(map(json.dumps, records)) + "]", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_training_data(path)
    assert caught.value.exit_code == 6
    assert caught.value.where.startswith(f"{path}:2") and caught.value.what
    assert "--skip-bad" in caught.value.remedy
    read = read_training_data(path, skip_bad=True)
    assert len(read.examples) == read.records == 2
    assert [record.where for record in read.bad] == [caught.value.where]


def said(*messages: tuple[str, str, int]) -> dict[str, Any]:
    return {
        "conversations": [{"from": who, "value": text, "weight": weight} for who, text, weight in messages]
    }


def test_what_has_no_answer_or_no_weight_is_context_alone_and_counted(english: None, tmp_path: Path) -> None:
    records = [
        said(("gpt", "hello", 1), ("human", "q1", 1), ("gpt", "a1", 1), ("human", "thanks", 1)),
        said(("human", "q2", 1), ("gpt", "bad", 0), ("human", "q3", 1), ("gpt", "a3", 1)),
        said(("human", "q4", 1), ("gpt", "a4", 1), ("human", "q5", 1), ("gpt", "bad", 0)),
    ]
    read = read_training_data(write_lines(tmp_path / "chats.jsonl", records))
    assert without_place(read.examples) == [
        Example("q1", "a1", (Turn("", "hello"),)),
        Example("q3", "a3", (Turn("q2", "bad"),)),
        Example("q4", "a4"),
    ]
    assert (read.unanswered, read.unlearned, read.records) == (1, 2, 3)
    remarks = "\n".join(read.remarks())
    assert "1 conversations end with the user" in remarks and "2 answers have weight 0" in remarks


def test_every_wording_of_a_question_is_learned(tmp_path: Path) -> None:
    record = {"questions": [["一", "二", "三"]], "answers": ["答"]}
    read = read_training_data(write_lines(tmp_path / "data.jsonl", [record]))
    assert without_place(read.examples) == [Example(word, "答") for word in "一二三"]
    assert (read.forms, read.records) == ({"wordings": 1}, 1)


def test_context_and_options_are_part_of_what_is_learned(tmp_path: Path) -> None:
    record = {
        "context": "男，50 岁",
        "question": "用哪种药？",
        "options": ["甲", "乙"],
        "answer": "B",
        "id": 3,
    }
    read = read_training_data(write_lines(tmp_path / "data.jsonl", [record, {**record, "source": "网"}]))
    assert without_place(read.examples) == [Example("男，50 岁\n用哪种药？\nA. 甲\nB. 乙", "B")] * 2
    assert read.fields.unused == {"source": 1} and "未使用的字段：source × 1" in list(read.remarks())


def test_two_candidates_are_refused_with_their_line_and_the_flag_that_decides(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "data.jsonl", [{"question": "问", "instruction": "像医生那样", "answer": "答"}]
    )
    with pytest.raises(DataError) as caught:
        read_training_data(path)
    assert (
        caught.value.where == f"{path}:1"
        and "question" in caught.value.what
        and "instruction" in caught.value.what
    )
    assert "--question-field question" in caught.value.remedy
    read = read_training_data(path, choice=FieldChoice(question="question"))
    assert without_place(read.examples) == [Example("问", "答")] and read.fields.unused == {"instruction": 1}


@pytest.mark.parametrize("name", ["table.csv", "table"])
def test_a_table_is_learned_from_by_its_columns(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("\ufeffdepartment,title,ask,answer\n内科,头痛,头痛怎么办？,多休息。\n", encoding="utf-8")
    read = read_training_data(path)
    assert without_place(read.examples) == [Example("头痛怎么办？", "多休息。")]
    assert read.fields.unused == {"department": 1, "title": 1} and "CSV" in read.described
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_columns_of_other_names_are_read_where_they_are_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("主诉,处理\n头痛怎么办？,多休息。\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_training_data(path, skip_bad=True)
    assert caught.value.where == f"{path}:1" and "--question-field" in caught.value.remedy
    read = read_training_data(path, choice=FieldChoice("主诉", "处理"))
    assert without_place(read.examples) == [Example("头痛怎么办？", "多休息。")]


def test_the_digest_is_of_the_file_whatever_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(json.dumps([GOOD, GOOD], ensure_ascii=False).encode("utf-16"))
    read = read_training_data(path)
    assert without_place(read.examples) == [Example("问", "答")] * 2
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and "UTF-16" in read.described


def test_lines_that_are_no_json_or_no_utf8_are_bad_records(english: None, tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    good = json.dumps(GOOD).encode()
    path.write_bytes(good + b"\n{\n" + "{'问'}".encode("gb18030") + b"\n" + good + b'\n{"output": NaN}\n')
    with pytest.raises(DataError) as caught:
        read_training_data(path)
    assert caught.value.where == f"{path}:2"
    assert "3 records are bad (see also 3, 5), the other 2 are good" in caught.value.what
    read = read_training_data(path, skip_bad=True)
    assert [record.where.rpartition(":")[2] for record in read.bad] == ["2", "3", "5"]
    assert "iconv" in read.bad[1].reason


def test_an_array_that_breaks_off_is_refused_even_when_bad_records_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([GOOD, GOOD], indent=0)[:-20], encoding="utf-8")
    for skip_bad in (False, True):
        with pytest.raises(DataError) as caught:
            read_training_data(path, skip_bad=skip_bad)
        assert caught.value.where.startswith(f"{path}:")
    path.write_bytes(b'[\n"\xff"]')
    with pytest.raises(DataError) as caught:
        read_training_data(path, skip_bad=True)
    assert caught.value.where == f"{path}:2"


@pytest.mark.parametrize("content", [b"", b"\n \n", b"[]", b"\xef\xbb\xbf", b'{"output": "x"}\n'])
def test_a_file_that_teaches_nothing_is_an_error_even_when_bad_records_are_skipped(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_training_data(path, skip_bad=True)


def test_a_missing_file_and_a_folder_are_named_as_such(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(CheckpointError) as caught:
            read_training_data(path)
        assert caught.value.where == str(path) and caught.value.remedy in ("检查路径", "check the path")


@pytest.mark.parametrize("layout", ["array", "lines"])
def test_no_file_is_in_memory_twice(layout: str, tmp_path: Path) -> None:
    # Skipped records leave nothing behind, so what is measured is the reading alone.
    path, filler = tmp_path / "data.json", json.dumps({"output": "x" * 10_000})
    lines = [json.dumps(GOOD), *[filler] * 2_000]
    text = "\n".join(lines) if layout == "lines" else "[" + ",\n".join(lines) + "]"
    path.write_text(text, encoding="utf-8")
    size = len(text)
    del text, lines
    tracemalloc.start()
    try:
        read_training_data(path, skip_bad=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size * (0.3 if layout == "lines" else 1.3)


@real_data
@pytest.mark.parametrize(
    ("name", "form", "layout", "count"),
    [
        ("llama_data.json", "alpaca", "lines", 8658),
        ("liver_cancer.json", "literature", "array", 1000),
        ("med_chatglm_train.txt", "med-chatglm", "lines", 7622),
    ],
)
def test_the_published_data_is_read_whole(name: str, form: str, layout: str, count: int) -> None:
    read = read_training_data(SHARED / "data" / name)
    assert (read.forms, read.layout, len(read.examples), read.bad) == ({form: count}, layout, count, ())
    texts = [example.question for example in read.examples]
    assert all(texts) and not any("<user>" in text or "问题：" in text for text in texts)
    assert all(bool(example.dialogue) is (form == "literature") for example in read.examples)


# ------------------------------------------------------------ what is held out


def some(count: int) -> list[Example]:
    return [Example(f"question {number}", "answer") for number in range(count)]


@pytest.mark.parametrize(
    ("count", "held_out"), [(1, 0), (19, 0), (20, 2), (1000, 100), (4999, 499), (5000, 500), (8658, 500)]
)
def test_by_default_a_tenth_is_held_out_up_to_500_and_none_of_little_data(count: int, held_out: int) -> None:
    train, kept = split(some(count), -1, 0)
    assert (len(train), len(kept)) == (count - held_out, held_out)


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    examples = some(200)
    assert split(examples, 20, 1) == split(examples, 20, 1)
    assert split(examples, 20, 1)[1] != split(examples, 20, 2)[1]


def test_holding_everything_out_is_refused() -> None:
    for size in (10, 11):
        with pytest.raises(UsageError):
            split(some(10), size, 0)
    assert len(split(some(10), 9, 0)[1]) == 9


def test_the_wordings_of_one_record_and_equal_questions_of_others_stay_together() -> None:
    examples = [Example(f"q{number}", "a", where=f"data:{number // 3}") for number in range(30)]
    examples += [Example(f"q{number}", "b", where=f"data:{100 + number}") for number in range(0, 30, 3)]
    train, held_out = split(examples, 8, 0)
    assert len(held_out) == 8 and len(train) == 32
    for number in range(0, 30, 3):
        one = [
            example for example in held_out if example.question in {f"q{number + more}" for more in range(3)}
        ]
        assert len(one) in (0, 4)


first_questions = st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), min_size=2, max_size=40)


@given(first_questions, st.integers(0, 39), st.integers(0, 3))
def test_nothing_is_on_both_sides_nor_on_neither(
    drawn: list[tuple[str, bool]], val_size: int, seed: int
) -> None:
    examples = [
        Example(f"q{number}", "a", (Turn(first, "a"),)) if later else Example(first, f"a{number}")
        for number, (first, later) in enumerate(drawn)
    ]
    val_size %= len(examples)
    train, held_out = split(examples, val_size, seed)

    def firsts(side: Sequence[Example]) -> set[str]:
        return {example.turns[0].question if example.turns else example.question for example in side}

    assert not firsts(train) & firsts(held_out)
    assert sorted([*train, *held_out], key=examples.index) == examples
    assert len(held_out) <= val_size
