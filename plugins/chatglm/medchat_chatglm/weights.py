"""The published weights of this family, with their checksums.

See docs/specs/models.md, "ChatGLM-6B revisions and files".
"""

from __future__ import annotations

from collections.abc import Mapping

from medchat.api import HUB, KnownFile
from medchat.plugin_kit import KnownWeights

_LICENCE = "ChatGLM-6B MODEL_LICENSE"
_MED, _ROUNDS = "med_chatglm", "chatglm_rounds"

_VOCABULARY_V0 = KnownFile(
    "ice_text.model", 2699926, "99871e0c85db81ad7af1028854fd091cd5778c8414ae9d94bbbc10d02c831c21"
)
_VOCABULARY_V1 = KnownFile(
    "ice_text.model", 2706249, "5e974d9a69c242ce014c88c2b26089270f6198f3c0b700a887666cd3e816f17e"
)
_SIZES = (1740651802, 1879731432, 1980385902, 1913294120, 1879722289, 1879731496, 1074103621, 1069286123)
_V010 = (
    "be79e2b22d99b3d76184f83f266cc764275220b66da6c4d0217176c8f8f6af27",
    "a80198fb714f7363d7e541125bb70b9cb6b1d1ef5988d32a7a25a852a374cbc3",
    "aaba0ae53b3ea30559575c8528dab52ca291a26ac847c5601fcf874db401198f",
    "968d134dd9b11e393d160144f097d6bff8c559413e3f75e9e0b6d35618eba669",
    "fc628ce0dcd5c38783e63fc81dd1b609fe01670ec3b855b358aa0d1d7ea48bf3",
    "511ec23b7907b7a26461671775a2ac08c08fb3695285bbe7d91fc534d7cbfd7e",
    "245d64e05cebeb214d696bccc87c1dbdf16c67c366e7f54af452ec5748c2186e",
    "607d08dd09074840c5f4603d4959a5c6789790955181c7253a2c14d38c1801d2",
)
_V110 = (
    "14dafdc73e1b1da131fec6668f58774bf6eab1215963f92bdd5c7d81dc6ca383",
    "8678043a60cd2ce373543fffe8de9508a8cf4266d2c0f088d52167cae74af839",
    "84744300522f53f778744012cd95ffd6f0e533515e53034035fe7cca5daf70b0",
    "43eb8279007c062e39fd44e536647bc5d0069773c3a69ca087f60aa3b85894d5",
    "ccfc9d265ddc00a00e8d6c4f5328c381d64eb2c68e06b5214f4b73bed149e41d",
    "f13d68803861c8575a9702c4923e1ef1ed601d8ca17ca62841c32860be24e597",
    "570c6a9aad83b2b383765e27f6bddcad40efddeb84f8490aea29dc0e43666ac5",
    "39d30a1d55c7e0138ef8b85190f927851f0fda5483a6465b104f9696ceaec8b4",
)
#: Before 2023-04-06 the two tables have 20000 rows more; they are in the first and the last shard.
_V0_SIZES = (1904491802, *_SIZES[1:7], 1233126123)
_V0 = (
    "fe5bac6bfa5b5404ddfe3fabe04862b785e013afd7b308b7beca08239f9489fa",
    *_V010[1:7],
    "e764ebdece24219efeda3c18aa32fe6414da3d1f533df8845815609e9ef7f4a7",
)


def _shards(sizes: tuple[int, ...], hashes: tuple[str, ...]) -> tuple[KnownFile, ...]:
    return tuple(
        KnownFile(f"pytorch_model-{number:05}-of-{len(sizes):05}.bin", size, digest)
        for number, (size, digest) in enumerate(zip(sizes, hashes, strict=True), start=1)
    )


def _chatglm(
    name: str,
    title: str,
    revision: str,
    files: tuple[KnownFile, ...],
    note: Mapping[str, str] | None = None,
    modelscope: str = "",
) -> KnownWeights:
    size = sum(file.size for file in files)
    return KnownWeights(
        name,
        title,
        f"{HUB}THUDM/chatglm-6b",
        _LICENCE,
        _ROUNDS,
        revision=revision,
        size=size,
        files=files,
        note=note or {},
        modelscope=modelscope,
    )


KNOWN_WEIGHTS = (
    KnownWeights(
        "chatglm-6b-med",
        "ChatGLM-6B-Med",
        "https://github.com/SCIR-HI/Med-ChatGLM",
        _LICENCE,
        _MED,
        size=13_400_000_000,
        files=(_VOCABULARY_V0,),
        by_hand=(
            "https://pan.baidu.com/s/1Sfi1bRwV741GIChIEOUW0A?pwd=i73e",
            "https://drive.google.com/drive/folders/1ZQSN56DloRGQ-Qj7IwzY4jV3ZHKMe9Bc",
        ),
        note={
            "zh": "仅限学术研究，禁止商用。huggingface.co/s65b40/ChatGLM-Med 上有词表和配置，未见权重",
            "en": "academic use only; huggingface.co/s65b40/ChatGLM-Med holds vocabulary and configuration, "
            "no weights were seen there",
        },
    ),
    _chatglm(
        "chatglm-6b",
        "ChatGLM-6B v1.1.0",
        "942945df047dee66f653c68ae0e56655045f1741",
        (_VOCABULARY_V1, *_shards(_SIZES, _V110)),
        modelscope="ZhipuAI/ChatGLM-6B",
    ),
    _chatglm(
        "chatglm-6b-v0.1.0",
        "ChatGLM-6B v0.1.0",
        "f83182484538e663a03d3f73647f10f89878f438",
        (_VOCABULARY_V1, *_shards(_SIZES, _V010)),
    ),
    _chatglm(
        "chatglm-6b-v0",
        "ChatGLM-6B (icetk, 2023-04-05)",
        "551a50efec3acc5a9b94de8ec46d33d0f81919f7",
        (_VOCABULARY_V0, *_shards(_V0_SIZES, _V0)),
        note={
            "zh": "15 万词表的早期权重，不是医学微调：对话时加 --rule v11 --template chatglm_rounds",
            "en": "the early 150528 rows, no medical fine-tune: chat with --rule v11 --template chatglm_rounds",
        },
    ),
    KnownWeights(
        "chatglm-6b-int8",
        "ChatGLM-6B int8",
        f"{HUB}THUDM/chatglm-6b-int8",
        _LICENCE,
        _ROUNDS,
        size=6_710_000_000,
        files=(_VOCABULARY_V1,),
    ),
    KnownWeights(
        "chatglm-6b-int4",
        "ChatGLM-6B int4",
        f"{HUB}THUDM/chatglm-6b-int4",
        _LICENCE,
        _ROUNDS,
        size=3_890_000_000,
    ),
)
