"""The runs whose memory `sft_memory.py` measures; each in a process of its own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from loading_figures import memory_field
from medchat_chatglm.collators import AnswerCollator, TrainingSample
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from peft import LoraConfig, get_peft_model
from sft_arms import Quiet
from torch import Tensor
from transformers import BloomConfig, BloomForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from medchat.api import SFTOptions, SFTSurvey
from medchat.training.activation_memory import Block, model_dims
from medchat.training.data_loader import CausalCollator, Collator
from medchat.training.features import Feature
from medchat.training.memory_estimate import estimate
from medchat.training.optimizers import precision_of
from medchat.training.run_folder import open_run_folder
from medchat.training.train import fingerprint_of, train

#: Enough for two optimizer steps: after the first, its state exists.
RECORDS, STEPS = 32, 2
#: How many of them are evaluated on too: a run also evaluates, before and after, and saves what is best.
HELD_OUT = 8
#: The two specials at the end of every ChatGLM prompt, [gMASK] and <sop>.
GLM_END = (130_001, 130_004)


@dataclass(frozen=True, slots=True)
class Case:
    """A model's measures and what is asked of the run."""

    block: Block
    layers: int
    hidden: int
    inner: int
    heads: int
    vocabulary: int
    options: Mapping[str, Any] = field(default_factory=dict)


CASES: Mapping[str, Case] = {
    "chatglm-full": Case(
        "plain", 8, 512, 2048, 8, 130_528,
        {"micro_batch_size": 4, "batch_size": 4, "max_length": 384, "precision": "float32"},
    ),
    "llama-lora-checkpointing": Case(
        "gated", 12, 1024, 2752, 16, 49_954,
        {"method": "lora", "gradient_checkpointing": True, "micro_batch_size": 8, "batch_size": 16,
         "max_length": 384, "precision": "float32"},
    ),
    "bloom-full-adafactor": Case(
        "alibi", 10, 1024, 4096, 16, 46_145,
        {"optimizer": "adafactor", "precision": "bfloat16", "micro_batch_size": 4, "batch_size": 8,
         "max_length": 320},
    ),
    "llama-full-mixed": Case(
        "gated", 6, 768, 2048, 12, 32_000,
        {"precision": "mixed", "optimizer": "adamw8bit", "micro_batch_size": 4, "batch_size": 4,
         "max_length": 512},
    ),
    "chatglm-full-fused": Case(
        "plain", 8, 768, 3072, 12, 130_528,
        {"precision": "bfloat16", "optimizer": "adafactor", "fused_backward": True, "max_grad_norm": 0.0,
         "gradient_checkpointing": True, "micro_batch_size": 8, "batch_size": 8, "max_length": 384},
    ),
}  # fmt: skip


def measure(name: str, device_name: str) -> dict[str, Any]:
    """Estimate, train and evaluate on made-up records in this process, and return both peaks in bytes."""
    case, device = CASES[name], torch.device(device_name)
    options = SFTOptions(
        model=Path("model"),
        output=Path("trained"),
        **{"max_steps": STEPS, "save_steps": -1, "eval_steps": STEPS, "device": device_name, **case.options},
    )
    features = made_up(case, options.max_length)
    told = estimate(shape_of(case, options), options, survey_of(features, options), device)
    model = build(case, options, device)
    with open_run_folder(options, fingerprint_of(features)) as folder:
        train(model, features, features[:HELD_OUT], collator(case, model), options, folder, Quiet())
    on_gpu = device.type == "cuda"
    measured = torch.cuda.max_memory_allocated() if on_gpu else memory_field("VmHWM")
    estimated = told.total - (told.parts["runtime"] if on_gpu else 0)
    return {
        "parts": dict(told.parts),
        "estimated": estimated,
        "measured": measured,
        "estimate_over_measured": estimated / measured,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "estimated_parameters": told.parameters,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def shape_of(case: Case, options: SFTOptions) -> Any:
    """Return the dimensions of the model for the estimate."""
    fused = case.block != "gated"
    targets = [(case.hidden, 3 * case.hidden)] if fused else [(case.hidden, case.hidden)] * 2
    return model_dims(
        options,
        layers=case.layers,
        hidden=case.hidden,
        inner=case.inner,
        heads=case.heads,
        vocabulary=case.vocabulary,
        block=case.block,
        tied=fused,
        targets=targets,
    )


def build(case: Case, options: SFTOptions, device: torch.device) -> PreTrainedModel:
    """Return a random model with the parameters to train, in the precision asked for."""
    precision = precision_of(options, device)
    torch.manual_seed(1)
    torch.set_default_dtype(precision.weights if options.method == "full" else precision.base)
    with device:
        model = _model(case)
    torch.set_default_dtype(torch.float32)
    if options.method == "full":
        return model.requires_grad_(True)
    model.enable_input_require_grads()
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=["q_proj", "v_proj"])
    return get_peft_model(model, lora, autocast_adapter_dtype=precision.weights is torch.float32)


def _model(case: Case) -> PreTrainedModel:
    if case.block == "plain":
        return ChatGLMForConditionalGeneration(
            ChatGLMConfig(
                vocab_size=case.vocabulary,
                hidden_size=case.hidden,
                inner_hidden_size=case.inner,
                num_layers=case.layers,
                num_attention_heads=case.heads,
            )
        )
    if case.block == "alibi":
        return BloomForCausalLM(
            BloomConfig(
                vocab_size=case.vocabulary, hidden_size=case.hidden, n_layer=case.layers, n_head=case.heads
            )
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=case.vocabulary,
            hidden_size=case.hidden,
            intermediate_size=case.inner,
            num_hidden_layers=case.layers,
            num_attention_heads=case.heads,
        )
    )


def made_up(case: Case, longest: int) -> list[Feature]:
    """Return records of random ids, from half the longest allowed to all of it, a third of each learned."""
    chance = random.Random(1)
    features = []
    for record in range(1, RECORDS + 1):
        length = longest if record == 1 else chance.randint(longest // 2, longest)
        ids = [chance.randrange(10, case.vocabulary - 1000) for _ in range(length)]
        split = length * 2 // 3
        if case.block == "plain":
            ids[split - 2 : split] = GLM_END
        features.append(Feature(tuple(ids[:split]), tuple(ids[split:]), record))
    return features


def survey_of(features: Sequence[Feature], options: SFTOptions) -> SFTSurvey:
    """Return what `medchat sft` would know of these records before it loads the model."""
    lengths = tuple(feature.length for feature in features)
    return SFTSurvey(
        template="none",
        records=len(features),
        max_length=options.max_length,
        lengths=lengths,
        tokens=sum(lengths),
        label_tokens=sum(len(feature.answer_ids) for feature in features),
        longest=max(lengths),
    )


def collator(case: Case, model: PreTrainedModel) -> Collator:
    """Return what pads a batch to its longest record."""
    if case.block != "plain":
        return CausalCollator(0)
    glm = AnswerCollator(model.config)

    def collate(features: Sequence[Feature]) -> Mapping[str, Tensor]:
        return glm(
            [TrainingSample((*one.prompt_ids, *one.answer_ids), len(one.prompt_ids)) for one in features]
        )

    return collate
