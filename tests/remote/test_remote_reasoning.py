"""Reasoning: no part of an answer or of the history, however a server sends it, and said where it is all there is."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest
from cli_program import Call, start
from hypothesis import given
from hypothesis import strategies as st
from medchat_remote.increments import Increments
from medchat_remote.messages import MessagesTemplate
from openai_server import OpenAIServer, Reply
from remote_models import PROMPT, Load, ask, text_of

from medchat.api import Finish, GenerationConfig
from medchat.chat.session import ChatSession
from medchat.inference.reasoning import ReasoningSplitter, begins_inside
from medchat.store import SessionStore

pytest_plugins = ("cli_program", "remote_models")

QUESTION = "头痛怎么办？"


def split(pieces: list[str], *, wait: bool = False) -> tuple[str, str]:
    """Return the answer and the reasoning in `pieces`, as whoever gathers them has them in the end."""
    splitter, answer, reasoning = ReasoningSplitter(wait=wait), "", ""
    for part in [*map(splitter.feed, pieces), splitter.finish()]:
        if part.restarts:
            answer, reasoning = "", reasoning + answer
        answer, reasoning = answer + part.answer, reasoning + part.reasoning
    return answer, reasoning


def cut(text: str, data: st.DataObject) -> list[str]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:stop] for start, stop in zip([0, *places], [*places, len(text)], strict=True)]


# ---------------------------------------------------------------- tags

ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
#: Of a block: how it is opened and closed.
TAGS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<THINK>", "</THINK>"),
    ("<Think>", "</think>"),
    ("[think]", "[/Think]"),
    (f"{ANALYSIS}", f"<|end|><|start|>assistant{FINAL}"),
    (f"<|start|>assistant{ANALYSIS}", f"<|end|>{FINAL}"),
    ("analysis<|message|>", f"<|end|>{FINAL}"),
    ("<|channel|>commentary to=functions.x <|constrain|>json<|message|>", f"<|call|>assistant{FINAL}"),
]


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("wait", [False, True])
@given(data=st.data())
def test_a_block_is_taken_out_wherever_the_text_is_cut(
    tags: tuple[str, str], wait: bool, data: st.DataObject
) -> None:
    opening, closing = tags
    for text, answer, reasoning in (
        (f"{opening}\n想一想 <\n{closing}\n\n多休息。", "多休息。", "\n想一想 <\n"),
        (f"{opening}{closing}\n\n多休息。", "多休息。", ""),
        (f"{opening}还没想完", "", "还没想完"),
    ):
        found = split(cut(text, data), wait=wait)
        assert (found[0].lstrip(), found[1]) == (answer, reasoning)


@pytest.mark.parametrize("tags", [tags for tags in TAGS if "|" not in tags[0]])
@pytest.mark.parametrize("wait", [False, True])
@given(data=st.data())
def test_a_closing_tag_counts_once_and_needs_no_opening_one(
    tags: tuple[str, str], wait: bool, data: st.DataObject
) -> None:
    opening, closing = tags
    for text, answer, reasoning in (
        (f"\n {opening}想{closing}多{closing}休息", f"多{closing}休息", "想"),
        (f"想一想。\n{closing}\n\n多休息。", "多休息。", "想一想。\n"),
        (f"{closing}多休息。", "多休息。", ""),
    ):
        assert split(cut(text, data), wait=wait) == (answer, reasoning)


@given(data=st.data())
def test_a_block_in_the_middle_is_taken_out_and_a_tag_alone_is_text(data: st.DataObject) -> None:
    for text, answer, reasoning in (
        ("多休息。<think>还有</think>多喝水。", "多休息。多喝水。", "还有"),
        ("<think>甲</think>多休息。<think>乙</think>多喝水。", "多休息。多喝水。", "甲乙"),
        ("标签 <think> 是什么？", "标签 <think> 是什么？", ""),
        ("a < b, <thin", "a < b, <thin", ""),
    ):
        assert split(cut(text, data)) == (answer, reasoning)


@given(data=st.data())
def test_an_answer_in_channels_is_what_is_in_the_final_one(data: st.DataObject) -> None:
    for text, answer, reasoning in (
        (f"{FINAL}多休息。<|return|>", "多休息。", ""),
        (f"{ANALYSIS}想<|end|><|start|>assistant{FINAL}多休息。<|return|>", "多休息。", "想"),
        (f"{ANALYSIS}甲<|end|>{ANALYSIS}乙<|end|>{FINAL}多休息。", "多休息。", "甲乙"),
        (f"{ANALYSIS}想<|end|>多休息。", "多休息。", "想"),  # the server left the other marks out
        ("<|start|>assistant<|message|>多休息。<|end|>", "多休息。", ""),
        (
            "<|CHANNEL|>Analysis<|MESSAGE|>想<|END|><|Channel|>FINAL<|message|>多<br>休息。",
            "多<br>休息。",
            "想",
        ),
        (f"{ANALYSIS}想<|end|><|start|>assi", "", "想<|start|>assi"),
        ("final answer: 多休息。", "final answer: 多休息。", ""),
    ):
        assert split(cut(text, data)) == (answer, reasoning)


@pytest.mark.parametrize("model", ["openai/gpt-oss-20b", "GPT-OSS:120b", "gpt-4o"])
def test_names_of_channels_without_their_marks_count_where_the_model_writes_in_channels(
    server: OpenAIServer, load: Load, model: str
) -> None:
    server.usual = events(
        {"content": "analy"}, {"content": "sis想一想assist"}, {"content": "antfinal多休息。"}
    )
    (completion,) = load(f"{server.url}#{model}").generate_batch([PROMPT], GenerationConfig())
    if "gpt-4o" in model:
        assert completion.text == "analysis想一想assistantfinal多休息。"
    else:
        assert (completion.text, completion.reasoning) == ("多休息。", "想一想")


def test_channels_come_as_they_are_written_and_a_header_without_end_is_text() -> None:
    splitter = ReasoningSplitter()
    assert splitter.feed(f"{ANALYSIS}想一").reasoning == "想一"
    assert splitter.feed("想<|en").reasoning == "想"
    assert splitter.feed(f"d|><|start|>assistant{FINAL}多休").answer == "多休"
    endless = ReasoningSplitter()
    assert endless.feed("<|channel|>" + "多休息。" * 100).answer.endswith("多休息。")


@given(st.text(alphabet="多<>/think \n", max_size=40), st.booleans(), st.data())
def test_no_text_is_lost_or_made_up(text: str, wait: bool, data: st.DataObject) -> None:
    pieces = cut(text, data)
    assert split(pieces, wait=wait) == split([text], wait=wait)
    if "think" not in text:
        assert split(pieces, wait=wait) == (text, "")


def test_reasoning_and_answer_come_as_they_are_written() -> None:
    splitter = ReasoningSplitter()
    assert splitter.feed("<think>想一").reasoning == "想一"
    assert splitter.feed("想</thi").reasoning == "想"
    assert splitter.feed("nk>\n多休").answer == "多休"
    assert splitter.feed("息").answer == "息"


def test_where_the_beginning_may_be_missing_nothing_of_it_is_taken_for_an_answer() -> None:
    splitter = ReasoningSplitter(wait=True)
    assert [splitter.feed(text).answer for text in ("想一", "想</th", "ink>多休")] == ["", "", "多休"]
    splitter = ReasoningSplitter(wait=True)
    splitter.no_tags()  # the server sends reasoning in a field of its own
    assert splitter.feed("多休").answer == "多休"


@pytest.mark.parametrize(
    ("model", "inside"),
    [("deepseek-ai/DeepSeek-R1", True), ("deepseek-r1:7b", True), ("Qwen/QwQ-32B", True),
     ("Qwen/Qwen3-30B-A3B-Thinking-2507", True), ("deepseek-reasoner", True), ("GLM-Z1-9B", True),
     ("Qwen/Qwen2.5-7B-Instruct", False), ("r1x", False), ("gpt-4o", False), ("llama3.1", False), ("tr1", False)],
)  # fmt: skip
def test_models_whose_template_opens_the_block_are_known_by_name(model: str, inside: bool) -> None:
    assert begins_inside(model) is inside


def test_a_long_train_of_thought_costs_no_time() -> None:
    splitter, started = ReasoningSplitter(wait=True), time.perf_counter()
    for _ in range(60_000):
        splitter.feed("想一想")
    assert splitter.feed("</think>好").answer == "好"
    assert time.perf_counter() - started < 3


# ---------------------------------------------------------------- servers that say it all again


@given(st.text(alphabet="头痛怎么办多休息，。", min_size=9, max_size=40), st.data())
def test_an_answer_sent_anew_in_every_piece_is_given_once(text: str, data: st.DataObject) -> None:
    if len(set(text[:4])) < 4:
        return
    ends = sorted({*data.draw(st.lists(st.integers(2, len(text)), min_size=2, max_size=9)), 2, len(text)})
    increments = Increments()
    assert "".join(increments.feed(text[:end]) for end in ends) + increments.finish() == text


@pytest.mark.parametrize(
    "pieces",
    [["多休", "息。"], ["哈", "哈哈", "哈哈哈"], ["1", "10", "片"], [" ", "  ", "多"], ["多", "多", "休息"],
     ["-", "--"], ["头痛", "头", "痛"], [], ["多"], ["=" * 4, "=" * 8, "=" * 12]],
)  # fmt: skip
def test_pieces_that_only_look_like_it_are_all_given(pieces: list[str]) -> None:
    increments = Increments()
    assert "".join(map(increments.feed, pieces)) + increments.finish() == "".join(pieces)


def test_the_same_piece_over_and_over_is_not_held_back() -> None:
    increments = Increments()
    assert [increments.feed(piece) for piece in ["多休息"] * 4] == ["多休息"] * 4


@given(st.lists(st.text(min_size=1, max_size=6), max_size=12))
def test_pieces_that_do_not_begin_alike_are_given_as_they_are(pieces: list[str]) -> None:
    different = [f"{number}{piece}" for number, piece in enumerate(pieces, 10)]
    increments = Increments()
    assert [increments.feed(piece) for piece in different] == different


# ---------------------------------------------------------------- answers


def events(*deltas: dict[str, object], finish: str = "stop") -> Reply:
    chunks = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    return Reply(raw=[f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks])


def whole(message: dict[str, str]) -> Reply:
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    return Reply(kind="application/json", body=json.dumps(body))


WAYS = {
    "reasoning_content": events({"content": None, "reasoning_content": "想一想"}, {"content": "多休息。"}),
    "reasoning": events({"content": "", "reasoning": "想一想"}, {"content": "多休息。"}),
    "parts": events(
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "想一想"}]}]},
        {"content": [{"type": "text", "text": "多休息。"}]},
    ),
    "inline": events({"content": "<th"}, {"content": "ink>想一想</thi"}, {"content": "nk>\n\n多休息。"}),
    "unopened": events({"content": "想一想"}, {"content": "</think>\n\n多休息。"}),
    "capitals": events({"content": "<TH"}, {"content": "INK>想一想</thi"}, {"content": "NK>\n\n多休息。"}),
    "channels": events(
        {"content": f"{ANALYSIS}想一"}, {"content": f"想<|end|><|start|>assistant{FINAL}多休息。<|return|>"}
    ),
    "whole": whole({"content": "<think>想一想</think>\n多休息。"}),
    "whole-field": whole({"content": "多休息。", "reasoning_content": "想一想"}),
}
ONLY = {
    "field": events({"content": None, "reasoning_content": "想一想"}),
    "inline": events({"content": "<think>想一想"}, finish="length"),
    "closed": events({"content": "<think>想一想</think>\n\n"}),
    "unopened": events({"content": "想一想</think>"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_reasoning_is_no_part_of_the_answer(server: OpenAIServer, load: Load, way: str) -> None:
    server.usual = WAYS[way]
    for model in (load(), load(server.url + "#deepseek-r1")):
        (completion,) = model.generate_batch([PROMPT], GenerationConfig())
        assert (completion.text, completion.reasoning) == ("多休息。", "想一想")
        deltas = ask(model)
        text = ""
        for delta in deltas:
            text = delta.text if delta.restarts else text + delta.text
        assert text == "多休息。" and deltas[-1].finish is Finish.STOP


def test_a_stop_text_in_the_reasoning_ends_nothing(server: OpenAIServer, load: Load) -> None:
    server.usual = WAYS["inline"]
    assert text_of(ask(load(), GenerationConfig(stop=("想",)))) == "多休息。"


@pytest.mark.parametrize("way", WAYS)
def test_it_is_neither_saved_nor_sent_again(server: OpenAIServer, call: Call, way: str) -> None:
    server.script.append(WAYS[way])
    flags = ("--backbone", "remote", "--model", server.url)
    outcome = call("ask", QUESTION, "--session", "头痛", "--json", *flags)
    assert (outcome.one()["answer"], outcome.one()["reasoning"]) == ("多休息。", "想一想")
    with SessionStore.open() as store:
        (record,) = store.list()
        (saved,) = store.turns(record.id)
    assert saved.turn.answer == "多休息。"
    assert call("ask", "还有呢？", "--session", "头痛", *flags).code == 0
    assert server.questions[-1].body["messages"][1] == {"role": "assistant", "content": "多休息。"}


@pytest.mark.parametrize("way", ["field", "inline"])
def test_stdout_has_the_answer_alone(server: OpenAIServer, call: Call, way: str) -> None:
    server.usual = WAYS["reasoning" if way == "field" else way]
    outcome = call("ask", QUESTION, "--backbone", "remote", "--model", server.url)
    assert (outcome.code, outcome.out) == (0, "多休息。\n")
    lines = call("ask", QUESTION, "--events", "--backbone", "remote", "--model", server.url).out.splitlines()
    kinds = [json.loads(line)["event"] for line in lines]
    assert "reasoning" in kinds and kinds.index("reasoning") < kinds.index("delta")


def test_what_was_shown_before_it_turned_out_to_be_reasoning_is_called_that(
    server: OpenAIServer, call: Call
) -> None:
    server.usual = WAYS["unopened"]
    flags = ("--backbone", "remote", "--model", server.url)
    outcome = call("ask", QUESTION, *flags)
    assert outcome.out == "想一想\n多休息。\n" and "以上 3 字是模型的思考" in outcome.err
    chat = call("chat", *flags, stdin=QUESTION)
    assert "以上 3 字是模型的思考" in chat.err and chat.out.endswith("多休息。\n")
    known = call("ask", QUESTION, "--backbone", "remote", "--model", server.url + "#DeepSeek-R1")
    assert known.out == "多休息。\n" and "以上" not in known.err


def test_stopped_after_its_reasoning_an_answer_is_empty(server: OpenAIServer) -> None:
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in ("想一想", "</think>\n")]
    server.usual = Reply(raw=[f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks], silent=True)
    flags = ("--events", "--backbone", "remote", "--model", server.url)
    with start("ask", QUESTION, *flags) as process:
        assert process.stdout is not None
        lines = iter(lambda: json.loads(process.stdout.readline()), None)
        assert next(line for line in lines if line["event"] == "restart")
        process.send_signal(signal.SIGINT)
        last = next(line for line in lines if line["event"] == "end")
        assert process.wait(10) == 130
    assert (last["answer"], last["finish"]) == ("", "cancelled")


# ---------------------------------------------------------------- reasoning alone


@pytest.mark.parametrize("way", ONLY)
def test_an_answer_of_reasoning_alone_is_said(server: OpenAIServer, call: Call, way: str) -> None:
    server.usual = ONLY[way]
    flags = ("--backbone", "remote", "--model", server.url)
    outcome = call("ask", QUESTION, "--json", *flags)
    assert outcome.one()["answer"].strip() == "" and outcome.one()["reasoning"] == "想一想"
    assert outcome.err.count("只有思考，没有给出回答") == 1
    assert ("max-new-tokens" in outcome.err) is (way == "inline")
    assert "只有思考，没有给出回答" in call("chat", *flags, stdin=QUESTION).err


@pytest.mark.parametrize("way", ONLY)
def test_a_batch_marks_it_and_counts_it(server: OpenAIServer, call: Call, tmp_path: Path, way: str) -> None:
    server.script += [ONLY[way]]
    data, output = tmp_path / "q.txt", tmp_path / "a.jsonl"
    data.write_text("一？\n二？\n", encoding="utf-8")
    flags = ("--backbone", "remote", "--model", server.url, "--batch-size", "1")
    outcome = call("infer", "--data", str(data), "--output", str(output), *flags)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert sorted(row.get("reasoning_only", False) for row in rows) == [False, True]
    assert "1 个问题只有思考，没有给出回答" in outcome.err


@pytest.mark.parametrize("way", ONLY)
def test_it_is_saved_and_never_sent_again(server: OpenAIServer, load: Load, way: str) -> None:
    session = ChatSession(load(), MessagesTemplate(), GenerationConfig())
    for number, reply in enumerate((WAYS["reasoning"], ONLY[way], WAYS["reasoning"], WAYS["reasoning"])):
        server.usual = reply
        list(session.ask(f"问题{number}？", threading.Event()))
    said = [message["content"] for message in server.questions[-1].body["messages"]]
    assert said == ["问题0？", "多休息。", "问题2？", "多休息。", "问题3？"]
    assert [bool(turn.answer.strip()) for turn in session.conversation.turns] == [True, False, True, True]


def test_an_answer_of_nothing_at_all_is_said_too(server: OpenAIServer, call: Call) -> None:
    server.usual = events({"content": ""})
    outcome = call("ask", QUESTION, "--backbone", "remote", "--model", server.url)
    assert outcome.code == 0 and "没有写出任何文字" in outcome.err


@pytest.mark.parametrize(("finish", "answer"), [("stop", "多休息。"), ("length", "")])
def test_what_a_reasoning_model_had_no_room_to_finish_is_no_answer(
    server: OpenAIServer, load: Load, finish: str, answer: str
) -> None:
    server.usual = events({"content": "多休"}, {"content": "息。"}, finish=finish)
    (completion,) = load(server.url + "#QwQ-32B").generate_batch([PROMPT], GenerationConfig())
    assert completion.text == answer and completion.text + completion.reasoning == "多休息。"
    (completion,) = load().generate_batch([PROMPT], GenerationConfig())
    assert completion.text == "多休息。"


# ---------------------------------------------------------------- folded in chat


def test_a_chat_shows_it_in_one_line_and_in_full_when_asked(server: OpenAIServer, call: Call) -> None:
    server.usual = events({"reasoning_content": "想一想，\x1b[31m再想想"}, {"content": "多休息。"})
    chat = call("chat", "--backbone", "remote", "--model", server.url, stdin=f"{QUESTION}\n/思考\n")
    before, _, after = (chat.out + chat.err).partition("看全文：/思考")
    assert "再想想" not in before and "想一想，再想想" in chat.out + chat.err and "\x1b" not in chat.out
    assert "12 字" in before.splitlines()[-1] and after
    server.usual = Reply()
    chat = call("chat", "--backbone", "remote", "--model", server.url, stdin=f"{QUESTION}\n/thinking\n")
    assert "没有思考" in chat.out + chat.err and "看全文" not in chat.err
