"""A server's words as they are shown: without the key, and without what the user wrote."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medchat_remote.key_filter import KeyFilter
from medchat_remote.messages import MessagesTemplate
from medchat_remote.redaction import shown_words, without_private
from openai_server import OpenAIServer, Reply, refusal
from remote_models import Load, ask, failure

from medchat.api import GenerationConfig, Text, Turn
from medchat.errors import MedchatError

pytest_plugins = ("remote_models",)

KEY = "sk-Geheim0123-456789_abcdef"
QUESTION = "头痛怎么办？"


def fullwidth(text: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


WRAPPED = {
    "plain": KEY,
    "zero-width": "\u200b".join(KEY),
    "joiners": "\u2060".join(KEY),
    "tags": "\U000e0061".join(KEY),
    "soft-hyphens": "\u00ad".join(KEY),
    "blanks": " ".join(KEY),
    "lines": "\n".join(KEY[start : start + 5] for start in range(0, len(KEY), 5)),
    "percent": quote(KEY, safe=""),
    "percent-of-all": "".join(f"%{ord(letter):02X}" for letter in KEY),
    "percent-twice": quote("".join(f"%{ord(letter):02x}" for letter in KEY)),
    "json": "".join(f"\\u{ord(letter):04x}" for letter in KEY),
    "html": "".join(f"&#{ord(letter)};" for letter in KEY),
    "html-hex": "".join(f"&#x{ord(letter):x};" for letter in KEY),
    "capitals": KEY.upper(),
    "full-width": fullwidth(KEY),
    "escapes": "\x1b[1m".join(KEY[start : start + 8] for start in range(0, len(KEY), 8)),
    "base64": b64encode(KEY.encode()).decode(),
    "basic": b64encode(f"user:{KEY}".encode()).decode(),
    "bearer": b64encode(f"Bearer {KEY}".encode()).decode(),
}
PLAIN = "skgeheim0123456789abcdef"


def letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


@pytest.mark.parametrize("how", WRAPPED)
def test_the_key_is_gone_however_it_is_wrapped(how: str) -> None:
    shown = shown_words(f"you sent {WRAPPED[how]}; sorry", KEY)
    assert "you sent" in shown and "sorry" in shown and "***" in shown
    found = letters(shown)
    assert not any(PLAIN[start : start + 6] in found for start in range(len(PLAIN) - 5)), shown
    assert WRAPPED[how] not in shown


@given(st.integers(0, len(KEY)), st.text(alphabet="甲乙丙 .:|", min_size=1, max_size=5))
def test_a_key_in_two_halves_is_gone_too(cut: int, between: str) -> None:
    found = letters(shown_words(f"{KEY[:cut]}{between}{KEY[cut:]}", KEY))
    assert not any(PLAIN[start : start + 6] in found for start in range(len(PLAIN) - 5))


@pytest.mark.parametrize("key", ["EMPTY", "ollama", "x", "1"])
def test_a_placeholder_of_a_key_hides_no_other_words(key: str) -> None:
    assert shown_words("max tokens exceeded: 1x", key) == "max tokens exceeded: 1x"
    assert key not in shown_words(f"bad key {key}.", key)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 418, 429, 500])
@pytest.mark.parametrize("how", ["zero-width", "percent", "lines", "json"])
def test_no_status_shows_it(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch, status: int, how: str
) -> None:
    monkeypatch.setenv("MEDCHAT_REMOTE_KEY", KEY)
    server.usual = refusal(status, f"you sent {WRAPPED[how]}")
    error = failure(load())[1]
    assert "***" in error.what and "geheim" not in letters(error.what)


PLACES = {
    "stream-error": Reply(raw=[f'data: {{"error": "{KEY}"}}\n\n'.encode()]),
    "not-json": Reply(raw=[f"data: {{{KEY}\n\n".encode()]),
    "sentence": Reply(raw=[f"data: bad key {KEY}\n\n".encode()]),
    "whole": Reply(kind="application/json", body=json.dumps({KEY: KEY, "choices": 3})),
    "redirect": Reply(status=302, headers={"Location": f"https://{KEY}.example/"}, body=""),
    "encoding": Reply(headers={"Content-Encoding": KEY}),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_place_of_an_answer_shows_it(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("MEDCHAT_REMOTE_KEY", KEY)
    server.usual = PLACES[place]
    error = failure(load())[1]
    assert "geheim" not in letters(f"{error.what} {error.remedy} {error.where}"), error.what


def test_a_list_of_models_does_not_bring_it_into_names_and_notes(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCHAT_REMOTE_KEY", KEY)
    server.models = {"data": [{"id": f"m-{KEY}"}, {"id": "other"}]}
    about = load(server.url + "#m").describe()
    assert "other" in str(about) and "geheim" not in letters(str(about))


# ---------------------------------------------------------------- the key in an answer


@pytest.mark.parametrize("how", [how for how in WRAPPED if how not in ("percent-twice", "basic", "bearer")])
@given(data=st.data())
def test_an_answer_that_repeats_the_key_comes_without_it(how: str, data: st.DataObject) -> None:
    text = f"你的密钥是 {WRAPPED[how]}，sk 开头"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=9)))
    key_filter = KeyFilter(KEY)
    pieces = [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    shown = "".join(map(key_filter.feed, pieces)) + key_filter.finish()
    assert "geheim" not in letters(shown) and WRAPPED[how] not in shown
    assert shown.startswith("你的密钥是 ") and shown.endswith("sk 开头") and "***" in shown


@given(
    st.lists(st.text(alphabet="skGeheim01-_ 多", max_size=8), max_size=8), st.sampled_from(["", "EMPTY", KEY])
)
def test_every_other_answer_comes_as_it_is(pieces: list[str], key: str) -> None:
    key_filter = KeyFilter(key)
    assert "".join(map(key_filter.feed, pieces)) + key_filter.finish() == "".join(pieces)


def test_an_answer_is_not_held_back_for_it() -> None:
    key_filter = KeyFilter(KEY)
    assert [key_filter.feed(piece) for piece in ("多喝水，", "risk", "s 高", "。")] == [
        "多喝水，",
        "ri",
        "sks 高",
        "。",
    ]


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_neither_screen_nor_session_gets_it(
    server: OpenAIServer, load: Load, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    monkeypatch.setenv("MEDCHAT_REMOTE_KEY", KEY)
    chunks = [{"choices": [{"delta": {field: part}}]} for part in (f"密钥 {KEY[:7]}", KEY[7:], " 完")]
    server.usual = Reply(
        raw=[*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks), b"data: [DONE]\n\n"]
    )
    deltas = ask(load())
    assert "".join(delta.text + delta.reasoning for delta in deltas) == "密钥 *** 完"


# ---------------------------------------------------------------- the user's words


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("prompt: 头痛怎么办？ refused", "prompt: …？ refused"),
        ("头 痛\u200b怎么办", "…"),
        ("\\u5934\\u75db\\u600e\\u4e48\\u529e!", "…!"),
        (quote(QUESTION), "…？"),
        ("模型过载，请稍后再试", "模型过载，请稍后再试"),
        ("worker limit reached", "worker limit reached"),
    ],
)
def test_the_question_is_gone_from_a_servers_words(message: str, shown: str) -> None:
    assert shown_words(message, "", (QUESTION,)) == shown


@pytest.mark.parametrize(
    ("question", "message", "shown"),
    [
        ("fever?", "invalid prompt: fever?", "invalid prompt: …?"),
        ("fever?", "feverish servers", "feverish servers"),
        ("hi", "this is while hi!", "this is while …!"),
        ("HIV 吗", "blocked: hiv吗", "blocked: …"),
        ("发烧", "提示词“发烧”违规", "提示词“…”违规"),
        ("痛", "痛", "痛"),  # one sign says nothing
    ],
)
def test_a_short_question_is_gone_and_the_words_it_is_part_of_stay(
    question: str, message: str, shown: str
) -> None:
    assert shown_words(message, "", (question,)) == shown


def test_a_part_of_a_long_text_is_found_and_common_words_stay() -> None:
    private = ("患者，女，三十五岁，反复头痛两周。The patient takes ibuprofen twice a day.",)
    assert "头痛" not in shown_words("blocked: 反复头痛两", "", private)
    assert "ibuprofen" not in shown_words("near 'takes ibuprofen twice'", "", private)
    assert shown_words("the model is a day late", "", private) == "the model is a day late"


def test_a_long_conversation_costs_no_time() -> None:
    private, started = ("头痛" * 100_000 + "abc" * 100_000,), time.perf_counter()
    without_private("x" * 100_000, KEY, private)
    assert time.perf_counter() - started < 2


@given(st.text(max_size=60), st.text(min_size=1, max_size=20), st.lists(st.text(max_size=20), max_size=2))
def test_any_words_come_out_as_one_line(text: str, key: str, private: list[str]) -> None:
    shown = shown_words(text, key, private)
    assert "\n" not in shown and len(shown) <= 200
    shown.encode("utf-8")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": f"Invalid prompt: {QUESTION}"}},
        {"detail": [{"loc": ["body", "messages"], "msg": "too odd", "input": [{"content": QUESTION}]}]},
        {"request": {"messages": [{"content": QUESTION}]}},
        {"message": ascii(QUESTION)},
    ],
)
@pytest.mark.parametrize("status", [400, 500])
def test_a_refusal_never_carries_the_question_to_the_screen(
    server: OpenAIServer, load: Load, body: object, status: int
) -> None:
    server.usual = Reply(status=status, kind="application/json", body=json.dumps(body))
    error = failure(load())[1]
    assert "头痛" not in f"{error.what} {error.remedy}" and str(status) in error.what


def test_a_stream_that_repeats_the_request_does_not_either(server: OpenAIServer, load: Load) -> None:
    for raw in (f'data: {{"error": "{QUESTION}"}}\n\n', f"data: {{ {QUESTION}\n\n", f"data: {QUESTION}\n\n"):
        server.usual = Reply(raw=[raw.encode()])
        assert "头痛" not in failure(load())[1].what


def test_the_system_text_and_a_named_template_are_the_users_too(server: OpenAIServer, load: Load) -> None:
    turns = [Turn("血压有点高", "少吃盐。")]
    prompts = (
        MessagesTemplate().render(turns, QUESTION, "你是一名医生"),
        [Text("你是一名医生。问：血压有点高 答：少吃盐。问：头痛怎么办？")],
    )
    server.usual = refusal(400, "bad: 你是一名医生 / 血压有点高 / 头痛怎么办")
    for prompt in prompts:
        with pytest.raises(MedchatError) as caught:
            list(load().stream(prompt, GenerationConfig(), threading.Event()))
        assert not {"医生", "血压", "头痛"} & {caught.value.what[i : i + 2] for i in range(200)}
