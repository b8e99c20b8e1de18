"""QLoRA: LoRA on a base whose linear layers bitsandbytes packs to four bits (nf4, double quantization).

The base is packed while it is loaded and never written. The result is a normal LoRA, and chat may attach it
to the unpacked base.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from medchat.api import SFTOptions
from medchat.checkpoints.adapter_folder import open_adapter
from medchat.errors import UsageError
from medchat.inference.adapters import attach
from medchat.inference.chat_model import TokenChatModel
from medchat.inference.device import pick_device
from medchat.inference.quantization import not_quantisable
from medchat.language import say
from medchat.training.family import Family, base_options
from medchat.training.methods.lora import LoraMethod
from medchat.training.methods.method import precision


class QLoraMethod(LoraMethod):
    """LoRA with the same options and output; only the base differs during training."""

    name = "qlora"

    def refuse(self, family: Family, options: SFTOptions) -> None:
        """Raise UsageError for what LoRA refuses, and if bitsandbytes is not installed."""
        super().refuse(family, options)
        try:
            import bitsandbytes  # noqa: F401
        except ImportError:
            raise UsageError(
                say("--method qlora 需要 bitsandbytes", "--method qlora needs bitsandbytes"),
                say(
                    "pip install 'medchat[qlora]'，或改用 --method lora",
                    "pip install 'medchat[qlora]', or use --method lora",
                ),
            ) from None

    def load(self, family: Family, options: SFTOptions) -> TokenChatModel:
        """Load the base into host memory, pack its linear layers one by one, and move it to the device.

        Raises UsageError if it has none.
        """
        loaded = family.load(base_options(options, device="cpu", dtype=self.dtype(options)))
        if not pack_nf4(loaded.model, pick_device(options.device), precision(options).base):
            raise nothing_to_pack()
        return loaded

    def parameters(self, model: PreTrainedModel) -> int:
        """Return how many parameters the model has, packed ones counted one by one."""
        sizes = (getattr(part, "quant_state", part).shape for part in model.parameters())
        return sum(size.numel() for size in sizes)

    def load_result(self, family: Family, options: SFTOptions, folder: Path) -> TokenChatModel:
        """Load the packed base again and attach the written adapter, with chat's loader.

        On the unpacked base the same adapter answers slightly differently: without the quantization error.
        That it fits that base is checked too.
        """
        family.check(self.result_options(options, folder))
        loaded = self.load(family, options)
        model = loaded.model
        attach.attach_adapters(
            model, [open_adapter(folder)], model.device, model.dtype, family.trial_prompt(model)
        )
        return loaded


def nothing_to_pack() -> UsageError:
    """Return the error for a base without linear layers that can be packed: it would save no memory over LoRA."""
    return not_quantisable(say("改用 --method lora", "use --method lora"))


def pack_nf4(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> int:
    """Pack every linear layer except the head to nf4 and move the model to `device`; return how many were packed.

    They compute in `dtype`. The packed weights are frozen.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit

    head, count = model.get_output_embeddings(), 0
    for path, parent in list(model.named_modules()):
        # The matrices of LoRA adapters that training starts from are not packed.
        names = () if ".lora_" in path else list(parent.named_children())
        for name, child in names:
            if type(child) is not nn.Linear or child is head:
                continue
            with torch.device("meta"):
                packed = Linear4bit(
                    child.in_features,
                    child.out_features,
                    bias=child.bias is not None,
                    compute_dtype=dtype,
                    compress_statistics=True,
                    quant_type="nf4",
                )
            packed.weight = Params4bit(
                child.weight.data,
                requires_grad=False,
                compress_statistics=True,
                quant_type="nf4",
                module=packed,
            ).to(device)
            packed.bias = child.bias
            # On some CPUs it would repack itself less precisely at the first forward pass, and train on that.
            packed.support_avx512bf16_for_cpu = False
            setattr(parent, name, packed)
            count += 1
    model.to(device)
    # peft checks this attribute before it attaches LoRA to such layers.
    model.is_loaded_in_4bit = True
    return count
