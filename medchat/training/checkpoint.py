"""Checkpoints of a run: written atomically, the newest intact one found, old ones removed.

Written to a temporary folder, each file fsynced, the manifest last, then renamed: a process killed at any
moment leaves either the complete folder or a folder whose name marks it as incomplete.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import TrainerState

from medchat.checkpoints import manifest
from medchat.errors import CheckpointError
from medchat.language import say
from medchat.regular_files import read_json
from medchat.training.metrics_log import Counters
from medchat.training.single_process import ProcessGroup
from medchat.whole_file import sync

FOLDER_NAME = "checkpoints"
_NAME = re.compile(r"step-(\d{8,})")
_PARTIAL = ".partial"
#: The limit in bytes of the state that is not tensors.
_STATE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class TrainingCheckpoint:
    """A complete checkpoint of optimizer step `step`."""

    step: int
    folder: Path


@contextmanager
def new_checkpoint(folder: Path, step: int) -> Iterator[Path]:
    """Yield an empty folder that is renamed to `folder`/step-… when the block ends without an error.

    After an error it is removed. A checkpoint of the same step is replaced.
    """
    folder.mkdir(exist_ok=True)
    final = folder / f"step-{step:08d}"
    partial = folder / f".{final.name}{_PARTIAL}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        manifest.write_manifest(partial, {"step": step})
        _remove(final)
        partial.rename(final)
        sync(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def listed(folder: Path) -> list[TrainingCheckpoint]:
    """Return the checkpoints by their names, oldest first, without reading them."""
    found = [(_NAME.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ())]
    every = [TrainingCheckpoint(int(match[1]), path) for match, path in found if match]
    return sorted(every, key=lambda checkpoint: checkpoint.step)


def newest(folder: Path, damaged: list[CheckpointError] | None = None) -> TrainingCheckpoint | None:
    """Return the newest checkpoint whose files all match its manifest, None if there is none.

    The errors of newer, damaged ones are appended to `damaged`.
    """
    for checkpoint in reversed(listed(folder)):
        try:
            manifest.verify_manifest(checkpoint.folder)
        except CheckpointError as error:
            if damaged is not None:
                damaged.append(error)
        else:
            return checkpoint
    return None


def remove_old(folder: Path, keep: int, best_step: int | None, last_step: int) -> None:
    """Remove all but the newest `keep` checkpoints and that of `best_step`; `last_step` was just written.

    A checkpoint of a later step must be damaged, or the run would have resumed from it: it is ignored.
    """
    every = listed(folder)
    usable = [checkpoint for checkpoint in every if checkpoint.step <= last_step]
    for checkpoint in every:
        if checkpoint not in usable[-keep:] and checkpoint.step != best_step:
            _remove(checkpoint.folder)


def _remove(checkpoint: Path) -> None:
    """Rename, then remove: killed in between, this must not leave what looks like a damaged checkpoint."""
    if checkpoint.is_dir():
        remains = checkpoint.with_name(f".{checkpoint.name}.old{_PARTIAL}")
        shutil.rmtree(remains, ignore_errors=True)
        checkpoint.rename(remains)
        shutil.rmtree(remains, ignore_errors=True)


def clear_remains(folder: Path) -> None:
    """Remove what a killed run left partly written or partly removed."""
    if folder.is_dir():
        for path in folder.glob(f".*{_PARTIAL}"):
            shutil.rmtree(path, ignore_errors=True)


# The state of every random generator that training may use, and restoring it.


def rng_state() -> dict[str, Any]:
    """Return the state as a tree of numbers and tensors (see `save_pytree`)."""
    state: Any = numpy.random.get_state(legacy=True)
    kind, keys, position, has_gauss, gauss = state
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype("int64")), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore a state returned by `rng_state`; GPUs that are missing on either side are skipped."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    numpy.random.set_state((kind, keys.numpy().astype("uint32"), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, cuda_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(cuda_state, device)


# Nested state (dictionaries, lists, numbers, tensors) on the disk: tensors in safetensors, the rest JSON.
#
# No pickle: a file that is read back cannot run code.

#: The size of one file: tensors on a GPU are copied to the host one file at a time.
FILE_BYTES = 4 * 2**30
#: Keys that mark values JSON has no type for.
_TENSOR, _TUPLE, _PAIRS = "__tensor__", "__tuple__", "__pairs__"


def save_tensors(tensors: Mapping[str, Tensor], folder: Path, name: str) -> None:
    """Write tensors as `name`-00001.safetensors, …; at least one file. Raises OSError, SafetensorError.

    Shapes and dtypes are kept.
    """
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
    """Tensors as safetensors requires them: dense, contiguous, no two sharing memory."""
    seen: set[int] = set()
    apart = {}
    for key, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        place = tensor.untyped_storage().data_ptr()
        apart[key] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def load_tensors(folder: Path, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that `save_tensors` wrote, one at a time, on the CPU.

    Shapes and dtypes are those saved.
    """
    for path in sorted(folder.glob(f"{name}-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a dictionary)
                yield key, file.get_tensor(key)


def save_pytree(tree: Any, folder: Path, name: str) -> None:
    """Write nested state as `name`.json and `name`-00001.safetensors. Raises OSError, TypeError."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_plain(tree, tensors), ensure_ascii=False, allow_nan=True)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    save_tensors(tensors, folder, name)


def load_pytree(folder: Path, name: str) -> Any:
    """Return what `save_pytree` wrote. Raises CheckpointError if it is missing or damaged."""
    path = folder / f"{name}.json"
    try:
        return _restored(read_json(path, _STATE_BYTES), dict(load_tensors(folder, name)))
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


# What a checkpoint holds, by name, and reading it back.
#
# trained-*.safetensors     the trained weights
# optimizer-*, .json        the optimizer's state
# state-*, .json            scheduler, random generators, the counters that the log continues from
# trainer_state.json        the Trainer's own record: step, epoch, best held-out loss

#: The Trainer reads the last one itself.
WEIGHTS, OPTIMIZER, STATE, TRAINER_STATE = "trained", "optimizer", "state", "trainer_state.json"


def load_trained_weights(model: Any, checkpoint: Path, processes: ProcessGroup) -> None:
    """Load a checkpoint's weights into a model."""
    for name, tensor in load_tensors(checkpoint, WEIGHTS):
        processes.load_weight(model, name, tensor)


def load_counters(checkpoint: Path) -> Counters:
    """Return the counters that the log continues from."""
    return Counters(**load_pytree(checkpoint, STATE)["log"])


def load_trainer_state(checkpoint: Path) -> TrainerState:
    """Return the Trainer's own record: step, epoch, best held-out loss."""
    return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
