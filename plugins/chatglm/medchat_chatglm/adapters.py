"""Adapters of ChatGLM: a P-tuning prefix, or LoRA weights saved by peft.

Both are read with the same strict checks as models; for LoRA see `medchat.inference.adapters.lora`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from medchat.checkpoints.adapter_folder import (
    CHATGLM_PREFIX,
    BottleneckAdapter,
    KeyValueAdapter,
    kind_of,
    open_adapter,
)
from medchat.checkpoints.headers import TensorHeader, read_headers
from medchat.checkpoints.layout import MODEL_FILES, Candidates, open_checkpoint, require_folder
from medchat.checkpoints.lora_folder import CONFIG_FILE, FLAG, LoraAdapter, is_lora_folder
from medchat.checkpoints.stated_template import stated_facts
from medchat.checkpoints.weight_files import Checkpoint
from medchat.inference.load_weights import Placement, assign
from medchat.plugin_kit import AdapterCard, CheckpointError, say
from medchat_chatglm.config_file import V0_ROWS, V11_ROWS, generation_of
from medchat_chatglm.inspection import EMBEDDING, MODEL_TYPE, PREFIX
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from medchat_chatglm.prompts import RULE_KEY

#: The file of a prefix alone, tried before the layout of the original P-tuning script (a model folder).
PREFIX_FILES: Candidates = (("prefix_encoder.safetensors", "safetensors"), ("prefix_encoder.bin", "bin"))
#: The key of an adapter's configuration that states the generation of its base; our fine-tuning writes it.
GENERATION_KEY = "medchat_generation"
_RELEASES = {"v0": " v0 (icetk)", "v11": " v1.1"}
#: Ordinary ids of the prompt on which a LoRA is tested; the two control tokens follow them.
_TRIAL_WORDS = 6


@dataclass(frozen=True, slots=True)
class PrefixAdapter:
    """A folder with a P-tuning prefix. `headers` are those of the prefix's tensors alone.

    `embedding_rows` is the number of rows of the embedding if the complete model was stored; else 0.
    """

    folder: Path
    checkpoint: Checkpoint
    headers: Mapping[str, TensorHeader]
    embedding_rows: int = 0

    def shape(self) -> tuple[int, bool]:
        """Return the prefix's length in tokens and whether it has a projection.

        Layout: docs/specs/models.md, "P-tuning prefix".

        Raises CheckpointError if the file does not say.
        """
        embedding = self.headers.get(f"{PREFIX}embedding.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise CheckpointError(
                say("P-tuning 检查点缺少 embedding.weight", "the P-tuning checkpoint lacks embedding.weight"),
                say("请重新下载这个适配器", "download the adapter again"),
                where=str(self.folder),
            )
        return embedding.shape[0], any(name.startswith(f"{PREFIX}trans.") for name in self.headers)


Adapter = PrefixAdapter | LoraAdapter | BottleneckAdapter


def open_chatglm_adapter(folder: Path) -> Adapter:
    """Open an adapter folder. Raises CheckpointError if it is missing, damaged or of an unknown type."""
    require_folder(folder, FLAG)
    if not is_lora_folder(folder):
        return find_prefix(folder, (*PREFIX_FILES, *MODEL_FILES))
    if kind_of(folder) == CHATGLM_PREFIX:
        return find_prefix(folder)
    adapter = open_adapter(folder)
    if isinstance(adapter, LoraAdapter) and not adapter.saved:
        return adapter
    if isinstance(adapter, BottleneckAdapter):
        return adapter
    found = "PREFIX_TUNING" if isinstance(adapter, KeyValueAdapter) else "modules_to_save"
    raise CheckpointError(
        say(f"不支持这种适配器：{found}", f"this kind of adapter is not supported: {found}"),
        say(
            "ChatGLM 支持普通的 LoRA、瓶颈适配器（Houlsby）和 P-tuning v2 前缀",
            "ChatGLM takes plain LoRA, bottlenecks (Houlsby) and P-tuning v2 prefixes",
        ),
        where=str(folder / CONFIG_FILE),
    )


def refuse_other_generation(adapters: Iterable[Adapter], generation: str) -> None:
    """Refuse an adapter trained on weights of the other generation: their shapes are equal, their ids are not.

    `generation` is that of the weights, "v0" or "v11". Raises CheckpointError.
    """
    for adapter in adapters:
        stated = _generation_of(adapter)
        if stated and stated != generation:
            own, other = (_RELEASES[name] for name in (generation, stated))
            raise CheckpointError(
                say(
                    f"适配器与模型不匹配：它在 ChatGLM-6B{other} 上训练，而这份权重是{own}",
                    f"the adapter does not fit: it was trained over ChatGLM-6B{other}, these weights are{own}",
                ),
                say(
                    "形状相同而编号不同，混用只会答非所问；请换用同一代的权重或适配器",
                    "shapes are equal and ids are not, so answers would be nonsense: use weights or an adapter "
                    "of the same generation",
                ),
                where=str(adapter.folder),
            )


def _generation_of(adapter: Adapter) -> str:
    """Return the generation of the base that the folder states; "" if it states none.

    Our adapters state it, or at least the rule. The original P-tuning script writes the model's config.json,
    and in old checkpoints the complete model.
    """
    facts = stated_facts(adapter.folder)
    if facts.get(GENERATION_KEY) in _RELEASES:
        return str(facts[GENERATION_KEY])
    if isinstance(facts.get(RULE_KEY), str):
        return "v11" if facts[RULE_KEY] == "v11" else "v0"
    if facts.get("model_type") == MODEL_TYPE and type(facts.get("vocab_size")) is int:
        return generation_of(facts)
    rows = adapter.embedding_rows if isinstance(adapter, PrefixAdapter) else 0
    return generation_of({"vocab_size": rows}) if rows in (V0_ROWS, V11_ROWS) else ""


def find_prefix(folder: Path, candidates: Candidates = PREFIX_FILES) -> PrefixAdapter:
    """Open a folder that holds a P-tuning prefix. Raises CheckpointError if there is none."""
    checkpoint = open_checkpoint(folder, candidates, FLAG)
    # Older P-tuning checkpoints contain the complete model; only the prefix is the adapter.
    stored = read_headers(checkpoint)
    headers = {name: header for name, header in stored.items() if name.startswith(PREFIX)}
    if not headers:
        raise CheckpointError(
            say(
                f"这里没有适配器：既无 {CONFIG_FILE}，也无 {PREFIX}* 张量",
                f"this is not an adapter: neither {CONFIG_FILE} nor tensors {PREFIX}*",
            ),
            say(
                f"请检查 {FLAG} 的路径；完整模型请用 --model",
                f"check {FLAG}; a whole model goes to --model",
            ),
            where=str(folder),
        )
    embedding = stored.get(EMBEDDING)
    rows = embedding.shape[0] if embedding is not None and embedding.shape else 0
    return PrefixAdapter(folder, checkpoint, headers, rows)


def inspect_prefix(folder: Path) -> AdapterCard:
    """Return what is wrong with a folder that claims to be a P-tuning prefix, if anything."""
    try:
        prefix = find_prefix(folder)
        prefix.shape()
    except CheckpointError as error:
        return AdapterCard(fault=error.what)
    return AdapterCard(notes=prefix.checkpoint.notes)


def check_chatglm_fit(model: nn.Module, adapters: list[Adapter]) -> None:
    """Compare the adapters with `model` before its weights are read. Raises CheckpointError."""
    others = _others(adapters)
    if others:
        from medchat.inference.adapters import attach  # imports peft: slow, rarely needed

        attach.check_fit(model, others)


def attach_chatglm_adapters(
    model: ChatGLMForConditionalGeneration, adapters: list[Adapter], device: torch.device, dtype: torch.dtype
) -> None:
    """Load the adapters' weights into `model`. For a prefix it must have an empty encoder of that shape.

    Raises CheckpointError if one belongs to another model, or a LoRA changes no logit.
    """
    for adapter in adapters:
        if isinstance(adapter, PrefixAdapter):
            encoder = model.get_submodule(PREFIX.rstrip("."))
            placement = Placement(torch.float32, device, rename=lambda name: name.removeprefix(PREFIX))
            assign(encoder, adapter.checkpoint, adapter.headers, placement)
    others = _others(adapters)
    if others:
        from medchat.inference.adapters import attach

        attach.attach_adapters(model, others, device, dtype, trial_prompt(model))


def trial_prompt(model: ChatGLMForConditionalGeneration) -> tuple[int, ...]:
    """Return a prompt of a few ids, for testing an adapter: with the control tokens that it needs."""
    ids = model.config.special_ids
    return (*(ids.mask * number // _TRIAL_WORDS for number in range(_TRIAL_WORDS)), ids.gmask, ids.sop)


def _others(adapters: list[Adapter]) -> list[LoraAdapter | BottleneckAdapter]:
    return [adapter for adapter in adapters if not isinstance(adapter, PrefixAdapter)]
