"""A model opened by a plugin's command: any backbone, with the notices, the counts and the results of `infer`."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from child_process import SOURCES, child_environment, run_python
from cli_program import FULL_EN, FULL_ZH, Call
from openai_server import OpenAIServer, Reply, refusal, serving
from plugin_sites import echo_site, example_site

from medchat import medical_safety, paths
from medchat.errors import DataError, UsageError
from medchat.plugin_kit import (
    AnswerFinished,
    AnswerPiece,
    Conversation,
    Finish,
    GenerationConfig,
    Segment,
    Turn,
    open_model,
    open_results,
    read_questions,
)
from medchat.registry import Registry

pytest_plugins = ("plugin_sites", "cli_program")


@pytest.fixture
def echo(site: Path, tmp_path: Path) -> dict[str, str]:
    """Install the echo example; give the flags that choose a model of it."""
    echo_site(site)
    Registry().backbone("echo").tiny(tmp_path / "model")
    return {"backbone": "echo", "model": str(tmp_path / "model")}


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------- asking


SCRIPT = """
from medchat.plugin_kit import open_model
with open_model(backbone='echo', model=MODEL) as opened:
    print(opened.ask('a').text)
"""


@pytest.mark.parametrize(
    ("environment", "configured", "language"),
    [
        ({"LANG": "en_US.UTF-8"}, "", "en"),
        ({"LANG": "zh_CN.UTF-8"}, "", "zh"),
        ({"LANG": "en_US.UTF-8", "MEDCHAT_LANG": "zh"}, "", "zh"),
        ({"LANG": "en_US.UTF-8"}, 'lang = "zh"', "zh"),
        ({"LANG": "C.UTF-8"}, 'lang = "en"', "en"),
    ],
)
def test_a_script_speaks_the_language_of_the_commands(
    echo: dict[str, str], site: Path, environment: dict[str, str], configured: str, language: str
) -> None:
    path = paths.config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(configured, encoding="utf-8")
    inherited = child_environment(PYTHONPATH=os.pathsep.join([*SOURCES, str(site)]), **environment)
    opened = run_python("-c", SCRIPT.replace("MODEL", repr(echo["model"])), environment=inherited)
    assert opened.returncode == 0, opened.stderr
    assert [text in opened.stderr.decode() for text in (FULL_ZH, FULL_EN)] == [
        language == "zh",
        language == "en",
    ]
    refused = run_python("-c", SCRIPT.replace("MODEL", "'/nowhere'"), environment=inherited).stderr.decode()
    assert refused.splitlines()[-1].isascii() is (language == "en")


def test_an_answer_comes_with_its_notices_and_its_counts(
    echo: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with open_model(echo) as opened:
        said = capsys.readouterr()
        answer = opened.ask("突然剧烈胸痛，喘不上气，大汗")
        assert any(notice.urgent and "120" in notice.text for notice in answer.notices)
        assert (answer.text, answer.finish) == ("突然剧烈胸痛，喘不上气，大汗", Finish.STOP)
        assert opened.ask("头痛").notices == ()
        assert (opened.spent.completion_tokens, opened.spent.cost) == (14 + 2, None)
        assert opened.provenance["backbone"] == opened.backbone == "echo"
        assert opened.mark == medical_safety.ai_mark()
    assert said.out == "" and medical_safety.start_line() in said.err


def test_single_flags_go_over_those_of_the_command(echo: dict[str, str]) -> None:
    with open_model({**echo, "max_new_tokens": 5}, max_new_tokens=2) as opened:
        assert opened.ask("一二三四五六").finish is Finish.LENGTH
        assert opened.spent.completion_tokens == 2


def test_a_seed_is_for_one_answer_and_leaves_the_flags_as_they_were(
    echo: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_model(echo, seed=3) as opened:
        seeds, stream = [], opened.model.stream

        def watched(segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event) -> Any:
            seeds.append(config.seed)
            return stream(segments, config, cancel)

        monkeypatch.setattr(opened.model, "stream", watched)
        for seed in (7, None, 0):
            opened.ask("头痛", seed=seed)
        with pytest.raises(UsageError, match="--seed"):
            opened.ask("头痛", seed=-1)
    assert seeds == [7, 3, 0]


def test_a_conversation_goes_on_piece_by_piece(echo: dict[str, str]) -> None:
    with open_model(echo) as opened:
        session = opened.chat(Conversation((Turn("发烧", "多喝水"),)))
        events = list(session.ask("头痛", threading.Event()))
        assert [event.text for event in events if isinstance(event, AnswerPiece)] == ["头", "痛"]
        assert isinstance(events[-1], AnswerFinished)
        assert [turn.question for turn in session.conversation.turns] == ["发烧", "头痛"]


def test_an_answer_that_is_stopped_before_its_first_word_is_empty(echo: dict[str, str]) -> None:
    stopped = threading.Event()
    stopped.set()
    with open_model(echo) as opened:
        assert opened.ask("头痛", cancel=stopped).finish is Finish.CANCELLED
        assert opened.spent.completion_tokens == 0


def test_what_is_wrong_shows_before_anything_is_loaded(echo: dict[str, str]) -> None:
    for wrong in ({"backbone": "ecco"}, {"temperature": 9.0}, {"template": "none-such"}):
        with pytest.raises(UsageError), open_model(echo, **wrong):
            pytest.fail("opened")


# ---------------------------------------------------------------- results


def test_results_that_a_kill_tore_are_gone_on_with_and_put_in_order(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt), open_results(path) as results:
        results.append({"index": 3, "score": 0.5})
        results.append({"index": 1, "finish": "error"})
        raise KeyboardInterrupt
    path.write_bytes(path.read_bytes() + b'{"index": 2, "sco')
    with open_results(path, resume=True) as results:
        assert results.done == {3}
        for index in (2, 1):
            results.append({"index": index, "text": "甲\u2028乙"})
    assert [row["index"] for row in rows(path)] == [1, 2, 3]
    assert path.stat().st_mode & 0o777 == 0o600


def test_results_that_are_there_are_never_lost_unasked(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with open_results(path) as results:
        results.append({"index": 0})
    for wrong in ({}, {"resume": True, "overwrite": True}):
        with pytest.raises(UsageError), open_results(path, **wrong):
            pytest.fail("opened")
    with pytest.raises(ZeroDivisionError), open_results(path, overwrite=True):
        1 / 0  # noqa: B018
    assert rows(path) == [{"index": 0}]
    with open_results(path, overwrite=True) as results, pytest.raises(UsageError, match="index"):
        results.append({"question": "头痛"})


def test_several_lines_go_in_one_write_or_none_of_them_does(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with open_results(path) as results:
        results.extend([{"index": 1, "text": "乙"}, {"index": 0, "text": "甲"}])
        with pytest.raises(UsageError, match="index"):
            results.extend([{"index": 2}, {"text": "丙"}])
        results.extend([])
    assert [row["index"] for row in rows(path)] == [0, 1]
    with open_results(path, resume=True) as results:
        assert {index: row["text"] for index, row in results.rows.items()} == {0: "甲", 1: "乙"}


def test_results_are_never_written_over_what_the_command_reads(tmp_path: Path) -> None:
    data, link = tmp_path / "data.jsonl", tmp_path / "link.jsonl"
    data.write_text('{"index": 0}\n')
    link.symlink_to(data)
    for path in (data, link):
        with (
            pytest.raises(UsageError, match="--data"),
            open_results(path, overwrite=True, inputs={"--data": data}) as results,
        ):
            results.append({"index": 1})
    assert data.read_text() == '{"index": 0}\n'


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not ours\nnor this\n")
    with pytest.raises(DataError), open_results(path, resume=True):
        pytest.fail("opened")
    assert path.read_text() == "not ours\nnor this\n"


# ---------------------------------------------------------------- the example command


def test_the_page_of_the_example_command_speaks_the_interface_language(site: Path, call: Call) -> None:
    example_site(site, "medchat-answers")
    page = call("answers", "--help").out
    assert page.startswith("用法：medchat answers ") and "选项：" in page and "--resume" in page
    assert "Usage" not in page and "Options" not in page


def test_the_example_command_answers_a_file_and_goes_on(
    site: Path, echo: dict[str, str], call: Call, tmp_path: Path
) -> None:
    example_site(site, "medchat-answers")
    data, output = tmp_path / "q.jsonl", tmp_path / "out.jsonl"
    data.write_text('{"question": "头痛"}\n{"question": "发烧", "answer": "多喝水"}\n', encoding="utf-8")
    words = ("--data", str(data), "--output", str(output), "--backbone", "echo", "--model", echo["model"])
    done = call("answers", *words)
    assert (done.code, done.out) == (0, "")
    assert [row["answer"] for row in rows(output)] == ["头痛", "发烧"]
    assert (
        rows(output)[0]["disclaimer"] == medical_safety.ai_mark() and rows(output)[1]["reference"] == "多喝水"
    )
    assert call("answers", *words).code == 2
    output.write_bytes(output.read_bytes().splitlines(keepends=True)[0])
    assert call("answers", *words, "--resume").code == 0
    assert [row["answer"] for row in rows(output)] == ["头痛", "发烧"]
    other = call("answers", *words, "--resume", "--max-new-tokens", "3")
    assert other.code == 2 and "max_new_tokens" in " ".join(other.failure())
    refused = call("answers", *words, "--resume", "--top-p", "7")
    assert refused.code == 2 and refused.failure()


# ---------------------------------------------------------------- remote


@pytest.fixture
def server() -> OpenAIServer:
    with serving() as running:
        yield running


def opened_there(server: OpenAIServer) -> dict[str, str]:
    return {"backbone": "remote", "model": f"{server.url}#tiny"}


def test_an_endpoint_is_asked_by_its_own_rules_and_its_prices_are_counted(server: OpenAIServer) -> None:
    server.models["data"][0]["pricing"] = {"prompt": "0.000002", "completion": "0.00001"}
    server.script.extend([refusal(429, "slow down", retry_after="0"), Reply(usage=usage(100, 10))])
    with open_model(opened_there(server)) as opened:
        assert opened.ask("头痛").text == "多喝水，多休息。"
        assert len(server.questions) == 2
        spent = opened.spent
        assert (spent.prompt_tokens, spent.completion_tokens, spent.estimated) == (100, 10, False)
        assert (round(spent.cost or 0, 9), spent.currency) == (0.0003, "USD")


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@pytest.mark.parametrize(
    "pricing",
    [
        None,
        "free",
        {},
        {"prompt": "1e-6"},
        {"prompt": "x", "completion": "1"},
        {"prompt": -1, "completion": -1},
    ],
)
def test_prices_that_are_not_stated_are_not_made_up(server: OpenAIServer, pricing: object) -> None:
    server.models["data"][0]["pricing"] = pricing
    with open_model(opened_there(server)) as opened:
        opened.ask("头痛")
        assert (opened.spent.cost, opened.spent.currency) == (None, "")


def test_a_file_is_answered_by_an_endpoint_too(server: OpenAIServer, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("头痛\n发烧\n", encoding="utf-8")
    server.usual = Reply(usage=usage(7, 3))
    with open_model(opened_there(server)) as opened:
        made = list(opened.answer_rows(read_questions(tmp_path / "q.txt").questions, batch_size=1))
        assert [row["answer"] for row in made] == ["多喝水，多休息。"] * 2
        assert opened.spent.prompt_tokens == 14
