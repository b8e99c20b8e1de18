"""Folders that no backbone should know, and none may stumble over: what lies about on people's disks, and worse."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

#: What stands in config.json. Depth and numbers are beyond what a reader of JSON takes by itself.
_CONFIGS: Mapping[str, bytes] = {
    "broken JSON": b"{",
    "an empty file": b"",
    "a list": b"[]",
    "null": b"null",
    "nested too deeply": b"[" * 100_000,
    "bytes": bytes(range(256)),
    "UTF-16": '{"model_type": "x"}'.encode("utf-16"),
    "another model": b'{"model_type": "no-such-model", "hidden_size": 8}',
    "a number for the model": b'{"model_type": 7}',
    "a list for the model": b'{"model_type": ["llama"]}',
    "a number without end": b'{"model_type": "no-such-model", "vocab_size": 1e999}',
    "architectures that are a text": b'{"architectures": "LlamaForCausalLM"}',
    "a key twice": b'{"model_type": "no-such-model", "model_type": "another"}',
    "half a character": b'{"model_type": "\\ud800"}',
}
#: Files that say "model" to one family or another, all of them rubbish.
_NAMES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "model.gguf",
)


def write_strange_folders(folder: Path) -> Mapping[str, Path]:
    """Write the folders below `folder` and return each by what it is; some paths lead to nothing."""
    found: dict[str, Path] = {}

    def place(what: str) -> Path:
        found[what] = folder / f"{len(found):02}"
        found[what].mkdir(parents=True)
        return found[what]

    for what, content in _CONFIGS.items():
        (place(f"config.json: {what}") / "config.json").write_bytes(content)
    for name in _NAMES:
        (place(f"{name} of rubbish") / name).write_bytes(b"\0rubbish")
        (place(f"a folder called {name}") / name).mkdir()
    (place("config.json that is a folder") / "config.json").mkdir()
    (place("a link to itself") / "config.json").symlink_to("config.json")
    (place("an endless device") / "config.json").symlink_to("/dev/zero")
    os.mkfifo(place("a pipe that nobody writes to") / "config.json")
    place("an empty folder")
    found["a file"] = folder / "file"
    found["a file"].write_text("no model", encoding="utf-8")
    found["nothing"] = folder / "nothing"
    found["a name that is too long"] = folder / ("n" * 300)
    return found
