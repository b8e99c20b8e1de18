"""A backbone over a library that chooses tokens itself, as `LibraryModel` takes one: its tokens are bytes."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from medchat import plugin_kit as kit
from medchat.inference.library_model import LibraryModel

END, BEGIN = 256, 257
_CORPUS = "头痛怎么办？多休息，多喝水。How long does a cold last? About a week. 体温 38.5 🙂！"
_FOLLOWING: Mapping[int, Counter[int]] = defaultdict(Counter)
for _one, _next in zip(_CORPUS.encode(), [*_CORPUS.encode()[1:], END], strict=True):
    _FOLLOWING[_one][_next] += 1


class ByteModel(LibraryModel):
    """Draws the next byte by how often it followed the last one in a corpus."""

    context_length = 512
    special_ids: Mapping[str, int] = {"<end>": END, "<begin>": BEGIN}
    eos_token_id, stop_ids, front_ids = END, (END,), (BEGIN,)

    def __init__(self, path: Path) -> None:
        self.facts = {"backbone": "bytes", "model": str(path), "dtype": "none", "device": "cpu"}

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def tokens(self, ids: Sequence[int], config: kit.GenerationConfig) -> Generator[int, None, None]:
        luck, last = random.Random(config.seed), ids[-1]
        while True:
            counts = self._counts(last)
            if config.greedy:
                last = max(sorted(counts), key=counts.__getitem__)
            else:
                last = luck.choices(list(counts), list(counts.values()))[0]
            yield last

    def token_scores(self, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
        pairs = zip([prompt[-1], *answer], answer, strict=False)
        return [self._score(before, token) for before, token in pairs]

    def close(self) -> None:
        pass

    def _counts(self, last: int) -> Counter[int]:
        return _FOLLOWING.get(last) or _FOLLOWING["？".encode()[-1]]

    def _score(self, before: int, token: int) -> float:
        counts = self._counts(before)
        return math.log(counts[token] / counts.total()) if counts[token] else -math.inf


class Bytes(kit.Backbone):
    """Its models are files NAME.bytes, which hold nothing."""

    name, file_suffix = "bytes", ".bytes"
    summary: Mapping[str, str] = {"zh": "逐字节", "en": "byte by byte"}
    capabilities = kit.Capabilities(
        beams=False, adapters=False, batch=False, devices=("cpu",), dtypes=(), quantize=()
    )
    not_applicable: Mapping[str, str] = {
        "test_a_kept_cache_answers_as_a_fresh_one": "it looks at the last byte alone: there is nothing to keep"
    }

    def load(self, options: kit.LoadOptions) -> kit.ChatModel:
        return ByteModel(options.model)

    def template(self, options: kit.LoadOptions) -> kit.PromptTemplate:
        return kit.load_template("bare")

    def special_tokens(self, options: kit.LoadOptions) -> kit.SpecialTokens:
        return kit.SpecialTokens(("<end>", "<begin>"), {"bos_token": "<begin>", "eos_token": "<end>"})

    def inspect(self, path: Path) -> kit.ModelCard | None:
        found = self.models_in(path)
        if len(found) != 1:
            return None
        return kit.ModelCard(
            backbone=self.name, family=self.name, path=path, context_length=512, template="bare"
        )

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "tiny.bytes").write_bytes(b"")
