"""Everybody can use the page: on a narrow screen, with the keyboard alone, with a screen reader, light or dark."""

from __future__ import annotations

import pytest
from browser import Tab
from served_page import ask

pytest_plugins = ("served_page",)


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
