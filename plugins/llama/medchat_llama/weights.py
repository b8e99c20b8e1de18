"""The published weights of this family (docs/specs/models.md, "LLaMA and Chinese-Alpaca")."""

from __future__ import annotations

from collections.abc import Mapping

from medchat.api import HUB, KnownFile
from medchat.plugin_kit import KnownWeights

_LLAMA_LICENCE = "LLaMA (non-commercial)"
_BAIDU = "https://pan.baidu.com/s/"
_BASE_BYTES, _ADAPTER_BYTES = 13_500_000_000, 16_800_000
#: Bytes of LLaMA-7B with 17954 more rows of 4096 in its embedding and its head, in half precision.
_ALPACA_BYTES = 13_800_000_000

_LLAMA_VOCABULARY = KnownFile(
    "tokenizer.model", 499723, "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347"
)
_ALPACA_VOCABULARY = KnownFile(
    "tokenizer.model", sha256="2d967e855b1213a439df6c8ce2791f869c84b4f3b6cfacf22b86440b8192a2f8"
)
#: As converted by transformers' script from Meta's file, with the checksums that Chinese-LLaMA-Alpaca
#: publishes.
_CONVERTED = (
    KnownFile(
        "pytorch_model-00001-of-00002.bin",
        sha256="0087155d6df07106c1d910bfeb6aab1be8e612dfbf2b56ddfb4ccbde7dbd50d0",
    ),
    KnownFile(
        "pytorch_model-00002-of-00002.bin",
        sha256="461bc5e50200db7813ff99cc0b9316c48ccbd6aaaa31bf8cf7bee0b64bc3eda3",
    ),
    _LLAMA_VOCABULARY,
)
_CHINESE_ALPACA_LORA = (
    _ALPACA_VOCABULARY,
    KnownFile("adapter_model.bin", sha256="0d9b6ed8e4a7d1ae590a16c89a452a488d66ff07e45487972f61c2b6e46e36de"),
)
_LLAMAS = ("llama-7b", "llama-7b-huggyllama", "llama-7b-yahma", "llama-7b-luodian", "llama-7b-converted")


def _base(name: str, title: str, repository: str, modelscope: str = "") -> KnownWeights:
    return KnownWeights(
        name,
        title,
        f"{HUB}{repository}",
        _LLAMA_LICENCE,
        "ori_template",
        size=_BASE_BYTES,
        files=(_LLAMA_VOCABULARY,),
        modelscope=modelscope,
    )


def _adapter(
    name: str, title: str, repository: str, template: str, fits: tuple[str, ...], baidu: str
) -> KnownWeights:
    return KnownWeights(
        name,
        title,
        f"{HUB}{repository}",
        "AFL-3.0",
        template,
        kind="adapter",
        size=_ADAPTER_BYTES,
        fits=fits,
        by_hand=(f"{_BAIDU}{baidu}",),
        note=_UNMERGED if fits == _ALPACAS else {},
    )


_ALPACAS = ("chinese-alpaca-7b",)
_UNMERGED: Mapping[str, str] = {
    "zh": "底座不必先合并：--model llama-7b --adapter chinese-alpaca-lora-7b --adapter 本适配器",
    "en": "the base need not be merged first: --model llama-7b --adapter chinese-alpaca-lora-7b --adapter THIS",
}

#: decapoda's own repository is gone; the first mirror has its files, the others repaired ones.
KNOWN_WEIGHTS = (
    _base("llama-7b", "LLaMA-7B", "baffo32/decapoda-research-llama-7B-hf"),
    _base("llama-7b-huggyllama", "LLaMA-7B (huggyllama)", "huggyllama/llama-7b", "skyline2006/llama-7b"),
    _base("llama-7b-yahma", "LLaMA-7B (yahma)", "yahma/llama-7b-hf"),
    _base("llama-7b-luodian", "LLaMA-7B (luodian, safetensors)", "luodian/llama-7b-hf"),
    KnownWeights(
        "llama-7b-converted",
        "LLaMA-7B, converted by yourself",
        "https://github.com/facebookresearch/llama",
        _LLAMA_LICENCE,
        "ori_template",
        size=_BASE_BYTES,
        files=_CONVERTED,
        by_hand=("https://github.com/facebookresearch/llama",),
        note={
            "zh": "向 Meta 申请原始权重，再用 transformers 的 convert_llama_weights_to_hf.py 转换",
            "en": "ask Meta for the original, then convert with transformers' convert_llama_weights_to_hf.py",
        },
    ),
    # The English Alpaca with which BenTsao compares its answers. Its size changed with its versions.
    KnownWeights(
        "alpaca-lora-7b",
        "Alpaca-LoRA (English)",
        f"{HUB}tloen/alpaca-lora-7b",
        "MIT",
        "alpaca",
        kind="adapter",
        fits=_LLAMAS,
    ),
    KnownWeights(
        "chinese-alpaca-lora-7b",
        "Chinese-Alpaca-7B (LoRA over LLaMA-7B)",
        f"{HUB}hfl/chinese-alpaca-lora-7b",
        "Apache-2.0; research only",
        "alpaca",
        kind="adapter",
        size=790_000_000,
        files=_CHINESE_ALPACA_LORA,
        fits=_LLAMAS,
    ),
    KnownWeights(
        "chinese-alpaca-7b",
        "Chinese-Alpaca-7B, merged by yourself",
        "https://github.com/ymcui/Chinese-LLaMA-Alpaca",
        _LLAMA_LICENCE,
        "alpaca",
        size=_ALPACA_BYTES,
        files=(_ALPACA_VOCABULARY,),
        by_hand=("https://github.com/ymcui/Chinese-LLaMA-Alpaca",),
        note={
            "zh": "不合并也行：--model llama-7b --adapter chinese-alpaca-lora-7b",
            "en": "or unmerged: --model llama-7b --adapter chinese-alpaca-lora-7b",
        },
    ),
    _adapter(
        "lora-llama-med",
        "BenTsao LLaMA Med",
        "thinksoso/lora-llama-med",
        "med_template",
        _LLAMAS,
        "1jih-pEr6jzEa6n2u6sUMOg?pwd=jjpf",
    ),
    _adapter(
        "lora-llama-literature",
        "BenTsao LLaMA Literature",
        "lovepon/lora-llama-literature",
        "literature_template",
        _LLAMAS,
        "1jADypClR2bLyXItuFfSjPA?pwd=odsk",
    ),
    _adapter(
        "lora-alpaca-med",
        "BenTsao Alpaca Med",
        "lovepon/lora-alpaca-med",
        "med_template",
        _ALPACAS,
        "16oxcjzXnXjDpL8SKihgNxw?pwd=scir",
    ),
    _adapter(
        "lora-alpaca-med-alldata",
        "BenTsao Alpaca Med (all data)",
        "lovepon/lora-alpaca-med-alldata",
        "med_alldata",
        _ALPACAS,
        "1HDdK84ASHmzOFlkmypBIJw?pwd=scir",
    ),
)
