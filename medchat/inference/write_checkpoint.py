"""Writing a small checkpoint folder, in any of the layouts that models are published in.

For miniatures (`Backbone.tiny`), whose folder does not exist before; `sft` writes what must survive a crash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from medchat.errors import UsageError
from medchat.language import say

LAYOUTS = ("sharded_bin", "bin", "sharded_safetensors", "safetensors")


def begin_folder(path: Path) -> None:
    """Make the folder. Raises UsageError if there is one with something in it, or a file of that name."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(
            say(f"不会覆盖已有的内容：{path}", f"{path} is not empty and will not be overwritten"),
            say("请换一个空的或不存在的目录", "name a folder that is empty or does not exist"),
        )
    path.mkdir(parents=True, exist_ok=True)


def impossible_shape(shape: object, need_zh: str, need_en: str) -> UsageError:
    """Return the error for a miniature of sizes that no model can have; `need_…` say which it could."""
    return UsageError(
        say(f"微型模型的尺寸无效：{shape}", f"a tiny model cannot have this shape: {shape}"),
        say(need_zh, need_en),
    )


class RandomTensors:
    """Draws the random weights of a miniature, in float16: the same seed and calls give the same values."""

    def __init__(self, seed: int, spread: float) -> None:
        self._random, self._spread = torch.Generator().manual_seed(seed), spread

    def matrix(self, *shape: int, spread: float = 0.0) -> Tensor:
        """Return normal values of the usual standard deviation, or of `spread`.

        Shape `shape`, float16.
        """
        return (torch.randn(*shape, generator=self._random) * (spread or self._spread)).half()

    def linear(self, name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Tensor]]:
        """Yield a random matrix and a bias of zeros. Shapes [outputs, inputs] and [outputs], float16."""
        yield f"{name}.weight", self.matrix(outputs, inputs)
        yield f"{name}.bias", torch.zeros(outputs, dtype=torch.float16)


def layer_norm(name: str, width: int, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield the weight and bias of a norm that changes nothing yet. Both of shape [width] and of `dtype`."""
    yield f"{name}.weight", torch.ones(width, dtype=dtype)
    yield f"{name}.bias", torch.zeros(width, dtype=dtype)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UsageError unless `value` is one of `choices`."""
    if value not in choices:
        raise UsageError(
            say(f"{name} 没有“{value}”这个选项", f"{name} cannot be {value!r}"),
            say(f"可选：{'、'.join(choices)}", f"choose one of {', '.join(choices)}"),
        )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as people read it."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def save_and_compare(tensors: Mapping[str, Tensor], path: Path) -> bool:
    """Write a safetensors file, read it back and return whether it holds `tensors`, bit by bit.

    Any shapes and dtypes. The file is for its owner alone. Raises OSError, or what safetensors makes of one.
    """
    kept = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(kept, path, {"format": "pt"})
    with safe_open(path, framework="pt") as written:
        return set(written.keys()) == set(kept) and all(
            torch.equal(written.get_tensor(name), tensor.cpu()) for name, tensor in kept.items()
        )


def write_weights(path: Path, tensors: Mapping[str, Tensor], layout: str, shards: int = 3) -> None:
    """Write `tensors`, in their order, in one of `LAYOUTS`: about `shards` files where it is sharded.

    Shapes and dtypes are kept.
    """
    stem, ending = ("model", "safetensors") if layout.endswith("safetensors") else ("pytorch_model", "bin")
    if not layout.startswith("sharded"):
        _save(dict(tensors), path / f"{stem}.{ending}")
        return
    parts = _split(tensors, shards)
    weight_map: dict[str, str] = {}
    for number, part in enumerate(parts, start=1):
        name = f"{stem}-{number:05d}-of-{len(parts):05d}.{ending}"
        _save(part, path / name)
        weight_map |= dict.fromkeys(part, name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(
        path / f"{stem}.{ending}.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
    )


def _split(tensors: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """Cut the tensors into about `count` parts; one that overflows opens the next."""
    limit = sum(tensor.nbytes for tensor in tensors.values()) / count
    parts: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if parts[-1] and filled + tensor.nbytes > limit:
            parts.append({})
            filled = 0
        parts[-1][name] = tensor
        filled += tensor.nbytes
    return parts


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    if file.suffix == ".safetensors":
        # Not `save_file`, which makes files that only their owner may read.
        file.write_bytes(save(tensors, metadata={"format": "pt"}))
    else:
        torch.save(tensors, file)
