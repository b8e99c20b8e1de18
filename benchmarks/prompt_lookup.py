"""Answers with drafts from the prompt (prompt lookup) against the same answers without, in the native engine.

Two layers of the real width with that share of the vocabulary (as `native_decoder`), random weights, a prompt of 300
tokens. Random weights write nothing that could be quoted, so the tokens of an answer are given, and the model computes
every one of them, with and without drafts by turns. Tokens are characters of written sentences: "quoting" puts whole
sentences of the prompt between a few new words, "free" is made of other sentences. One thread is measured in processor
time, so that other programs count less. Bars: the median of the ratios of
at least seven rounds, 1.3 for answers that quote and 0.97 for those that do not.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from native_decoder import chatglm, in_engine, llama
from reporting import parser_of, report

from medchat.api import GenerationConfig
from medchat.inference.decode import DraftVerifier
from medchat.inference.native_model import NativeStepper
from medchat.inference.prompt_lookup import PromptLookup, Speculation
from medchat.inference.sampling import Logits

SENTENCES = Path(__file__).parents[1] / "tests" / "data" / "red_flags" / "written.jsonl"
PROMPT_TOKENS = 300
BARS = {"quoting": 1.3, "free": 0.97}
NEVER = threading.Event()


class Prefilled:
    """A stepper whose prompt has been read; forgets what comes behind it when it is to be read again."""

    reused_tokens = 0

    def __init__(self, stepper: NativeStepper, prompt: Sequence[int]) -> None:
        self._stepper, self._behind = stepper, 0
        stepper.prefill(prompt, NEVER)
        verifier = stepper.verifier
        assert verifier is not None
        self._inner = verifier

    def prefill(self, ids: Sequence[int], cancel: threading.Event) -> None:
        self._inner.crop(self._behind)
        self._behind = 0

    @property
    def verifier(self) -> DraftVerifier:
        return self

    def advance(self, token: int) -> Logits:
        self._behind += 1
        return self._stepper.advance(token)

    def advance_many(self, tokens: Sequence[int], cancel: threading.Event) -> Sequence[Logits]:
        self._behind += len(tokens)
        return self._inner.advance_many(tokens, cancel)

    def crop(self, count: int) -> None:
        self._behind -= count
        self._inner.crop(count)


class Vocabulary:
    """An id for each character, the same wherever it stands."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        return [self._ids.setdefault(character, 100 + len(self._ids)) for character in text]


def texts(seed: int, tokens: int) -> tuple[list[int], dict[str, list[int]]]:
    """Return the ids of a prompt, and of an answer of so many tokens of each kind."""
    draw, vocabulary = random.Random(seed), Vocabulary()
    lines = [json.loads(line)["text"] for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    draw.shuffle(lines)
    quoted = [line for line in lines[:200] if len(line) > 10]
    others = lines[200:]
    prompt: list[str] = []
    while len("".join(prompt)) < PROMPT_TOKENS:
        prompt.append(quoted[len(prompt)])
    quoting = "".join(f"{draw.choice(others)[:6]}：“{line}”" for line in draw.choices(prompt, k=tokens))
    free = "".join(draw.choices(others, k=tokens))
    answers = {"quoting": vocabulary.encode(quoting)[:tokens], "free": vocabulary.encode(free)[:tokens]}
    return vocabulary.encode("".join(prompt))[:PROMPT_TOKENS], answers


def seconds(stepper: Any, prompt: Sequence[int], answer: Sequence[int], clock: Callable[[], float]) -> float:
    """Return how long the tokens of `answer` take, one after the other as they would be chosen."""
    stepper.prefill(prompt, NEVER)
    start = clock()
    for token in answer:
        stepper.advance(token)
    return clock() - start


def compare(family: str, bits: int, rounds: int, tokens: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Return the figures of one family and width for both kinds of answers."""
    model = {"chatglm": chatglm, "llama": llama}[family](bits)
    _, stepper, _ = in_engine(model)
    config = GenerationConfig(max_new_tokens=tokens + 1)
    figures: dict[str, dict[str, list[float]]] = {kind: {"ratio": [], "accepted": []} for kind in BARS}
    for number in range(rounds):
        prompt, answers = texts(number, tokens)
        if family == "chatglm":
            prompt[-2:] = [model.special_ids.gmask, model.special_ids.sop]
        plain = Prefilled(stepper, prompt)
        for kind, answer in answers.items():
            speculation = Speculation()
            ahead = PromptLookup(plain, config, 1 << 20, speculation, clock)
            alone = [seconds(plain, prompt, answer, clock)]
            drafted = seconds(ahead, prompt, answer, clock)
            alone.append(
                seconds(plain, prompt, answer, clock)
            )  # before and after: other programs come and go
            figures[kind]["ratio"].append(statistics.mean(alone) / drafted)
            figures[kind]["accepted"].append(speculation.accepted / tokens)
    return {
        kind: {name: round(statistics.median(values), 3) for name, values in of_kind.items()}
        | {"ratios": [round(ratio, 2) for ratio in of_kind["ratio"]]}
        for kind, of_kind in figures.items()
    }


def main() -> int:
    """Compare families and widths, and report."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=96, help="tokens of an answer")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    clock = time.process_time if given.threads == 1 else time.perf_counter
    figures: dict[str, Any] = {"threads": given.threads, "tokens": given.tokens, "rounds": given.rounds}
    failures = []
    for family in ("llama", "chatglm"):
        for bits in (8, 4):
            name = f"{family} int{bits}"
            figures[name] = compare(family, bits, given.rounds, given.tokens, clock)
            failures += [
                f"{name}, {kind}: {figures[name][kind]['ratio']} times the speed without drafts"
                for kind, bar in BARS.items()
                if figures[name][kind]["ratio"] < bar
            ]
    return report("prompt_lookup", BARS, figures, failures, given.json)


if __name__ == "__main__":
    sys.exit(main())
