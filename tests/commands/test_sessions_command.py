"""`medchat sessions`: search, lists, names, files out and in again."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_program import MARK_ZH, Call

from medchat import paths
from medchat.api import Finish, Turn
from medchat.store import AnswerOrigin, SessionKind, SessionStore

pytest_plugins = ("cli_program",)

HOSTILE = "# 标题 </blockquote><script>alert(1)</script> ![](http://evil.example/a.png) \x1b]0;x\x07 `rm`"


@pytest.fixture
def ids() -> dict[str, str]:
    """Fill the user's store: a chat with a stopped answer, one `ask`, and one with hostile words."""
    origin = AnswerOrigin(
        "llama", "/models/llama-7b", ("/a/lora",), "med", "", {"top_p": 0.7}, ("通知",), "0.1.0", "zh"
    )
    with SessionStore.open() as store:
        chat = store.create("llama", "/models/llama-7b", system="你是医生", name="头痛复诊").id
        store.append_turn(chat, Turn("头痛怎么办？", "多休息。"), None, origin)
        store.append_turn(chat, Turn("还发烧", "看医", Finish.CANCELLED), None, origin)
        ask = store.create("chatglm", "/models/glm", kind=SessionKind.ASK).id
        store.append_turn(ask, Turn("What about chest pain?", "Call 120."))
        hostile = store.create("bloom", "/models/bloom").id
        store.append_turn(hostile, Turn(HOSTILE, HOSTILE))
    return {"chat": chat, "ask": ask, "hostile": hostile}


def listed(call: Call, *arguments: str) -> list[str]:
    return [record["id"] for record in call("sessions", "list", "--json", *arguments).one()]


# ---------------------------------------------------------------- list, rename, search


def test_list_keeps_asks_apart_and_filters_by_model_and_time(call: Call, ids: dict[str, str]) -> None:
    assert listed(call) == [ids["hostile"], ids["chat"]]
    assert listed(call, "--all") == [ids["hostile"], ids["ask"], ids["chat"]]
    assert listed(call, "--model", "LLAMA") == [ids["chat"]]
    assert listed(call, "--since", "1h") == listed(call) and listed(call, "--until", "2020-01-01") == []
    assert listed(call, "--limit", "1") == [ids["hostile"]]
    assert listed(call, "--limit", "1", "--page", "2") == [ids["chat"]]
    refused = call("sessions", "list", "--page", "2")
    assert (refused.code, refused.out) == (2, "") and "--limit" in refused.err
    assert "[ask]" in call("sessions", "list", "--all").out
    code, _, err = _parts(call("sessions", "list", "--since", "昨天"))
    assert code == 2 and "2026-11-01" in err


def _parts(outcome: Any) -> tuple[int, str, str]:
    return outcome.code, outcome.out, outcome.err


def test_rename_changes_the_name_and_refuses_one_that_is_taken(call: Call, ids: dict[str, str]) -> None:
    assert call("sessions", "rename", ids["hostile"], "胸痛").code == 0
    assert "胸痛" in call("sessions", "list").out
    refused = call("sessions", "rename", ids["hostile"], "头痛复诊")
    assert refused.code == 2 and "已有" in refused.err


def test_search_shows_where_with_the_match_marked(call: Call, ids: dict[str, str]) -> None:
    shown = call("sessions", "search", "头痛").out
    assert ids["chat"] in shown and "【头痛】怎么办？" in shown and "问：" in shown
    (hit,) = call("sessions", "search", "chest", "120", "--json").one()
    begin, end = hit["match"]
    assert (hit["id"], hit["turn"], hit["where"], hit["excerpt"][begin:end]) == (
        ids["ask"],
        1,
        "question",
        "chest",
    )
    both = call("sessions", "search", "头痛", "休息")
    assert "问：" in both.out and "【头痛】" in both.out and "答：" in both.out and "【休息】" in both.out
    (hit,) = call("sessions", "search", "头痛", "休息", "--json").one()
    assert [part["where"] for part in hit["excerpts"]] == ["question", "answer"]
    assert "【头痛】【怎么办】" in call("sessions", "search", "怎么办", "头痛").out
    nothing = call("sessions", "search", "没有的词")
    assert (nothing.code, nothing.out) == (0, "") and "没有找到" in nothing.err
    assert call("sessions", "search", " ").code == 2
    assert "\x1b" not in call("sessions", "search", "标题").out


