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

from medchat.api import LoadOptions, PromptTemplate, Segment, Turn
from medchat.templates import list_templates, load_template
from medchat.torchside.adapter_files import LoraAdapter, is_lora_folder, open_lora
from medchat.torchside.known_adapters import recognise
from medchat_llama.folder import EMBEDDING, base_of, read_shape

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


def template_for(options: LoadOptions) -> PromptTemplate:
    """Return the form for what `options` would load. Reads small files and the adapters' headers only."""
    adapters = [open_lora(folder) for folder in options.adapters if is_lora_folder(folder)]
    own = [adapter for adapter in adapters if not adapter.saved]
    if own:
        return named(template_of(own[-1]))
    rows = read_shape(options.model).vocab_size
    for adapter in adapters:
        if EMBEDDING in adapter.saved:
            rows = adapter.saved[EMBEDDING].shape[0]
    return named(CHINESE_ALPACA if base_of(rows) == "chinese-alpaca" else PLAIN)


def trained_on(options: LoadOptions) -> tuple[str, ...]:
    """Return the names of the forms that the weights are known to have been trained on; none if unknown."""
    own = [open_lora(folder) for folder in options.adapters if is_lora_folder(folder)]
    tuned = [adapter for adapter in own if not adapter.saved]
    if tuned:
        found = recognise(tuned[-1])
        name = found.known.template if found else tuned[-1].template
        return (name, *MED_ALLDATA.parts) if name == MED_ALLDATA.name else (name,) if name else ()
    name = template_for(options).name
    return (name,) if name == CHINESE_ALPACA else ()


def template_of(adapter: LoraAdapter) -> str:
    """Return the name of the form that an adapter was trained on, as far as that is known."""
    found = recognise(adapter)
    if found:
        return found.known.template
    return adapter.template or DEFAULT_ADAPTED


def named(name: str) -> PromptTemplate:
    """Return a form by name. One that an adapter states and nobody has, or a path, becomes the usual one."""
    known: dict[str, PromptTemplate] = {template.name: template for template in list_templates()}
    known[MED_ALLDATA.name] = MED_ALLDATA
    return known.get(name, known[DEFAULT_ADAPTED])
