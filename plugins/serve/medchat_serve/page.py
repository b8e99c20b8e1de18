"""The page at `/`: one file, which nothing from elsewhere can be part of."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from importlib.resources import files

from starlette.responses import HTMLResponse, Response

from medchat.plugin_kit import disclaimer, say

#: Where the facts are in the file, as JSON that no browser runs.
_PLACE = "__FACTS__"


@cache
def _template() -> str:
    return files("medchat_serve").joinpath("data/page.html").read_text(encoding="utf-8")


@cache
def content_security_policy() -> str:
    """Return the policy: the page's own script and style by their hashes, its own server to ask, and nothing else."""
    script, style = (_hash(rf"<{tag}>(.*?)</{tag}>") for tag in ("script", "style"))
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {script}",
            f"style-src {style}",
            "connect-src 'self'",
            "img-src 'self' data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _hash(pattern: str) -> str:
    found = re.search(pattern, _template(), re.DOTALL)
    assert found is not None
    digest = hashlib.sha256(found[1].encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def page(model: str, mark: str) -> Response:
    """Return the page for the model of that name, in the interface language; `mark` goes with every answer."""
    facts = {"language": say("zh", "en"), "model": model, "mark": mark, "disclaimer": disclaimer()}
    # A model's name must not be able to end the block that it is in.
    written = json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c")
    return HTMLResponse(
        _template().replace(_PLACE, written),
        headers={
            "Content-Security-Policy": content_security_policy(),
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        },
    )
