"""The small JSON files of a checkpoint folder, read without torch or transformers.

The model itself uses `ChatGLMConfig`; this is for what only needs a glance: templates, the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medchat.checkpoints.read_once import file_bytes
from medchat.errors import CheckpointError
from medchat.language import say

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
    return "v11" if 0 < (config.get("pad_token_id") or 0) < V0_IMAGE_TOKENS else "v0"


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a small JSON file. Raises CheckpointError naming the file if there is none."""
    try:
        content = json.loads(file_bytes(path).decode("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            say(f"模型文件夹里没有 {path.name}", f"the model folder has no {path.name}"),
            say(
                "请检查 --model 的路径，或重新下载模型",
                "check the path given to --model, or download the model again",
            ),
            where=str(path),
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path) from error
    if not isinstance(content, dict):
        raise _unreadable(path)
    return content


def _unreadable(path: Path) -> CheckpointError:
    return CheckpointError(
        say(
            f"{path.name} 无法读取，或不是一个 JSON 对象",
            f"{path.name} cannot be read or holds no JSON object",
        ),
        say("请重新下载这个文件", "download this file again"),
        where=str(path),
    )
