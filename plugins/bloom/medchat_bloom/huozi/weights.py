"""The published weights of this family (docs/specs/models.md, "Huozi")."""

from __future__ import annotations

from medchat.api import HUB
from medchat.plugin_kit import KnownWeights
from medchat_bloom.huozi.prompts import ADAPTER_TEMPLATE, HUOZI

KNOWN_WEIGHTS = (
    KnownWeights(
        name="huozi-7b-sft",
        title="活字 1.0 (Huozi 1.0)",
        source=f"{HUB}HIT-SCIR/huozi-7b-sft",
        licence="Apache-2.0",
        template=HUOZI.name,
        size=14_140_000_000,
    ),
    KnownWeights(
        name="lora-huozi-med",
        title="BenTsao Huozi Med",
        source="https://github.com/SCIR-HI/Huatuo-Llama-Med-Chinese",
        licence="BenTsao (academic research only)",
        template=ADAPTER_TEMPLATE,
        kind="adapter",
        fits=("huozi-7b-sft",),
        by_hand=("https://pan.baidu.com/s/1BPnDNb1wQZTWy_Be6MfcnA?pwd=m21s",),
    ),
)
