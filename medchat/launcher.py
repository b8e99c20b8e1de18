"""What started this process beside others: `torchrun`, `accelerate launch` or Slurm's `srun`. Standard library only.

torchrun and accelerate number the processes of a run in RANK (of all machines) and LOCAL_RANK (of this one),
and count them in WORLD_SIZE and LOCAL_WORLD_SIZE. srun does so in SLURM_PROCID and SLURM_STEP_NUM_TASKS, the
tasks of the step itself: SLURM_NTASKS says what a job asked for, in its own shell too, and not what runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from medchat.errors import UsageError
from medchat.language import say

#: What `accelerate launch` may be configured to do to a model.
_ACCELERATE_SHARDING = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")

#: What srun sets in every task of a step.
_SLURM_STEP = {"SLURM_STEP_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}


@dataclass(frozen=True, slots=True)
class Process:
    """Which of how many processes this is."""

    rank: int = 0
    world_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process speaks to the user and puts the parts together."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.world_size == 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, slurm: bool = False) -> Process:
        """Return the place that the launcher gave this process; `slurm`: that of an srun step too.

        Raises UsageError for variables that contradict each other.
        """
        names = ("RANK", "WORLD_SIZE")
        if slurm and not {*names, "MASTER_ADDR"} & set(environment) and set(environment) >= _SLURM_STEP:
            names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
        rank, world_size = environment.get(names[0], "0"), environment.get(names[1], "1")
        if rank.isdecimal() and world_size.isdecimal() and int(rank) < int(world_size):
            return cls(int(rank), int(world_size))
        raise UsageError(
            say(
                f"环境变量 {names[0]}={rank!r}、{names[1]}={world_size!r} 无效",
                f"the variables {names[0]}={rank!r} and {names[1]}={world_size!r} make no sense",
            ),
            say(
                f"由 torchrun 启动，或删除这两个变量：unset {names[0]} {names[1]}",
                f"start with torchrun, or unset {names[0]} {names[1]}",
            ),
        )


def world_size() -> int:
    """Return how many processes a launcher of training started in all; 1 without one."""
    return _number("WORLD_SIZE") or 1


def local_world_size() -> int:
    """Return how many of them share this machine."""
    return _number("LOCAL_WORLD_SIZE") or 1


def local_rank() -> int | None:
    """Return the number of this process on this machine, None where no launcher gave it one."""
    return _number("LOCAL_RANK")


def accelerate_on_cpu() -> bool:
    """Say whether `accelerate launch --cpu` started this process: it starts one process, whatever number was given."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"


def undo_accelerate_sharding() -> None:
    """Forget how `accelerate launch` was configured to shard the model: MedChat does that itself."""
    for name in _ACCELERATE_SHARDING:
        os.environ.pop(name, None)


def train_on(device: str) -> None:
    """Tell accelerate which device transformers' Trainer computes on; else it takes the first GPU."""
    os.environ["ACCELERATE_TORCH_DEVICE"] = device


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else None
