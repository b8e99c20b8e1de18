"""What tensors a checkpoint holds: names, shapes, dtypes. Never reads a weight, never imports torch.

safetensors files say so in a JSON header. A `.bin` is a pickle inside a zip (or, before torch 1.6,
a row of pickles): `bin_header` reads it with stand-ins for torch's types.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.checkpoints.foreign import foreign_file, quantised_tensors
from medchat.checkpoints.pickle_header import fits_a_tensor, read_bin_header
from medchat.checkpoints.pickle_machine import DamagedError, UnsafeError
from medchat.checkpoints.read_once import read_once
from medchat.checkpoints.weight_files import Checkpoint, names
from medchat.errors import CheckpointError
from medchat.language import say
from medchat.regular_files import UNLIMITED, open_regular

#: Bytes of one value by torch's name of the type.
ITEM_BYTES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "uint32": 4,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}
_SAFETENSORS_TYPES: Mapping[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "U32": "uint32",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
#: DistributedDataParallel, torch.compile, DeepSpeed and Lightning, FSDP, and peft, once or more often.
_IN_FRONT = re.compile(
    r"(?:(?:module|_orig_mod|_forward_module|_fsdp_wrapped_module|base_model\.model)\.)+(?=.)"
)
#: Around a part: FSDP, activation checkpointing, torch.compile.
_WITHIN = re.compile(r"(?<=\.)(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
#: peft's name of the adapter, which its own files leave out: `lora_A.default.weight`.
_ADAPTER_NAME = re.compile(r"(?<=\.)(lora_[AB])\.[^.]+(?=\.weight$)")
#: Bytes of a safetensors header: some 40,000 tensors, twenty times those of a large model's shard.
HEADER_BYTES = 4 * 2**20
#: A safetensors file begins with the length of its header, in so many bytes.
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One stored tensor. `name` is that in the file, `dtype` torch's name for it (`float16`)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path

    @property
    def count(self) -> int:
        """Return the number of values."""
        return math.prod(self.shape)

    @property
    def byte_count(self) -> int:
        """Return the bytes that the values take as stored."""
        return self.count * ITEM_BYTES[self.dtype]


def read_headers(checkpoint: Checkpoint) -> dict[str, TensorHeader]:
    """Return every tensor of the checkpoint by its plain name (see `tensor_names`), in the order of files.

    Raises CheckpointError: truncated or damaged file, a tensor in two shards, an index that names what its
    shard lacks, a pickle that asks for anything but tensors, another library's quantised weights.
    """
    found: dict[str, TensorHeader] = {}
    stored: dict[str, Path] = {}
    for file in checkpoint.files:
        for header in read_file_headers(file, checkpoint.format == "bin"):
            name = plain_name(header.name)
            if name in found:
                raise _duplicate(header, found[name])
            found[name] = header
            stored[header.name] = file
    if refusal := quantised_tensors({name: one.dtype for name, one in found.items()}, checkpoint.folder):
        raise refusal
    lacking = [name for name, file in checkpoint.placed.items() if stored.get(name) != file]
    if lacking:
        raise _not_in_shard(lacking, checkpoint)
    return found


def read_file_headers(file: Path, is_bin: bool) -> list[TensorHeader]:
    """Return the tensors of one weight file. Raises CheckpointError naming it."""
    try:
        return list(read_once(_bin_header if is_bin else _safetensors_header, file))
    except UnsafeError as error:
        raise unsafe_weights(file, str(error)) from None
    except DamagedError as error:
        raise foreign_file(file) or damaged_weights(file, str(error)) from None
    except OSError as error:
        raise damaged_weights(file, error.strerror or str(error)) from None


def unsafe_weights(file: Path, what: str) -> CheckpointError:
    """Return the error for a pickle that holds more than tensors."""
    return CheckpointError(
        say(
            f"{file.name} 里除张量外还有 {what}，已拒绝加载，其中的代码没有执行",
            f"{file.name} asks for {what}, which is not a tensor: refused, nothing of it was executed",
        ),
        say(
            "请改用 safetensors 格式的权重；若信任来源，可在隔离环境里先转换成 safetensors",
            "use safetensors weights; if you trust the source, convert it to safetensors in a sandbox first",
        ),
        where=str(file),
    )


def damaged_weights(file: Path, reason: str) -> CheckpointError:
    """Return the error for a weight file that is cut short or garbled."""
    return CheckpointError(
        say(
            f"权重文件 {file.name} 不完整或已损坏（{reason}）",
            f"weights {file.name} are truncated or damaged ({reason})",
        ),
        say("请重新下载这个文件", "download the file again"),
        where=str(file),
    )


def _not_in_shard(lacking: list[str], checkpoint: Checkpoint) -> CheckpointError:
    shard = checkpoint.placed[lacking[0]]
    return CheckpointError(
        say(
            f"索引列出的张量在分片 {shard.name} 里没有：{names(lacking)}",
            f"the index lists tensors that shard {shard.name} lacks: {names(lacking)}",
        ),
        say(
            "索引与分片不是同一版本，请一起重新下载",
            "index and shards are of different versions: fetch them together again",
        ),
        where=str(checkpoint.index),
    )


def _duplicate(header: TensorHeader, earlier: TensorHeader) -> CheckpointError:
    return CheckpointError(
        say(
            f"张量 {header.name} 在 {earlier.file.name} 和 {header.file.name} 里各有一份",
            f"tensor {header.name} is stored twice, in {earlier.file.name} and {header.file.name}",
        ),
        say(
            "分片来自不同的模型或版本，请重新下载整套文件",
            "the shards come from different models or versions: fetch the set again",
        ),
        where=str(header.file),
    )


def _bin_header(file: Path) -> tuple[TensorHeader, ...]:
    return tuple(TensorHeader(name, dtype, shape, file) for name, dtype, shape in read_bin_header(file))


def _safetensors_header(file: Path) -> tuple[TensorHeader, ...]:
    """Parse a safetensors header: 8 bytes of length, a JSON table, then the values without gaps."""
    size, text = file.stat().st_size, header_bytes(file)[_LENGTH_BYTES:]
    try:
        table = json.loads(text, object_pairs_hook=_table)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"header: {error}") from None
    if not isinstance(table, dict):
        raise DamagedError("header")
    spans: list[tuple[int, int]] = []
    found = []
    for name, entry in table.items():
        if name != "__metadata__":
            header, span = _safetensors_entry(file, name, entry)
            found.append((span, header))
            spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise DamagedError("offsets")
        end = stop
    if end != size - _LENGTH_BYTES - len(text):
        raise DamagedError(
            say(
                f"应有 {_LENGTH_BYTES + len(text) + end} 字节，实际 {size}",
                f"{_LENGTH_BYTES + len(text) + end} bytes expected, {size} found",
            )
        )
    return tuple(header for _, header in sorted(found, key=lambda item: item[0]))


def header_bytes(file: Path) -> bytes:
    """Return what a safetensors file begins with, up to its values. Raises DamagedError, OSError."""
    with open_regular(file, most=UNLIMITED) as stream:
        prefix = stream.read(_LENGTH_BYTES)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == _LENGTH_BYTES else 0
        if not 2 <= length <= min(HEADER_BYTES, os.fstat(stream.fileno()).st_size - _LENGTH_BYTES):
            raise DamagedError("header")
        return prefix + stream.read(length)


def _safetensors_entry(file: Path, name: str, entry: Any) -> tuple[TensorHeader, tuple[int, int]]:
    try:
        dtype = _SAFETENSORS_TYPES[entry["dtype"]]
        shape = tuple(entry["shape"])
        start, stop = entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise DamagedError(f"header: {name[:80]}") from None
    if not fits_a_tensor(shape) or not all(type(place) is int and place >= 0 for place in (start, stop)):
        raise DamagedError(f"header: {name[:80]}")
    header = TensorHeader(name, dtype, shape, file)
    if stop - start != header.byte_count:
        raise DamagedError(f"header: {name[:80]}")
    return header, (start, stop)


def safetensors_header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """Return what a safetensors file begins with: its values follow, without gaps, in the order of `tensors`.

    A tensor is a name, torch's name of its type and a shape; the values begin at a multiple of 64 bytes. Raises
    KeyError for a type that such files do not have.
    """
    named = {torch_name: name for name, torch_name in _SAFETENSORS_TYPES.items()}
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in tensors:
        start, end = end, end + math.prod(shape) * ITEM_BYTES[dtype]
        table[name] = {"dtype": named[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    return struct.pack("<Q", len(text)) + text


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError(say("有重复的张量名", "a tensor name appears twice"))
    return table


def plain_name(stored: str) -> str:
    """Return the name that the tensor has in the model itself; in LoRA matrices without an adapter's name.

    module.base_model.model.base_model.model.h.0.q.lora_A.default.weight -> h.0.q.lora_A.weight
    """
    front = _IN_FRONT.match(stored)
    name = _WITHIN.sub("", stored[front.end() :] if front else stored)
    name = _ADAPTER_NAME.sub(r"\1", name)
    return name.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", ".")
