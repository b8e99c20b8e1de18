"""What started this process beside others: `torchrun`, `accelerate launch` or Slurm's `srun`. Standard library only.

torchrun and accelerate number the processes of a run in RANK (of all machines) and LOCAL_RANK (of this one),
count them in WORLD_SIZE and LOCAL_WORLD_SIZE, and say in MASTER_ADDR and MASTER_PORT where they meet. srun does so
in SLURM_PROCID and SLURM_STEP_NUM_TASKS, the tasks of the step itself: SLURM_NTASKS says what a job asked for, in
its own shell too, and not what runs. Variables without a place to meet were left behind by something else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from medchat.errors import MedchatError, UsageError
from medchat.language import say

_PLACE, _MEETING = ("RANK", "WORLD_SIZE"), ("MASTER_ADDR", "MASTER_PORT")
#: What torch, transformers or accelerate take for the place of a process among others, whoever started it.
_ANY_PLACE = (
    *_PLACE,
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    *("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    *("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    *("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    *("MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
)
#: Of accelerate's own variables, those that MedChat sets or answers.
_ACCELERATE_KEPT = {"ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE"}

#: What srun sets in every task of a step.
_SLURM_STEP = {"SLURM_STEP_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}

#: How long a process waits for others that do not come, in seconds, and the variable that says otherwise.
PATIENCE, PATIENCE_VARIABLE = 600, "MEDCHAT_LAUNCH_TIMEOUT"
#: After how many seconds a machine that does not answer counts as lost, and the variable that says otherwise.
MACHINE_TIMEOUT, MACHINE_VARIABLE = 60, "MEDCHAT_MACHINE_TIMEOUT"
#: After so many seconds of waiting a process says whom it waits for.
SILENCE = 20.0


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
        names = _PLACE
        if slurm and not {*names, "MASTER_ADDR"} & set(environment) and set(environment) >= _SLURM_STEP:
            names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
        rank, world_size = environment.get(names[0]) or "0", environment.get(names[1]) or "1"
        patience(environment)
        machine_timeout(environment)
        if names == _PLACE and not _meets(environment):
            if (rank, world_size) == ("0", "1"):
                return cls()
            raise _left_over(environment)
        if rank.isdecimal() and world_size.isdecimal() and int(rank) < int(world_size):
            return cls(int(rank), int(world_size))
        raise UsageError(
            say(
                f"环境变量 {names[0]}={rank}、{names[1]}={world_size} 无效",
                f"the variables {names[0]}={rank!r} and {names[1]}={world_size!r} make no sense",
            ),
            say(
                f"由 torchrun 启动，或删除这两个变量：unset {names[0]} {names[1]}",
                f"start with torchrun, or unset {names[0]} {names[1]}",
            ),
        )


def _meets(environment: Mapping[str, str]) -> bool:
    return all(environment.get(name) for name in _MEETING)


def _left_over(environment: Mapping[str, str]) -> UsageError:
    found = [name for name in (*_PLACE, "LOCAL_RANK", "LOCAL_WORLD_SIZE", *_MEETING) if name in environment]
    shown = ", ".join(f"{name}={environment[name]}" for name in found)
    return UsageError(
        say(
            f"环境变量 {shown} 表明这是多个进程之一，却没有 MASTER_ADDR 和 MASTER_PORT：像是别的任务留下的",
            f"{shown} says that this is one of several processes, but MASTER_ADDR and MASTER_PORT are not both set:"
            " something else seems to have left it behind",
        ),
        unset_command(found),
    )


def unset_command(names: Iterable[str] = (*_PLACE, "LOCAL_RANK", "LOCAL_WORLD_SIZE", *_MEETING)) -> str:
    """Return what to type for a process to be alone again, in the interface language."""
    listed = " ".join(names)
    return say(
        f"只要一个进程：unset {listed}；要多个进程：用 torchrun 启动",
        f"for one process: unset {listed}; for several: start with torchrun",
    )


def waiting_for(ranks: str) -> str:
    """Return what a process says that waits for those `ranks`: where, how long still, and what to do about it."""
    where = ":".join(os.environ[name] for name in _MEETING) if _meets(os.environ) else ""
    at = f" (MASTER_ADDR:MASTER_PORT={where})" if where else ""
    seconds = patience()
    return say(
        f"正在等待其他进程：RANK {ranks}{at}，共等 {seconds} 秒（{PATIENCE_VARIABLE}）。{_without_them()}",
        f"waiting for other processes: RANK {ranks}{at}, for {seconds} seconds in all ({PATIENCE_VARIABLE})."
        f" {_without_them()}",
    )


def nobody_came(ranks: str, reason: str = "") -> MedchatError:
    """Return the error of a process that could not meet those `ranks`: it waited in vain, or for another reason."""
    because = f": {reason}" if reason else ""
    return MedchatError(
        say(
            f"没有等到其他进程（RANK {ranks}；最多等 {patience()} 秒）{because}",
            f"the other processes did not come (RANK {ranks}; at most {patience()} seconds){because}",
        ),
        _without_them(),
    )


def _without_them() -> str:
    """Return what to do where others do not come. Slurm's variables and Ray's workers are nobody's to unset."""
    if any(name in os.environ for name in _PLACE):
        return unset_command()
    return say(
        "看看那些进程是否还在运行；结束后可以用 --resume 继续",
        "see whether those processes still run; after the end, --resume continues",
    )


