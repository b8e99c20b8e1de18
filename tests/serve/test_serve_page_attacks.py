"""The page runs nobody else's code: what comes as text stays text, and its policy refuses what does not."""

from __future__ import annotations

import re
import time

from browser import Tab
from served_model import Served
from served_page import ask

pytest_plugins = ("served_page",)


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


def test_the_policy_names_the_pages_own_blocks_and_the_page_no_other_address(served: Served) -> None:
    with served.client() as client:
        response = client.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert policy.count("sha256-") == 2
    assert not re.search(r"https?://|//[a-z]+\.", response.text)
    assert response.headers["referrer-policy"] == "no-referrer"
