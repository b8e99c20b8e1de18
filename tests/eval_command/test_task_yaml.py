"""Task files of lm-evaluation-harness: what runs code or fetches something is refused by name, the rest is read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from medchat_eval.task_yaml import read_task_file

from medchat.errors import CheckpointError, DataError

PLAIN = """\
task: plain
dataset_path: json
dataset_kwargs: {data_files: {test: q.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: [A, B]
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def written(folder: Path, text: str, name: str = "task.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plain_task_is_read_with_its_files_and_what_it_includes(tmp_path: Path) -> None:
    base = written(tmp_path, PLAIN, "_base")
    path = written(tmp_path, "include: _base\ntask: mine\ngroup: old_name_of_a_tag\nnum_fewshot: 2\n")
    task = read_task_file(path)
    assert (task.name, task.output_type, task.config["num_fewshot"]) == ("mine", "multiple_choice", 2)
    assert task.data == {"test": [tmp_path / "q.jsonl"]} and task.dataset == "json"
    assert task.files == {one: hashlib.sha256(one.read_bytes()).hexdigest() for one in (path, base)}
    assert (
        read_task_file(written(tmp_path, "include: [_base]\ndoc_to_text: !!str 问\n")).config["doc_to_text"]
        == "问"
    )


#: What is added to or put in place of a line of the plain task, and the words that name it, in the line that has it.
REFUSED = {
    "doc_to_text: !function utils.text": "!function utils.text",
    "process_docs: !function utils.process": "!function utils.process",
    "metric_list: [{metric: !function m.f1}]": "!function m.f1",
    "description: !!python/object/apply:os.system [ls]": "os.system",
    "doc_to_text: !!python/name:os.system ''": "os.system",
    "class: Task": "class",
    "class: !function task.Task": "!function",
    "custom_dataset: load": "custom_dataset",
    "process_results: f": "process_results",
    "use_prompt: promptsource:*": "use_prompt",
    "unsafe_code: true": "unsafe_code",
    "doc_to_image: [image]": "doc_to_image",
    "task_list: [{task: b}]": "task_list",
    "repeats: 5": "repeats",
    "something_new: 1": "something_new",
    "output_type: loglikelihood_rolling": "loglikelihood_rolling",
    "metric_list: [{metric: bertscore}]": "bertscore",
    "metric_list: [{metric: acc, hf_evaluate: true}]": "hf_evaluate",
    "metric_list: [acc]": "metric_list",
    "metric_list: [{metric: acc_mutual_info}]": "acc_mutual_info",
    "filter_list: [{name: x, filter: [{function: custom}]}]": "custom",
    "fewshot_config: {process_docs: f}": "process_docs",
    "fewshot_config: {sampler: mine}": "mine",
    "dataset_kwargs: {data_files: {test: 'https://example.com/q.jsonl'}}": "https://example.com",
    "dataset_kwargs: {data_files: 'zip://q.jsonl::https://example.com/a.zip'}": "example.com",
    "dataset_kwargs: {data_files: {test: ../q.jsonl}}": "../q.jsonl",
    "dataset_kwargs: {data_files: {test: /etc/passwd}}": "/etc/passwd",
    "dataset_kwargs: {trust_remote_code: true, data_files: {test: q.jsonl}}": "dataset_kwargs",
    "include: ../other.yaml": "../other.yaml",
    "include: /etc/hostname": "/etc/hostname",
    "include: [https://example.com/a.yaml]": "example.com",
    "include: task.yaml": "include",
    "metadata: &a {x: *a}": "YAML",
    "task: [a, b]": "task",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_runs_code_or_leaves_the_folder_is_refused_by_name_and_line(line: str, tmp_path: Path) -> None:
    key = line.partition(":")[0]
    kept = [one for one in PLAIN.splitlines() if one.partition(":")[0] != key]
    path = written(tmp_path, "\n".join([*kept, line]) + "\n")
    with pytest.raises(DataError) as refused:
        read_task_file(path)
    number = 1 if key == "task" else len(kept) + 1
    assert REFUSED[line] in refused.value.what and refused.value.where == f"{path}:{number}", refused.value


def test_a_link_out_of_the_folder_is_as_bad_as_the_path(tmp_path: Path) -> None:
    outside = written(tmp_path / "elsewhere", PLAIN, "base.yaml")
    folder = tmp_path / "tasks"
    path = written(folder, "include: base.yaml\n")
    (folder / "base.yaml").symlink_to(outside)
    with pytest.raises(DataError, match=r"base\.yaml"):
        read_task_file(path)


@pytest.mark.parametrize(
    ("text", "line"),
    [("task: [", 2), ("task: a\n\tb: c\n", 2), ("- a\n", 1), ("", 1), ("1: 2\n", 1), ("? [a]\n: b\n", 1)],
)
def test_what_is_no_task_is_named_with_its_line(text: str, line: int, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as refused:
        read_task_file(path)
    assert refused.value.where in (f"{path}:{line}", f"{path}:{line - 1}")


def test_a_file_that_is_not_there_and_one_that_is_too_large_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"No such file|没有"):
        read_task_file(tmp_path / "missing.yaml")
    with pytest.raises((CheckpointError, DataError)):
        read_task_file(written(tmp_path, "# " + "x" * (1 << 20) + "\n" + PLAIN))