def connection_lost(ranks: str, reason: str) -> MedchatError:
    """Return the error of a process whose connection to one of those `ranks` broke while they worked together."""
    return MedchatError(
        say(
            f"与其他进程（RANK {ranks}）的连接中断：{reason}",
            f"the connection to the other processes (RANK {ranks}) broke: {reason}",
        ),
        say(
            "看看那边的进程、机器和网络，再用同一条命令加 --resume 从最后的检查点继续",
            "see to those processes, their machines and the network, then continue from the last checkpoint with the"
            " same command and --resume",
        ),
    )


def other_ranks() -> str:
    """Return the numbers of all processes but this one, in short."""
    count, own = world_size(), _number("RANK") or 0
    if own:
        return "0"  # where all meet: the others wait for it as well
    return "1" if count == 2 else f"1–{count - 1}"


def patience(environment: Mapping[str, str] | None = None) -> int:
    """Return how many seconds to wait for processes that do not come. Raises UsageError for what is no such number."""
    return _seconds(PATIENCE_VARIABLE, PATIENCE, (1, 7 * 86400), environment)


def machine_timeout(environment: Mapping[str, str] | None = None) -> int:
    """Return after how many seconds a silent machine counts as lost. Raises UsageError for what is no such number."""
    return _seconds(MACHINE_VARIABLE, MACHINE_TIMEOUT, (2, 86400), environment)


def _seconds(
    variable: str, default: int, limits: tuple[int, int], environment: Mapping[str, str] | None
) -> int:
    given = (os.environ if environment is None else environment).get(variable, "").strip()
    lowest, highest = limits
    if not given:
        return default
    if given.isascii() and given.isdecimal() and lowest <= int(given) <= highest:
        return int(given)
    raise UsageError(
        say(
            f"环境变量 {variable}={given} 无效：应为 {lowest} 到 {highest} 秒",
            f"{variable}={given!r} is not valid: {lowest} to {highest} seconds",
        ),
        f"{variable}={default}",
    )


def world_size() -> int:
    """Return how many processes a launcher of training started in all; 1 without one."""
    return _number("WORLD_SIZE") or 1


def local_world_size() -> int:
    """Return how many of them share this machine."""
    return _number("LOCAL_WORLD_SIZE") or 1


def local_rank() -> int | None:
    """Return the number of this process on this machine, None if no launcher gave it one."""
    return _number("LOCAL_RANK")


def accelerate_on_cpu() -> bool:
    """Say whether `accelerate launch --cpu` started this process: it starts one process, whatever number was given."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"


def undo_accelerate_configuration() -> None:
    """Forget how `accelerate launch` was configured, now or in this shell before: MedChat has its own settings."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        if name not in _ACCELERATE_KEPT:
            del os.environ[name]


def stand_alone() -> None:
    """Forget every variable by which torch or accelerate would look for processes beside this one."""
    for name in (*_ANY_PLACE, *_MEETING):
        os.environ.pop(name, None)


def meeting_place() -> tuple[str, int] | None:
    """Return host and port where the processes of several machines meet; None where all are on this machine."""
    if world_size() == local_world_size():
        return None
    return os.environ["MASTER_ADDR"], _number("MASTER_PORT") or 0


def train_on(device: str) -> None:
    """Tell accelerate which device transformers' Trainer computes on; else it takes the first GPU."""
    os.environ["ACCELERATE_TORCH_DEVICE"] = device


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() and _meets(os.environ) else None
