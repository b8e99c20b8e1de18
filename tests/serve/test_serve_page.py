"""The page in Chromium: it streams, stops, keeps its sessions and shows what must be seen."""

from __future__ import annotations

import pytest
from browser import Browser, Tab
from medchat_serve.guard import Guard
from served_model import Served, serving
from served_page import IDLE, ask

from medchat.plugin_kit import OpenedModel

pytest_plugins = ("served_page",)

URGENT = "我爸突然剧烈胸痛，喘不上气，大汗"
TOKEN = "a-token-of-the-tests"


def test_a_question_is_answered_and_marked(tab: Tab, served: Served) -> None:
    ask(tab, "头痛")
    answer = tab.text("article.answer")
    assert "你问的是头痛" in answer and served.opened.mark in answer
    assert served.opened.mark in tab.text("footer")
    ask(tab, "还有呢？")
    assert tab.run("document.querySelectorAll('article').length") == 4


def test_an_answer_grows_and_stop_keeps_what_has_come(tab: Tab, served: Served) -> None:
    ask(tab, "没完", wait=False)
    tab.wait_for("document.querySelector('article.answer').innerText.includes('水水')")
    first = len(tab.text("article.answer"))
    tab.wait_for(f"document.querySelector('article.answer').innerText.length > {first}")
    tab.run(
        "window.took = new Promise((done) => addEventListener('keydown', () => { const began = performance.now();"
        " const look = () => underWay ? setTimeout(look, 5) : done(performance.now() - began); look(); })); 0"
    )
    tab.press("Escape", 27)
    assert tab.run("took") < 1000
    assert "已停止" in tab.text("article.answer") and "水" in tab.text("article.answer")
    served.wait_until_idle()


def test_another_answer_takes_the_place_of_the_first(tab: Tab) -> None:
    ask(tab, "头痛")
    tab.run("[...document.querySelectorAll('.tools button')].at(-1).click()")
    tab.wait_for(IDLE)
    assert tab.run("document.querySelectorAll('article.answer').length") == 1
    assert "你问的是头痛" in tab.text("article.answer")


def test_a_reload_keeps_the_sessions_and_another_tab_knows_nothing_of_them(
    tab: Tab, browser: Browser, served: Served
) -> None:
    ask(tab, "头痛")
    tab.run("document.getElementById('new').click()")
    ask(tab, "发烧")
    tab.reload()
    assert "你问的是发烧" in tab.text("main")
    assert [title in tab.text("nav") for title in ("头痛", "发烧")] == [True, True]
    tab.run("document.querySelectorAll('#sessions li')[1].querySelector('button').click()")
    assert "你问的是头痛" in tab.text("main") and "发烧" not in tab.text("main")
    tab.run("document.querySelectorAll('#sessions li button')[3].click()")
    assert "头痛" not in tab.text("nav")
    assert "发烧" not in Tab(browser, served.url + "/").text()


def test_an_urgent_notice_stays_in_sight_until_it_was_seen(tab: Tab) -> None:
    ask(tab, URGENT)
    for _ in range(3):
        ask(tab, "长期头痛，请说得详细一些")
    tab.run("document.getElementById('talk').scrollTop = 1e6")
    seen = tab.run(
        "(() => { const box = document.getElementById('alarm').getBoundingClientRect();"
        " return box.top >= 0 && box.bottom <= innerHeight && box.height > 20; })()"
    )
    notice = tab.text("#alarm p")
    assert seen and "120" in notice and tab.text().count(notice) == 1
    tab.reload()
    assert "120" in tab.text("#alarm")
    tab.run("document.querySelector('#alarm button').click()")
    assert tab.run("document.getElementById('alarm').hidden") is True
    assert "120" in tab.text("article.answer"), "in the conversation it stays"


def test_the_notice_is_shown_once_and_is_no_part_of_the_stored_answer(tab: Tab) -> None:
    ask(tab, URGENT)
    stored = tab.run("JSON.parse(sessionStorage.sessions)[0].turns[0]")
    assert stored["answer"] == f"你问的是{URGENT}"
    assert len(stored["notices"]) == len({notice["text"] for notice in stored["notices"]}) >= 1


def test_the_answer_is_drawn_in_words_lists_and_code(tab: Tab) -> None:
    tab.run(
        "window.drawn = markdown('# 头痛\\n\\n多喝水，**多休息**：\\n\\n- 量体温\\n- `布洛芬`\\n\\n2. 二\\n\\n> 引用"
        "\\n\\n```\\n<b>代码</b>\\n```\\n\\n见 [网页](https://evil.example/a)');"
        "document.getElementById('log').replaceChildren(drawn)"
    )
    names = tab.run("[...document.getElementById('log').children].map((one) => one.localName)")
    assert names == ["h3", "p", "ul", "ol", "blockquote", "pre", "p"]
    assert "[网页](https://evil.example/a)" in tab.text("#log"), "an address is seen whole and leads nowhere"
    assert "<b>代码</b>" in tab.text("#log pre")


def test_what_is_exported_and_copied_carries_the_mark(tab: Tab, served: Served) -> None:
    ask(tab, URGENT)
    text = tab.run("exported()")
    assert served.opened.mark in text and "120" in text and '"Label":"1"' in text
    copied = tab.run("(async () => { let got = ''; navigator.clipboard.writeText = async (text) => { got = text; };"
                     " await copy(current.turns[0]); return got; })()")  # fmt: skip
    assert copied.endswith(served.opened.mark)


def test_the_token_comes_from_the_address_and_does_not_stay_there(
    browser: Browser, scripted_model: OpenedModel
) -> None:
    with serving(scripted_model, guard=Guard(token=TOKEN)) as served:
        without = Tab(browser, served.url + "/")
        ask(without, "头痛")
        assert "#token=" in without.text("article.answer")
        with_token = Tab(browser, f"{served.url}/#token={TOKEN}")
        assert with_token.run("location.hash") == ""
        ask(with_token, "头痛")
        assert "你问的是头痛" in with_token.text("article.answer")


@pytest.mark.slow
def test_a_long_answer_does_not_freeze_the_page(tab: Tab) -> None:
    slowest = tab.run(
        """(async () => {
          const encoder = new TextEncoder();
          const chunk = (content) => encoder.encode(
            'data: ' + JSON.stringify({ choices: [{ delta: { content } }] }) + '\\n\\n');
          const pieces = Array.from({ length: 4000 }, (_, at) => chunk(at % 40 ? '水' : '\\n- 水'));
          window.fetch = async () => new Response(new ReadableStream({ async pull(control) {
            for (let many = 0; many < 40 && pieces.length; many += 1) control.enqueue(pieces.shift());
            await new Promise((go) => setTimeout(go, 5));
            if (!pieces.length) control.close();
          } }));
          let last = performance.now(), longest = 0;
          const ticking = setInterval(() => {
            const now = performance.now(); longest = Math.max(longest, now - last); last = now; }, 10);
          ask('水');
          while (underWay) await new Promise((go) => setTimeout(go, 20));
          clearInterval(ticking);
          return [longest, current.turns[0].answer.length];
        })()"""
    )
    # Milliseconds in which nothing could be clicked; a machine that is busy with other tests takes longer.
    assert slowest[0] < 2000
    assert slowest[1] == 4000 + 3 * 100