def branched() -> str:
    """Save a session of two turns and, on other branches, three; return its id."""
    with SessionStore.open() as store:
        session = store.create("llama", "/m", name="分支").id
        for question in ("甲", "乙", "丙"):
            store.append_turn(session, Turn(question, "答"))
        for question, count in (("丁", 2), ("戊", 1)):
            turns = [(saved.position, saved.turn) for saved in store.turns(session)][-count:]
            store.append_turn(session, Turn(question, "答"), instead_of=turns)
        return session


@pytest.mark.parametrize("suffix", [".md", ".html", ".json"])
def test_an_answer_that_the_user_rewrote_is_marked_wherever_it_is_read(
    call: Call, tmp_path: Path, suffix: str
) -> None:
    with SessionStore.open() as store:
        session = store.create("llama", "/m").id
        store.append_turn(session, Turn("甲", "原来的"), None, AnswerOrigin("llama", "/m"))
        store.append_turn(session, Turn("乙", "改过的"), None, AnswerOrigin("llama", "/m", edited=True))
    shown = call("sessions", "show", session).out
    assert "改过的（已由用户修改）" in shown and shown.count("已由用户修改") == 1
    text = exported(call, tmp_path / f"a{suffix}", session)
    mark = '"edited": true' if suffix == ".json" else "已由用户修改"
    assert text.count(mark) == 1


def test_turns_of_other_branches_are_marked_and_found(call: Call) -> None:
    session = branched()
    shown = call("sessions", "show", session).out
    assert "（第 3 个分支，共 3 个）" in shown and "丙" not in shown
    assert "（在另一分支）" in call("sessions", "search", "丙").out
    assert [
        hit["current"] for word in "丙戊" for hit in call("sessions", "search", word, "--json").one()
    ] == [
        False,
        True,
    ]
    (hit,) = call("sessions", "search", "丙", "--json").one()
    assert hit["turn"] == 3


# ---------------------------------------------------------------- export


def exported(call: Call, path: Path, *sessions: str) -> str:
    done = call("sessions", "export", *sessions, "--output", str(path))
    assert done.code == 0, done.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", [".md", ".html", ".json", ".jsonl"])
def test_every_form_carries_mark_and_label(
    call: Call, ids: dict[str, str], tmp_path: Path, suffix: str
) -> None:
    text = exported(call, tmp_path / f"出口{suffix}", ids["chat"])
    assert MARK_ZH in text and "AIGC" in text and "ContentProducer" in text and ids["chat"] in text


def test_markdown_and_html_show_the_words_and_let_nothing_escape(
    call: Call, ids: dict[str, str], tmp_path: Path
) -> None:
    markdown = exported(call, tmp_path / "a.md", ids["hostile"])
    page = exported(call, tmp_path / "a.html", ids["hostile"])
    for text in (markdown, page):
        assert "<script" not in text and "\x1b" not in text and "alert(1)" in text
    assert not re.search(r"(?<!\\)\[[^\]]*\]\(", markdown)  # neither a link nor a picture
    assert not re.search(r"(?m)^# 标题", markdown)  # quoted: it cannot look like a heading of ours
    assert (
        "src=" not in page
        and "href=" not in page
        and "default-src 'none'" in page
        and "width=device-width" in page
    )


