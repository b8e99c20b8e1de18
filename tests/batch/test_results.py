"""The result file through kills, torn lines and full disks; and what each line says."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from batch_program import Parrot, rows, without_seconds, write_questions
from hypothesis import given, settings
from hypothesis import strategies as st

from medchat.api import Completion, Finish, Text
from medchat.batch.prompts import QuestionPrompt
from medchat.batch.questions import Question
from medchat.batch.result_file import ResultFile
from medchat.batch.results import in_order, read_results, write_whole
from medchat.batch.rows import Provenance, answer_row, as_line
from medchat.datafiles.record import parse_record
from medchat.errors import DataError, MedchatError, UsageError

ANY_TEXT = st.text(st.characters(codec=None))
PROVENANCE = Provenance("model", "chatglm", (), "med_template", {"max_new_tokens": 4})


def row(index: int, answer: str = "答", question: str = "问") -> dict[str, Any]:
    asked = Question(index, index + 1, parse_record({"question": question}))
    prompt = QuestionPrompt(asked, (Text(question),), len(question), 0)
    return answer_row(prompt, Completion(answer, Finish.STOP, 1, 1), 0.5, PROVENANCE)


def written(path: Path, lines: Sequence[dict[str, Any]]) -> bytes:
    path.write_bytes(b"".join(map(as_line, lines)))
    return path.read_bytes()


@given(ANY_TEXT)
def test_an_answer_comes_back_exactly_and_stays_on_its_line(answer: str) -> None:
    line = as_line(row(0, answer))
    text = line.decode()
    assert json.loads(text)["answer"] == answer
    assert text.splitlines() == [text[:-1]]
    assert not set(text) & set("\x1b\x7f\x9b\u202e\u2066")


def test_chinese_is_readable_in_the_file() -> None:
    assert "头痛".encode() in as_line(row(0, question="头痛"))


@settings(max_examples=60)
@given(cut=st.integers(0), answers=st.lists(ANY_TEXT, min_size=1, max_size=3))
def test_a_file_torn_anywhere_is_repaired_to_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cut: int, answers: list[str]
) -> None:
    path = tmp_path_factory.mktemp("torn") / "answers.jsonl"
    content = written(path, [row(index, answer) for index, answer in enumerate(answers)])
    cut %= len(content) + 1
    path.write_bytes(content[:cut])
    opened = ResultFile.open(path)
    kept = [line.index for line in opened.written.lines]
    opened.append([row(index, answers[index]) for index in range(len(kept), len(answers))])
    opened.close()
    assert path.read_bytes() == content
    # Only the newline may be missing from a line that counts as whole.
    assert len(kept) - content[:cut].count(b"\n") in (0, 1)


@pytest.mark.parametrize(
    "tail", [b"\0" * 4096, b'{"index": 1, "quest\0\0\0', b'{"ind', b'{"index": 1, "ans\n', b"{"]
)
def test_what_a_power_cut_leaves_at_the_end_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    whole = written(path, [row(0)])
    path.write_bytes(whole + tail)
    opened = ResultFile.open(path)
    opened.close()
    assert opened.written.torn == len(tail)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [b"my notes", b"my notes\n", b'{"question": "a"}\n', b"[1, 2]\n", b'{"index": "0"}\n', b"\xff\xfe"],
)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    for before, line in ((b"", 1), (as_line(row(0)), 2)):
        path.write_bytes(before + content)
        with pytest.raises(DataError) as caught:
            ResultFile.open(path)
        assert caught.value.where == f"{path}:{line}"
        assert path.read_bytes() == before + content


def test_damage_before_the_last_line_is_named_not_dropped(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(as_line(row(0)) + b'{"index": 1, "ques\n' + as_line(row(2)))
    with pytest.raises(DataError) as caught:
        read_results(path)
    assert caught.value.where == f"{path}:2"


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first = ResultFile.open(path)
    with pytest.raises(UsageError):
        ResultFile.open(path)
    first.append([row(0)])
    first.close()
    second = ResultFile.open(path)
    assert [line.index for line in second.written.lines] == [0]
    second.close()


def test_lines_are_put_in_order_and_the_last_of_each_counts(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    written(path, [row(2), row(0, "old"), row(1), row(0, "new")])
    path.chmod(0o640)
    lines = in_order(read_results(path).lines)
    write_whole(path, lines)
    assert [(line["index"], line["answer"]) for line in rows(path)] == [(0, "new"), (1, "答"), (2, "答")]
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    content = written(path, [row(1), row(0)])
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(5, "broken disk")))
    with pytest.raises(MedchatError) as caught:
        write_whole(path, in_order(read_results(path).lines))
    assert "broken disk" in caught.value.what
    opened = ResultFile.open(path)
    with pytest.raises(MedchatError):
        opened.append([row(2)])
    opened.close()
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_every_whole_answer_and_resume_goes_on(tmp_path: Path) -> None:
    parrot = Parrot(tmp_path / "parrot")
    questions = write_questions(tmp_path / "questions.jsonl", 20)
    whole, output = tmp_path / "whole.jsonl", tmp_path / "answers.jsonl"
    parrot.infer(questions, whole)
    # Files may not grow beyond half of what is needed: the write that would is cut short.
    limit = whole.stat().st_size // 2
    parrot.environment["MEDCHAT_HOME"] = str(tmp_path / "home")
    ended = parrot.infer(questions, output, "--batch-size", "3", file_limit=limit)
    assert ended.returncode == 1 and str(output) in ended.stderr and "--resume" in ended.stderr
    kept = rows(output)
    assert 3 <= len(kept) < 20 and len(kept) % 3 == 0
    assert parrot.infer(questions, output, "--resume", "--batch-size", "3").returncode == 0
    assert without_seconds(rows(output)) == without_seconds(rows(whole))


def test_a_folder_that_is_not_there_is_made_private(tmp_path: Path) -> None:
    parrot = Parrot(tmp_path / "parrot")
    output = tmp_path / "results" / "today" / "answers.jsonl"
    assert parrot.infer(write_questions(tmp_path / "q.jsonl", 2), output).returncode == 0
    assert len(rows(output)) == 2
    assert output.parent.stat().st_mode & 0o777 == 0o700


def test_a_link_is_followed_not_replaced(tmp_path: Path) -> None:
    parrot = Parrot(tmp_path / "parrot")
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(real)
    assert parrot.infer(write_questions(tmp_path / "q.jsonl", 20), link).returncode == 0
    assert link.is_symlink() and len(rows(real)) == 20
