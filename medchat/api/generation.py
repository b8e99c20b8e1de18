"""What to load and how to decode, and the pieces an answer comes in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medchat.api.conversation import Finish
from medchat.api.option import option_flag
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
SPECULATE = ("auto", "off")
#: Every setting that a user can choose.
GENERATION_SETTINGS = (*GENERATION_RANGES, "greedy", "speculate")


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How an answer is decoded. Validated on construction; raises UsageError naming the valid range."""

    #: The longest answer, in tokens.
    max_new_tokens: int = 512
    #: The logits are divided by it before one is drawn: below 1 the likely tokens get likelier.
    temperature: float = 0.95
    #: A token is drawn from the fewest that have this probability together; 1 is off.
    top_p: float = 0.7
    #: A token is drawn from so many, the likeliest; 0 is off.
    top_k: int = 0
    #: Above 1: beam search so wide, without sampling, with length penalty 1 and no early stopping.
    num_beams: int = 1
    #: Logits of tokens that are in prompt or answer are divided (the negative ones multiplied) by it; 1 is
    #: off.
    repetition_penalty: float = 1.0
    #: What a draw begins with: the same gives the same answer on the same machine. None: a fresh one for each answer.
    seed: int | None = None
    #: Never sample: the likeliest token at each step.
    greedy: bool = False
    #: One of SPECULATE. "auto": where it pays and changes no token, a model may read drafts of what comes next.
    speculate: str = "auto"
    #: Texts that end an answer besides the model's own end tokens; they are not part of it.
    stop: tuple[str, ...] = ()
    #: Names of the settings that nobody chose and that a server decides: what stands here for them is not used.
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
        if self.speculate not in SPECULATE:
            raise UsageError(
                say(
                    f"--speculate 的值“{self.speculate}”无效", f"--speculate {self.speculate!r} is not valid"
                ),
                say(f"可用的值：{'|'.join(SPECULATE)}", f"valid values: {'|'.join(SPECULATE)}"),
            )

    def with_settings(self, **chosen: Any) -> GenerationConfig:
        """Return this with settings that the user chose. Raises UsageError naming the valid range.

        A seed of None is no choice: a server that decides continues to do so.
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
ENGINES = ("auto", "native", "torch")


@dataclass(frozen=True, slots=True)
class QuantizedCache:
    """Where weights that were quantised while loading are kept for the next start."""

    folder: Path
    #: What all of them may take together.
    most_bytes: int


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What to load and how."""

    #: The folder with the weights, or one of what `Backbone.models_in` returned.
    model: Path
    #: Folders of adapters, put over the weights in this order.
    adapters: tuple[Path, ...] = ()
    #: "auto", "cpu", "mps", "cuda" or "cuda:N": where to compute.
    device: str = "auto"
    #: What to compute in: one of DTYPES. "auto" is the backbone's choice for the device.
    dtype: str = "auto"
    #: What linear layers are quantised to while they are loaded: one of QUANTIZE.
    quantize: str = "none"
    #: What computes quantised layers on a CPU: one of ENGINES. "auto" is the native engine wherever it can be used,
    #: but with dtype "float32", whose precision it does not reach.
    engine: str = "auto"
    #: Nothing may be fetched from the network.
    offline: bool = False
    #: The backbone's own keys (`Backbone.load_keys`) that were chosen or have a default, each in its type.
    extra: Mapping[str, Any] = field(default_factory=dict)
    #: What `Backbone.address` made of `--model`, "" if the model is the folder `model`.
    address: str = ""
    #: Where what `quantize` makes is kept, None where it is not.
    quantized_cache: QuantizedCache | None = field(default=None, compare=False, repr=False)
    #: Only single answers (`ChatModel.stream`) will be asked for, and the first is awaited: what other calls need may
    #: be loaded when they are made.
    quick_start: bool = field(default=False, compare=False, repr=False)
    #: Where there is one: call it with the bytes of the weights read so far and in all, some times a second
    #: or more often. It may raise a MedchatError, which stops the loading and is passed to the caller.
    watch: Callable[[int, int], None] | None = field(default=None, compare=False, repr=False)

    @property
    def location(self) -> str:
        """What `--model` takes to load this again: the address, or the folder as it was given."""
        return self.address or str(self.model)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer. Texts joined in order are the answer; none is taken back but by `restarts`."""

    #: New text alone, never the answer so far. Whole characters: half of one is kept back until the rest comes.
    text: str = ""
    #: Tokens of the answer up to here; never falls.
    completion_tokens: int = 0
    #: Tokens of the whole prompt.
    prompt_tokens: int = 0
    #: Those of the prompt whose keys and values were kept from the turn before.
    reused_tokens: int = 0
    #: Why the answer ended: set on the last piece and no other, together with the final counts.
    finish: Finish | None = None
    #: The counts are guesses: whoever computed the answer did not tell them.
    estimated: bool = False
    #: What the model wrote before its answer, and no part of it.
    reasoning: str = ""
    #: The text up to here was reasoning too, which shows only once it ends: the answer begins with this piece.
    restarts: bool = False
    #: Names of settings that a server did not take, so that they have no effect.
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer from batch generation."""

    #: The answer, without the text or token that ended it.
    text: str
    #: Why it ended.
    finish: Finish
    #: Tokens of the prompt.
    prompt_tokens: int
    #: Tokens of the answer; not 0 for an answer that has text.
    completion_tokens: int
    #: As in `Delta`: the counts are guesses.
    estimated: bool = False
    #: As in `Delta`: what the model wrote before its answer.
    reasoning: str = ""
    #: As in `Delta`: names of settings that a server did not take.
    rejected: tuple[str, ...] = ()