def test_an_export_replaces_nothing_unasked(call: Call, ids: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "a.md"
    target.write_text("mine")
    refused = call("sessions", "export", ids["chat"], "--output", str(target))
    assert refused.code == 2 and "--overwrite" in refused.err and target.read_text() == "mine"
    assert call("sessions", "export", ids["chat"], "--output", str(target), "--overwrite").code == 0
    assert call("sessions", "export", ids["chat"], "--output", str(tmp_path / "a.pdf")).code == 2
    assert call("sessions", "export", "--output", str(tmp_path / "b.md")).code == 2
    missing = call("sessions", "export", ids["chat"], "--output", str(tmp_path / "no" / "a.md"))
    assert missing.code == 1 and "no/a.md" in missing.err
    assert MARK_ZH in call("sessions", "export", ids["chat"], "--output", "-").out


def test_training_lines_leave_notices_out_and_do_not_teach_a_stopped_answer(
    call: Call, ids: dict[str, str], tmp_path: Path
) -> None:
    (line,) = exported(call, tmp_path / "a.jsonl", ids["chat"]).splitlines()
    record = json.loads(line)
    assert record["messages"] == [
        {"role": "system", "content": "你是医生"},
        {"role": "user", "content": "头痛怎么办？"},
        {"role": "assistant", "content": "多休息。"},
        {"role": "user", "content": "还发烧"},
        {"role": "assistant", "content": "看医", "weight": 0},
    ]
    assert "通知" not in line


@pytest.mark.parametrize("suffix", [".md", ".html", ".json", ".jsonl"])
def test_redacted_exports_hold_no_name_and_no_number(call: Call, tmp_path: Path, suffix: str) -> None:
    words = "我叫王小明，电话13812345678"
    with SessionStore.open() as store:
        identity = store.create("echo", "none", system=words).id
        store.append_turn(identity, Turn(words, words), None, AnswerOrigin(system=words))
    plain = exported(call, tmp_path / f"a{suffix}", identity)
    hidden = exported(call, tmp_path / f"b{suffix}", identity, "--redact")
    for word in ("王小明", "13812345678"):
        assert word in plain and word not in hidden


@pytest.mark.parametrize("suffix", [".md", ".html", ".json", ".jsonl"])
def test_redacted_exports_name_no_folder_of_model_adapter_and_template(
    call: Call, tmp_path: Path, suffix: str
) -> None:
    model, adapter, template = (
        "/home/wang.xm/weights/alpaca",
        "C:\\Users\\wang.xm\\lora",
        "/home/wang.xm/own.json",
    )
    address = "https://models.example.org/v1"
    with SessionStore.open() as store:
        of_folder = store.create("echo", model, (adapter,), template=template).id
        origin = AnswerOrigin(model=model, adapters=(adapter, "bentsao"), template=template)
        store.append_turn(of_folder, Turn("问", "答"), None, origin)
        remote = store.create("remote", address).id
        store.append_turn(remote, Turn("问", "答"), None, AnswerOrigin(model=address, template="bare"))
    assert ("wang.xm" in exported(call, tmp_path / f"a{suffix}", of_folder)) is (suffix == ".json")
    hidden = exported(call, tmp_path / f"b{suffix}", of_folder, remote, "--redact")
    assert "wang.xm" not in hidden
    if suffix == ".json":
        origins = [session["log"][0]["origin"] for session in json.loads(hidden)]
        assert [origin["model"] for origin in origins] == ["alpaca", address]
        assert origins[0]["adapters"] == ["lora", "bentsao"]
        assert [origin["template"] for origin in origins] == ["own.json", "bare"]


# ---------------------------------------------------------------- import


def test_export_import_export_is_the_same_file(
    call: Call, ids: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SessionStore.open() as store:
        plain = store.create("chatglm", "/m", name="无通知").id
        store.append_turn(
            plain, Turn("甲 \ud800", "乙\x00丙", Finish.LENGTH), None, AnswerOrigin("chatglm", "/m")
        )
    first = exported(call, tmp_path / "a.json", plain)
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "other"))
    done = call("sessions", "import", str(tmp_path / "a.json"))
    assert done.code == 0 and "（导入）" in done.err
    assert exported(call, tmp_path / "b.json", plain) == first


