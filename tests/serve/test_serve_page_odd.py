"""The page with whatever may come: answers that are none, a server that has gone, storage and addresses of others."""

from __future__ import annotations

import json

import pytest
from browser import Browser, Tab
from medchat_serve.guard import Guard
from served_model import serving
from served_page import IDLE, ask

from medchat.plugin_kit import OpenedModel

pytest_plugins = ("served_page",)

TOKEN = "a-token-of-the-tests"


def event(**fields: object) -> str:
    return f"data: {json.dumps(fields)}\n\n"


def said(text: object, finish: str | None = None) -> str:
    return event(choices=[{"delta": {"content": text}, "finish_reason": finish}])


#: What a server sends, and what a person then reads.
ODD = {
    "nothing": ("", "连接中断"),
    "no end": (said("多喝"), "连接中断"),
    "no JSON": (said("多喝") + "data: {no\n\n", "收到的不是这个服务的回答"),
    "an error": (said("多喝") + event(error={"message": "<b>坏了</b>"}), "<b>坏了</b>"),
    "another page": ("<html><script>hit()</script></html>", "连接中断"),
    "no choice": (event() + event(choices=[]) + event(choices=None) + said("水", "stop"), "水"),
    "no text": (said(None) + said(7) + said(["x"]) + said({"a": 1}) + said("水", "stop"), "水"),
    "an unknown end": (said("水", "content_filter"), "水"),
    "other line ends": (said("水", "stop").replace("\n", "\r\n"), "水"),
    "comments": (": waiting\n\nevent: message\nid: 1\nretry: 5\n" + said("水", "stop"), "水"),
    "odd notices": (
        event(medchat={"notices": [{"text": 7, "urgent": "yes"}, {}], "queue": "<b>"}) + said("水", "stop"),
        "水",
    ),
    "code on one line": (said("```python print('水')```", "stop"), "print('水')"),
    "text behind a fence": (said("``` 水\n火", "stop"), "水"),
    "marks without end": (said("`" * 3000 + "**" * 3000 + "> " * 3000 + "水", "stop"), "水"),
}


#: One of each kind; the others are slow.
QUICK = ("no JSON", "odd notices", "marks without end")


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in ODD]
)
def test_an_odd_answer_is_shown_as_far_as_it_goes_and_the_next_one_comes(tab: Tab, case: str) -> None:
    body, shown = ODD[case]
    tab.run("window.hits = 0; window.hit = () => { window.hits += 1; }; window.honest = window.fetch; 0")
    tab.run(f"window.fetch = async () => new Response({json.dumps(body)}); 0")
    ask(tab, "头痛")
    assert shown in tab.text("article.answer") and tab.run("window.hits") == 0
    tab.run("window.fetch = window.honest; 0")
    ask(tab, "发热")
    assert "你问的是发热" in tab.text("article.answer:last-child")


def test_letters_that_are_cut_between_two_pieces_are_whole(tab: Tab) -> None:
    body = said("水痘").replace("\\u6c34\\u75d8", "水痘") + said("", "stop")
    tab.run(
        f"window.fetch = async () => {{ const bytes = new TextEncoder().encode({json.dumps(body)});"
        " return new Response(new ReadableStream({ start(control) {"
        " for (const byte of bytes) control.enqueue(Uint8Array.of(byte)); control.close(); } })); }; 0"
    )
    ask(tab, "头痛")
    assert "水痘" in tab.text("article.answer")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [(500, "<h1>nginx</h1>", "500"), (502, "", "502"), (429, '{"error":{"message":"稍后再试"}}', "稍后再试")],
)
def test_a_refusal_by_whoever_stands_between_is_shown(tab: Tab, status: int, body: str, shown: str) -> None:
    tab.run(f"window.fetch = async () => new Response({json.dumps(body)}, {{ status: {status} }}); 0")
    ask(tab, "头痛")
    assert shown in tab.text("article.answer") and tab.run("document.querySelectorAll('main h1').length") == 0


def test_a_server_that_has_gone_is_named_in_the_readers_language(
    browser: Browser, scripted_model: OpenedModel
) -> None:
    with serving(scripted_model) as served:
        page = Tab(browser, served.url + "/")
    ask(page, "头痛")
    assert "连不上服务" in page.text("article.answer")


KEPT = [
    "null", "7", "[]", "[null]", "{", '[{"id":1,"turns":[]}]', '[{"id":"a","turns":7}]', '[{"id":"a","turns":[null]}]',
    '[{"id":"a","turns":[{"question":{},"answer":1,"notices":{}}]}]', '[{"id":"a","turns":[],"alarm":7}]',
    '[{"id":"a","turns":[{"question":"x","answer":"y","notices":[],"ended":"toString"}]}]',
]  # fmt: skip


def test_what_another_program_kept_at_this_address_does_no_harm(tab: Tab) -> None:
    for kept in KEPT:
        tab.run(f"sessionStorage.sessions = {json.dumps(kept)}; sessionStorage.theme = '<b>'")
        tab.reload()
        assert tab.run("document.activeElement.id") == "question", kept
    ask(tab, "头痛")
    assert "你问的是头痛" in tab.text("article.answer")


def test_a_token_that_is_added_to_the_address_of_the_open_page_is_taken(
    browser: Browser, scripted_model: OpenedModel
) -> None:
    token = TOKEN + "%+/=%zz"
    with serving(scripted_model, guard=Guard(token=token)) as served:
        page = Tab(browser, served.url + "/")
        page.run(f"location.hash = {json.dumps('#token=' + token)}")
        page.wait_for("location.hash === ''")
        ask(page, "头痛")
        assert "你问的是头痛" in page.text("article.answer")
        page.wait_for(IDLE)
