"""Which form a LLaMA, with or without an adapter, was trained on. No torch here.

- A published adapter: its own (specs/backbones.md, section 8). An adapter of our trainer states it.
  Any other adapter: `med_template`, BenTsao's default.
- Chinese-Alpaca without one: `alpaca`, the form it was instruction-tuned with.
- LLaMA and Chinese-LLaMA without one: `ori_template`. Nothing was trained on it; it is what BenTsao asks
  its bases with, so that answers compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return `med_template` for a first question and `literature_template` for every later one."""
        form = load_template("literature_template" if turns else "med_template")
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