def test_every_branch_goes_out_and_comes_in_again(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = branched()
    first = exported(call, tmp_path / "a.json", session)
    assert [(one["question"], one["after"]) for one in json.loads(first)["branches"]] == [
        ("乙", 1), ("丁", 1), ("丙", 3),
    ]  # fmt: skip
    assert "丙" not in exported(call, tmp_path / "a.md", session) + exported(
        call, tmp_path / "a.jsonl", session
    )
    for suffix, said in ((".md", True), (".html", True), (".jsonl", True), (".json", False)):
        told = call("sessions", "export", session, "--output", str(tmp_path / f"c{suffix}")).err
        assert ("只有当前对话；.json 含全部分支" in told) is said
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "other"))
    assert call("sessions", "import", str(tmp_path / "a.json")).code == 0
    assert exported(call, tmp_path / "b.json", session) == first
    with SessionStore.open() as store:
        assert store.switch(store.get(session).id, (2, 0))
        assert [saved.turn.question for saved in store.turns(store.get(session).id)] == ["甲", "乙", "丙"]


def test_imported_again_it_gets_an_id_of_its_own_and_no_notice(
    call: Call, ids: dict[str, str], tmp_path: Path
) -> None:
    exported(call, tmp_path / "a.json", ids["chat"], ids["ask"])
    assert call("sessions", "import", str(tmp_path / "a.json")).code == 0
    with SessionStore.open() as store:
        imported = [record for record in store.list() if record.kind is SessionKind.IMPORTED]
        assert len(imported) == 2 and not {record.id for record in imported} & set(ids.values())
        assert all(saved.origin.notices == () for record in imported for saved in store.turns(record.id))
        assert all(record.name is None for record in imported)


CONVERSATIONS = {
    "openai": {
        "messages": [{"role": "user", "content": "头痛？"}, {"role": "assistant", "content": "休息。"}]
    },
    "sharegpt": {"conversations": [{"from": "human", "value": "头痛？"}, {"from": "gpt", "value": "休息。"}]},
}


@pytest.mark.parametrize("form", CONVERSATIONS)
@pytest.mark.parametrize("layout", ["object", "array", "lines"])
def test_conversations_of_other_programs_come_in(call: Call, tmp_path: Path, form: str, layout: str) -> None:
    value = json.dumps(CONVERSATIONS[form], ensure_ascii=False)
    text = {"object": value, "array": f"[{value}, {value}]", "lines": f"{value}\n\n{value}\n"}[layout]
    (tmp_path / "in.json").write_text(text, encoding="utf-8")
    assert call("sessions", "import", str(tmp_path / "in.json")).code == 0
    with SessionStore.open() as store:
        records = store.list()
        assert len(records) == (1 if layout == "object" else 2)
        assert store.turns(records[0].id)[0].turn == Turn("头痛？", "休息。")


BROKEN = {
    "no JSON": "你好",
    "a number": "3",
    "an empty array": "[]",
    "an unknown object": '{"a": 1}',
    "deep": "[" * 100_000,
    "a log that is none": '{"schema": "medchat-session/1", "log": 3}',
    "a turn that is none": '{"schema": "medchat-session/1", "log": [3]}',
    "an answer that is none": '{"schema": "medchat-session/1", "log": [{"question": "a", "answer": 3}]}',
    "an unknown finish": '{"schema": "medchat-session/1", "log": [{"question": "a", "answer": "b", "finish": "x"}]}',
    "branches that are none": '{"schema": "medchat-session/1", "log": [], "branches": 3}',
    "nothing in it": '{"schema": "medchat-session/1", "log": [], "branches": []}',
    "a branch after itself": '{"schema": "medchat-session/1", "log": [], "branches": [{"after": 1}]}',
    "a branch before the beginning": '{"schema": "medchat-session/1", "log": [], "branches": [{"after": -1}]}',
    "a branch after a word": '{"schema": "medchat-session/1", "log": [], "branches": [{"after": "0"}]}',
    "a branch after nothing said": '{"schema": "medchat-session/1", "log": [], "branches": [{"question": "a"}]}',
    "a branch that is none": '{"schema": "medchat-session/1", "log": [], "branches": [3]}',
    "only a question": '{"messages": [{"role": "user", "content": "a"}]}',
    "one good and one bad": '{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}\n{}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_understood_is_refused_and_nothing_imported(
    call: Call, tmp_path: Path, name: str
) -> None:
    (tmp_path / "in.json").write_text(BROKEN[name], encoding="utf-8")
    refused = call("sessions", "import", str(tmp_path / "in.json"))
    assert refused.code == 6 and "in.json" in refused.err
    assert listed(call, "--all") == []


