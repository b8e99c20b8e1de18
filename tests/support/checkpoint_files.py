"""Small checkpoints and ways to break them, for the tests of loading."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

#: (single file, its writer) by layout name; the sharded layouts split the tensors in two.
LAYOUTS = ("safetensors", "sharded-safetensors", "bin", "sharded-bin", "legacy-bin")


def write_weights(folder: Path, tensors: Mapping[str, Tensor], layout: str) -> list[Path]:
    """Write `tensors` into `folder` in one of LAYOUTS and return the weight files."""
    folder.mkdir(parents=True, exist_ok=True)
    is_bin = layout.endswith("bin")
    stem, suffix = ("pytorch_model", "bin") if is_bin else ("model", "safetensors")
    if not layout.startswith("sharded"):
        file = folder / f"{stem}.{suffix}"
        _write(file, tensors, legacy=layout.startswith("legacy"))
        return [file]
    names = list(tensors)
    cut = max(1, len(names) // 2)
    parts = [names[:cut], names[cut:]]
    files, placed = [], {}
    for number, part in enumerate(parts, 1):
        file = folder / f"{stem}-{number:05d}-of-{len(parts):05d}.{suffix}"
        _write(file, {name: tensors[name] for name in part}, legacy=False)
        files.append(file)
        placed |= dict.fromkeys(part, file.name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return files


def _write(file: Path, tensors: Mapping[str, Tensor], *, legacy: bool) -> None:
    if file.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    else:
        torch.save(dict(tensors), file, _use_new_zipfile_serialization=not legacy)


class RunsCommand:
    """Pickles to a call of os.system that makes `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def replace_pickle(file: Path, payload: bytes) -> None:
    """Put another pickle into a torch zip, leaving its other records as they are."""
    with zipfile.ZipFile(file) as archive:
        records = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records:
            archive.writestr(name, payload if name.endswith("/data.pkl") else content)


def poison(file: Path, marker: Path) -> None:
    """Replace a torch file's pickle with one that runs a command when it is unpickled."""
    replace_pickle(file, pickle.dumps({"lm_head.weight": RunsCommand(marker)}, protocol=2))
