"""The template that a LLaMA, with or without an adapter, was trained with. No torch here.

- A published adapter: its own (docs/specs/models.md, "Adapters"). An adapter of our trainer states it.
  Any other adapter: `med_template`, BenTsao's default.
- Chinese-Alpaca without one: `alpaca`, the template it was instruction-tuned with.
- LLaMA and Chinese-LLaMA without one: `ori_template`. Nothing was trained on it; it is what BenTsao asks
  its bases with, so that answers compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medchat.checkpoints.adapter_folder import Adapter, open_adapter, with_vocabulary, without_vocabulary
from medchat.checkpoints.lora_folder import is_lora_folder, open_lora
from medchat.checkpoints.stated_template import TemplateChoice
from medchat.plugin_kit import LoadOptions, PromptTemplate, Segment, SpecialTokens, Turn, load_template
from medchat_llama.folder import EMBEDDING, base_of, read_llama_shape

DEFAULT_ADAPTED, CHINESE_ALPACA, PLAIN = "med_template", "alpaca", "ori_template"


@dataclass(frozen=True, slots=True)
class AllDataTemplate:
    """The template of lora-alpaca-med-alldata: trained on single questions and on dialogues, each with its own."""

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


class LlamaTemplates(TemplateChoice):
    """An adapter with a vocabulary counts as part of the base: others were trained on top of it."""

    def last_adapter(self, options: LoadOptions) -> Adapter | None:
        """Return the last adapter that counts for the template."""
        answering = without_vocabulary([open_adapter(folder) for folder in options.adapters])
        return answering[-1] if answering else None

    def chosen(self, options: LoadOptions) -> PromptTemplate:
        """Return the template of the model that `options` would load."""
        known = self.trained(options)
        if known:
            return known
        if self.last_adapter(options):
            return self.named(self.adapted)
        rows = read_llama_shape(options.model).vocab_size
        for adapter in with_vocabulary([open_adapter(folder) for folder in options.adapters]):
            if EMBEDDING in adapter.saved:
                rows = adapter.saved[EMBEDDING].shape[0]
        return self.named(CHINESE_ALPACA if base_of(rows) == "chinese-alpaca" else self.plain)

    def known_names(self, options: LoadOptions) -> tuple[str, ...]:
        """Return the templates of the adapter, else of a Chinese-Alpaca; a plain LLaMA has none."""
        known = self.trained(options)
        if known:
            return (known.name, *MED_ALLDATA.parts) if known.name == MED_ALLDATA.name else (known.name,)
        name = self.chosen(options).name
        return (name,) if name == CHINESE_ALPACA and not self.last_adapter(options) else ()


def llama_special_tokens(options: LoadOptions) -> SpecialTokens:
    """Return the control pieces of the vocabulary, or of an adapter's own one. Reads no weights."""
    from medchat_llama.tokenizer import BEGIN, END, FILE_NAME, UNKNOWN, LlamaTokenizer

    folders = [folder for folder in options.adapters if (folder / FILE_NAME).is_file() and _grows(folder)]
    tokenizer = LlamaTokenizer.from_file((folders[0] if folders else options.model) / FILE_NAME)
    roles = {"bos_token": BEGIN, "eos_token": END, "unk_token": UNKNOWN}
    return SpecialTokens(tuple(tokenizer.special_ids), roles)


def _grows(folder: Path) -> bool:
    return is_lora_folder(folder) and bool(open_lora(folder).saved)


LLAMA_TEMPLATES = LlamaTemplates(
    plain=PLAIN, adapted=DEFAULT_ADAPTED, special_tokens=llama_special_tokens, own=(MED_ALLDATA,)
)
