"""The name of a tensor without what programs that wrapped the model put around it. No torch here."""

from __future__ import annotations

import re

#: DistributedDataParallel, torch.compile, DeepSpeed and Lightning, FSDP, and peft, once or more often.
_IN_FRONT = re.compile(
    r"(?:(?:module|_orig_mod|_forward_module|_fsdp_wrapped_module|base_model\.model)\.)+(?=.)"
)
#: Around a part: FSDP, activation checkpointing, torch.compile.
_WITHIN = re.compile(r"(?<=\.)(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
#: peft's name of the adapter, which its own files leave out: `lora_A.default.weight`.
_ADAPTER_NAME = re.compile(r"(?<=\.)(lora_[AB])\.[^.]+(?=\.weight$)")


def plain_name(stored: str) -> str:
    """Return the name that the tensor has in the model itself; in LoRA matrices without an adapter's name.

    module.base_model.model.base_model.model.h.0.q.lora_A.default.weight -> h.0.q.lora_A.weight
    """
    front = _IN_FRONT.match(stored)
    name = _WITHIN.sub("", stored[front.end() :] if front else stored)
    name = _ADAPTER_NAME.sub(r"\1", name)
    return name.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", ".")
