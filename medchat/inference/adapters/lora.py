"""Laying LoRA adapters over a model, and switching them while it is loaded.

    check_lora_fit(model, adapters)               # while the model is still without weights
    attach_loras(model, adapters, device, dtype)  # adapter0, adapter1, … act together
    activate(model, ["adapter1"])                 # from now on only this one

peft builds the layers; the values come through the same strict, safe reader as a model's. Knows no
family: which adapter fits which base is `known_adapters`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from medchat.checkpoints.lora_folder import CONFIG_FILE, LoraAdapter
from medchat.checkpoints.lora_targets import by_layer, chosen_layers, idle_targets
from medchat.checkpoints.weight_files import names
from medchat.errors import CheckpointError
from medchat.inference.adapters.linears import linear_sizes
from medchat.inference.adapters.lora_merging import merge
from medchat.inference.fused_decoder import leave_unchanged
from medchat.inference.load_weights import Placement, assign, raise_on_weights_oom
from medchat.inference.net_chat_model import net_logits, takes_ids_alone
from medchat.language import say

#: Tokens of a trial run: the cost is reading the weights once, whatever their number while it is small.
_TRIAL_TOKENS = 8


def check_lora_fit(model: nn.Module, adapters: Sequence[LoraAdapter]) -> None:
    """Hold the adapters' shapes against `model`, which may be on the meta device: before its weights are read.

    Raises CheckpointError for one that belongs to another model.
    """
    for adapter in adapters:
        shapes = adapter.module_shapes()
        if not shapes:
            raise _no_fit(adapter, say("没有 LoRA 矩阵", "it holds no LoRA matrices"))
        modules = dict(model.named_modules())
        linears = lora_linears(model)
        if idle := idle_targets(adapter.settings, linears):
            raise _no_fit(
                adapter,
                say(
                    f"target_modules 中 {names(idle)} 无对应的层",
                    f"target_modules: the model has no layer {names(idle)}",
                ),
            )
        for name, (outputs, inputs, _) in shapes.items():
            own = linear_sizes(modules.get(name))
            if own is None:
                raise _no_fit(adapter, say(f"模型里没有 {name}", f"the model has no {name}"))
            if adapter.settings.get("fan_in_fan_out") and isinstance(modules[name], nn.Linear):
                raise _no_fit(adapter, f"fan_in_fan_out, {name}")
            if own != (outputs, inputs):
                raise _no_fit(adapter, f"{name} {outputs}x{inputs}, {own[0]}x{own[1]}")


def attach_loras(
    model: nn.Module,
    adapters: Sequence[LoraAdapter],
    device: torch.device,
    dtype: torch.dtype,
    trial: Sequence[int] = (),
) -> tuple[str, ...]:
    """Attach the adapters to `model`, all of them active; return the names of those that can be switched.

    One that brings tensors of its own (a grown vocabulary) is merged for good: the others were trained on
    top of it. It must come first. `model` must be ready to run: with each adapter by itself it answers the
    prompt `trial` (ids; a few of everywhere in the vocabulary where none are given), and one that changes
    no logit is refused. Raises CheckpointError for that and where `attach` does.
    """
    names = [f"adapter{number}" for number in range(len(adapters))]
    laid_over: dict[str, LoraAdapter] = {}
    for name, adapter in zip(names, adapters, strict=True):
        attach_lora(model, adapter, device, dtype, name)
        if not adapter.saved or not _merged_with_effect(model, adapter, name, device, trial):
            laid_over[name] = adapter
    if laid_over:
        _require_effect(model, laid_over, device, trial)
    activate(model, names)
    return attached(model)


def attach_lora(
    model: nn.Module, adapter: LoraAdapter, device: torch.device, dtype: torch.dtype, name: str = "default"
) -> None:
    """Attach the adapter to `model` under `name` (no dots) and make it the only active one.

    Its LoRA matrices stay float32; tensors saved whole get `dtype` and fill parameters that `model` has
    on the meta device. Raises CheckpointError if it belongs to another model.
    """
    config = LoraConfig(**_settings_for(model, adapter), bias="none", inference_mode=True)
    try:
        # Builds the layers on the meta device, so that `assign` can hold them to the file's names.
        inject(model, config, name, low_cpu_mem_usage=True)
    except ValueError as error:
        raise _no_fit(adapter, " ".join(str(error).split())[:120]) from error
    # peft declares its matrices as float32 here, which half precision would be too coarse for.
    placement = Placement(
        dtype,
        device,
        keep=("*.lora_*",),
        rename=lambda plain: _injected_name(plain, name),
        config_file=CONFIG_FILE,
    )
    try:
        assign(model, adapter.checkpoint, adapter.headers, placement)
    except CheckpointError as error:
        # What is missing is named by the injected layers' names, of which the file knows no `name`.
        what = error.what.replace(f".{name}.weight", ".weight")
        raise CheckpointError(what, _remedy(), where=str(adapter.folder)) from None


def inject(model: nn.Module, config: LoraConfig, name: str, *, low_cpu_mem_usage: bool = False) -> None:
    """Put peft's layers beside those of `model` that `config` names, as the adapter `name`.

    `low_cpu_mem_usage`: their matrices are on the meta device. Raises ValueError if there is no such layer.
    """
    with warnings.catch_warnings():
        # A second adapter is meant; and what else peft remarks is for whoever writes such code.
        warnings.simplefilter("ignore")
        inject_adapter_in_model(config, model, adapter_name=name, low_cpu_mem_usage=low_cpu_mem_usage)
    for layer in lora_layers(model):
        if leave_unchanged not in layer._forward_hooks.values():
            # torch's TransformerEncoderLayer computes from its linears' weights, and calls none, unless one has a hook.
            layer.register_forward_hook(leave_unchanged)


def activate(model: nn.Module, names: Sequence[str]) -> None:
    """Let these of the attached adapters act, together, and no other; none at all for an empty sequence."""
    for layer in lora_layers(model):
        own = [name for name in names if name in layer.lora_A]
        layer.enable_adapters(bool(own))
        if own:
            layer.set_adapter(own, inference_mode=True)


def attached(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the adapters over `model`, in the order they were attached."""
    return tuple(dict.fromkeys(name for layer in lora_layers(model) for name in layer.lora_A))


