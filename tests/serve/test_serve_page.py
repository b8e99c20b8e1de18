"""The page in Chromium: it streams, stops, keeps its sessions, shows what must be seen, and runs nobody else's code."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
from browser import Browser, Tab
from medchat_serve.guard import Guard
from served_model import Served, serving

from medchat.plugin_kit import OpenedModel

pytest_plugins = ("served_model", "browser")

URGENT = "我爸突然剧烈胸痛，喘不上气，大汗"
TOKEN = "a-token-of-the-tests"
IDLE = "document.getElementById('log').getAttribute('aria-busy') === 'false'"
#: Where the npm package openai lies.
OPENAI_JS = os.environ.get("MEDCHAT_OPENAI_JS", "")
Open = Callable[..., Tab]


@pytest.fixture
def tab(browser: Browser, served: Served) -> Iterator[Tab]:
    page = Tab(browser, served.url + "/")
    yield page
    page.run("document.getElementById('stop').click()")
    assert page.complaints() == []


def ask(tab: Tab, question: str, *, wait: bool = True) -> None:
    """Type a question and send it, with the keyboard alone."""
    tab.run("document.getElementById('question').focus()")
    tab.type(question)
    tab.enter()
    tab.wait_for("document.getElementById('question').value === ''")
    if wait:
        tab.wait_for(IDLE)


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
    tab.press("Escape", 27)
    tab.wait_for(IDLE, seconds=5)
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


#: What an attack calls where it gets through.
COUNTING = "window.hits = 0; window.hit = () => { window.hits += 1; };"
ATTACKS = (
    *(
        "<script>hit()</script>",
        "<img src=x onerror=hit()>",
        "<svg onload=hit()>",
        "<iframe srcdoc='<script>",
    ),
    *(
        "<body onload=hit()>",
        "<a href='javascript:hit()'>x</a>",
        "[x](javascript:hit())",
        "![x](javascript:hit())",
    ),
    *("`<script>hit()</script>`", "**<img src=x onerror=hit()>**", "```html\n<script>hit()</script>\n```"),
    *("# <img src=x onerror=hit()>", "- <img src=x onerror=hit()>", "> <img src=x onerror=hit()>"),
    *("1. <svg/onload=hit()>", "</script><script>hit()</script>", "</style><script>hit()</script>"),
    *(
        "<!--><img src=x onerror=hit()>-->",
        "<details open ontoggle=hit()>",
        "<input autofocus onfocus=hit()>",
    ),
    *("<math><mtext><img src=x onerror=hit()>", "<template><img src=x onerror=hit()></template>"),
    *(
        "<object data='javascript:hit()'>",
        "<embed src='javascript:hit()'>",
        "<base href='https://evil.example/'>",
    ),
    *(
        "<meta http-equiv=refresh content='0;url=https://evil.example'>",
        "<link rel=import href=//evil.example>",
    ),
    *(
        "<form action=//evil.example><button>x",
        "<style>*{display:none}</style>",
        "{{constructor.constructor('hit()')()}}",
    ),
    *("\u202e<img src=x onerror=hit()>", "<IMG SRC=x ONERROR=hit()>", "&lt;img src=x onerror=hit()&gt;"),
)


def test_thirty_attempts_to_run_code_stay_text(tab: Tab) -> None:
    assert len(ATTACKS) >= 30
    tab.run(
        "window.hits = 0; window.hit = () => { window.hits += 1; }; window.marked = document.body.childElementCount"
    )
    for attack in ATTACKS:
        # The scripted model says the question back; the title of the session is the question too.
        ask(tab, attack.replace("\n", " "))
        tab.run("document.getElementById('new').click()")
    tab.run("document.querySelectorAll('#sessions li button')[2].click()")
    assert tab.run("window.hits") == 0
    assert tab.run("document.body.childElementCount === window.marked") is True
    for name in ("script", "img", "svg", "iframe", "a", "form", "style", "input", "object", "embed", "base"):
        assert tab.run(f"document.querySelectorAll('main {name}, nav {name}').length") == 0
    assert "\u202e" not in tab.text()


def test_whatever_the_server_says_of_a_failure_is_text_too(tab: Tab, served: Served) -> None:
    attack = "<img src=x onerror=hit()>"
    tab.run(COUNTING)
    tab.run(f"take = () => {{ throw new Error({attack!r}); }}")
    ask(tab, "头痛")
    assert attack in tab.text("article.answer")
    assert tab.run("window.hits") == 0 and tab.run("document.querySelectorAll('main img').length") == 0


def refusals(tab: Tab, last: str) -> list[str]:
    """Return what the browser complained of, up to the complaint that names `last`: it comes a moment later."""
    found, deadline = tab.complaints(), time.monotonic() + 10
    while not any(last in complaint for complaint in found) and time.monotonic() < deadline:
        found += tab.complaints()
    return found


def test_code_that_got_into_the_page_all_the_same_is_not_run(tab: Tab) -> None:
    """The policy is the second door: markup that was put in as markup does nothing."""
    tab.run(
        COUNTING + "document.getElementById('log').innerHTML ="
        " '<img src=x onerror=hit()><a id=bad href=\"javascript:hit()\">x</a>';"
        "const made = document.createElement('script'); made.textContent = 'hit()'; document.body.append(made);"
        "document.getElementById('bad').click()"
    )
    refused = tab.run("fetch('https://evil.example/').then(() => 'sent', () => 'refused')")
    assert (tab.run("window.hits"), refused) == (0, "refused")
    # The image is looked for first, and its handler is refused when that has failed.
    found = refusals(tab, "inline event handler")
    assert any("inline event handler" in complaint for complaint in found) and len(found) >= 4, found


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


@pytest.mark.parametrize("width", [360, 1000])
def test_it_fits_the_window_and_every_button_has_a_name(tab: Tab, width: int) -> None:
    tab.resize(width)
    ask(tab, "长" * 200)
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("[...document.querySelectorAll('button')].every((one) => one.textContent.trim())")
    assert tab.run("document.documentElement.lang") == "zh"


def test_the_keyboard_alone_reaches_everything(tab: Tab) -> None:
    ask(tab, "头痛")
    reached = set()
    for _ in range(30):
        tab.press("Tab", 9)
        reached.add(tab.run("document.activeElement.id || document.activeElement.textContent"))
    assert {
        "new",
        "export",
        "theme",
        "talk",
        "question",
        "send",
        "more",
        "复制",
        "重新回答",
        "删除",
    } <= reached


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


def test_a_page_of_another_origin_asks_where_that_was_allowed(
    browser: Browser, scripted_model: OpenedModel, served: Served
) -> None:
    """The headers are those of openai-js, which the browser asks leave for first."""
    script = """(async (url) => {
      const headers = { "Content-Type": "application/json", Authorization: "Bearer TOKEN", "X-Stainless-Lang": "js",
        "X-Stainless-OS": "Unknown", "X-Stainless-Retry-Count": "0", "X-Stainless-Runtime": "browser:chrome" };
      const body = JSON.stringify({ model: "served", messages: [{ role: "user", content: "头痛" }] });
      try {
        const response = await fetch(url + "/v1/chat/completions", { method: "POST", headers, body });
        return [response.status, (await response.json()).choices[0].message.content];
      } catch (error) { return String(error); }
    })""".replace("TOKEN", TOKEN)
    with http_page() as other:
        elsewhere = Tab(browser, other + "/")
        with serving(scripted_model, guard=Guard(origins=[other], token=TOKEN)) as allowing:
            assert elsewhere.run(f"{script}({allowing.url!r})") == [200, "你问的是头痛"]
        served.log.clear()
        assert "TypeError" in elsewhere.run(f"{script}({served.url!r})"), "by default no other page may ask"
        assert "cmpl" not in served.logged(1)


@pytest.mark.slow
def test_openai_js_works_on_a_page_of_another_origin(browser: Browser, scripted_model: OpenedModel) -> None:
    """The package itself: models, an answer whole and as a stream, counts, and errors of its own classes."""
    if not OPENAI_JS:
        pytest.skip("openai-js is not here: npm pack openai, unpack it, name the folder in MEDCHAT_OPENAI_JS")
    script = """(async (page, url, key) => {
      const { OpenAI, NotFoundError, AuthenticationError } = await import(page + "/index.mjs");
      const options = { baseURL: url + "/v1", dangerouslyAllowBrowser: true, maxRetries: 0 };
      const client = new OpenAI({ ...options, apiKey: key });
      const asked = { model: "served", messages: [{ role: "user", content: "头痛" }] };
      const models = (await client.models.list()).data.map((model) => model.id);
      const whole = (await client.chat.completions.create(asked)).choices[0].message.content;
      let streamed = "", tokens = 0;
      const stream = await client.chat.completions.create(
        { ...asked, stream: true, stream_options: { include_usage: true } });
      for await (const chunk of stream) {
        streamed += chunk.choices[0]?.delta?.content ?? "";
        tokens = chunk.usage?.completion_tokens ?? tokens;
      }
      const failing = async (made, wanted, body) => {
        try { await made.chat.completions.create(body); }
        catch (error) { return error instanceof wanted && error.code; }
      };
      const missing = await failing(client, NotFoundError, { ...asked, model: "other" });
      const stranger = new OpenAI({ ...options, apiKey: "another-key-than-it" });
      const refused = await failing(stranger, AuthenticationError, asked);
      return [models, whole, streamed, tokens, missing, refused];
    })"""
    with http_page(OPENAI_JS) as other:
        elsewhere = Tab(browser, other + "/")
        with serving(scripted_model, guard=Guard(origins=[other], token=TOKEN)) as served:
            assert elsewhere.run(f"{script}({other!r}, {served.url!r}, {TOKEN!r})") == [
                ["served"], "你问的是头痛", "你问的是头痛", 6, "model_not_found", "invalid_api_key",
            ]  # fmt: skip


@contextmanager
def http_page(folder: str = "") -> Iterator[str]:
    """Give the origin of an empty page that another server shows, and of the modules in `folder`."""

    class Empty(SimpleHTTPRequestHandler):
        extensions_map: ClassVar = {".mjs": "text/javascript"}

        def do_GET(self) -> None:
            if self.path.endswith(".mjs"):
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Empty, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


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


def test_the_policy_names_the_pages_own_blocks_and_the_page_no_other_address(served: Served) -> None:
    with served.client() as client:
        response = client.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert policy.count("sha256-") == 2
    assert not re.search(r"https?://|//[a-z]+\.", response.text)
    assert response.headers["referrer-policy"] == "no-referrer"
