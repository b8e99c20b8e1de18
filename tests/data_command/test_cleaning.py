"""`medchat data dedup`, `contamination`, `redact` and `mix`: planted truths are found, and nothing else is taken."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from cli_program import Call
from hypothesis import given
from hypothesis import strategies as st
from knowledge_files import lines_of, write_lines
from locations import DATA, SHARED
from medchat_data.differences import difference
from medchat_data.mix_command import mixed_counts
from medchat_data.near_duplicates import like_texts, nearest
from medchat_data.verifying import normalised

pytest_plugins = ("cli_program",)

PAIRS = lines_of(DATA / "duplicate_pairs.jsonl")
LLAMA = SHARED / "data" / "llama_data.json"
published = pytest.mark.skipif(not LLAMA.exists(), reason="the published files are not here")


def questions(path: Path, *asked: str, output: str = "多休息。") -> Path:
    return write_lines(path, [{"instruction": one, "input": "", "output": output} for one in asked])


# ---------------------------------------------------------------- dedup


def alike(threshold: float = 0.8) -> list[bool]:
    """Return which of the labelled pairs are alike to the letter."""
    texts = [normalised(pair[name]) for pair in PAIRS for name in ("first", "second")]
    found = {(one.first, one.second) for one in like_texts(texts, threshold).pairs}
    return [(2 * number, 2 * number + 1) in found for number in range(len(PAIRS))]


def test_labelled_pairs_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = [
        (
            pair.get("kind", "duplicate"),
            (is_alike and not difference(pair["first"], pair["second"])) is pair["same"],
        )
        for pair, is_alike in zip(PAIRS, alike(), strict=True)
    ]
    right, labelled = (Counter(kind for kind, ok in verdicts if ok or every) for every in (False, True))
    wrong = [pair for pair, (_, ok) in zip(PAIRS, verdicts, strict=True) if not ok]
    with capsys.disabled():
        shares = ", ".join(f"{kind} {right[kind]}/{labelled[kind]}" for kind in labelled)
        sys.stdout.write(f"\nlabelled pairs told apart: {shares}\n")
    assert len(PAIRS) >= 60 and wrong == []


def test_pairs_that_differ_are_alike_to_the_letter_so_that_only_the_difference_keeps_them() -> None:
    different = [pair for pair in PAIRS if not pair["same"]]
    close = [pair for pair, is_alike in zip(PAIRS, alike(0.6), strict=True) if is_alike and not pair["same"]]
    assert len(close) > 0.9 * len(different)
    named = {difference(pair["first"], pair["second"]) for pair in different}
    assert named == {"number", "negation", "side", "age", "attribute"}  # none by its other words alone
    assert {pair["kind"] for pair in different} == {"number", "negation", "side", "age", "attribute"}
    assert all(
        Counter(pair["kind"] for pair in different)[kind] >= 8
        for kind in ("number", "negation", "side", "age")
    )


def test_the_groups_are_listed_and_one_of_each_stays(call: Call, tmp_path: Path) -> None:
    first, same = PAIRS[0]["first"], PAIRS[0]["second"]
    data = questions(tmp_path / "d.jsonl", first, "另一个完全不同的问题是什么？", same, first)
    shown = call("data", "dedup", str(data), "--output", str(tmp_path / "out.jsonl"))
    assert (
        shown.code == 0
        and "第 1 条保留" in shown.out
        and "第 3 条去掉" in shown.out
        and "第 4 条去掉" in shown.out
    )
    assert lines_of(tmp_path / "out.jsonl") == lines_of(data)[:2]
    found = call("data", "dedup", str(data), "--json").one()
    assert found["groups"] == [{"kept": 1, "removed": [3, 4]}] and found["removed"] == 2


def test_the_longest_record_of_a_group_can_stay(call: Call, tmp_path: Path) -> None:
    first, same = PAIRS[0]["first"], PAIRS[0]["second"]
    records = [
        {"instruction": one, "output": "答" * (number + 1)} for number, one in enumerate((first, same, first))
    ]
    data = write_lines(tmp_path / "d.jsonl", records)
    call("data", "dedup", str(data), "--keep", "longest", "--output", str(tmp_path / "out.jsonl"))
    assert lines_of(tmp_path / "out.jsonl") == records[2:]


def test_what_goes_is_a_duplicate_of_what_stays_and_not_of_something_in_between(
    call: Call, tmp_path: Path
) -> None:
    base = "患者反复咳嗽咳痰并且伴有低热盗汗体重下降食欲减退夜间尤其明显应当做检查"
    data = questions(tmp_path / "d.jsonl", base, base[:-4] + "去做检查", base[:-8] + "白天也有去做检查")
    found = call("data", "dedup", str(data), "--json").one()
    for group in found["groups"]:
        texts = [lines_of(data)[number - 1]["instruction"] for number in (group["kept"], *group["removed"])]
        assert all(like_texts([texts[0], other]).pairs for other in texts[1:])


def test_records_can_be_compared_with_their_answers(call: Call, tmp_path: Path) -> None:
    asked = "这两种疾病的治疗方案有哪些不同？"
    records = [
        {"instruction": asked, "output": answer} for answer in ("甲病要手术，乙病要吃药。", "前者静养即可。")
    ]
    data = write_lines(tmp_path / "d.jsonl", records)
    assert call("data", "dedup", str(data), "--json").one()["removed"] == 1
    assert call("data", "dedup", str(data), "--by", "record", "--json").one()["removed"] == 0


@published
@pytest.mark.slow
@pytest.mark.parametrize(("by", "removed", "alike"), [("question", 17, 34), ("record", 5, 53)])
def test_so_many_of_the_published_records_go(call: Call, by: str, removed: int, alike: int) -> None:
    found = call("data", "dedup", str(LLAMA), "--by", by, "--json").one()
    assert (found["removed"], found["alike"]) == (removed, alike)
    assert by == "question" or found["kept_apart"]["number"] == 28


def test_without_datasketch_the_command_says_what_to_install(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    data = questions(tmp_path / "d.jsonl", "问一", "问二")
    for words in (("dedup",), ("contamination", "--against", str(data.with_name("e.jsonl")))):
        questions(tmp_path / "e.jsonl", "别的问题")
        refused = call("data", words[0], str(data), *words[1:])
        assert refused.code == 2 and "pip install 'medchat[data]'" in refused.failure()[1]


# ---------------------------------------------------------------- contamination


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        ("肺结核患者需要做哪些检查？", "exact"),
        ("肺结核患者，需要做哪些检查", "exact"),
        ("肺结核病人需要做哪些检查？", "one-character"),
        ("肺结核患者需要做些检查？", "one-character"),
        ("肺结核患者需要去做哪些检查？", "one-character"),
    ],
)
def test_a_planted_question_is_found_as_it_is_or_with_a_character_changed(
    call: Call, tmp_path: Path, planted: str, kind: str
) -> None:
    planted = planted.replace("病人", "患儿")
    data = questions(tmp_path / "d.jsonl", "失眠怎么办？", planted, "咳嗽怎么办？")
    test = questions(tmp_path / "t.jsonl", "肺结核患者需要做哪些检查？", "这一题不在里面，对吗？")
    (found,) = call("data", "contamination", str(data), "--against", str(test), "--json").one()
    assert found["places"] == [{"question": 1, "record": 2, "kind": kind}] and found["questions"] == 2
    assert found["nearest_not_found"]["question"] == 2 and found["nearest_not_found"]["jaccard"] < 0.8


WORDS = st.lists(st.text("头痛发热咳", max_size=6), min_size=1, max_size=6)


@given(WORDS, WORDS)
def test_the_nearest_pair_is_that_of_a_comparison_of_all(texts: list[str], others: list[str]) -> None:
    def jaccard(one: str, other: str) -> float:
        first, second = ({text[at : at + 2] for at in range(max(1, len(text) - 1))} for text in (one, other))
        return len(first & second) / len(first | second)

    found = nearest(texts, others)
    assert found and found.jaccard == max(jaccard(one, other) for one in texts for other in others)
    assert jaccard(texts[found.first], others[found.second]) == found.jaccard
    assert nearest([], others) is None is nearest(texts, [])


def test_the_question_nearest_to_the_data_is_named(call: Call, tmp_path: Path) -> None:
    data = questions(tmp_path / "d.jsonl", "失眠怎么办？", "肺炎患者需要做哪些检查？")
    test = questions(tmp_path / "t.jsonl", "失眠怎么办？", "牙痛是什么原因？", "肺炎有哪些检查可以做？")
    said = call("data", "contamination", str(data), "--against", str(test)).out
    assert "第 3 题，第 2 条，Jaccard 0." in said
    same = call("data", "contamination", str(data), "--against", str(data), "--json").one()
    assert same[0]["found"] == 2 and same[0]["nearest_not_found"] is None


def test_a_question_inside_a_dialogue_or_an_alike_one_is_found_and_cleaned_away(
    call: Call, tmp_path: Path
) -> None:
    wanted, other = PAIRS[0]["first"], PAIRS[0]["second"]
    dialogue = f" <user>: 你好 <bot>: 您好 <user>: {wanted} <bot>: 看医生。 <user>: 谢谢"
    told = f"有人问我：{wanted}我想了解一下。"
    data = questions(tmp_path / "d.jsonl", dialogue, "失眠怎么办？", told, other)
    test = questions(tmp_path / "t.jsonl", wanted)
    target = tmp_path / "clean.jsonl"
    done = call("data", "contamination", str(data), "--against", str(test), "--output", str(target))
    assert done.code == 0 and "1 题中有 1 题" in done.out
    assert lines_of(target) == lines_of(data)[1:2]
    for only, kind in ((2, "inside"), (3, "alike")):
        alone = write_lines(tmp_path / "alone.jsonl", [lines_of(data)[only]])
        (found,) = call("data", "contamination", str(alone), "--against", str(test), "--json").one()
        assert [place["kind"] for place in found["places"]] == [kind]


@published
@pytest.mark.slow
def test_the_published_test_questions_stand_in_the_published_data(call: Call) -> None:
    against = [
        str(SHARED / "data" / name)
        for name in ("infer.json", "cmcoqa_question.json", "med_chatglm_train.txt")
    ]
    flags = [word for name in against for word in ("--against", name)]
    infer, cmcoqa, chatglm = call("data", "contamination", str(LLAMA), *flags, "--json").one()
    assert (infer["found"], infer["questions"]) == (5, 5) and (cmcoqa["found"], cmcoqa["questions"]) == (
        0,
        200,
    )
    assert cmcoqa["nearest_not_found"]["jaccard"] == pytest.approx(0.36, abs=0.005)
    assert (chatglm["exact"], chatglm["questions"]) == (6929, 7622)
    # Of the questions that stand there several times each once.
    exact = {place["question"] - 1 for place in chatglm["places"] if place["kind"] == "exact"}
    asked = [record["context"] for record in lines_of(Path(against[-1]))]
    assert len({text for number, text in enumerate(asked) if number in exact}) == 6919


# ---------------------------------------------------------------- redact


def test_what_identifies_a_person_gets_a_label_and_the_rest_stays(call: Call, tmp_path: Path) -> None:
    records = [
        {"instruction": "我叫王小明，电话13812345678，头痛怎么办？", "output": "多休息。", "id": 13812345678},
        {
            "messages": [
                {"role": "user", "content": "身份证号11010519491231002X"},
                {"role": "assistant", "content": "好"},
            ]
        },
        {"instruction": "体温38.5度，血压120/80", "output": "观察。", "provenance": {"file": "13812345678"}},
    ]
    data = write_lines(tmp_path / "d.jsonl", records)
    done = call("data", "redact", str(data), "--output", str(tmp_path / "out.jsonl"))
    first, second, third = lines_of(tmp_path / "out.jsonl")
    assert first["instruction"] == "我叫[姓名]，电话[电话]，头痛怎么办？" and first["id"] == 13812345678
    assert second["messages"][0]["content"] == "身份证号[证件号]" and third == records[2]
    assert done.code == 0 and all(f"{kind} 1" in done.err for kind in ("id", "name", "phone"))


def test_the_labels_are_chinese_in_either_interface_language(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCHAT_LANG", "en")
    data = questions(tmp_path / "d.jsonl", "我的电话是13812345678")
    done = call("data", "redact", str(data), "--output", str(tmp_path / "out.jsonl"))
    assert "[电话]" in lines_of(tmp_path / "out.jsonl")[0]["instruction"] and "1 records" in done.err


# ---------------------------------------------------------------- mix


@pytest.mark.parametrize(
    ("sizes", "shares", "total", "counts"),
    [
        ((100, 100), (3, 1), None, [100, 33]),
        ((30, 100), (3, 1), None, [30, 10]),
        ((100, 100), (1, 1), 5, [3, 2]),
        ((10, 10, 10), (1, 1, 1), 10, [4, 3, 3]),
        ((100, 100), (0.9, 0.1), 10, [9, 1]),
    ],
)
def test_a_mixture_has_the_shares_and_no_record_twice(
    sizes: tuple[int, ...], shares: tuple[float, ...], total: int | None, counts: list[int]
) -> None:
    assert mixed_counts(sizes, shares, total) == counts


def test_files_are_mixed_shuffled_and_the_same_by_seed(call: Call, tmp_path: Path) -> None:
    one = questions(tmp_path / "a.jsonl", *(f"甲{number}" for number in range(30)))
    two = questions(tmp_path / "b.jsonl", *(f"乙{number}" for number in range(30)))
    for name in ("x.jsonl", "y.jsonl"):
        done = call("data", "mix", f"{one}=2", f"{two}=1", "--total", "30", "--output", str(tmp_path / name))
        assert done.code == 0 and "30 条中的 20 条" in done.err
    asked = [row["instruction"] for row in lines_of(tmp_path / "x.jsonl")]
    assert len(set(asked)) == 30 and sum(text.startswith("甲") for text in asked) == 20
    assert (
        asked != sorted(asked) and (tmp_path / "x.jsonl").read_bytes() == (tmp_path / "y.jsonl").read_bytes()
    )


@pytest.mark.parametrize("part", ["=1", "a.jsonl", "a.jsonl=0", "a.jsonl=x", "a.jsonl=nan"])
def test_a_part_without_a_share_is_refused_with_an_example(call: Call, tmp_path: Path, part: str) -> None:
    refused = call("data", "mix", part, "--output", str(tmp_path / "o.jsonl"))
    assert refused.code == 2 and "general.jsonl=1" in refused.failure()[1]


def test_more_than_there_is_is_refused_by_the_name_of_the_file(call: Call, tmp_path: Path) -> None:
    one = questions(tmp_path / "a.jsonl", "甲")
    refused = call("data", "mix", f"{one}=1", "--total", "2", "--output", str(tmp_path / "o.jsonl"))
    assert refused.code == 6 and "a.jsonl" in refused.failure()[0] and not (tmp_path / "o.jsonl").exists()


def test_a_json_file_of_the_groups_is_plain(call: Call, tmp_path: Path) -> None:
    data = questions(
        tmp_path / "d.jsonl", "甲\x1b[2J病怎么治疗才能好得快？", "甲\x1b[2J病怎么治疗才能好得快？"
    )
    shown = call("data", "dedup", str(data))
    assert (
        "\x1b" not in shown.out and json.loads(call("data", "dedup", str(data), "--json").out)["removed"] == 1
    )