def lora_linears(model: nn.Module) -> list[str]:
    """Return the names of the linear layers that LoRA can be attached to; not those of attached adapters."""
    found: list[str] = []
    inside = ""
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(module, LoraLayer) or linear_sizes(module):
            found.append(name)
            inside = f"{name}."
    return found


def _settings_for(model: nn.Module, adapter: LoraAdapter) -> dict[str, Any]:
    """Return the adapter's settings with the layers of `model` that they choose in place of any expression.

    Raises CheckpointError where they choose none.
    """
    stated = adapter.settings
    layers = chosen_layers(stated, lora_linears(model), head_name(model))
    if not layers:
        chosen = (
            names(stated["target_modules"])
            if isinstance(stated["target_modules"], list)
            else "target_modules"
        )
        raise _no_fit(adapter, say(f"模型里没有 {chosen}", f"the model has no {chosen}"))
    kept = {key: stated[key] for key in ("r", "lora_alpha", "use_rslora") if key in stated}
    tables = {
        key: {re.escape(layer): value for layer, value in by_layer(stated[key], layers).items()}
        for key in ("rank_pattern", "alpha_pattern")
        if key in stated
    }
    return {**kept, **tables, "target_modules": layers}


def head_name(model: nn.Module) -> str:
    """Return the name of the output head, "" for a model that states none."""
    get = getattr(model, "get_output_embeddings", None)
    head = get() if callable(get) else None
    return next((name for name, module in model.named_modules() if module is head), "")


def lora_layers(model: nn.Module) -> Iterator[LoraLayer]:
    """Yield the layers of `model` that have LoRA beside them."""
    return (module for module in model.modules() if isinstance(module, LoraLayer))


def _injected_name(plain: str, name: str) -> str:
    """Return the injected layer's name of a tensor by its plain one: peft adds the adapter's name."""
    path, _, leaf = plain.rpartition(".")
    is_lora = path.rpartition(".")[2] in ("lora_A", "lora_B")
    return f"{path}.{name}.{leaf}" if is_lora else f"{path}.{leaf}"


def _merged_with_effect(
    model: nn.Module, adapter: LoraAdapter, name: str, device: torch.device, trial: Sequence[int]
) -> bool:
    """Merge the adapter; say whether that could be done. Raises CheckpointError if no logit changed."""
    activate(model, ())
    without = _logits(model, device, trial)
    if not merge(model, name):
        return False
    if torch.equal(_logits(model, device, trial), without):
        raise _no_effect(adapter)
    return True


def _require_effect(
    model: nn.Module, adapters: Mapping[str, LoraAdapter], device: torch.device, trial: Sequence[int]
) -> None:
    """Raise CheckpointError for the first adapter, by its name over `model`, that alone changes no logit.

    Compared bit by bit: matrices may be far from zero and still be lost in the rounding of the sums.
    """
    activate(model, ())
    without = _logits(model, device, trial)
    for name, adapter in adapters.items():
        activate(model, [name])
        if torch.equal(_logits(model, device, trial), without):
            raise _no_effect(adapter)


def _logits(model: nn.Module, device: torch.device, trial: Sequence[int]) -> Tensor:
    """Return the logits, float [1, T, rows], for the trial prompt: one pass over a handful of tokens."""
    if takes_ids_alone(model):
        return net_logits(model, trial)
    rows = int(model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    ids = list(trial) or [rows * number // _TRIAL_TOKENS for number in range(_TRIAL_TOKENS)]
    with torch.no_grad(), raise_on_weights_oom(device):
        row = torch.tensor([ids], device=device)
        logits: Tensor = model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits
    return logits


def _no_effect(adapter: LoraAdapter) -> CheckpointError:
    return CheckpointError(
        say(
            "适配器不起作用：加载后没有改变任何一个输出（logit）",
            "the adapter has no effect: it changes no logit of the model",
        ),
        say(
            "它的矩阵为零，或小到被舍入；请重新下载，或重新训练并保存",
            "its matrices are zero, or too small to survive rounding: download it again, or train and "
            "save again",
        ),
        where=str(adapter.folder),
    )


def _no_fit(adapter: LoraAdapter, reason: str) -> CheckpointError:
    return CheckpointError(
        say(f"适配器与这个模型不匹配（{reason}）", f"the adapter does not fit this model ({reason})"),
        _remedy(),
        where=str(adapter.folder),
    )


def _remedy() -> str:
    return say(
        "请确认它是为这个模型训练的，且下载完整", "check that it was trained for this model and is complete"
    )
