"""What to load and how to decode, and the pieces an answer comes in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medchat.api.conversation import Finish
from medchat.api.flags import option_flag
from medchat.errors import UsageError
from medchat.language import say


@dataclass(frozen=True, slots=True)
class Range:
    """The valid values of one generation setting, both ends included unless `open_low`."""

    low: float
    high: float
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low, high = (str(end) if isinstance(end, int) else f"{end:g}" for end in (self.low, self.high))
        return f"{'(' if self.open_low else '['}{low}, {high}]"


GENERATION_RANGES: Mapping[str, Range] = {
    "max_new_tokens": Range(1, 32768),
    "temperature": Range(0.0, 2.0, open_low=True),
    "top_p": Range(0.0, 1.0, open_low=True),
    "top_k": Range(0, 1_000_000),
    "num_beams": Range(1, 16),
    "repetition_penalty": Range(0.0, 2.0, open_low=True),
    "seed": Range(0, 2**63 - 1),
}


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How an answer is decoded. Validated on construction; raises UsageError naming the valid range.

    `num_beams` above 1 is beam search without sampling (length penalty 1, no early stopping);
    `greedy` never samples. `top_k` 0 is off. `seed` None: a fresh one for each answer. `stop` are texts
    that end an answer besides the model's own end tokens; they are not part of it. `unset` names the
    settings that nobody chose and that a server decides: what stands here for them is not used.
    """

    max_new_tokens: int = 512
    temperature: float = 0.95
    top_p: float = 0.7
    top_k: int = 0
    num_beams: int = 1
    repetition_penalty: float = 1.0
    seed: int | None = None
    greedy: bool = False
    stop: tuple[str, ...] = ()
    unset: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name, allowed in GENERATION_RANGES.items():
            value = getattr(self, name)
            if value is None and name == "seed":
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool) or value not in allowed:
                flag = option_flag(name)
                raise UsageError(
                    say(f"{flag} 的值 {value} 超出范围", f"{flag} {value} is out of range"),
                    say(f"有效范围是 {allowed}", f"the valid range is {allowed}"),
                )

    def with_settings(self, **chosen: Any) -> GenerationConfig:
        """Return this with settings that the user chose. Raises UsageError naming the valid range.

        A seed of None is no choice: a server that decides goes on to do so.
        """
        named = {name for name, value in chosen.items() if value is not None}
        return replace(self, **chosen, unset=self.unset - named)

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn at random."""
        return not self.greedy and self.num_beams == 1


DEVICES_HELP = "auto|cpu|cuda[:N]|mps"
DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZE = ("none", "int8", "int4")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What to load and how. `extra` holds a backbone's own keys (ChatGLM: `rule`).

    `address` is what `Backbone.address` made of `--model`, "" where the model is the folder `model`.
    `watch`, where there is one, is called with the bytes of the weights read so far and in all, some times a
    second or more often. It may raise a MedchatError, which stops the loading and goes on to the caller.
    """

    model: Path
    adapters: tuple[Path, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    quantize: str = "none"
    offline: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    watch: Callable[[int, int], None] | None = field(default=None, compare=False, repr=False)

    @property
    def location(self) -> str:
        """What `--model` takes to load this again: the address, or the folder as it was given."""
        return self.address or str(self.model)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer. Texts joined in order are the answer; none is taken back but by `restarts`.

    `finish` is set on the last delta only, together with the final counts. `prompt_tokens` counts
    the whole prompt; `reused_tokens` those of it whose keys and values were kept from the turn before.
    `estimated` says that the counts are guesses: whoever computed the answer did not tell them.

    `reasoning` is what the model wrote before its answer, and no part of it. `restarts` says that the text
    up to here was reasoning too, which shows only once it ends: the answer begins with this delta.
    `rejected` names the settings that a server did not take, so that they have no effect.
    """

    text: str = ""
    completion_tokens: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    finish: Finish | None = None
    estimated: bool = False
    reasoning: str = ""
    restarts: bool = False
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer from batch generation. `estimated`, `reasoning` and `rejected` are as in `Delta`."""

    text: str
    finish: Finish
    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False
    reasoning: str = ""
    rejected: tuple[str, ...] = ()
