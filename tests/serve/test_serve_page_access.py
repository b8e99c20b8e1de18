"""Everybody can use the page: on a narrow screen, with the keyboard alone, with a screen reader, light or dark."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Tab
from served_page import ask

from medchat.language import set_language

pytest_plugins = ("served_page",)

URGENT = "我爸突然剧烈胸痛，喘不上气，大汗"
#: Where the npm package axe-core lies.
AXE = os.environ.get("MEDCHAT_AXE", "")


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


def test_on_a_phone_the_open_list_of_sessions_hides_what_it_covers_and_escape_closes_it(tab: Tab) -> None:
    tab.resize(360)
    ask(tab, "头痛")
    tab.run("document.getElementById('menu').click()")
    reached = set()
    for _ in range(20):
        tab.press("Tab", 9)
        reached.add(tab.run("document.activeElement.closest('main, nav, header, footer')?.localName"))
    assert "nav" in reached and "main" not in reached
    tab.press("Escape", 27)
    assert tab.run("[document.activeElement.id, document.activeElement.ariaExpanded]") == ["menu", "false"]
    assert "你问的是头痛" in tab.text("main")


def test_the_statement_opens_at_its_beginning(tab: Tab) -> None:
    tab.resize(360, 500)
    tab.run("document.getElementById('more').click()")
    assert tab.run("document.activeElement.closest('dialog').scrollTop") == 0
    tab.press("Tab", 9)
    assert tab.run("document.activeElement.textContent") == "关闭"


@pytest.fixture(params=["zh", "en"])
def language(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have the server speak this language before `tab` opens its page."""
    set_language(request.param)
    yield request.param


def faults(tab: Tab) -> list[str]:
    """Return what axe-core calls a serious or critical fault of the page as it is."""
    found = tab.run("axe.run(document)")
    assert len(found["passes"]) > 15
    return [
        f"{fault['id']}: {node['html'][:80]}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_axe_core_finds_no_serious_fault(language: str, tab: Tab, theme: str, width: int) -> None:
    if not AXE:
        pytest.skip("axe-core is not here: npm pack axe-core, unpack it, name the folder in MEDCHAT_AXE")
    tab.run((Path(AXE) / "axe.min.js").read_text(encoding="utf-8"))
    tab.resize(width)
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    assert tab.run("document.documentElement.lang") == language
    seen = {"empty": faults(tab)}
    ask(tab, URGENT)
    tab.run(
        "document.querySelector('#log').append(markdown('# 一\\n- 二\\n> 三\\n\\n`四`\\n```\\n五\\n```'))"
    )
    seen["an answer under an open notice"] = faults(tab)
    tab.run("document.querySelector('#alarm button').click()")
    seen["the notice in the answer"] = faults(tab)
    tab.run("take = () => { throw new Error('x'); }")
    ask(tab, "头痛")
    seen["a failure"] = faults(tab)
    if width == 360:
        tab.run("document.getElementById('menu').click()")
        seen["the sessions"] = faults(tab)
        tab.run("document.getElementById('menu').click()")
    tab.run("document.getElementById('more').click()")
    seen["the statement"] = faults(tab)
    assert not any(seen.values()), json.dumps(seen, ensure_ascii=False, indent=1)
