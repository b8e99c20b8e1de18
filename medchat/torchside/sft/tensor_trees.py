"""Nested state (dictionaries, lists, numbers, tensors) on the disk: tensors in safetensors, the rest JSON.

No pickle: what is read back can only ever be data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from medchat.errors import CheckpointError
from medchat.language import say

#: Tensors on a GPU pass through memory a file at a time.
FILE_BYTES = 4 * 2**30
#: Keys that stand for what JSON has no word for.
_TENSOR, _TUPLE, _PAIRS = "__tensor__", "__tuple__", "__pairs__"


def save_tensors(tensors: Mapping[str, Tensor], folder: Path, name: str) -> None:
    """Write tensors as `name`-00001.safetensors, …; at least one file. Raises OSError, SafetensorError."""
    batches: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, tensor in tensors.items():
        if size and size + tensor.nbytes > FILE_BYTES:
            batches.append({})
            size = 0
        batches[-1][key] = tensor
        size += tensor.nbytes
    for number, batch in enumerate(batches, start=1):
        save_file(_apart(batch), folder / f"{name}-{number:05d}.safetensors", {"format": "pt"})


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: dense, contiguous, no two over the same bytes."""
    seen: set[int] = set()
    apart = {}
    for key, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        place = tensor.untyped_storage().data_ptr()
        apart[key] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def load_tensors(folder: Path, name: str) -> Iterator[tuple[str, Tensor]]:
    """Give the tensors that `save_tensors` wrote, one at a time, on the CPU."""
    for path in sorted(folder.glob(f"{name}-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a dictionary)
                yield key, file.get_tensor(key)


def save_tree(tree: Any, folder: Path, name: str) -> None:
    """Write nested state as `name`.json and `name`-00001.safetensors. Raises OSError, TypeError."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_plain(tree, tensors), ensure_ascii=False, allow_nan=True)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    save_tensors(tensors, folder, name)


def load_tree(folder: Path, name: str) -> Any:
    """Return what `save_tree` wrote. Raises CheckpointError if it is not there or makes no sense."""
    path = folder / f"{name}.json"
    try:
        return _restored(json.loads(path.read_text(encoding="utf-8")), dict(load_tensors(folder, name)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            say("检查点的状态无法读取", "the checkpoint's state cannot be read"),
            say("请删除这个检查点后再用 --resume", "remove this checkpoint and try --resume again"),
            where=str(path),
        ) from error


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = f"{len(tensors):06d}"
        tensors[key] = value
        return {_TENSOR: key}
    if isinstance(value, Mapping):
        return {_PAIRS: [[_plain(key, tensors), _plain(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_plain(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_plain(item, tensors) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"no plain form for {type(value).__name__}")


def _restored(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restored(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == _TENSOR:
        return tensors[content]
    if kind == _TUPLE:
        return tuple(_restored(item, tensors) for item in content)
    if kind != _PAIRS:
        raise ValueError(f"unknown form {kind!r}")
    return {_restored(key, tensors): _restored(item, tensors) for key, item in content}
