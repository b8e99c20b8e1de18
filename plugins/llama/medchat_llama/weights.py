"""The published weights of this family (specification: backbones sections 5 and 8)."""

from __future__ import annotations

from medchat.api import KnownWeights

_HUB = "https://huggingface.co/"
_LLAMA_LICENCE = "LLaMA (non-commercial)"


def _base(name: str, title: str, repository: str, template: str) -> KnownWeights:
    return KnownWeights(name, title, _HUB + repository, _LLAMA_LICENCE, template)


def _adapter(name: str, title: str, repository: str, template: str) -> KnownWeights:
    return KnownWeights(name, title, _HUB + repository, "AFL-3.0", template)


#: decapoda's own repository is gone; the first of the mirrors holds its files, the others repaired ones.
KNOWN_WEIGHTS = (
    _base("llama-7b", "LLaMA-7B", "baffo32/decapoda-research-llama-7B-hf", "ori_template"),
    _base("llama-7b-huggyllama", "LLaMA-7B (huggyllama)", "huggyllama/llama-7b", "ori_template"),
    _base("llama-7b-yahma", "LLaMA-7B (yahma)", "yahma/llama-7b-hf", "ori_template"),
    _base("llama-7b-luodian", "LLaMA-7B (luodian, safetensors)", "luodian/llama-7b-hf", "ori_template"),
    _base(
        "chinese-alpaca-lora-7b",
        "Chinese-Alpaca-7B (LoRA over LLaMA-7B)",
        "hfl/chinese-alpaca-lora-7b",
        "alpaca",
    ),
    _adapter("lora-llama-med", "BenTsao LLaMA Med", "thinksoso/lora-llama-med", "med_template"),
    _adapter(
        "lora-llama-literature",
        "BenTsao LLaMA Literature",
        "lovepon/lora-llama-literature",
        "literature_template",
    ),
    _adapter("lora-alpaca-med", "BenTsao Alpaca Med", "lovepon/lora-alpaca-med", "med_template"),
    _adapter(
        "lora-alpaca-med-alldata",
        "BenTsao Alpaca Med (all data)",
        "lovepon/lora-alpaca-med-alldata",
        "med_alldata",
    ),
)
