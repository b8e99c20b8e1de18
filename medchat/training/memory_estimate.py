"""The peak memory of a run, estimated from the model's dimensions before anything is loaded.

The peak is the largest of four moments of a step: the loss, the backward pass of the last block, the end of
the backward pass, the update. For saved tensors see `activation_memory`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from medchat import launcher
from medchat.api import MemoryEstimate, SFTOptions, SFTSurvey
from medchat.inference.device import available_memory
from medchat.language import say
from medchat.training.activation_memory import ModelDims, kept_bytes, logit_bytes, working_bytes
from medchat.training.measured_step import StepSize
from medchat.training.memory_alternatives import flags_of, listed_changes, nearest_changes
from medchat.training.optimizers import Precision, precision_of
from medchat.training.update_rules import BLOCK_8BIT, SLICE_CPU, SLICE_GPU

#: The GPU sizes that an estimate answers for, in 10^9 bytes: the least that such a card has.
CARDS = (24, 32, 40, 80)
#: The assumed share of label positions without a survey (docs/specs/training.md, "Throughput").
LEARNED_SHARE = 0.3
#: What a process that trains on the CPU takes besides its tensors and its size at the time of the estimate:
#: thread stacks, oneDNN's kernels and buffers. Measured: 20 to 51 MiB (docs/measurements.md).
CPU_GROWTH = 64 * 2**20
#: cuBLAS workspaces and fragmentation; the CUDA context is already missing from a card's free memory.
CUDA_RUNTIME, CUDA_CONTEXT = 256 * 2**20, 512 * 2**20
#: Temporaries of an update, in float32 slices.
_UPDATE_SLICES = 6
#: nf4 with double quantisation: a byte per 64 weights, 4 bytes per 256 of those.
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


def memory_for(device: torch.device) -> int:
    """Return the bytes that a run could use on `device`, including what this process holds already."""
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
    """Return the peak of a run, that of alternative settings, and the nearest settings that fit.

    `available` is by default `memory_for(device)`: bytes including what this process holds now, as the part
    `runtime` does on the CPU.
    """
    room = memory_for(device) if available is None else available
    runtime = _runtime(device)
    needs = _Needs(shape, survey, device)
    parts = {**needs.parts(options), "runtime": runtime}
    fits = sum(parts.values()) <= room
    others = {
        flags_of(changes): needs.total(replace(options, **changes)) + runtime
        for changes in listed_changes(options, shape, needs.processes)
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
    """What a model needs on a device with any options. In bytes, without the program itself."""

    shape: ModelDims
    survey: SFTSurvey | None
    device: torch.device

    @property
    def processes(self) -> int:
        return launcher.world_size()

    def total(self, options: SFTOptions) -> int:
        return sum(self.parts(options).values())

    def parts(self, options: SFTOptions) -> dict[str, int]:
        """Return the parts of the largest moment of a step."""
        return max(self._moments(options), key=lambda parts: sum(parts.values()))

    def _moments(self, options: SFTOptions) -> Iterator[dict[str, int]]:
        shape, precision = self.shape, precision_of(options, self.device)
        batch = self._batch(options)
        full = options.method == "full"
        weights, casts = training_weight_bytes(shape, options, precision)
        states = optimizer_bytes(shape, options, precision)
        gradients = shape.trained(options.method) * precision.weights.itemsize
        head = shape.embedding * precision.weights.itemsize if full and not shape.measured else 0
        sharing = self.processes if full else 1
        if sharing > 1:
            # FSDP2: each process holds its shards, and temporarily one full block and the full head.
            whole = shape.unsharded * precision.weights.itemsize
            weights, states, gradients = weights // sharing + whole, states // sharing, gradients // sharing
        accumulated = gradients if options.batch_size > batch.rows * self.processes else 0
        # See `label_loss`: added to `.grad` in place, or returned to autograd and then added or summed.
        in_place = self.processes == 1 and not options.fused_backward
        before = max(accumulated, head) if in_place else accumulated + head
        loaded = {"weights": weights + casts, "optimizer": states, "gradients": before}
        for activations in self._activations(options, precision, batch):
            yield {**loaded, **activations}
        at_end = {"weights": weights, "optimizer": states, "activations": 0, "logits": 0}
        if options.fused_backward:
            gradients = head or gradients
        # A tied head's gradient is kept until the embedding's, which is as large, is added to it.
        waiting = head if shape.tied and not in_place else 0
        yield {**at_end, "gradients": gradients + waiting}
        update = _update_bytes(shape, options, precision, self.device)
        yield {**at_end, "gradients": gradients, "optimizer": states + update}

    def _activations(
        self, options: SFTOptions, precision: Precision, batch: StepSize
    ) -> Iterator[dict[str, int]]:
        """Yield what the loss and the backward pass hold, at the moments of which one is the largest."""
        shape, full = self.shape, options.method == "full"
        if shape.measured:
            held = shape.measured(options.method, precision, batch)
            if options.fused_backward or options.batch_size > batch.rows * self.processes:
                yield {"activations": held.alone, "logits": 0}
            else:
                yield {"activations": held.activations, "logits": 0, "gradients": held.gradients}
            return
        saved = kept_bytes(
            shape,
            full=full,
            precision=precision.name,
            checkpointing=options.gradient_checkpointing,
            rows=batch.rows,
            length=batch.length,
        )
        logits = logit_bytes(shape, full=full, precision=precision.name, labels=batch.labels)
        yield {"activations": saved, "logits": logits}
        working = working_bytes(shape, precision=precision.name, rows=batch.rows, length=batch.length)
        yield {"activations": saved + working + self._unpacked(options, precision), "logits": 0}

    def _batch(self, options: SFTOptions) -> StepSize:
        rows = min(options.micro_batch_size, options.batch_size)
        length, share = options.max_length, LEARNED_SHARE
        if self.survey is not None and self.survey.tokens:
            length = min(length, self.survey.longest or length)
            share = self.survey.label_tokens / self.survey.tokens
        labels = round(rows * length * share)
        if options.method == "ptuning":
            length += options.pre_seq_len
        return StepSize(rows, length, labels)

    def _unpacked(self, options: SFTOptions, precision: Precision) -> int:
        """A 4-bit linear layer is dequantized each time it is used."""
        if options.method != "qlora":
            return 0
        return self.shape.hidden * max(self.shape.inner, 3 * self.shape.hidden) * precision.compute.itemsize

    def nearest(self, options: SFTOptions, room: int) -> dict[str, Any] | None:
        """Return the fewest changes with which a run takes at most `room` bytes; None if none does."""
        for changes in nearest_changes(options, self.shape, self.processes):
            if self.total(replace(options, **changes)) <= room:
                return changes
        return None


def training_weight_bytes(shape: ModelDims, options: SFTOptions, precision: Precision) -> tuple[int, int]:
    """Return the bytes of all weights, and of the bfloat16 copies that autocast makes of float32 ones."""
    own, base = precision.weights.itemsize, precision.base.itemsize
    if options.method == "full":
        copied = shape.parameters - (0 if shape.tied else shape.embedding)
        # What a measured step holds includes its copies.
        return shape.parameters * own, 2 * copied if precision.autocast and not shape.measured else 0
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
    # One float32 per row and column.
    return 4 * 2 * trained // shape.hidden


def _update_bytes(shape: ModelDims, options: SFTOptions, precision: Precision, device: torch.device) -> int:
    if options.optimizer == "adamw" and precision.weights is torch.float32:
        return 0
    largest = shape.embedding if options.method == "full" else shape.trained(options.method)
    return _UPDATE_SLICES * 4 * min(largest, SLICE_CPU if device.type == "cpu" else SLICE_GPU)
