"""What `infer --overwrite` takes the place of, and when: never before there is something to put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from batch_program import Parrot, rows, write_questions
from launched import launched

EARLIER = "earlier answers\n"


@pytest.fixture
def parrot(tmp_path: Path) -> Parrot:
    return Parrot(tmp_path / "parrot")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write_questions(tmp_path / "questions.jsonl", 5)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    path = folder / "answers.jsonl"
    path.write_text(EARLIER, encoding="utf-8")
    path.chmod(0o644)
    return path


def test_earlier_answers_stay_where_the_model_does_not_load(
    parrot: Parrot, questions: Path, output: Path
) -> None:
    (parrot.model / "config.json").write_text("no script", encoding="utf-8")
    ended = parrot.infer(questions, output, "--overwrite")
    assert ended.returncode == 5, ended.stderr  # the plugin's fault
    assert "没有改动" in ended.stderr and "--resume" not in ended.stderr
    assert output.read_text(encoding="utf-8") == EARLIER
    assert list(output.parent.iterdir()) == [output]


def test_earlier_answers_stay_until_the_first_new_one_is_written(
    parrot: Parrot, questions: Path, output: Path
) -> None:
    parrot.script(gate="第0题")
    running = parrot.start(questions, output, "--overwrite", "--batch-size", "1")
    while not parrot.calls() or "第0题" not in "".join(parrot.calls()[-1]["texts"]):
        assert running.poll() is None
        if output.read_text(encoding="utf-8") == EARLIER:
            continue
        assert len(rows(output)) >= 1
    (parrot.model / "gate").touch()
    _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert len(rows(output)) == 5
    assert output.stat().st_mode & 0o777 == 0o600
    assert list(output.parent.iterdir()) == [output]


def test_killed_before_the_first_answer_nothing_is_lost_and_the_next_run_works(
    parrot: Parrot, questions: Path, output: Path
) -> None:
    parrot.script(seconds=60)
    running = parrot.start(questions, output, "--overwrite")
    while not parrot.calls():
        assert running.poll() is None
    running.kill()
    running.communicate()
    assert output.read_text(encoding="utf-8") == EARLIER
    parrot.script()
    assert parrot.infer(questions, output, "--overwrite").returncode == 0
    assert len(rows(output)) == 5 and list(output.parent.iterdir()) == [output]


def test_a_full_disk_at_the_first_answer_keeps_the_earlier_ones(
    parrot: Parrot, questions: Path, output: Path
) -> None:
    ended = parrot.infer(questions, output, "--overwrite", file_limit=100)
    assert ended.returncode == 1, ended.stderr
    assert output.read_text(encoding="utf-8") == EARLIER
    assert list(output.parent.iterdir()) == [output]


def test_other_names_of_the_earlier_file_keep_it(parrot: Parrot, questions: Path, output: Path) -> None:
    other = output.with_name("kept.jsonl")
    other.hardlink_to(output)
    assert parrot.infer(questions, output, "--overwrite").returncode == 0
    assert len(rows(output)) == 5
    assert other.read_text(encoding="utf-8") == EARLIER


def test_the_same_file_is_recognized_under_any_name(parrot: Parrot, questions: Path) -> None:
    before = questions.read_bytes()
    hard, soft, part = (questions.with_name(name) for name in ("hard.jsonl", "soft.jsonl", "x.part-1"))
    hard.hardlink_to(questions)
    soft.symlink_to(questions)
    template = questions.with_name("mine.json")
    template.write_text('{"prompt_input": "{instruction}{input}", "prompt_no_input": "{instruction}"}')
    part.hardlink_to(questions)
    for data, output, more in (
        (questions, questions, ()),
        (questions, hard, ()),
        (questions, soft, ()),
        (part, questions.with_name("x"), ()),
        (questions, template, ("--template", str(template))),
    ):
        ended = parrot.infer(data, output, "--overwrite", *more)
        assert ended.returncode == 2 and "同一个文件" in ended.stderr, ended.stderr
    assert questions.read_bytes() == before and parrot.calls() == []
    assert template.read_text().startswith('{"prompt_input"')


def test_what_is_no_ordinary_file_is_refused(parrot: Parrot, questions: Path, output: Path) -> None:
    fifo = output.with_name("fifo")
    os.mkfifo(fifo)
    for place in (fifo, output.parent, Path(os.devnull)):
        ended = parrot.infer(questions, place, "--overwrite")
        assert ended.returncode == 2 and "普通文件" in ended.stderr, ended.stderr


def test_an_earlier_file_becomes_private_when_a_run_goes_on_with_it(
    parrot: Parrot, questions: Path, output: Path
) -> None:
    assert parrot.infer(questions, output, "--overwrite").returncode == 0
    output.chmod(0o644)
    assert parrot.infer(questions, output, "--resume").returncode == 0
    assert output.stat().st_mode & 0o777 == 0o600


def test_a_stopped_overwrite_says_how_to_go_on(parrot: Parrot, questions: Path, output: Path) -> None:
    parrot.script(fails=["第4题", "第2题", "第0题"])  # the shortest prompts, which come last
    ended = parrot.infer(questions, output, "--overwrite", "--batch-size", "1")
    assert ended.returncode == 1 and "换成 --resume" in ended.stderr, ended.stderr
    assert "2/5" in ended.stderr and sum(row["finish"] != "error" for row in rows(output)) == 2
    assert parrot.infer(questions, output, "--resume", "--limit", "3").returncode == 1


def test_failures_alone_take_no_answers_place(parrot: Parrot, questions: Path, output: Path) -> None:
    parrot.script(fails=["第"])
    ended = parrot.infer(questions, output, "--overwrite", "--batch-size", "1")
    assert ended.returncode == 1 and "没有改动" in ended.stderr, ended.stderr
    assert output.read_text(encoding="utf-8") == EARLIER
    assert list(output.parent.iterdir()) == [output]


def test_several_processes_keep_what_was_there_until_each_has_an_answer(
    parrot: Parrot, questions: Path, output: Path
) -> None:
    parts = [output.with_name(f"answers.jsonl.part-{rank}") for rank in range(3)]
    for part in parts:
        part.write_text(EARLIER, encoding="utf-8")

    def both() -> list[int]:
        started = [
            parrot.start(
                questions,
                output,
                "--overwrite",
                environment=launched(rank, 2),
            )
            for rank in range(2)
        ]
        return [process.wait(60) for process in started]

    script = (parrot.model / "config.json").read_text()
    (parrot.model / "config.json").write_text("no script", encoding="utf-8")
    assert both() == [5, 5]  # the plugin fails while it loads
    assert {path.name: path.read_text(encoding="utf-8") for path in output.parent.iterdir()} == dict.fromkeys(
        [output.name, *(part.name for part in parts)], EARLIER
    )
    (parrot.model / "config.json").write_text(script, encoding="utf-8")
    assert both() == [0, 0]
    assert [row["index"] for row in rows(output)] == [0, 1, 2, 3, 4]
    assert list(output.parent.iterdir()) == [output]
