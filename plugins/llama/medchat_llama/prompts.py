"""Which form a LLaMA, with or without an adapter, was trained on. No torch here.

- A published adapter: its own (specs/backbones.md, section 8). An adapter of our trainer states it.
  Any other adapter: `med_template`, BenTsao's default.
- Chinese-Alpaca without one: `alpaca`, the form it was instruction-tuned with.
- LLaMA and Chinese-LLaMA without one: `ori_template`. Nothing was trained on it; it is what BenTsao asks
  its bases with, so that answers compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medchat.api import LoadOptions, PromptTemplate, Segment, Turn
from medchat.checkpoints.adapter_folder import (
    known_template,
    open_adapter,
    with_vocabulary,
    without_vocabulary,
)
from medchat.checkpoints.stated_template import stated_template
from medchat.templates import load_template
from medchat_llama.folder import EMBEDDING, base_of, read_llama_shape

DEFAULT_ADAPTED, CHINESE_ALPACA, PLAIN = "med_template", "alpaca", "ori_template"


@dataclass(frozen=True, slots=True)
class AllDataTemplate:
    """The form of lora-alpaca-med-alldata: trained on single questions and on dialogues, each in its own."""

    name: str = "med_alldata"
    stop: tuple[str, ...] = ()
    multi_turn: bool = True
    parts: tuple[str, str] = ("med_template", "literature_template")
    note: Mapping[str, str] = field(
        default_factory=lambda: {
            "zh": "训练所用权重：lora-alpaca-med-alldata；首问用 med_template，之后用 literature_template",
            "en": "trained on it: lora-alpaca-med-alldata; med_template first, literature_template later on",
        }
    )

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return `med_template` for a first question and `literature_template` for every later one."""
        form = load_template(self.parts[1] if turns else self.parts[0])
        return form.render(turns, question, system)


MED_ALLDATA = AllDataTemplate()


def llama_template(options: LoadOptions) -> PromptTemplate:
    """Return the form for what `options` would load. Reads small files and the adapters' headers only."""
    adapters = [open_adapter(folder) for folder in options.adapters]
    known = _trained(options)
    if known:
        return known
    if without_vocabulary(adapters):
        return load_template(DEFAULT_ADAPTED)
    rows = read_llama_shape(options.model).vocab_size
    for adapter in with_vocabulary(adapters):
        if EMBEDDING in adapter.saved:
            rows = adapter.saved[EMBEDDING].shape[0]
    return load_template(CHINESE_ALPACA if base_of(rows) == "chinese-alpaca" else PLAIN)


def llama_trained_templates(options: LoadOptions) -> tuple[str, ...]:
    """Return the names of the forms that the weights are known to have been trained on; none if unknown."""
    adapters = [open_adapter(folder) for folder in options.adapters]
    known = _trained(options)
    if known:
        return (known.name, *MED_ALLDATA.parts) if known.name == MED_ALLDATA.name else (known.name,)
    name = llama_template(options).name
    return (name,) if name == CHINESE_ALPACA and not without_vocabulary(adapters) else ()


def _trained(options: LoadOptions) -> PromptTemplate | None:
    """Return the form of the last adapter that answers, else of the weights; None where nothing says it."""
    own = without_vocabulary([open_adapter(folder) for folder in options.adapters])
    if not own:
        return None if options.adapters else _stated(options.model, options)
    name = known_template(own[-1])
    if name:
        return MED_ALLDATA if name == MED_ALLDATA.name else load_template(name)
    return _stated(own[-1].folder, options)


def _stated(folder: Path, options: LoadOptions) -> PromptTemplate | None:
    from medchat_llama.vocabulary import llama_special_tokens

    return stated_template(folder, (MED_ALLDATA,), lambda: llama_special_tokens(options))
