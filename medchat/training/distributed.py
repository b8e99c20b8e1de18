"""Several processes that train one model, under `torchrun` or `accelerate launch`, on one machine or more.

What trains every weight is sharded (FSDP2, a unit for each decoder layer): no process ever holds all
gradients and optimizer states. What trains a part beside frozen weights is copied (DDP). Checkpoints and
results are those of one process: gathered by the main one, read by each.
"""

from __future__ import annotations

import atexit
import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from medchat import launcher
from medchat.errors import MedchatError
from medchat.inference.interrupt import decoder_layers
from medchat.language import say
from medchat.training.single_process import ProcessGroup, ReportedElsewhere, trained_parameters

Made = TypeVar("Made")

#: One process may answer questions, or write, while the others wait for it.
_PATIENCE = timedelta(hours=2)
#: So long a process that failed waits for word that the main one speaks.
_HEARING = 2.0


class FsdpGroup(ProcessGroup):
    """This process among those that a launcher started together (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)."""

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
            # Words and flags pass beside the tensors, and no GPU has to be waited for.
            self._words = dist.new_group(backend="gloo", timeout=_PATIENCE)
        except (dist.DistError, RuntimeError, ValueError, OSError) as error:
            raise launcher.nobody_came(launcher.other_ranks(), str(error)) from error
        store.set_timeout(_PATIENCE)
        self._skeleton: nn.Module | None = None
        atexit.register(_leave)

    # ------------------------------------------------------------ the model

    def prepare(self, model: nn.Module) -> None:
        """Shard a model whose every parameter is trained; any other is copied by the Trainer (DDP).

        Raises MedchatError if some of it stays whole in each process.
        """
        if not all(parameter.requires_grad for parameter in model.parameters()):
            return
        layers = decoder_layers(model)
        self._skeleton = _skeleton(model)
        mesh = init_device_mesh(self._device.type, (self.count,))
        for unit in (*layers, model):
            fully_shard(unit, mesh=mesh)
        left = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
        if left or not layers:
            raise MedchatError(
                say(
                    f"模型没有被切分到各进程：{'、'.join(left[:4]) or '找不到解码层'}",
                    "the model was not sharded across the processes: "
                    + (", ".join(left[:4]) or "no decoder layers were found"),
                ),
                say("请用一个进程训练，并反馈这个缺陷", "train in one process, and report this defect"),
            )

    def wrap_accelerator(self, accelerator: Any) -> None:
        """Keep the Trainer's accelerator from laying DDP around shards, or moving them."""
        if self._skeleton is not None:
            whole = accelerator.prepare_model
            accelerator.prepare_model = lambda model, **_: whole(
                model, device_placement=False, evaluation_mode=True
            )

    @torch.no_grad()
    def unshard(self, model: nn.Module) -> None:
        """Turn a sharded model back, in place: a whole one in the main process, an empty one in the others."""
        if self._skeleton is None:
            return
        whole = self.weights(model)
        skeleton, self._skeleton = self._skeleton, None
        if self.is_main:
            _fill(skeleton, whole)
            skeleton.to(self._place_for(skeleton))
        skeleton.train(model.training)
        # Everybody who holds the model holds the whole one now; hooks and shards go with the old content.
        model.__class__ = skeleton.__class__
        model.__dict__.clear()
        model.__dict__.update(skeleton.__dict__)

    def _place_for(self, model: nn.Module) -> torch.device:
        if self._device.type != "cuda":
            return self._device
        torch.cuda.empty_cache()
        needed = sum(parameter.nbytes for parameter in model.parameters())
        free, _ = torch.cuda.mem_get_info(self._device)
        return self._device if needed * 1.2 < free else torch.device("cpu")

    # ------------------------------------------------------------ states, whole

    @torch.no_grad()
    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the trained parameters whole, by name, in the main process; elsewhere nothing.

        Shapes as in the model of one process, dtype as trained.
        """
        _only_shards(model)
        whole = {name: self._whole(tensor.detach()) for name, tensor in trained_parameters(model).items()}
        return whole if self.is_main else {}

    @torch.no_grad()
    def load_weight(self, model: nn.Module, name: str, tensor: Tensor) -> None:
        """Put a whole tensor, which every process has read, where `weights` found it.

        Its shape and dtype are the parameter's.
        """
        _only_shards(model)
        parameter = trained_parameters(model)[name]
        parameter.copy_(_like(parameter, tensor))

    @torch.no_grad()
    def optimizer_state(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state as one process would have it; elsewhere than in the main process no tensors."""
        tree = optimizer.state_dict()
        states = {
            index: {key: self._whole(value) for key, value in state.items()}
            for index, state in tree["state"].items()
        }
        return {**tree, "state": states}

    @torch.no_grad()
    def load_optimizer_state(self, model: nn.Module, optimizer: Optimizer, tree: Mapping[str, Any]) -> None:
        """Take over a whole state, sharing it out as the parameters are."""
        order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        states = {
            index: {
                key: _like(order[int(index)], value) if _is_of(order[int(index)], value) else value
                for key, value in state.items()
            }
            for index, state in tree["state"].items()
        }
        optimizer.load_state_dict({**tree, "state": states})

    def _whole(self, value: Any) -> Any:
        """One tensor at a time is gathered where the shards are, and then kept by the main process alone."""
        if not isinstance(value, DTensor):
            return value
        whole = value.full_tensor()
        return whole.cpu() if self.is_main else None

    # ------------------------------------------------------------ words

    def all_gather(self, value: Any) -> list[Any]:
        """Return the value that each process has, by rank."""
        values = [None] * self.count
        dist.all_gather_object(values, value, group=self._words)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether it is so in any process."""
        word = torch.tensor(int(flag))
        dist.all_reduce(word, dist.ReduceOp.MAX, group=self._words)
        return bool(word)

    def barrier(self) -> None:
        """Continue when every process is here."""
        dist.barrier(group=self._words)

    def from_main(self, make: Callable[[], Made]) -> Made:
        """Return what the main process made. Where that failed, the others raise ReportedElsewhere."""
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
        """Let one process alone raise what went wrong; the others raise ReportedElsewhere."""
        try:
            yield
        except Exception as error:
            # A group of which one process failed cannot be left together.
            atexit.unregister(_leave)
            if self._is_told_elsewhere(error):
                raise ReportedElsewhere from error
            raise

    def _is_told_elsewhere(self, error: Exception) -> bool:
        """The main process speaks if it knows what went wrong itself; otherwise whoever failed first."""
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
        until = time.monotonic() + _HEARING
        while time.monotonic() < until:
            if self._has_failed("0"):
                return True
            time.sleep(0.05)
        return not first

    def _has_failed(self, rank: str) -> bool:
        return bool(self._store.check([rank]))


def _skeleton(model: nn.Module) -> nn.Module:
    """A copy of the model without its weights, shared ones shared."""
    empty: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, empty)


def _only_shards(model: nn.Module) -> None:
    """Drop the whole parameters that the outermost unit keeps from its last forward pass to the next backward."""
    if isinstance(model, FSDPModule):
        model.reshard()


def _fill(skeleton: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights into a model without any, those it shares once."""
    full = {
        id(empty): nn.Parameter(weights[name], requires_grad=empty.requires_grad)
        for name, empty in skeleton.named_parameters()
    }
    for module in skeleton.modules():
        for name, empty in module._parameters.items():
            if empty is not None:
                module._parameters[name] = full[id(empty)]


def _is_of(parameter: Tensor, value: Any) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _like(parameter: Tensor, whole: Tensor) -> Tensor:
    """A whole tensor as the parameter is: in shards of which this process has its own, or as it stands."""
    if not isinstance(parameter, DTensor):
        return whole
    device = parameter.to_local().device
    return distribute_tensor(
        whole.to(device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
