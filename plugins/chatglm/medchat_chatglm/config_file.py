"""The generation of a config.json, found without torch or transformers.

The model itself uses `ChatGLMConfig`; this is for templates, the tokenizer and `models show`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Rows of the two published generations, and the image ids that precede the text ids of the first
#: (docs/specs/models.md, "ChatGLM-6B revisions and files").
V0_ROWS, V11_ROWS, V0_IMAGE_TOKENS = 150528, 130528, 20000


def generation_of(config: Mapping[str, Any]) -> str:
    """Return "v0" (icetk-era ids, the Med weights) or "v11" for the object in a config.json.

    The rule of `ChatGLMConfig.generation`: 150528 rows are v0 and 130528 are v1.1; any other size is
    v1.1 exactly if it names a pad id that is a text id of that generation (1 to 19999).
    """
    rows = config.get("vocab_size", V0_ROWS)
    if rows in (V0_ROWS, V11_ROWS):
        return "v0" if rows == V0_ROWS else "v11"
    pad = config.get("pad_token_id")
    return "v11" if type(pad) is int and 0 < pad < V0_IMAGE_TOKENS else "v0"
