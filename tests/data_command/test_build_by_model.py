"""`medchat data build kg --writer remote|backbone`: what a model writes, what is rejected, budget, and resuming."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import medchat_remote.connection
import pytest
from cli_program import Call, Outcome, start
from faulty_writer import PASSING, SPOILT, FaultyWriter, kind_of, written
from knowledge_files import RECORDS, lines_of, write_lines
from medchat_data.drafts import read_draft
from medchat_data.knowledge import read_knowledge
from medchat_data.prompt_forms import FORMS, Knowledge, Sample, samples_of
from medchat_data.sample_prompt import prompt_for
from openai_server import OpenAIServer, Reply, refusal
from plugin_sites import echo_site
from remote_models import QUICK

from medchat.registry import Registry
from medchat.sft_job.data import read_training_data

pytest_plugins = ("cli_program", "plugin_sites", "remote_models")


@pytest.fixture
def knowledge(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "知识.jsonl", RECORDS)


@pytest.fixture
def writer(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyWriter]:
    monkeypatch.setattr(medchat_remote.connection, "RetrySchedule", lambda: QUICK)
    faulty = FaultyWriter(server)
    server.reply_to = faulty
    yield faulty


def words(knowledge: Path, server: OpenAIServer, *flags: str, name: str = "train.jsonl") -> list[str]:
    output = str(knowledge.with_name(name))
    of_model = ("--writer", "remote", "--model", f"{server.url}#tiny", "--output", output)
    return ["data", "build", "kg", str(knowledge), *of_model, *flags]


def built(knowledge: Path, name: str = "train.jsonl") -> list[dict[str, Any]]:
    return lines_of(knowledge.with_name(name))


def samples(knowledge: Path, seed: int = 0) -> list[Sample]:
    records = read_knowledge(knowledge).records
    return [one for record in records for one in samples_of(record, Knowledge(records), tuple(FORMS), seed)]


def sample_of(knowledge: Path, form: str, **wanted: str) -> Sample:
    found = (one for seed in range(40) for one in samples(knowledge, seed) if one.form == form)
    return next(one for one in found if all(getattr(one, name) == value for name, value in wanted.items()))


# ---------------------------------------------------------------- what is written


def test_eight_workers_at_an_endpoint_that_fails_in_every_way_write_exactly_what_can_be_written(
    call: Call, knowledge: Path, server: OpenAIServer, writer: FaultyWriter
) -> None:
    records = [{**one, "中心词": f"{one['中心词']}{number}"} for number in range(4) for one in RECORDS]
    write_lines(knowledge, records)
    done = call(*words(knowledge, server, "--concurrency", "8", "--rpm", "2400"))
    prompts = {prompt_for(sample): kind_of(prompt_for(sample)) for sample in samples(knowledge)}
    assert set(prompts.values()) >= {*SPOILT, *PASSING, "slow", "fine"}
    assert done.code == 0, done.err
    rows, rejects = built(knowledge), built(knowledge, "train.rejects.jsonl")
    spoilt = sum(kind in SPOILT for kind in prompts.values())
    assert Counter(row["code"] for row in rejects) == {"not-the-form": spoilt}
    assert len(rows) == len(prompts) - spoilt
    assert all(row["written"] and "JSON" in row["reason"] for row in rejects)
    indexes = [row["index"] for row in rows]
    assert indexes == sorted(indexes) and sorted(indexes + [row["index"] for row in rejects]) == list(
        range(len(prompts))
    )
    assert set(writer.asked) == set(prompts)
    assert all(writer.asked[one] == 1 + (kind in PASSING) for one, kind in prompts.items())
    assert server.most_under_way > 1
    # One second's worth (40) may come at once, the rest at 40 a second, with those that are asked again.
    assert writer.times[-1] - writer.times[0] > (writer.asked.total() - 41) / 40 * 0.9 > 0.5
    assert len(read_training_data(knowledge.with_name("train.jsonl")).examples) == len(rows)


def test_every_record_says_who_wrote_it_when_and_from_what(
    call: Call, knowledge: Path, server: OpenAIServer
) -> None:
    server.reply_to = lambda asked: Reply(pieces=(written(asked.body["messages"][-1]["content"]),))
    assert call(*words(knowledge, server)).code == 0
    rows = built(knowledge)
    assert {row["provenance"]["form"] for row in rows} == set(FORMS)
    for row in rows:
        origin = row["provenance"]
        assert (origin["writer"], origin["model"]["model"]) == ("remote", f"{server.url}#tiny")
        assert len(origin["prompt_sha256"]) == 64 and origin["prompt_version"] >= 1 and origin["date"]
        assert origin["verified"]["values_named"] and origin["sources"][0]["sha256"]
    follow_up = next(row for row in rows if row["provenance"]["form"] == "follow-up")
    assert follow_up["instruction"].count("<user>: ") == 2 and "<user>: 请问，" in follow_up["instruction"]
    for name in ("train.jsonl", "train.rejects.jsonl", "train.calls.jsonl"):
        assert knowledge.with_name(name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("form", "answer", "code"),
    [
        ("direct", {"question": "问？", "answer": "多休息。"}, "no-value-named"),
        (
            "case",
            {"question": "得了甲病怎么办？", "answer": "这是甲病，立即拨打120。"},
            "names-what-it-hides",
        ),
        ("direct", {"question": "问 <bot>: 答", "answer": "甲项检查"}, "turn-mark"),
        ("direct", {"question": "", "answer": "甲项检查"}, "not-the-form"),
        ("direct", {"question": "问", "answer": ["甲项检查"]}, "not-the-form"),
        ("direct", {"question": "问", "answer": "甲项检查", "分析": "…"}, "not-the-form"),
    ],
)
def test_what_does_not_keep_to_the_knowledge_or_the_form_is_a_reject(
    call: Call, knowledge: Path, server: OpenAIServer, form: str, answer: dict[str, Any], code: str
) -> None:
    write_lines(knowledge, [RECORDS[0]])
    server.reply_to = lambda asked: Reply(pieces=(json.dumps(answer, ensure_ascii=False),))
    assert call(*words(knowledge, server, "--forms", form)).code == 0
    assert code in {row["code"] for row in built(knowledge, "train.rejects.jsonl")}


@pytest.mark.safety
def test_an_answer_keeps_the_numbers_to_call_and_the_verdict_of_its_knowledge(knowledge: Path) -> None:
    def code(sample: Sample, answer: str) -> str:
        return read_draft(json.dumps({"question": "问", "answer": answer}, ensure_ascii=False), sample).code

    urgent = sample_of(knowledge, "case", hidden="甲病")
    assert code(urgent, "可能是甲病，喘不上气要马上打１２０。") == ""
    assert code(urgent, "可能是甲病，喘不上气要去医院。") == "help-left-out"
    right = sample_of(knowledge, "check", verdict="是")
    assert code(right, "是的，常见。120") == "" and code(right, "不是。120") == "verdict-changed"
    assert code(right, "这不能肯定。120") == "verdict-changed"
    left_open = sample_of(knowledge, "check", verdict="不能肯定")
    assert code(left_open, "目前不能肯定，请问医生。120") == ""
    assert code(left_open, "是的。120") == code(left_open, "不是。120") == "verdict-changed"
    myth = write_lines(knowledge, [{"中心词": "甲病", "常见误解": ["甲病会传染——甲病不传染"]}])
    wrong = sample_of(myth, "check")
    assert code(wrong, "这种说法不对，甲病不传染。") == ""
    assert code(wrong, "对，甲病会传染。") == "verdict-changed"


def test_an_answer_that_was_cut_off_is_a_reject(call: Call, knowledge: Path, server: OpenAIServer) -> None:
    server.reply_to = lambda asked: Reply(
        pieces=(written(asked.body["messages"][-1]["content"]),), finish="length"
    )
    assert call(*words(knowledge, server)).code == 0
    assert {row["code"] for row in built(knowledge, "train.rejects.jsonl")} == {"cut-off"}


def test_a_model_on_this_machine_writes_too(call: Call, knowledge: Path, site: Path) -> None:
    echo_site(site)
    Registry().backbone("echo").tiny(knowledge.with_name("model"))
    of_model = ("--writer", "backbone", "--backbone", "echo", "--model", str(knowledge.with_name("model")))
    done = call(
        "data", "build", "kg", str(knowledge), *of_model, "--output", str(knowledge.with_name("t.jsonl"))
    )
    assert done.code == 0, done.err
    rejects = built(knowledge, "t.rejects.jsonl")  # this model says back what it is asked
    assert {(row["provenance"]["writer"], row["code"]) for row in rejects} == {("backbone", "not-the-form")}
    assert [row["written"] for row in rejects] == [prompt_for(sample) for sample in samples(knowledge)]


# ---------------------------------------------------------------- money, and before the first call


def test_where_the_words_go_and_what_it_may_cost_is_said_before_the_first_call(
    call: Call, knowledge: Path, server: OpenAIServer, writer: FaultyWriter
) -> None:
    server.reply_to = lambda asked: refusal(401, "no")
    refused = call(*words(knowledge, server, "--price-in", "1", "--price-out", "2"))
    assert refused.code == 2
    where, cost = refused.err.index("发送到"), refused.err.index("费用至多约")
    assert where < cost < refused.err.index("错误：")


def test_the_address_never_comes_from_the_folder(
    call: Call, knowledge: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(knowledge.parent)
    Path("medchat.toml").write_text(f'model = "{server.url}#tiny"\n', encoding="utf-8")
    refused = call("data", "build", "kg", str(knowledge), "--writer", "remote", "--output", "t.jsonl")
    assert refused.code == 2 and "medchat.toml" in refused.failure()[0] and not server.seen


def test_a_budget_stops_before_it_is_passed_and_what_is_written_is_data(
    call: Call, knowledge: Path, server: OpenAIServer, writer: FaultyWriter
) -> None:
    prices = ("--price-in", "1000000", "--price-out", "1000000", "--max-new-tokens", "400")
    done = call(*words(knowledge, server, *prices, "--budget", "6000", "--concurrency", "4"))
    assert done.code == 1 and "--budget" in done.err and "--resume" in done.err
    rows = built(knowledge)
    assert 0 < len(rows) < len(samples(knowledge))
    usage = [row["prompt_tokens"] + row["tokens"] for row in built(knowledge, "train.calls.jsonl")]
    assert sum(usage) <= 6000
    writer.asked.clear()
    assert call(*words(knowledge, server, *prices, "--resume")).code == 0
    assert len(built(knowledge)) > len(rows)
    assert not set(writer.asked).intersection(
        row["prompt"] for row in built(knowledge, "train.calls.jsonl")[: len(usage)]
    )


def test_a_dry_run_shows_the_prompts_of_three_records_and_what_all_would_cost(
    call: Call, knowledge: Path, server: OpenAIServer
) -> None:
    shown = call(
        *("data", "build", "kg", str(knowledge), "--writer", "remote", "--dry-run"),
        *("--price-in", "1", "--price-out", "2"),
    )
    assert shown.code == 0 and "丙病" in shown.out and "〔丁药〕" not in shown.out
    assert f"共需调用 {len(samples(knowledge))} 次" in shown.out and "费用至多约" in shown.out
    assert not server.seen and [path.name for path in knowledge.parent.iterdir()] == [knowledge.name]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--budget", "1"), "--price-in"),
        (("--price-in", "1"), "--price-out"),
        (("--backbone", "llama"), "--writer backbone"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_before_any_call(
    call: Call, knowledge: Path, server: OpenAIServer, flags: tuple[str, ...], said: str
) -> None:
    refused = call(*words(knowledge, server, *flags))
    assert refused.code == 2 and said in refused.failure()[1] and not server.questions


def test_a_model_is_refused_for_the_writer_that_uses_none(call: Call, knowledge: Path) -> None:
    refused = call("data", "build", "kg", str(knowledge), "--model", "somewhere", "--output", "t.jsonl")
    assert refused.code == 2 and "--writer remote" in refused.failure()[1]


# ---------------------------------------------------------------- resuming


def test_calls_that_keep_failing_are_rejects_that_a_later_run_writes(
    call: Call, knowledge: Path, server: OpenAIServer, writer: FaultyWriter
) -> None:
    target = prompt_for(samples(knowledge)[2])
    server.reply_to = lambda asked: (
        Reply(pieces=("{",), cut=True)
        if asked.body["messages"][-1]["content"] == target
        else Reply(pieces=(written(asked.body["messages"][-1]["content"]),))
    )
    done = call(*words(knowledge, server))
    assert done.code == 1 and "call-failed 1" in done.err and "--resume" in done.err
    server.reply_to = lambda asked: Reply(pieces=(written(asked.body["messages"][-1]["content"]),))
    server.seen.clear()
    assert call(*words(knowledge, server, "--resume")).code == 0
    assert len(server.questions) == 1 and [row["index"] for row in built(knowledge)][2] == 2


def test_what_is_there_is_neither_replaced_nor_gone_on_with_unless_asked(
    call: Call, knowledge: Path, server: OpenAIServer, writer: FaultyWriter
) -> None:
    assert call("data", "build", "kg", str(knowledge), *words(knowledge, server)[-2:]).code == 0
    before = knowledge.with_name("train.jsonl").read_bytes()
    for flag in ((), ("--resume",)):
        refused = call(*words(knowledge, server, *flag))
        assert refused.code == 2 and "--overwrite" in refused.failure()[1] and not server.questions
    assert knowledge.with_name("train.jsonl").read_bytes() == before
    assert call(*words(knowledge, server, "--overwrite")).code == 0
    assert built(knowledge)[0]["provenance"]["writer"] == "remote"


def killed_and_resumed(knowledge: Path, server: OpenAIServer, writer: FaultyWriter, kills: int) -> None:
    """Kill a run again and again after some requests, continue each time, and compare with a run that was
    left alone.
    """
    calls = knowledge.with_name("cut.calls.jsonl")
    for number in range(kills):
        stored = {row["prompt"] for row in lines_of(calls)} if calls.exists() else set()
        before = Counter(writer.asked)
        process = start(*words(knowledge, server, "--concurrency", "8", "--resume", name="cut.jsonl"))
        enough = writer.asked.total() + 3 + number % 5
        while process.poll() is None and writer.asked.total() < enough:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        assert not stored.intersection(writer.asked - before), "a stored answer was asked for again"


def end_alike(call: Call, knowledge: Path, server: OpenAIServer) -> Outcome:
    done = call(*words(knowledge, server, "--concurrency", "8", "--resume", name="cut.jsonl"))
    assert call(*words(knowledge, server, "--concurrency", "3", name="whole.jsonl")).code == done.code == 0
    for kind in ("", ".rejects"):
        cut, whole = (knowledge.with_name(f"{name}{kind}.jsonl") for name in ("cut", "whole"))
        assert cut.read_bytes() == whole.read_bytes() and cut.stat().st_size
    return done


@pytest.mark.parametrize(
    ("kills", "copies"), [(2, 2), pytest.param(20, 12, marks=pytest.mark.slow)], ids=["twice", "20 times"]
)
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_files_and_repeats_no_stored_call(
    call: Call, knowledge: Path, server: OpenAIServer, writer: FaultyWriter, kills: int, copies: int
) -> None:
    records = [{**one, "中心词": f"{one['中心词']}{number}"} for number in range(copies) for one in RECORDS]
    write_lines(knowledge, records)
    killed_and_resumed(knowledge, server, writer, kills)
    end_alike(call, knowledge, server)
