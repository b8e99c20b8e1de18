"""`medchat eval lm-eval`: published tasks on a model of ours, item by item as our own runner has it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call, Outcome
from evaluation_results import results_of
from medchat_eval.choice_file import option_letters, read_choice_file
from medchat_eval.choice_prompt import AskedChoice
from openai_server import OpenAIServer, Reply, serving

pytest_plugins = ("cli_program", "evaluated_models")
pytestmark = pytest.mark.torch

TASK = """\
task: our_choices
dataset_path: json
dataset_kwargs: {data_files: {test: records.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: letters
doc_to_target: right
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
ANSWERS = """\
task: in_words
dataset_path: json
dataset_kwargs: {data_files: {test: records.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["。"], max_gen_toks: 16, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
  - {metric: chrf, aggregation: chrf, higher_is_better: true}
"""


def written(folder: Path, task: str, records: Sequence[Mapping[str, Any]]) -> Path:
    (folder / "records.jsonl").write_text(
        "".join(f"{json.dumps(one)}\n" for one in records), encoding="utf-8"
    )
    path = folder / "task.yaml"
    path.write_text(task, encoding="utf-8")
    return path


def harness(call: Call, task: Path, *flags: str) -> Outcome:
    return call("eval", "lm-eval", "--task-file", str(task), "--output", str(task.parent / "out"), *flags)


def test_without_the_library_it_is_named(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    done = harness(call, written(tmp_path, TASK, []))
    assert done.code == 2 and "medchat[lm-eval]" in done.failure()[1] and not (tmp_path / "out").exists()


@pytest.fixture
def library() -> None:
    """Skip where the library is not installed: beside it, transformers takes seconds more to import."""
    pytest.importorskip("lm_eval", reason="medchat[lm-eval] is not installed")


@pytest.mark.slow
@pytest.mark.usefixtures("library")
class TestWithTheLibrary:
    def test_each_question_is_answered_as_by_our_own_runner(
        self, call: Call, tiny_llama: Path, tmp_path: Path
    ) -> None:
        questions = [
            {
                "question": f"第 {at} 题：哪个数最大？",
                "options": [f"{at * k % 7} 克" for k in range(3, 7)],
                "answer": "ABCD"[at % 4],
            }
            for at in range(24)
        ]
        file = tmp_path / "questions.jsonl"
        file.write_text("".join(f"{json.dumps(one)}\n" for one in questions), encoding="utf-8")
        model = ("--backbone", "llama", "--model", str(tiny_llama))
        ours = call(
            "eval", "choice", "--file", str(file), *model, "--no-rotation", "--output", str(tmp_path / "ours")
        )
        assert ours.code == 0, ours.err
        records = [
            {
                "id": item.id,
                "prompt": AskedChoice(item).prompt,
                "letters": [option_letters(frozenset({place})) for place in range(len(item.options))],
                "right": min(item.answer),
            }
            for item in read_choice_file(file).items
        ]
        done = harness(call, written(tmp_path, TASK, records), *model)
        assert done.code == 0, done.err
        own, theirs = results_of(tmp_path / "ours"), results_of(tmp_path / "out")
        assert [one["score"] for one in own["items"]] == [one["score"] for one in theirs["items"]]
        assert 0 < theirs["metrics"]["acc"]["value"] < 1
        assert theirs["metrics"]["acc"] == own["metrics"]["accuracy"]
        assert theirs["settings"]["task_version"] == 1.0 and theirs["task"] == "lm-eval-our_choices"
        assert [one["questions"] for one in theirs["data"]] == [0, 24]

    def test_a_published_task_takes_the_files_of_its_data_set(
        self, call: Call, tiny_llama: Path, tmp_path: Path
    ) -> None:
        from importlib.resources import files

        published = Path(str(files("lm_eval"))) / "tasks" / "cmmlu" / "cmmlu_anatomy.yaml"
        table = tmp_path / "test.csv"
        row = "{0},第 {0} 题？,甲,{0},丙,丁,{1}\n"
        table.write_text(
            ",Question,A,B,C,D,Answer\n" + "".join(row.format(at, "ABCD"[at % 4]) for at in range(8)),
            encoding="utf-8",
        )
        flags = ("--output", str(tmp_path / "out"), "--backbone", "llama", "--model", str(tiny_llama))
        lacking = call("eval", "lm-eval", "--task-file", str(published), *flags)
        assert lacking.code == 2 and "haonan-li/cmmlu anatomy" in lacking.failure()[0]
        data = ("--data", f"test={table}", "--data", f"dev={table}")
        done = call("eval", "lm-eval", "--task-file", str(published), *data, "--shots", "2", *flags)
        assert done.code == 0, done.err
        found = results_of(tmp_path / "out")
        assert found["metrics"]["acc"]["n"] == 8 and found["metrics"]["acc"]["chance"] == 0.25
        assert found["settings"]["shots"] == 2
        assert found["items"][5]["question"].count("答案：") == 3 and "B. 5" in found["items"][5]["question"]

    def test_answers_end_at_the_stop_text_and_are_not_asked_for_twice(
        self, call: Call, tmp_path: Path
    ) -> None:
        records = [{"question": f"{at} 加一等于几？", "answer": str(at + 1)} for at in range(4)]
        task = written(tmp_path, ANSWERS, records)
        with serving() as server:
            server.reply_to = lambda asked: answered(asked.body["messages"][-1]["content"])
            model = ("--backbone", "remote", "--model", f"{server.url}#tiny")
            assert harness(call, task, *model, "--min", "exact_match=0.7").code == 0
            assert asked_tokens(server) == {16} and len(server.questions) == 4
            assert harness(call, task, *model, "--resume", "--min", "exact_match=0.9").code == 7
            assert len(server.questions) == 4
        found = results_of(tmp_path / "out")
        assert [one["score"] for one in found["items"]] == [1.0, 1.0, 1.0, 0.0]
        assert [one["reply"] for one in found["items"]] == ["1", "2", "3", "不知道"]
        assert found["metrics"]["chrf"]["interval"][0] < found["metrics"]["chrf"]["value"]

    @pytest.mark.parametrize(
        "template",
        [
            "{{ prompt.__class__ }}",
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{{ prompt|attr('__class__') }}",
        ],
    )
    def test_a_template_reaches_nothing_of_python(
        self, template: str, call: Call, tiny_llama: Path, tmp_path: Path
    ) -> None:
        records = [{"prompt": "问", "letters": ["A", "B"], "right": 0}]
        task = written(tmp_path, TASK.replace("{{prompt}}", template), records)
        done = harness(call, task, "--backbone", "llama", "--model", str(tiny_llama))
        assert done.code == 6 and not (tmp_path / "out" / "results.json").exists(), done.err

    @pytest.mark.parametrize(
        ("changed", "names"),
        [({"right": 7}, "7"), ({"right": "Z"}, "Z"), ({"letters": None}, "task.yaml")],
    )
    def test_a_record_that_does_not_fit_the_task_is_named(
        self, changed: dict[str, Any], names: str, call: Call, tiny_llama: Path, tmp_path: Path
    ) -> None:
        good = {"prompt": "问", "letters": ["A", "B"], "right": 0}
        task = written(tmp_path, TASK, [good, good | changed])
        done = harness(call, task, "--backbone", "llama", "--model", str(tiny_llama))
        assert done.code == 6 and names in done.err and not (tmp_path / "out" / "results.json").exists()


def answered(question: str) -> Reply:
    number = int(question.split()[0])
    return Reply(pieces=[f"{number + 1}。还有", "别的"] if number < 3 else ["不知道"])


def asked_tokens(server: OpenAIServer) -> set[int]:
    return {asked.body["max_tokens"] for asked in server.questions}
