"""Untrusted text on its way into a page of Markdown: nothing in it that a terminal, Markdown or HTML acts upon."""

from __future__ import annotations

import re

from medchat.inert import inert

_ACTIVE = re.compile(r"[\\`*_\[\]|~$#!]|:(?=//)|(?<=\bwww)\.|@")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def cell(text: str) -> str:
    """Return `text` as the content of a table cell: it shows as it is written, on one line of the source."""
    plain = inert(text).strip().replace("\t", " ")
    escaped = _ACTIVE.sub(r"\\\g<0>", plain)
    for character, entity in _ENTITIES.items():
        escaped = escaped.replace(character, entity)
    return escaped.replace("\n", "<br>")
