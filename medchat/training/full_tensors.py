"""From a sharded model (FSDP2) to full tensors and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def skeleton_of(model: nn.Module) -> nn.Module:
    """Return a copy of the model on the meta device, with shared parameters still shared."""
    empty: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, empty)


def free_unsharded(model: nn.Module) -> None:
    """Free the unsharded parameters that the root unit keeps between a forward and the next backward pass."""
    if isinstance(model, FSDPModule):
        model.reshard()


def fill(skeleton: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights, of the parameters' shapes and dtypes, into a model on the meta device, shared ones once."""
    full = {
        id(empty): nn.Parameter(weights[name], requires_grad=empty.requires_grad)
        for name, empty in skeleton.named_parameters()
    }
    for module in skeleton.modules():
        for name, empty in module._parameters.items():
            if empty is not None:
                module._parameters[name] = full[id(empty)]


def device_for(model: nn.Module, device: torch.device) -> torch.device:
    """Return the device that the full model goes to: that of training if there is room on it, else the CPU."""
    if device.type != "cuda":
        return device
    torch.cuda.empty_cache()
    needed = sum(parameter.nbytes for parameter in model.parameters())
    free, _ = torch.cuda.mem_get_info(device)
    return device if needed * 1.2 < free else torch.device("cpu")


def laid_out_as(parameter: Tensor, full: Any) -> Any:
    """A full tensor laid out like the parameter: this process's shard of it. Unchanged if it is of another shape."""
    if not (isinstance(parameter, DTensor) and isinstance(full, Tensor) and full.shape == parameter.shape):
        return full
    device = parameter.to_local().device
    return distribute_tensor(full.to(device), parameter.device_mesh, parameter.placements, src_data_rank=None)
