"""What a model computes and no file stores (rotary frequencies, say): on the meta device it has no values yet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from medchat.errors import CheckpointError
from medchat.language import say


def fill_computed(model: PreTrainedModel, device: torch.device) -> None:
    """Give every buffer of `model` that is still on the meta device its value, by the library's own rules.

    Parameters and stored buffers, which must have theirs, stay as they are. Raises CheckpointError for a
    buffer that the library has no rule for.
    """
    waiting = [module for module in model.modules() if _computed(module)]
    for module in waiting:
        for name, buffer in _computed(module).items():
            module._buffers[name] = _unset(buffer, device)
    for kept in (*model.parameters(), *model.state_dict(keep_vars=True).values()):
        kept._is_hf_initialized = True  # what the library's rules leave alone
    names = {id(module): name for name, module in model.named_modules()}
    for module in waiting:
        model._init_weights(module)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and bool(buffer.isnan().any()):
                raise _unknown(f"{names[id(module)]}.{name}")


def _computed(module: nn.Module) -> dict[str, Tensor]:
    return {name: buffer for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta}


def _unset(buffer: Tensor, device: torch.device) -> Tensor:
    empty = torch.zeros_like(buffer, device=device)
    return empty.fill_(float("nan")) if empty.is_floating_point() else empty


def _unknown(name: str) -> CheckpointError:
    return CheckpointError(
        say(
            f"不支持这种结构：不知道怎样计算 {name}",
            f"this architecture is not supported: MedChat does not know how to compute {name}",
        ),
        say("请换用别的模型", "use another model"),
    )
