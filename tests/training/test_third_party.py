"""A backbone of somebody else's: every method in a few lines, on a model that MedChat knows nothing of."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from medchat_bloom.tiny import train_tokenizer
from medchat_bloom.tokenizer import BloomTokenizer
from method_runs import EXAMPLES, RATES, hashes
from sft_watcher import Watcher
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from medchat.api import GenerationConfig, LoadOptions, PromptTemplate, SFTData, SFTOptions
from medchat.checkpoints.adapter_folder import open_adapter
from medchat.checkpoints.stated_template import stated_template
from medchat.inference.adapters.attach import attach_adapters
from medchat.inference.causal_chat_model import CausalChatModel
from medchat.inference.chat_model import ChatTokenizer
from medchat.inference.token_answers import ModelFacts
from medchat.templates import load_template
from medchat.training.family import Family
from medchat.training.recipe import recipes_of

pytestmark = pytest.mark.torch


class QwenFamily(Family):
    name = "qwen"
    lora_targets = ("q_proj", "v_proj")
    bottleneck_targets = ("o_proj", "down_proj")

    def load(self, options: LoadOptions) -> CausalChatModel:
        dtype = getattr(torch, options.dtype)
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype, attn_implementation="sdpa")
        adapters = [open_adapter(folder) for folder in options.adapters]
        attach_adapters(model, adapters, torch.device("cpu"), dtype)
        return CausalChatModel(model, self.tokenizer(options), ModelFacts("qwen", options.model, 512))

    def check(self, options: LoadOptions) -> None:
        assert (options.model / "config.json").is_file()

    def template(self, options: LoadOptions) -> PromptTemplate:
        last = options.adapters[-1] if options.adapters else options.model
        return stated_template(last) or load_template("bare")

    def tokenizer(self, options: LoadOptions) -> ChatTokenizer:
        return BloomTokenizer.from_folder(options.model)

    def write_small_files(self, options: LoadOptions, model: PreTrainedModel, folder: Path) -> dict[str, Any]:
        (folder / "tokenizer.json").write_bytes((options.model / "tokenizer.json").read_bytes())
        config: dict[str, Any] = model.config.to_dict()
        return config


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = train_tokenizer([text for one in EXAMPLES for text in (one.question, one.answer)], 600)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 640}
    # Two heads of keys and values under four of queries: a prefix must have the shape of the former.
    config = Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").write_text(tokenizer.to_str())
    return tmp_path / "base"


@pytest.mark.parametrize(
    "method",
    [
        "ptuning",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "lora", "qlora", "adapter")),
    ],
)
def test_a_family_of_a_few_lines_has_every_method(method: str, base: Path) -> None:
    family = QwenFamily()
    recipe = recipes_of(family)[method]
    options = SFTOptions(model=base, output=base.parent / "out", method=method)
    options = replace(options, **recipe.defaults)
    options = replace(
        options,
        learning_rate=RATES[method],
        num_epochs=4,
        batch_size=4,
        micro_batch_size=4,
        precision="float32",
        pre_seq_len=4,
        logging_steps=1,
        eval_steps=0,
        save_steps=-1,
        samples=1,
        device="cpu",
    )
    before, watcher = hashes(base), Watcher()
    report = recipe.run(SFTData(EXAMPLES, template=load_template("med_template")), options, watcher)
    assert watcher.progress[-1].loss < watcher.progress[0].loss
    assert hashes(base) == before
    assert report.template == "med_template"
    wanted = LoadOptions(base, adapters=(report.output,), dtype="float32")
    if method == "full":
        wanted = LoadOptions(report.output, dtype="float32")
    loaded = family.load(wanted)
    prompts = [load_template("med_template").render((), one.question) for one in EXAMPLES]
    config = GenerationConfig(greedy=True, max_new_tokens=6)
    # Padded on the left in a batch, streamed with a kept cache, or alone: the same answer.
    together = [answer.text for answer in loaded.generate_batch(prompts, config)]
    alone = [loaded.generate_batch([prompt], config)[0].text for prompt in prompts]

    streamed = ["".join(d.text for d in loaded.stream(p, config, threading.Event())) for p in prompts]
    assert together == alone == streamed
    assert family.template(wanted).name == "med_template"
    assert recipe.estimate(options, None) is None
