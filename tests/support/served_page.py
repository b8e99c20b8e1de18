"""The page of `medchat serve` in Chromium, and how a person asks there.

A test module states `pytest_plugins = ("served_page",)` to use the fixtures. (PYTEST_DONT_REWRITE:
imported by name as well as as a plugin.)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Browser, Tab
from served_model import Served

pytest_plugins = ("served_model", "browser")

#: Whether no answer is under way.
IDLE = "document.getElementById('log').getAttribute('aria-busy') === 'false'"


@pytest.fixture
def tab(browser: Browser, served: Served) -> Iterator[Tab]:
    """Give the page of a server that has nothing to do; the browser must complain of nothing."""
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
