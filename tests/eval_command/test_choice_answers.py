"""`medchat eval choice --by answers`: answers of a server, kept as they come and never asked for twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call, Outcome
from openai_server import Asked, OpenAIServer, Reply, serving

pytest_plugins = ("cli_program",)

QUESTIONS = [
    {
        "id": f"q{number}",
        "question": f"第 {number} 题？",
        "options": ["甲项", "乙项", "丙项"],
        "answer": "ABC"[number % 3],
    }
    for number in range(6)
]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with serving() as running:
        running.reply_to = lambda asked: Reply(pieces=[f"本题选{right_letter(asked)}。"])
        yield running


def right_letter(asked: Asked) -> str:
    """Return the letter under which the right option is in the prompt."""
    prompt = asked.body["messages"][-1]["content"]
    number = int(prompt.partition("第 ")[2].partition(" 题")[0])
    text = QUESTIONS[number]["options"]["ABC".index(str(QUESTIONS[number]["answer"]))]  # type: ignore[index]
    return next(line[0] for line in prompt.splitlines() if line.endswith(f". {text}"))


def evaluate(call: Call, server: OpenAIServer, folder: Path, *flags: str) -> Outcome:
    questions = folder / "题目.jsonl"
    questions.write_text("".join(f"{json.dumps(one)}\n" for one in QUESTIONS), encoding="utf-8")
    model = ("--backbone", "remote", "--model", f"{server.url}#tiny")
    files = ("--file", str(questions), "--output", str(folder / "out"))
    return call("eval", "choice", "--by", "answers", *model, *files, *flags)


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))
    return found


def test_right_answers_in_words_score_one_in_every_order(
    call: Call, server: OpenAIServer, tmp_path: Path
) -> None:
    assert evaluate(call, server, tmp_path).code == 0
    metrics = results(tmp_path)["metrics"]
    assert {metrics[name]["value"] for name in ("accuracy", "accuracy_every_order", "parsed_rate")} == {1.0}
    assert len(server.questions) == 18 and results(tmp_path)["model"]["backbone"] == "remote"


def test_a_run_that_goes_on_asks_for_nothing_twice(call: Call, server: OpenAIServer, tmp_path: Path) -> None:
    evaluate(call, server, tmp_path)
    before = results(tmp_path)["metrics"]
    answers = tmp_path / "out" / "answers.jsonl"
    answers.write_bytes(b"".join(answers.read_bytes().splitlines(keepends=True)[:-4]))
    server.seen.clear()
    assert evaluate(call, server, tmp_path, "--resume").code == 0
    assert len(server.questions) == 4 and results(tmp_path)["metrics"] == before
    assert answers.stat().st_mode & 0o777 == 0o600


def test_answers_to_other_questions_are_not_taken(call: Call, server: OpenAIServer, tmp_path: Path) -> None:
    evaluate(call, server, tmp_path)
    refused = evaluate(call, server, tmp_path, "--resume", "--no-rotation")
    assert refused.code == 2 and "answers.jsonl" in refused.failure()[0]


def test_replies_that_choose_nothing_are_counted(call: Call, server: OpenAIServer, tmp_path: Path) -> None:
    server.reply_to = lambda asked: Reply(pieces=["抱歉，我无法回答。"])
    assert evaluate(call, server, tmp_path, "--no-rotation").code == 0
    found = results(tmp_path)
    assert (found["counts"]["unparsed"], found["metrics"]["parsed_rate"]["value"]) == (6, 0.0)
    assert found["items"][0]["reply"] == "抱歉，我无法回答。"