def test_impossible_times_ids_and_counts_are_not_taken_over(call: Call, tmp_path: Path) -> None:
    turn = {"question": "a", "answer": "b", "created": "9999-01-01", "prompt_tokens": -5, "seconds": 1e400}
    session = {"schema": "medchat-session/1", "id": "../x", "name": "\x1b[31m", "created": 5, "log": [turn]}
    (tmp_path / "in.json").write_text(json.dumps(session), encoding="utf-8")
    assert call("sessions", "import", str(tmp_path / "in.json")).code == 0
    with SessionStore.open() as store:
        (record,) = store.list()
        (saved,) = store.turns(record.id)
    assert re.fullmatch(r"\d{8}-\w{4}", record.id) and record.name is None
    assert (saved.prompt_tokens, saved.seconds) == (0, 0.0) and saved.created.year < 9999


# ---------------------------------------------------------------- delete


def test_delete_by_filter_takes_those_alone(call: Call, ids: dict[str, str]) -> None:
    assert call("sessions", "delete", "--model", "llama", "--yes").code == 0
    assert listed(call, "--all") == [ids["hostile"], ids["ask"]]
    assert call("sessions", "delete", "--model", "llama", "--all", "--yes").code == 2
    assert "头痛".encode() not in b"".join(
        path.read_bytes() for path in paths.sessions_file().parent.iterdir()
    )


def test_show_says_what_an_answer_was_said_with_where_that_changes(call: Call) -> None:
    warm = {"temperature": 0.25, "seed": 7, "greedy": False}
    first = AnswerOrigin("llama", "/m/alpaca", ("/a/lora",), "bare", settings=warm)
    with SessionStore.open() as store:
        session = store.create("llama", "/m/alpaca").id
        other_seed = replace(first, settings={**warm, "seed": 8})  # each sampled answer has its own
        for origin in (first, other_seed, replace(first, settings={"greedy": True}), AnswerOrigin()):
            store.append_turn(session, Turn("问", "答"), None, origin)
    shown = call("sessions", "show", session).out.splitlines()
    assert shown.count("    回答者：llama alpaca + lora") == 2 and shown.count("    模板：bare") == 2
    settings = [line.strip() for line in shown if "参数：" in line]
    assert settings == ["参数：temperature 0.25，seed 7，greedy False", "参数：greedy True"]


@pytest.mark.parametrize("finish", [Finish.LENGTH, Finish.CANCELLED, Finish.ERROR])
def test_how_an_answer_ended_is_told_in_the_language_of_the_interface(
    call: Call, tmp_path: Path, finish: Finish
) -> None:
    with SessionStore.open() as store:
        session = store.create("echo", "none").id
        store.append_turn(session, Turn("头痛？", "多休息", finish))
    chinese, english = (call("--lang", lang, "sessions", "show", session).out for lang in ("zh", "en"))
    assert re.search(r"^答：多休息（[^a-z]+）$", chinese, re.MULTILINE)
    assert re.search(rf"^A: 多休息 \[{finish}\]$", english, re.MULTILINE)
    page = tmp_path / "page.md"
    assert call("sessions", "export", session, "--output", str(page)).code == 0
    assert str(finish) not in page.read_text(encoding="utf-8")
