"""`medchat data build literature`: four stages, what fails in one is dropped, and nothing stored is asked again."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call, Outcome
from knowledge_files import lines_of, write_lines
from medchat_data.literature import LONGEST_TEXT, read_literature
from openai_server import Asked, OpenAIServer, Reply

from medchat.errors import DataError
from medchat.sft_job.data import read_training_data

pytest_plugins = ("cli_program", "remote_models")

TEXTS = (
    {"id": "a", "结论": "甲药可使肝癌患者的中位生存期延长到14个月。乙指标升高提示预后不良。", "摘要": "别的"},
    {"pmid": 77, "abstract": "丙手术后复发率为20%。"},
    {"abstract": "丁检查对早期病变的灵敏度不高。"},
)


class Reader:
    """An endpoint that goes through the four stages well, but for the stages that a test gives other words for."""

    def __init__(self, server: OpenAIServer, **instead: str) -> None:
        self.asked: Counter[str] = Counter()
        self._instead = instead
        server.reply_to = self

    def __call__(self, asked: Asked) -> Reply:
        prompt = asked.body["messages"][-1]["content"]
        stage, form = self._form(prompt)
        self.asked[prompt] += 1
        return Reply(pieces=(self._instead.get(stage) or json.dumps(form, ensure_ascii=False),))

    @staticmethod
    def _form(prompt: str) -> tuple[str, dict[str, Any]]:
        fields = dict(re.findall(r"^(文献|结论|提问|回答)：(.*)$", prompt, flags=re.MULTILINE))
        if "文献" in fields:
            return "statements", {"statements": [one for one in re.split("(?<=。)", fields["文献"]) if one]}
        statement = fields["结论"]
        if "回答" in fields:
            return "check", {"supported": "yes", "quote": statement[:8]}
        if "提问" in fields:
            return "answer", {"answer": f"不对，{statement}" if "是错的" in prompt else statement}
        return "question", {
            "question": f"听说{statement[:3]}没用吧？" if "误以为" in prompt else f"{statement[:3]}怎样？"
        }


def build(call: Call, path: Path, server: OpenAIServer, *flags: str) -> Outcome:
    of_model = ("--writer", "remote", "--model", f"{server.url}#tiny")
    output = ("--output", str(path.with_name("train.jsonl")))
    return call("data", "build", "literature", str(path), *of_model, *output, *flags)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "文献.jsonl", TEXTS)


def rows(texts: Path, kind: str = "") -> list[dict[str, Any]]:
    return lines_of(texts.with_name(f"train{kind}.jsonl"))


# ---------------------------------------------------------------- what is built


def test_every_answer_is_learned_in_its_dialogue_and_says_what_it_rests_on(
    call: Call, texts: Path, server: OpenAIServer
) -> None:
    Reader(server)
    done = build(call, texts, server, "--false-share", "0")
    assert done.code == 0, done.err
    found = rows(texts)
    assert [row["index"] for row in found] == [0, 1, 2, 3]
    assert found[0]["instruction"] == " <user>: 甲药可怎样？"
    assert found[1]["instruction"] == (
        " <user>: 甲药可怎样？ <bot>: 甲药可使肝癌患者的中位生存期延长到14个月。 <user>: 乙指标怎样？"
    )
    origin = found[1]["provenance"]
    assert (
        origin["statement"] == "乙指标升高提示预后不良。"
        and origin["verified"]["quote"] in origin["statement"]
    )
    assert origin["writer"] == "remote" and len(origin["prompts_sha256"]) == 4 and origin["date"]
    assert [row["provenance"]["sources"][0]["id"] for row in found] == ["a", "a", "77", "3"]
    read = read_training_data(texts.with_name("train.jsonl"))
    assert [len(example.turns) for example in read.examples] == [0, 1, 0, 0]
    assert call("data", "validate", str(texts.with_name("train.jsonl"))).code == 0


def test_a_false_assertion_is_corrected_and_a_share_of_the_questions_makes_one(
    call: Call, texts: Path, server: OpenAIServer
) -> None:
    Reader(server)
    assert build(call, texts, server, "--false-share", "1").code == 0
    assert all(row["provenance"]["asserts_false"] and row["output"].startswith("不对") for row in rows(texts))
    many = [{"text": f"第{number}药有效。"} for number in range(60)]
    write_lines(texts, many)
    assert build(call, texts, server, "--overwrite", "--concurrency", "8").code == 0
    share = sum(row["provenance"]["asserts_false"] for row in rows(texts)) / len(many)
    assert 0.05 < share < 0.4


@pytest.mark.parametrize(
    ("stage", "words", "code"),
    [
        ("statements", "结论有：甲药有效", "not-the-form"),
        ("statements", '{"statements": []}', "not-the-form"),
        ("statements", '{"statements": ["丙手术后复发率为25%。"]}', "number-not-in-text"),
        ("question", '好的：{"question": "问？"}', "not-the-form"),
        ("question", '{"question": "问 <bot>: 答"}', "turn-mark"),
        ("answer", '{"answer": "复发率为99%，不低。"}', "number-not-in-text"),
        ("check", '{"supported": "no", "quote": "丙手术后"}', "not-supported"),
        ("check", '{"supported": "yes", "quote": "不在里面的一段话"}', "quote-not-found"),
        ("check", '{"supported": "yes", "quote": "丙"}', "quote-not-found"),
        ("check", '{"supported": true, "quote": "丙手术后"}', "not-the-form"),
    ],
)
def test_what_fails_in_a_stage_is_dropped_there_with_its_reason(
    call: Call, texts: Path, server: OpenAIServer, stage: str, words: str, code: str
) -> None:
    write_lines(texts, TEXTS[1:2])
    Reader(server, **{stage: words})
    done = build(call, texts, server, "--false-share", "0")
    assert done.code == 0 and f"{code} 1" in done.err
    (reject,) = rows(texts, ".rejects")
    assert reject["code"] == code and reject["written"] in (words, "丙手术后复发率为25%。")
    assert reject["reason"] and not rows(texts)


@pytest.mark.parametrize("answer", ["是的，丙手术很好。", "丙手术后复发率为20%。"])
def test_an_answer_that_goes_along_with_what_is_false_is_dropped(
    call: Call, texts: Path, server: OpenAIServer, answer: str
) -> None:
    write_lines(texts, TEXTS[1:2])
    Reader(server, answer=json.dumps({"answer": answer}))
    build(call, texts, server, "--false-share", "1")
    assert [row["code"] for row in rows(texts, ".rejects")] == ["agrees-with-what-is-false"]


# ---------------------------------------------------------------- resuming, and before the first call


def test_a_run_that_ends_in_any_stage_goes_on_and_repeats_no_stored_call(
    call: Call, texts: Path, server: OpenAIServer
) -> None:
    reader = Reader(server)
    assert build(call, texts, server).code == 0
    whole = texts.with_name("train.jsonl").read_bytes()
    calls = texts.with_name("train.calls.jsonl")
    lines = calls.read_bytes().splitlines(keepends=True)
    for kept in (0, 2, 4, 7, len(lines)):
        calls.write_bytes(b"".join(lines[:kept]))
        reader.asked.clear()
        assert build(call, texts, server, "--resume").code == 0
        assert (
            reader.asked.total() == len(lines) - kept and texts.with_name("train.jsonl").read_bytes() == whole
        )


def test_a_budget_ends_it_with_what_is_whole(call: Call, texts: Path, server: OpenAIServer) -> None:
    Reader(server)
    prices = ("--price-in", "1", "--price-out", "1000000", "--max-new-tokens", "100")
    done = build(call, texts, server, *prices, "--budget", "150")
    assert done.code == 1 and "--resume" in done.err
    assert len(rows(texts)) < 4
    assert build(call, texts, server, *prices, "--resume").code == 0 and len(rows(texts)) == 4


def test_a_dry_run_asks_nobody(call: Call, texts: Path, server: OpenAIServer) -> None:
    shown = build(call, texts, server, "--dry-run")
    assert shown.code == 0 and TEXTS[2]["abstract"] in shown.out and "共需调用 3 次" in shown.out
    assert "至多 48 次调用" in shown.err and not server.seen


# ---------------------------------------------------------------- what is read


def test_texts_come_from_json_tables_and_paragraphs(tmp_path: Path) -> None:
    array, table, plain = (tmp_path / name for name in ("a.json", "t.csv", "p.txt"))
    array.write_text(json.dumps([{"Abstract": "甲。"}, {"text": "甲。"}, {"text": ""}]), encoding="utf-8")
    table.write_text("pmid,abstract\n7,乙。\n", encoding="utf-8")
    plain.write_text("第一段的\n第二行。\n\n\n另一段。\n", encoding="utf-8")
    read = read_literature(array)
    assert [source.text for source in read.sources] == ["甲。"] and len(read.bad) == 1
    assert [(one.id, one.text) for one in read_literature(table).sources] == [("7", "乙。")]
    found = [(source.line, source.text) for source in read_literature(plain).sources]
    assert found == [(1, "第一段的第二行。"), (5, "另一段。")]


@pytest.mark.parametrize(
    "value", [{"title": "无"}, {"text": "长" * (LONGEST_TEXT + 1)}, {"text": "a <user>: b"}, {"text": 5}]
)
def test_a_file_without_a_usable_text_is_named_with_its_line(tmp_path: Path, value: object) -> None:
    path = write_lines(tmp_path / "x.jsonl", [value])
    with pytest.raises(DataError) as raised:
        read_literature(path)
    assert raised.value.where == f"{path}:1" and raised.value.remedy
