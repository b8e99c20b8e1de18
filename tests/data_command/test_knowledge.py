"""Knowledge records are read in the three forms in which people have them, and what says nothing is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from knowledge_files import write_lines
from medchat_data.knowledge import KnowledgeRecord, read_knowledge

from medchat.plugin_kit import CheckpointError, DataError

SAID = {"临床表现": ("发热", "咳嗽"), "检查": ("胸部X线",)}


def read(path: Path) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
    return [(record.centre, dict(record.relations)) for record in read_knowledge(path).records]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "lines.jsonl",
            '{"中心词": "肺炎", "临床表现": ["发热", "咳嗽。", "发热"], "检查": "胸部X线", "病因": []}\n',
        ),
        (
            "array.json",
            '[{"class": "常见病", "中心词": " 肺炎 ", "临床表现": ["发热", "咳嗽"], "检查": ["胸部X线"]}]',
        ),
        (
            "triples.json",
            '[{"text": "…", "spo_list": [["肺炎", "临床表现", "发热"], ["肺炎", "检查", "胸部X线"]]},'
            ' {"text": "…", "spo_list": [["肺炎", "临床表现", "咳嗽"], ["肺炎", "临床表现", "发热"]]}]',
        ),
        ("table.csv", "disease,symptom,test,drug\n肺炎,发热；咳嗽,胸部X线,\n"),
        ("table.tsv", "疾病\t临床表现\t检查\n肺炎\t发热、咳嗽\t胸部X线\n"),
    ],
)
def test_each_form_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert read(path) == [("肺炎", SAID)]


def test_triples_of_several_subjects_become_a_record_each_in_the_files_order(tmp_path: Path) -> None:
    triples = [["乙", "检查", "三"], ["甲", "检查", "一"]], [["乙", "检查", "四"]]
    path = write_lines(tmp_path / "k.jsonl", [{"spo_list": one} for one in triples])
    assert read(path) == [("乙", {"检查": ("三", "四")}), ("甲", {"检查": ("一",)})]


def test_the_digest_is_of_what_is_said_wherever_it_stands() -> None:
    one = KnowledgeRecord("1", 1, "甲", {"检查": ("一",)})
    assert one.sha256 == KnowledgeRecord("9", 7, "甲", {"检查": ("一",)}).sha256
    assert one.sha256 != KnowledgeRecord("1", 1, "甲", {"检查": ("二",)}).sha256
    assert one.sha256 != KnowledgeRecord("1", 1, "乙", {"检查": ("一",)}).sha256


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("[1, 2]", "JSON 对象"),
        ('{"临床表现": ["发热"]}', "中心词"),
        ('{"中心词": "  。", "临床表现": ["发热"]}', "中心词"),
        ('{"中心词": 7, "临床表现": ["发热"]}', "中心词"),
        ('{"中心词": "甲", "来源": "某处", "临床表现": ["", "；"]}', "没有任何知识"),
        ('{"中心词": "甲", "临床表现": [["发热"]]}', "文本的列表"),
        ('{"spo_list": [["甲", "检查"]]}', "三元组"),
        ('{"spo_list": "甲"}', "三元组"),
        (r'{"中心词": "甲", "临床表现": ["\ud800"]}', "Unicode"),
        ('{"中心词": "甲", "临床表现": ["<user>: 问 <bot>: 答"]}', "<user>:"),
        ('{"中心词": "甲", ', "JSON"),
    ],
)
def test_what_says_nothing_is_named_with_its_line_and_the_rest_is_read(
    tmp_path: Path, bad: str, said: str
) -> None:
    path = tmp_path / "k.jsonl"
    good = json.dumps({"中心词": "肺炎", **SAID}, ensure_ascii=False)
    path.write_text(f"{good}\n\n{bad}\n", encoding="utf-8")
    file = read_knowledge(path)
    assert [record.centre for record in file.records] == ["肺炎"]
    assert [(one.line, said in one.reason) for one in file.bad] == [(3, True)]


@pytest.mark.parametrize("content", ["", '{"question": "头痛？"}\n', "头痛怎么办\n"])
def test_a_file_without_knowledge_is_refused_with_where(tmp_path: Path, content: str) -> None:
    path = tmp_path / "k.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_knowledge(path)
    assert str(path) in caught.value.where and caught.value.remedy


def test_a_file_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="找不到"):
        read_knowledge(tmp_path / "absent.jsonl")


def test_a_record_of_a_number_keeps_it_and_others_are_counted(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"中心词": "甲", "检查": ["一"]},
        {"id": "kg-7", "中心词": "乙", "检查": ["二"]},
    ]
    ids = [record.id for record in read_knowledge(write_lines(tmp_path / "k.jsonl", records)).records]
    assert ids == ["1", "kg-7"]
