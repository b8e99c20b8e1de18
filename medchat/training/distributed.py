"""Several processes that train one model, under `torchrun` or `accelerate launch`, on one machine or more.

Full fine-tuning is sharded (FSDP2, one unit per decoder layer, a net without such layers as one): no process ever
holds all gradients and optimizer states. Methods that train a part beside frozen weights are replicated (DDP).
Checkpoints and results have the format of a single process: gathered and written by the main one, read by each.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.fsdp import fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from medchat import launcher
from medchat.errors import MedchatError
from medchat.inference.interrupt import decoder_layers
from medchat.language import say
from medchat.training.full_tensors import device_for, fill, free_unsharded, laid_out_as, skeleton_of
from medchat.training.machine_watch import MachineWatch
from medchat.training.single_process import ProcessGroup, ReportedElsewhere, trained_parameters

Made = TypeVar("Made")

#: The timeout in seconds: one process may generate samples, or write, while the others wait.
_PATIENCE = timedelta(hours=2)
#: How many seconds a failed process waits for the main one to say that it reports an error.
_REPORT_TIMEOUT = 2.0


class FsdpGroup(ProcessGroup):
    """This process in the group that a launcher started (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)."""

    def __init__(self, device: torch.device) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self._device = device
        backend = "nccl" if device.type == "cuda" else "gloo"
        start = timedelta(seconds=launcher.patience())
        try:
            store, self.rank, self.count = next(iter(rendezvous("env://", timeout=start)))
            self._store = PrefixStore("medchat", store)
            dist.init_process_group(
                backend,
                store=PrefixStore("group", store),
                rank=self.rank,
                world_size=self.count,
                timeout=_PATIENCE,
            )
            # Messages and flags use a CPU backend, so that they never wait for a GPU.
            self._words = dist.new_group(backend="gloo", timeout=_PATIENCE)
            place = launcher.meeting_place()
            self._machines = place and MachineWatch(place, self.rank, self.all_gather, self._abort)
        except (dist.DistError, RuntimeError, ValueError, OSError) as error:
            raise launcher.nobody_came(launcher.other_ranks(), str(error)) from error
        store.set_timeout(_PATIENCE)
        self._skeleton: nn.Module | None = None
        atexit.register(_leave)

    # ------------------------------------------------------------ the model

    def prepare(self, model: nn.Module) -> None:
        """Shard a model whose every parameter is trained; any other is copied by the Trainer (DDP).

        Raises MedchatError if part of it was not sharded.
        """
        if not all(parameter.requires_grad for parameter in model.parameters()):
            return
        layers = decoder_layers(model)
        self._skeleton = skeleton_of(model)
        mesh = init_device_mesh(self._device.type, (self.count,))
        for unit in (*layers, model):
            fully_shard(unit, mesh=mesh)
        left = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
        # A net of somebody's own may have no layers that are known as such: it is one unit.
        if left or not (layers or not isinstance(model, PreTrainedModel)):
            raise MedchatError(
                say(
                    f"模型没有被切分到各进程：{'、'.join(left[:4]) or '找不到解码层'}",
                    "the model was not sharded across the processes: "
                    + (", ".join(left[:4]) or "no decoder layers were found"),
                ),
                say("请用一个进程训练，并反馈这个缺陷", "train in one process, and report this defect"),
            )

    def wrap_accelerator(self, accelerator: Any) -> None:
        """Keep the Trainer's accelerator from wrapping the sharded model in DDP, or moving it."""
        if self._skeleton is not None:
            whole = accelerator.prepare_model
            accelerator.prepare_model = lambda model, **_: whole(
                model, device_placement=False, evaluation_mode=True
            )

    @torch.no_grad()
    def unshard(self, model: nn.Module) -> None:
        """Unshard the model in place: the full model in the main process, an empty one in the others."""
        if self._skeleton is None:
            return
        whole = self.weights(model)
        skeleton, self._skeleton = self._skeleton, None
        if self.is_main:
            fill(skeleton, whole)
            skeleton.to(device_for(skeleton, self._device))
        skeleton.train(model.training)
        # Every reference to the model now sees the full one; hooks and shards are freed with the old content.
        model.__class__ = skeleton.__class__
        model.__dict__.clear()
        model.__dict__.update(skeleton.__dict__)

    # ------------------------------------------------------------ gathered states

    @torch.no_grad()
    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the full trained parameters by name in the main process; empty elsewhere.

        Shapes as in the model of one process, dtype as trained.
        """
        free_unsharded(model)
        whole = {name: self._whole(tensor.detach()) for name, tensor in trained_parameters(model).items()}
        return whole if self.is_main else {}

    @torch.no_grad()
    def load_weight(self, model: nn.Module, name: str, tensor: Tensor) -> None:
        """Copy a full tensor, which every process has read, into the parameter of that name.

        Its shape and dtype are the parameter's.
        """
        free_unsharded(model)
        parameter = trained_parameters(model)[name]
        parameter.copy_(laid_out_as(parameter, tensor))

    @torch.no_grad()
    def optimizer_state(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Return the full state, as a single process has it; outside the main process without tensors."""
        tree = optimizer.state_dict()
        states = {
            index: {key: self._whole(value) for key, value in state.items()}
            for index, state in tree["state"].items()
        }
        return {**tree, "state": states}

    @torch.no_grad()
    def load_optimizer_state(self, model: nn.Module, optimizer: Optimizer, tree: Mapping[str, Any]) -> None:
        """Load a full state, sharded as the parameters are."""
        order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        states = {
            index: {key: laid_out_as(order[int(index)], value) for key, value in state.items()}
            for index, state in tree["state"].items()
        }
        optimizer.load_state_dict({**tree, "state": states})

    def _whole(self, value: Any) -> Any:
        """Gather one tensor at a time on the shards' device; only the main process keeps it."""
        if not isinstance(value, DTensor):
            return value
        whole = value.full_tensor()
        return whole.cpu() if self.is_main else None

    # ------------------------------------------------------------ messages

    def all_gather(self, value: Any) -> list[Any]:
        """Return each process's value, by rank."""
        values = [None] * self.count
        dist.all_gather_object(values, value, group=self._words)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether the value is true in any process."""
        word = torch.tensor(int(flag))
        dist.all_reduce(word, dist.ReduceOp.MAX, group=self._words)
        return bool(word)

    def barrier(self) -> None:
        """Wait until every process has arrived here."""
        dist.barrier(group=self._words)

    def from_main(self, make: Callable[[], Made]) -> Made:
        """Return what `make` returned in the main process. If it failed, the others raise ReportedElsewhere."""
        said: list[Any] = [(False, None)]
        try:
            if self.is_main:
                said = [(True, make())]
        finally:
            dist.broadcast_object_list(said, src=0, group=self._words)
        worked, made = said[0]
        if not worked:
            raise ReportedElsewhere
        result: Made = made
        return result

    @contextmanager
    def single_reporter(self) -> Iterator[None]:
        """Let only one process raise the error, a MedchatError for a lost one; the others raise ReportedElsewhere."""
        try:
            yield
        except Exception as error:
            # After a failure the processes cannot destroy their group together.
            atexit.unregister(_leave)
            with suppress(dist.DistError, RuntimeError):  # the process that keeps the store has gone
                if self._is_reported_elsewhere(error):
                    raise ReportedElsewhere from error
            if reason := _broken_connection(error):
                raise self._connection_lost(reason) from error
            raise

    def _connection_lost(self, reason: str) -> MedchatError:
        """Return the error for a broken connection; of the processes on one machine, the first names a lost one."""
        if self._machines is None or self._machines.lost is None:
            return launcher.connection_lost(launcher.other_ranks(), reason)
        return (
            ReportedElsewhere() if launcher.local_rank() else launcher.connection_lost(*self._machines.lost)
        )

    def _is_reported_elsewhere(self, error: Exception) -> bool:
        """Whether another process reports: the main one if it failed itself, otherwise the one that failed first."""
        if isinstance(error, ReportedElsewhere):
            return True
        if self.is_main:
            others = [str(rank) for rank in range(1, self.count)]
            lost = not isinstance(error, MedchatError) and any(map(self._has_failed, others))
            if not lost:
                self._store.set("0", "failed")
            return lost
        first = self._store.add("first", 1) == 1
        self._store.set(str(self.rank), "failed")
        until = time.monotonic() + _REPORT_TIMEOUT
        while time.monotonic() < until:
            if self._has_failed("0"):
                return True
            time.sleep(0.05)
        return not first

    def _has_failed(self, rank: str) -> bool:
        return bool(self._store.check([rank]))

    def _abort(self) -> None:
        """End what waits for other processes on a GPU."""
        if self._device.type == "cuda":
            dist.distributed_c10d._abort_process_group()


def _broken_connection(error: BaseException | None) -> str:
    """Return what gloo or torch says of a connection that broke, "" where the error has no such cause."""
    while error is not None:
        if isinstance(error, dist.DistError) or "/gloo/transport/" in str(error):
            return str(error).partition("\n")[0]
        error = error.__cause__
    return ""


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
