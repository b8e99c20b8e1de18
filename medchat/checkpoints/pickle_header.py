"""Names, shapes and dtypes of a torch `.bin`, read without torch and without running its pickle.

A pickle can call whatever its `find_class` hands out. The one here hands out stand-ins of ours for
the handful of names that a plain state dict needs and refuses every other name, so nothing of the
file's choosing is ever imported or called. The weights themselves are later read by torch's own
safe loader (`shards`); this reader lets both be checked before the first weight is touched.
"""

from __future__ import annotations

import math
import struct
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from medchat.checkpoints.pickle_machine import MOST_BYTES, BoundedFile, DamagedError, UnsafeError, read_pickle
from medchat.checkpoints.read_once import read_once
from medchat.regular_files import UNLIMITED, open_regular

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, MAGIC_NUMBER
_LEGACY_PROTOCOL = 1001
#: torch's own bound on axes, and more values than any file system's largest file holds bytes.
_MOST_AXES, _MOST_VALUES = 64, 2**60
_STORAGES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}

Declared = tuple[str, str, tuple[int, ...]]


class _StorageType(NamedTuple):
    dtype: str
    item_bytes: int


class _Storage(NamedTuple):
    kind: _StorageType
    key: str
    length: int


class _Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]


def read_bin_header(file: Path) -> list[Declared]:
    """Return (name, dtype, shape) of each tensor of one `.bin`. Raises DamagedError or UnsafeError."""
    with open_regular(file, most=UNLIMITED) as opened:
        stream = BoundedFile(opened)
        start = stream.read(4)
        stream.seek(0)
        if start == _ZIP_MAGIC:
            return _read_zip(stream)
        if start[:1] == b"\x80":
            return _read_legacy(stream)
    raise DamagedError("not a torch file")


def is_legacy(file: Path) -> bool:
    """Say whether a `.bin` is in the format before torch 1.6, which cannot be mapped."""
    return read_once(_magic, file) != _ZIP_MAGIC


def _magic(file: Path) -> bytes:
    with open_regular(file, most=UNLIMITED) as stream:
        return stream.read(4)


class _Names:
    """Hands out stand-ins for the names in a state dict's pickle, and collects the storages it mentions."""

    def __init__(self) -> None:
        self.storages: dict[str, _Storage] = {}

    def find(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _StorageType(*_STORAGES[name])
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise UnsafeError(f"{module}.{name}"[:120])
        return stand_in

    def persistent(self, saved_id: Any) -> _Storage:
        match saved_id:
            case ("storage", _StorageType() as kind, str() as key, str(), int() as count, *_) if count >= 0:
                storage = _Storage(kind, key, count)
                if self.storages.setdefault(key, storage) != storage:
                    raise DamagedError(f"storage {key}")
                return storage
            case ("module", *_):
                raise UnsafeError("a whole module")
        raise DamagedError("storage")

    def read(self, stream: BoundedFile | IO[bytes]) -> Any:
        return read_pickle(stream, self.find, self.persistent)


def fits_a_place(numbers: Sequence[Any]) -> bool:
    """Say whether these can be steps and places within a file: whole numbers, none below zero or beyond any file."""
    return all(type(number) is int and 0 <= number <= _MOST_VALUES for number in numbers)


def fits_a_tensor(shape: Sequence[Any]) -> bool:
    """Say whether `shape` can be that of a stored tensor: few axes, and a number of values that a file can hold."""
    if len(shape) > _MOST_AXES or not fits_a_place(shape):
        return False
    count: int = math.prod(shape)
    return count <= _MOST_VALUES


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise DamagedError("tensor")
    if len(size) != len(stride) or not fits_a_tensor(size) or not fits_a_place((*stride, offset)):
        raise DamagedError("shape")
    if math.prod(size):
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if last >= storage.length:
            raise DamagedError(f"storage {storage.key}")
    return _Tensor(storage.kind.dtype, size)


def _table(*pairs: Any) -> dict[str, Any]:
    """Stand for an OrderedDict, of which torch always writes an empty one first."""
    if pairs:
        raise DamagedError("table")
    return {}


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _table,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


def _declared(table: Any) -> list[Declared]:
    if not isinstance(table, dict) or not table:
        raise DamagedError("no table of tensors")
    for name, tensor in table.items():
        if not isinstance(name, str):
            raise DamagedError("tensor name")
        if not isinstance(tensor, _Tensor):
            raise UnsafeError(f"{name} ({type(tensor).__name__})")
    return [(name, tensor.dtype, tensor.shape) for name, tensor in table.items()]


def _read_zip(stream: BoundedFile) -> list[Declared]:
    try:
        with zipfile.ZipFile(cast("IO[bytes]", stream)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise DamagedError("data.pkl")
            root = pickles[0].removesuffix("data.pkl")
            # torch deflates nothing; a short record may grow without bound where one is.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
                raise DamagedError("zip")
            if f"{root}constants.pkl" in entries:
                raise UnsafeError("TorchScript")
            if f"{root}byteorder" in entries:
                with archive.open(f"{root}byteorder") as record:
                    if record.read(16).decode("ascii", "replace") != sys.byteorder:
                        raise DamagedError("byte order")
            if entries[pickles[0]].file_size > MOST_BYTES:
                raise DamagedError("data.pkl")
            found = _Names()
            with archive.open(pickles[0]) as record:
                declared = _declared(found.read(record))
            for storage in found.storages.values():
                entry = entries.get(f"{root}data/{storage.key}")
                wanted = storage.length * storage.kind.item_bytes
                if entry is None or entry.file_size != wanted:
                    raise DamagedError(f"{root}data/{storage.key}")
            return declared
    except (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error, ValueError) as error:
        raise DamagedError(str(error) or type(error).__name__) from None


def _read_legacy(stream: BoundedFile) -> list[Declared]:
    if _Names().read(stream) != _LEGACY_MAGIC or _Names().read(stream) != _LEGACY_PROTOCOL:
        raise UnsafeError("a pickle that is no torch file")
    _Names().read(stream)  # byte order and sizes of the machine that saved it
    found = _Names()
    declared = _declared(found.read(stream))
    keys = _Names().read(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise DamagedError("storages")
    if set(keys) != set(found.storages):
        raise DamagedError("storages")
    # Each storage follows as its length in eight bytes and its values.
    wanted = sum(8 + storage.length * storage.kind.item_bytes for storage in found.storages.values())
    position = stream.tell()
    if stream.seek(0, 2) - position != wanted:
        raise DamagedError("storages")
    return declared
