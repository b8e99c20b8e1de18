"""How much memory a run takes at its peak, estimated from the model's shape before anything is loaded.

The peak is the largest of four moments of a step: the loss, the last block going back, the end of the
backward pass, the update. See `activations` for what the forward pass keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from medchat import launcher
from medchat.api import MemoryEstimate, SFTOptions, SFTSurvey
from medchat.api.option import as_typed
from medchat.inference.device import available_memory
from medchat.language import say
from medchat.training.activation_memory import ModelDims, kept_bytes, logit_bytes, working_bytes
from medchat.training.optimizers import Precision, precision_of
from medchat.training.update_rules import BLOCK_8BIT, SLICE_CPU, SLICE_GPU

#: Sizes of cards an estimate answers for, in 10^9 bytes: what a card so named has at least.
CARDS = (24, 32, 40, 80)
#: Without a survey: the share of positions that are learned (docs/specs/training.md, "Throughput").
LEARNED_SHARE = 0.3
#: What a process that trains on the CPU takes beside its tensors and what it had when the estimate was
#: made: threads' stacks, oneDNN's kernels and buffers. Measured: 20 to 51 MiB (docs/measurements.md).
CPU_GROWTH = 64 * 2**20
#: cuBLAS workspaces and the allocator's unused remainders; the context is in what a card has free.
CUDA_RUNTIME, CUDA_CONTEXT = 256 * 2**20, 512 * 2**20
#: Temporaries of an update, in slices of float32.
_UPDATE_SLICES = 6
#: nf4 with double quantisation: a byte per 64 weights, 4 bytes per 256 of those.
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)

#: From the most memory to the least.
_METHODS = ("full", "lora", "qlora")

Changes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Batch:
    rows: int
    length: int
    labels: int


def memory_for(device: torch.device) -> int:
    """Return the bytes a run could have on `device`, what this process holds already included."""
    if device.type == "cuda":
        return available_memory(device)
    return available_memory(device) // launcher.local_world_size() + _resident()


def estimate(
    shape: ModelDims,
    options: SFTOptions,
    survey: SFTSurvey | None,
    device: torch.device,
    available: int | None = None,
) -> MemoryEstimate:
    """Return the peak of a run, what else could be run, and the nearest setting that fits.

    `available` is by default what `memory_for` finds: bytes that include what this process holds now, as
    the part `runtime` does on the CPU.
    """
    room = memory_for(device) if available is None else available
    runtime = _runtime(device)
    needs = _Needs(shape, survey, device)
    parts = {**needs.parts(options), "runtime": runtime}
    fits = sum(parts.values()) <= room
    others = {
        _typed(changes): needs.total(replace(options, **changes)) + runtime
        for changes in _table(options, needs.processes)
        if shape.packed or changes.get("method") != "qlora"
    }
    return MemoryEstimate(
        parts=parts,
        device=str(device),
        available=room,
        alternatives=others,
        nearest={} if fits else needs.nearest(options, room - runtime),
        notes=_sharing_notes(needs.processes, options.method),
        trainable=shape.trained(options.method),
        parameters=shape.parameters + (0 if options.method == "full" else shape.trained(options.method)),
        cards={card: needs.nearest(options, card * 10**9 - CUDA_CONTEXT - CUDA_RUNTIME) for card in CARDS},
    )


def _sharing_notes(processes: int, method: str) -> tuple[str, ...]:
    if processes == 1 or method != "full":
        return ()
    return (
        say(
            f"权重、梯度与优化器状态分摊到 {processes} 个进程，此处为每个进程的用量",
            f"weights, gradients and optimizer state are sharded over {processes} processes; "
            "the figures are for each of them",
        ),
    )


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _runtime(device: torch.device) -> int:
    if device.type == "cuda":
        return CUDA_RUNTIME
    return _resident() + CPU_GROWTH


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a model needs on a device under any options. Bytes, without the program itself."""

    shape: ModelDims
    survey: SFTSurvey | None
    device: torch.device

    @property
    def processes(self) -> int:
        return launcher.world_size()

    def total(self, options: SFTOptions) -> int:
        return sum(self.parts(options).values())

    def parts(self, options: SFTOptions) -> dict[str, int]:
        """Return the parts of the highest of a step's moments."""
        return max(self._moments(options), key=lambda parts: sum(parts.values()))

    def _moments(self, options: SFTOptions) -> Iterator[dict[str, int]]:
        shape, precision = self.shape, precision_of(options, self.device)
        batch = self._batch(options)
        full = options.method == "full"
        weights, casts = training_weight_bytes(shape, options, precision)
        states = optimizer_bytes(shape, options, precision)
        gradients = shape.trained(options.method) * precision.weights.itemsize
        head = shape.embedding * precision.weights.itemsize if full else 0
        sharing = self.processes if full else 1
        if sharing > 1:
            # FSDP2: each process holds its share, and a block and the head as a whole for a while.
            whole = (shape.packed // shape.layers * 2 + shape.embedding) * precision.weights.itemsize
            weights, states, gradients = weights // sharing + whole, states // sharing, gradients // sharing
        accumulated = gradients if options.batch_size > batch.rows * self.processes else 0
        kept = kept_bytes(
            shape,
            full=full,
            precision=precision.name,
            checkpointing=options.gradient_checkpointing,
            rows=batch.rows,
            length=batch.length,
        )
        logits = logit_bytes(shape, full=full, precision=precision.name, labels=batch.labels)
        # See `label_loss`: added where it belongs, or handed to autograd and then added or summed.
        in_place = self.processes == 1 and not options.fused_backward
        before = max(accumulated, head) if in_place else accumulated + head
        loaded = {"weights": weights + casts, "optimizer": states, "gradients": before}
        yield {**loaded, "activations": kept, "logits": logits}
        working = working_bytes(shape, precision=precision.name, rows=batch.rows, length=batch.length)
        working += self._unpacked(options, precision)
        yield {**loaded, "activations": kept + working, "logits": 0}
        at_end = {"weights": weights, "optimizer": states, "activations": 0, "logits": 0}
        if options.fused_backward:
            gradients = head or gradients
        # A tied head's gradient waits for the embedding's, which is as large, and is summed with it.
        waiting = head if shape.tied and not in_place else 0
        yield {**at_end, "gradients": gradients + waiting}
        update = _update_bytes(shape, options, precision, self.device)
        yield {**at_end, "gradients": gradients, "optimizer": states + update}

    def _batch(self, options: SFTOptions) -> _Batch:
        rows = min(options.micro_batch_size, options.batch_size)
        length, share = options.max_length, LEARNED_SHARE
        if self.survey is not None and self.survey.tokens:
            length = min(length, self.survey.longest or length)
            share = self.survey.label_tokens / self.survey.tokens
        labels = round(rows * length * share)
        if options.method == "ptuning":
            length += options.pre_seq_len
        return _Batch(rows, length, labels)

    def _unpacked(self, options: SFTOptions, precision: Precision) -> int:
        """A 4-bit linear is unpacked whenever it is used."""
        if options.method != "qlora":
            return 0
        return self.shape.hidden * max(self.shape.inner, 3 * self.shape.hidden) * precision.compute.itemsize

    def nearest(self, options: SFTOptions, room: int) -> dict[str, Any] | None:
        """Return the fewest changes with which a run takes at most `room` bytes; None if none does."""
        for changes in sorted(_changes(options, self.processes), key=lambda one: _cost(options, one)):
            if changes.get("method") == "qlora" and not self.shape.packed:
                continue
            if self.total(replace(options, **changes)) <= room:
                return changes
        return None


def training_weight_bytes(shape: ModelDims, options: SFTOptions, precision: Precision) -> tuple[int, int]:
    """Return the bytes of all weights, and of the bfloat16 copies that computing beside float32 makes."""
    own, base = precision.weights.itemsize, precision.base.itemsize
    if options.method == "full":
        copied = shape.parameters - (0 if shape.tied else shape.embedding)
        return shape.parameters * own, 2 * copied if precision.autocast else 0
    frozen = shape.parameters * base
    if options.method == "qlora":
        frozen = int(shape.packed * _NF4_BYTES) + (shape.parameters - shape.packed) * base
    return frozen + shape.trained(options.method) * own, 0


def optimizer_bytes(shape: ModelDims, options: SFTOptions, precision: Precision) -> int:
    """Return the bytes of the optimizer's state (see `update_rules`)."""
    trained = shape.trained(options.method)
    if options.optimizer == "adamw":
        return 2 * precision.weights.itemsize * trained
    if options.optimizer == "adamw8bit":
        return 2 * trained + 2 * 4 * trained // BLOCK_8BIT
    # One float32 for each row and column.
    return 4 * 2 * trained // shape.hidden


def _update_bytes(shape: ModelDims, options: SFTOptions, precision: Precision, device: torch.device) -> int:
    if options.optimizer == "adamw" and precision.weights is torch.float32:
        return 0
    largest = shape.embedding if options.method == "full" else shape.trained(options.method)
    return _UPDATE_SLICES * 4 * min(largest, SLICE_CPU if device.type == "cpu" else SLICE_GPU)


def _table(options: SFTOptions, processes: int) -> Iterator[Changes]:
    """The settings an estimate compares with: every optimizer, and the methods that take less."""
    if options.method == "full" and processes > 1:
        # Shared out over processes, neither: see `check_optimizer`.
        yield from ({"optimizer": "adamw", "precision": precision} for precision in ("mixed", "bfloat16"))
    elif options.method == "full":
        for optimizer, precision in (
            ("adamw", "mixed"),
            ("adamw", "bfloat16"),
            ("adamw8bit", "bfloat16"),
            ("adafactor", "bfloat16"),
        ):
            changes = {"optimizer": optimizer, "precision": precision, "fused_backward": False}
            yield changes
            yield changes | _fused(options, options.micro_batch_size)
    for method in dict.fromkeys((options.method, "lora", "qlora")):
        for checkpointing in (False, True):
            if checkpointing and method == "ptuning":
                continue
            yield {"method": method, "gradient_checkpointing": checkpointing} | (
                {"fused_backward": False} if method != "full" else {}
            )


def _fused(options: SFTOptions, rows: int) -> dict[str, Any]:
    """What the step inside the backward pass asks for beside itself."""
    return {"fused_backward": True, "batch_size": min(rows, options.batch_size), "max_grad_norm": 0.0}


def _changes(options: SFTOptions, processes: int) -> Iterator[dict[str, Any]]:
    """Yield changes of options in the order of preference: first what leaves the result as it is."""
    rows = min(options.micro_batch_size, options.batch_size)
    sizes = [rows >> shift for shift in range(rows.bit_length()) if options.batch_size % (rows >> shift) == 0]
    for method in (
        _METHODS[_METHODS.index(options.method) :] if options.method in _METHODS else (options.method,)
    ):
        full = method == "full"
        smaller = ("adamw8bit", "adafactor") if find_spec("bitsandbytes") else ("adafactor",)
        for optimizer, precision, fused, size, checkpointing in product(
            dict.fromkeys((options.optimizer, *(smaller if full and processes == 1 else ()))),
            dict.fromkeys((options.precision, "bfloat16")),
            (False, True) if full and processes == 1 else (False,),
            sizes,
            (False, True) if method != "ptuning" else (False,),
        ):
            wanted = {
                "method": method,
                "optimizer": optimizer,
                "precision": precision,
                "micro_batch_size": size,
                "gradient_checkpointing": checkpointing or options.gradient_checkpointing,
                "fused_backward": fused,
            }
            yield _different(options, wanted | (_fused(options, size) if fused else {}))


def _different(options: SFTOptions, wanted: Changes) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if getattr(options, name) != value}


def _cost(options: SFTOptions, changes: Changes) -> tuple[int, int]:
    """Another method is another result: only when nothing else fits. Then the number of changes."""
    return _METHODS.index(changes["method"]) if "method" in changes else 0, len(changes)


def _typed(changes: Changes) -> str:
    """The setting as flags: what it changes beside `fused_backward`'s own conditions."""
    own = ("batch_size", "max_grad_norm")
    return as_typed(
        {name: value for name, value in changes.items() if value is not False and name not in own}
    )
