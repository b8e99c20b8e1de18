"""Short fine-tuning runs of every family with every method, and helpers to examine their results."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_llama.backbone import LlamaBackbone
from sft_watcher import Watcher

from medchat.api import Backbone, Example, LoadOptions, PromptTemplate, SFTData, SFTOptions, SFTReport, Turn
from medchat.inference.chat_model import TokenChatModel
from medchat.training.recipe import FamilyRecipe

EXAMPLES = (
    Example("头痛怎么办？", "多休息，多喝水。"),
    Example("感冒了要吃药吗？", "先看医生。", (Turn("你好", "你好！"),)),
    Example("晚上睡不好。", "白天走走路，晚上早点睡。"),
    Example("血压怎么量？", "安静的时候量。"),
)
CORPUS = [
    "下面是一个问题，运用医学知识来正确回答提问.",
    *(text for example in EXAMPLES for text in (example.question, example.answer)),
]
BACKBONES: dict[str, Backbone] = {
    "chatglm": ChatGLMBackbone(),
    "llama": LlamaBackbone(),
    "bloom": BloomBackbone(),
    "huozi": HuoziBackbone(),
}
#: Learning rates with which a tiny model learns something in a few steps.
RATES = {"full": 5e-3, "lora": 3e-2, "qlora": 3e-2, "adapter": 3e-2, "ptuning": 1e-1}


def base(family: str, folder: Path, **shape: Any) -> Path:
    """Write the family's miniature, in the layout of its published weights, and return its folder."""
    BACKBONES[family].tiny(folder / "base", corpus=CORPUS, **shape)
    return folder / "base"


def recipe(family: str, method: str) -> FamilyRecipe:
    """Return one of a family's recipes."""
    found = BACKBONES[family].recipes[method]
    assert isinstance(found, FamilyRecipe)
    return found


def options(family: str, folder: Path, method: str, **changes: Any) -> SFTOptions:
    """Return options for a run of four steps; `folder` holds the base and gets the output."""
    plain = SFTOptions(
        model=folder / "base",
        output=folder / "out",
        method=method,
        **{
            **recipe(family, method).defaults,
            "learning_rate": RATES[method],
            "num_epochs": 4,
            "batch_size": 4,
            "micro_batch_size": 4,
            "logging_steps": 1,
            "eval_steps": 0,
            "save_steps": -1,
            "precision": "float32",
            "adapter_size": 8,
            "pre_seq_len": 4,
            "samples": 0,
            "device": "cpu",
        },
    )
    return replace(plain, **changes)


def run(
    family: str,
    folder: Path,
    method: str,
    template: PromptTemplate | None = None,
    **changes: Any,
) -> tuple[SFTReport, Watcher]:
    """Fine-tune the miniature in `folder`/base into `folder`/out."""
    watcher = Watcher()
    wanted = options(family, folder, method, **changes)
    report = recipe(family, method).run(SFTData(EXAMPLES, template=template), wanted, watcher)
    return report, watcher


def loading(folder: Path, report: SFTReport, *below: Path) -> LoadOptions:
    """Return the options to load the result in chat: a model, or the base with an adapter on top of those `below`."""
    if report.kind == "model":
        return LoadOptions(report.output, device="cpu", dtype="float32")
    return LoadOptions(folder / "base", adapters=(*below, report.output), device="cpu", dtype="float32")


def load(family: str, wanted: LoadOptions) -> TokenChatModel:
    """Load as chat does."""
    loaded = BACKBONES[family].load(wanted)
    assert isinstance(loaded, TokenChatModel)
    return loaded


def plain_base(family: str, folder: Path) -> TokenChatModel:
    """Load the base without adapters."""
    return load(family, LoadOptions(folder / "base", device="cpu", dtype="float32"))


def prompt_logits(loaded: TokenChatModel, question: str = "头痛怎么办？") -> torch.Tensor:
    """Return the logits [T, V] over a prompt as the tokenizer builds it."""
    from medchat.api import Text

    ids = loaded.tokenizer.build_prompt([Text(question)])
    with torch.inference_mode():
        logits: torch.Tensor = loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
