"""`medchat infer` as a user types it, with a plugin that needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from batch_program import Parrot, rows, without_seconds, write_questions

from medchat.medical_safety import ai_mark, start_line


@pytest.fixture
def parrot(tmp_path: Path) -> Parrot:
    return Parrot(tmp_path / "parrot")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write_questions(tmp_path / "questions.jsonl", 20)


def test_every_question_is_answered_in_the_order_of_the_file(parrot: Parrot, questions: Path) -> None:
    output = questions.with_name("answers.jsonl")
    ended = parrot.infer(questions, output)
    assert ended.returncode == 0, ended.stderr
    lines = rows(output)
    assert [line["index"] for line in lines] == list(range(20))
    assert [line["question"] for line in lines] == [line["question"] for line in rows(questions)]
    for line in lines:
        assert line["answer"].startswith("\n:答回 ###\n" + line["question"][::-1])
        assert (line["finish"], line["model"], line["adapter"]) == ("stop", str(parrot.model), [])
        assert (line["template"], line["backbone"]) == ("med_template", "parrot")
        assert line["tokens"] == len(line["answer"])
        assert line["prompt_tokens"] > len(line["question"])
        assert line["seconds"] >= 0
        assert line["disclaimer"] == ai_mark()
        assert line["AIGC"]["Label"] == "1"
    assert ended.stdout == ""
    assert start_line() in ended.stderr and ai_mark() in ended.stderr and "20/20" in ended.stderr
    assert output.stat().st_mode & 0o777 == 0o600


def test_a_batch_holds_prompts_of_about_one_length(parrot: Parrot, questions: Path) -> None:
    parrot.infer(questions, questions.with_name("answers.jsonl"), "--batch-size", "5")
    lengths = [[len(text) for text in call["texts"]] for call in parrot.calls()]
    assert [len(batch) for batch in lengths] == [5, 5, 5, 5]
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True) and flat[0] > flat[-1]


def test_exact_asks_one_question_at_a_time_and_is_not_mixed(parrot: Parrot, questions: Path) -> None:
    output = questions.with_name("answers.jsonl")
    refused(parrot, questions, output, "--exact", "--batch-size", "2", code=2, names="--exact")
    assert parrot.infer(questions, output, "--exact").returncode == 0
    assert [len(call["texts"]) for call in parrot.calls()] == [1] * 20
    assert all(line["decoding"]["exact"] is True for line in rows(output))
    mixed = parrot.infer(questions, output, "--resume")
    assert mixed.returncode == 2 and "decoding" in mixed.stderr
    assert parrot.infer(questions, output, "--resume", "--exact").returncode == 0


def test_the_seconds_of_all_answers_are_the_time_spent(parrot: Parrot, tmp_path: Path) -> None:
    parrot.script(seconds=0.2)
    data = write_questions(tmp_path / "questions.jsonl", 8)
    parrot.infer(data, tmp_path / "answers.jsonl")
    # Each share is rounded when written, so the sum may fall a hair short.
    assert 0.2 - 1e-6 <= sum(line["seconds"] for line in rows(tmp_path / "answers.jsonl")) < 8 * 0.2


def test_references_ids_and_other_fields_go_with_the_answer(parrot: Parrot, tmp_path: Path) -> None:
    data, output = tmp_path / "data.json", tmp_path / "answers.jsonl"
    record = {"id": "a1", "instruction": "头痛", "input": "三天", "output": "休息", "ICD-10": "G44"}
    data.write_text(json.dumps([record, {"question": " <user>: 一 <bot>: 二 <user>: 三"}]), encoding="utf-8")
    ended = parrot.infer(data, output, "--template", "literature_template")
    first, second = rows(output)
    assert (first["id"], first["reference"], first["input"], first["extra"]) == (
        "a1",
        "休息",
        "三天",
        {"ICD-10": "G44"},
    )
    assert second["question"] == " <user>: 一 <bot>: 二 <user>: 三"
    assert second["turns"] == 1
    sent = parrot.calls()[0]["texts"]
    assert any("\n <user>: 一 <bot>: 二 <user>: 三\n" in text for text in sent)
    assert any("头痛\n三天" in text for text in sent)
    assert "单轮" not in ended.stderr


def test_a_dialogue_goes_as_it_stands_to_weights_trained_on_such_and_in_turns_to_others(
    parrot: Parrot, tmp_path: Path
) -> None:
    data = tmp_path / "data.txt"
    data.write_text("<user>: 一 <bot>: 二。<user>: 三\n", encoding="utf-8")
    parrot.infer(data, tmp_path / "dialogue.jsonl", "--template", "literature_template")
    parrot.infer(data, tmp_path / "turns.jsonl", "--template", "med_template")
    first, second = (call["texts"][0] for call in parrot.calls())
    assert "\n<user>: 一 <bot>: 二。<user>: 三\n" in first
    assert "### 问题:\n一\n### 回答:\n二。\n" in second and second.endswith("### 问题:\n三\n### 回答:\n")


def test_history_none_sends_the_last_question_alone(parrot: Parrot, tmp_path: Path) -> None:
    data, output = tmp_path / "data.json", tmp_path / "answers.jsonl"
    data.write_text('[" <user>: 一 <bot>: 二 <user>: 三"]', encoding="utf-8")
    parrot.infer(data, output, "--template", "literature_template", "--history", "none")
    assert "\n <user>: 三\n" in parrot.calls()[0]["texts"][0]


def test_a_single_turn_template_and_an_unused_input_are_said(parrot: Parrot, tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    records = [{"question": " <user>: 一 <bot>: 二 <user>: 三"}, {"question": "头痛", "input": "三天"}]
    data.write_text(json.dumps(records), encoding="utf-8")
    ended = parrot.infer(data, tmp_path / "answers.jsonl", "--template", "med_template")
    assert "多轮对话" in ended.stderr and "不使用 input" in ended.stderr


def test_decoding_is_greedy_unless_a_flag_asks_for_sampling(parrot: Parrot, tmp_path: Path) -> None:
    data = write_questions(tmp_path / "questions.jsonl", 1)
    for number, flags in enumerate([[], ["--num-beams", "4"], ["--top-p", "0.5"], ["--sample"]]):
        ended = parrot.infer(
            data, tmp_path / f"{number}.jsonl", *flags, environment={"MEDCHAT_TEMPERATURE": "0.3"}
        )
        assert ended.returncode == 0, ended.stderr
    configs = [call["config"] for call in parrot.calls()]
    assert ["greedy=True" in config for config in configs] == [True, True, False, False]
    assert "num_beams=4" in configs[1]
    (sampled,) = rows(tmp_path / "2.jsonl")
    assert (sampled["decoding"]["temperature"], sampled["decoding"]["top_p"]) == (0.3, 0.5)


def test_a_templates_stop_texts_reach_the_model_and_the_backbones_notice_the_user(
    parrot: Parrot, tmp_path: Path
) -> None:
    template = tmp_path / "mine.json"
    template.write_text('{"prompt_no_input": "Q: {instruction} A:", "stop": ["Q:"]}', encoding="utf-8")
    data = write_questions(tmp_path / "questions.jsonl", 1)
    ended = parrot.infer(data, tmp_path / "answers.jsonl", "--template", str(template))
    assert "stop=('Q:',)" in parrot.calls()[0]["config"]
    assert rows(tmp_path / "answers.jsonl")[0]["template"] == "mine"
    assert "the words stay in the cage" in ended.stderr and "a note" in ended.stderr


def test_only_the_first_questions_and_later_the_rest(parrot: Parrot, questions: Path) -> None:
    output = questions.with_name("answers.jsonl")
    parrot.infer(questions, output, "--limit", "3")
    assert [line["index"] for line in rows(output)] == [0, 1, 2]
    assert parrot.infer(questions, output, "--resume").returncode == 0
    assert [line["index"] for line in rows(output)] == list(range(20))
    assert sum(len(call["texts"]) for call in parrot.calls()) == 20


# ---------------------------------------------------------------- refusals before the model is loaded


def refused(parrot: Parrot, *arguments: object, code: int, names: str) -> None:
    data, output, *flags = arguments
    ended = parrot.infer(Path(str(data)), Path(str(output)), *map(str, flags))
    assert ended.returncode == code, ended.stderr
    assert names in ended.stderr and "下一步" in ended.stderr
    assert parrot.calls() == []


def test_answers_that_are_there_are_not_overwritten_unasked(parrot: Parrot, questions: Path) -> None:
    output = questions.with_name("answers.jsonl")
    output.write_text("words of somebody\n", encoding="utf-8")
    refused(parrot, questions, output, code=2, names="--overwrite")
    refused(parrot, questions, output, "--resume", code=6, names=f"{output}:1")
    assert output.read_text(encoding="utf-8") == "words of somebody\n"
    assert parrot.infer(questions, output, "--overwrite").returncode == 0
    assert len(rows(output)) == 20


def test_a_bad_record_is_named_with_its_line(parrot: Parrot, tmp_path: Path) -> None:
    data, output = tmp_path / "data.jsonl", tmp_path / "answers.jsonl"
    data.write_text('{"question": "一"}\n{"quest": "二"}\n{"question": "三"}\n', encoding="utf-8")
    refused(parrot, data, output, code=6, names=f"{data}:2")
    assert not output.exists()
    ended = parrot.infer(data, output, "--skip-bad")
    assert ended.returncode == 0, ended.stderr
    assert f"{data}:2" in ended.stderr
    assert [line["index"] for line in rows(output)] == [0, 2]


def test_missing_data_and_senseless_flags_are_refused(parrot: Parrot, questions: Path) -> None:
    output = questions.with_name("answers.jsonl")
    refused(parrot, questions.with_name("none.json"), output, code=3, names="none.json")
    refused(parrot, questions, questions, code=2, names="--output")
    refused(parrot, questions, output, "--resume", "--overwrite", code=2, names="--overwrite")
    refused(parrot, questions, output, "--batch-size", "0", code=2, names="batch-size")
    refused(parrot, questions, questions.parent, code=2, names=str(questions.parent))
    assert not output.exists()


# ---------------------------------------------------------------- questions that cannot be answered


def test_a_question_too_long_for_the_model_costs_only_itself(parrot: Parrot, tmp_path: Path) -> None:
    parrot.script(context=200)
    data, output = tmp_path / "data.jsonl", tmp_path / "answers.jsonl"
    records = [{"question": "一"}, {"question": "长" * 300}, {"question": "三"}]
    data.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    ended = parrot.infer(data, output)
    assert ended.returncode == 6
    assert f"{data}:2" in ended.stderr
    assert [line["finish"] for line in rows(output)] == ["stop", "error", "stop"]
    assert "300" in rows(output)[1]["error"] or "词元" in rows(output)[1]["error"]
    assert parrot.infer(data, output, "--resume", "--skip-bad").returncode == 0
    parrot.script(context=2048)
    assert parrot.infer(data, output, "--resume").returncode == 0
    assert [line["finish"] for line in rows(output)] == ["stop", "stop", "stop"]


def test_a_question_over_the_size_limit_costs_only_itself(parrot: Parrot, tmp_path: Path) -> None:
    data, output = tmp_path / "data.txt", tmp_path / "answers.jsonl"
    data.write_text("一\n" + "长" * 300 + "\n三\n", encoding="utf-8")
    ended = parrot.infer(data, output, environment={"MEDCHAT_MAX_QUESTION_BYTES": "500"})
    assert ended.returncode == 6
    assert f"{data}:2" in ended.stderr and "500" in rows(output)[1]["error"]
    assert sum(len(call["texts"]) for call in parrot.calls()) == 2


def test_a_long_dialogue_loses_its_oldest_turns_as_in_a_chat(parrot: Parrot, tmp_path: Path) -> None:
    parrot.script(context=400)
    data, output = tmp_path / "data.json", tmp_path / "answers.jsonl"
    history = [[f"问{number}" * 20, "答" * 40] for number in range(6)]
    data.write_text(json.dumps([{"question": "最后", "history": history}]), encoding="utf-8")
    assert parrot.infer(data, output).returncode == 0
    (line,) = rows(output)
    assert 0 < line["dropped_turns"] < 6
    assert line["prompt_tokens"] <= 300


@pytest.mark.parametrize("told", [False, True])
def test_running_out_of_memory_halves_the_batch_and_goes_on(
    parrot: Parrot, questions: Path, told: bool
) -> None:
    whole, halved = questions.with_name("whole.jsonl"), questions.with_name("halved.jsonl")
    parrot.infer(questions, whole)
    parrot.script(memory=3, told=told)
    ended = parrot.infer(questions, halved)
    assert ended.returncode == 0, ended.stderr
    assert "一批 4 个" in ended.stderr and "一批 2 个" in ended.stderr
    assert without_seconds(rows(halved)) == without_seconds(rows(whole))
    sizes = [len(call["texts"]) for call in parrot.calls()[3:]]
    assert sizes[:3] == [8, 4, 2] and max(sizes[3:]) == 2


def test_a_question_that_makes_the_model_fail_is_found_and_named(parrot: Parrot, questions: Path) -> None:
    output = questions.with_name("answers.jsonl")
    failing = [0, 3, 8, 13]  # more than end a run if they came one after the other
    parrot.script(fails=[f"第{number}题" for number in failing])
    ended = parrot.infer(questions, output, "--batch-size", "5")
    assert ended.returncode == 1, ended.stderr
    assert f"{questions}:14" in ended.stderr
    failed = [line for line in rows(output) if line["finish"] == "error"]
    assert [line["index"] for line in failed] == failing
    assert {(line["error"], line["error_code"]) for line in failed} == {("it failed", 1)}
    parrot.script()
    assert parrot.infer(questions, output, "--resume").returncode == 0
    assert all(line["finish"] == "stop" for line in rows(output))


def test_a_model_that_always_fails_ends_the_run(parrot: Parrot, questions: Path) -> None:
    output = questions.with_name("answers.jsonl")
    parrot.script(memory=0)
    ended = parrot.infer(questions, output)
    assert ended.returncode == 4 and "--resume" in ended.stderr
    assert len(parrot.calls()) < 10
    parrot.script(memory=0, told=True)
    assert parrot.infer(questions, output, "--overwrite").returncode == 4


def test_answers_written_otherwise_are_not_mixed_with_these(parrot: Parrot, questions: Path) -> None:
    output = questions.with_name("answers.jsonl")
    parrot.infer(questions, output, "--limit", "4")
    calls = len(parrot.calls())
    for flags, name in (["--max-new-tokens", "9"], "decoding"), (["--template", "alpaca"], "template"):
        ended = parrot.infer(questions, output, "--resume", *flags)
        assert ended.returncode == 2 and name in ended.stderr, ended.stderr
    other = write_questions(questions.with_name("other.jsonl"), 3)
    other.write_text(other.read_text(encoding="utf-8").replace("第1题", "别的"), encoding="utf-8")
    ended = parrot.infer(other, output, "--resume")
    assert ended.returncode == 6 and f"{output}:2" in ended.stderr
    assert len(parrot.calls()) == calls


# ---------------------------------------------------------------- looked at beforehand


def test_check_answers_nothing_and_leaves_nothing(parrot: Parrot, questions: Path) -> None:
    output = questions.with_name("new") / "answers.jsonl"
    ended = parrot.infer(questions, output, "--check")
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert "20" in ended.stderr and str(parrot.model) in ended.stderr
    assert not parrot.calls() and not output.parent.exists()


def test_check_refuses_what_the_run_would_refuse(parrot: Parrot, questions: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    unfit = tmp_path / "unfit"
    unfit.mkdir()
    (unfit / "of-another-base").touch()
    for data, flags, code, named in (
        (tmp_path / "none.json", [], 3, "none.json"),
        (questions, ["--adapter", str(tmp_path / "lora")], 3, "lora"),
        (questions, ["--adapter", str(unfit)], 3, str(unfit)),
        (questions, ["--template", "no_such"], 2, "no_such"),
    ):
        ended = parrot.infer(data, output, "--check", *flags)
        assert ended.returncode == code and named in ended.stderr, ended.stderr
    assert not output.exists()
    parrot.infer(questions, output, "--limit", "4")
    written, calls = output.read_bytes(), len(parrot.calls())
    assert parrot.infer(questions, output, "--check").returncode == 2
    assert parrot.infer(questions, output, "--check", "--resume").returncode == 0
    ended = parrot.infer(questions, output, "--check", "--resume", "--max-new-tokens", "9")
    assert ended.returncode == 2 and "decoding" in ended.stderr
    assert (output.read_bytes(), len(parrot.calls())) == (written, calls)


@pytest.mark.safety
def test_each_record_holds_what_its_words_and_those_before_them_call_for_and_the_summary_counts_them(
    parrot: Parrot, tmp_path: Path
) -> None:
    before = [
        {"role": "user", "content": "我刚吃了虾"},
        {"role": "assistant", "content": "多久了？"},
        {"role": "user", "content": "嘴唇肿起来了"},
    ]
    records: list[object] = [
        {"question": "感冒了吃什么好？"},
        {"question": "我想自杀"},
        {"instruction": "请回答下面的问题", "input": "我爸胸口疼，出冷汗"},
        {"messages": before},
    ]
    data, output = tmp_path / "data.json", tmp_path / "answers.jsonl"
    data.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    ended = parrot.infer(data, output)
    assert ended.returncode == 0, ended.stderr
    safety = [line["safety"] for line in rows(output)]
    keys = [[notice["key"] for notice in notices] for notices in safety]
    assert keys == [[], ["self-harm"], ["chest-pain"], ["anaphylaxis"]]
    assert all(set(notice) == {"key", "text", "urgent"} for notices in safety for notice in notices)
    assert ["answer_notices" in line for line in rows(output)] == [False, True, True, True]
    assert "3 个问题可能涉及紧急情况" in ended.stderr
