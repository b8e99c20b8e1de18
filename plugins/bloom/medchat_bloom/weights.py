"""The published weights of this family (docs/specs/models.md, "Bloom")."""

from __future__ import annotations

from collections.abc import Mapping

from medchat.api import HUB
from medchat.plugin_kit import KnownWeights, say

#: The template of BenTsao's adapter; the bases were trained on plain text and on instructions without a
#: template.
ADAPTER_TEMPLATE, BASE_TEMPLATE = "bloom_deploy", "bare"

WHICH_BASE: Mapping[str, str] = {
    "zh": "bloomz-7b1 与 bloom-7b1 大小相同，程序无法分辨；BenTsao 的适配器用于哪一个，其说明前后不一"
    "（安装部分为 bloomz-7b1，新闻部分为 bloom-7b1）。先用 bloomz-7b1，回答不佳再换另一个",
    "en": "bloomz-7b1 and bloom-7b1 have equal sizes and cannot be told apart; BenTsao's adapter wants one of "
    "them and its page names both (bloomz-7b1 to install, bloom-7b1 in the news): begin with bloomz-7b1",
}

_LICENCE = "bigscience-bloom-rail-1.0"
_BASE_BYTES = 14_140_000_000

KNOWN_WEIGHTS = (
    KnownWeights(
        name="bloomz-7b1",
        title="BLOOMZ-7B1",
        source=f"{HUB}bigscience/bloomz-7b1",
        licence=_LICENCE,
        template=BASE_TEMPLATE,
        size=_BASE_BYTES,
    ),
    KnownWeights(
        name="bloom-7b1",
        title="BLOOM-7B1",
        source=f"{HUB}bigscience/bloom-7b1",
        licence=_LICENCE,
        template=BASE_TEMPLATE,
        size=_BASE_BYTES,
        modelscope="AI-ModelScope/bloom-7b1",
    ),
    KnownWeights(
        name="lora-bloom-med-bloom",
        title="BenTsao Bloom Med",
        source=f"{HUB}lovepon/lora-bloom-med-bloom",
        licence="AFL-3.0",
        template=ADAPTER_TEMPLATE,
        kind="adapter",
        size=15_800_000,
        fits=("bloomz-7b1", "bloom-7b1"),
        by_hand=("https://pan.baidu.com/s/1jPcuEOhesFGYpzJ7U52Fag?pwd=scir",),
        note=WHICH_BASE,
    ),
)


def which_base() -> str:
    """Return the note for the user: no file distinguishes the two bases, and either loads silently."""
    return say(WHICH_BASE["zh"], WHICH_BASE["en"])
