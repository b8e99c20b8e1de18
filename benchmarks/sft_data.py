"""What the fine-tuning benchmarks train on: records as long as the published ones, models as wide as a vocabulary.

Where `$MEDCHAT_SHARED` or `../shared` holds the published data and ChatGLM's vocabulary, the records are those;
else they are random ids with the lengths measured there (with ChatGLM-6B's vocabulary).
"""

from __future__ import annotations

import bisect
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loading_figures import ROOT

#: Ids every record may use: the smaller vocabulary without its special tokens.
IDS = 130_000
GMASK, SOP = 130_001, 130_004


@dataclass(frozen=True, slots=True)
class Source:
    """A published file, how a record is put, and the quantiles (`SHARES`) of its lengths in tokens.

    Prompt and answer lengths are all but independent there (correlation 0.04), and drawn so here.
    """

    file: str
    prompt: Callable[[Mapping[str, Any]], str]
    answer: str
    prompt_lengths: tuple[int, ...]
    answer_lengths: tuple[int, ...]


#: Every twentieth, and more of the tail: it decides how much is padded.
SHARES = (*(share / 20 for share in range(20)), 0.97, 0.98, 0.99, 0.995, 0.999, 1.0)
_MED_FORM = "下面是一个问题，运用医学知识来正确回答提问.\n### 问题:\n{}\n### 回答:\n"
_ANSWERS = (
    3, 11, 14, 18, 20, 23, 25, 26, 28, 30, 32, 34, 36, 38, 41, 44, 47, 51, 57, 65, 71, 76, 86, 97, 157, 246
)  # fmt: skip
SOURCES: Mapping[str, Source] = {
    "llama": Source(
        "llama_data.json",
        lambda record: _MED_FORM.format(record["instruction"]),
        "output",
        (
            28,
            33,
            35,
            36,
            38,
            40,
            42,
            43,
            44,
            46,
            47,
            48,
            49,
            50,
            52,
            53,
            55,
            57,
            59,
            64,
            67,
            70,
            74,
            78,
            90,
            114,
        ),
        _ANSWERS,
    ),
    "chatglm": Source(
        "med_chatglm_train.txt",
        lambda record: str(record["context"]),
        "target",
        (
            12,
            17,
            19,
            21,
            23,
            24,
            26,
            27,
            29,
            30,
            31,
            32,
            33,
            35,
            36,
            37,
            39,
            41,
            44,
            48,
            51,
            54,
            58,
            62,
            75,
            98,
        ),
        _ANSWERS,
    ),
}


def shared_folder() -> Path | None:
    """Return the folder of published data and vocabularies, where there is one."""
    folder = Path(os.environ.get("MEDCHAT_SHARED") or ROOT.parent / "shared")
    return folder if (folder / "data").is_dir() and (folder / "tokenizers").is_dir() else None


def records(family: str, count: int, seed: int) -> tuple[str, list[tuple[list[int], list[int]]]]:
    """Return where they come from, and `count` pairs of prompt and answer ids, end token included."""
    source, chance = SOURCES[family], random.Random(seed)
    shared = shared_folder()
    if shared is None:
        made = [
            (_some_ids(source.prompt_lengths, chance), _some_ids(source.answer_lengths, chance))
            for _ in range(count)
        ]
        return "random ids of the published lengths", [_ended(family, *pair) for pair in made]
    import sentencepiece

    path = shared / "data" / source.file
    encoder = sentencepiece.SentencePieceProcessor(
        model_file=str(shared / "tokenizers/chatglm-6b/ice_text.model")
    )
    lines = chance.sample(path.read_text(encoding="utf-8").splitlines(), count)
    pairs = [
        (encoder.encode(source.prompt(record)), encoder.encode(record[source.answer]))
        for record in map(json.loads, lines)
    ]
    return source.file, [_ended(family, *pair) for pair in pairs]


def _some_ids(quantiles: Sequence[int], chance: random.Random) -> list[int]:
    share = chance.random()
    above = bisect.bisect_right(SHARES, share)
    start, end = SHARES[above - 1 : above + 1]
    low, high = quantiles[above - 1 : above + 1]
    length = round(low + (high - low) * (share - start) / (end - start))
    return [chance.randrange(IDS) for _ in range(length - 1)]


def _ended(family: str, prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
    specials = [GMASK, SOP] if family == "chatglm" else []
    return [*prompt, *specials], [*answer, GMASK + 4]


def token_efficiency(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Return the share of real tokens when each batch of record numbers is padded to its longest."""
    padded = sum(max(lengths[record] for record in batch) * len(batch) for batch in batches)
    return sum(lengths[record] for batch in batches for record in batch) / padded
