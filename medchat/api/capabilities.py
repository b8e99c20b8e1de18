"""What a model family can do, as it says itself: what it cannot is refused before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from medchat.api.generation import DTYPES, QUANTIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a family's models can do; the default is everything. Raises ValueError for values that no flag takes.

    Which methods of fine-tuning there are `Backbone.recipes` says.
    """

    #: Beam search: `num_beams` above 1.
    beams: bool = True
    #: `ChatModel.score`.
    score: bool = True
    #: Adapters over the weights.
    adapters: bool = True
    #: Several prompts at once take less time than one after the other. False: `infer` asks one at a time.
    batch: bool = True
    #: What `--device` may be, a card's number left out; empty where the model does not run on this machine.
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")
    #: What `--dtype` may be besides "auto".
    dtypes: tuple[str, ...] = tuple(dtype for dtype in DTYPES if dtype != "auto")
    #: What `--quantize` may be besides "none".
    quantize: tuple[str, ...] = tuple(kind for kind in QUANTIZE if kind != "none")

    def __post_init__(self) -> None:
        for name, known in (("devices", ("cpu", "cuda", "mps")), ("dtypes", DTYPES), ("quantize", QUANTIZE)):
            if strangers := set(getattr(self, name)) - set(known):
                raise ValueError(
                    f"Capabilities.{name}: {sorted(strangers)[0]!r} is not one of {', '.join(known)}"
                )
