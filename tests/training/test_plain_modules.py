"""A family whose model is a plain torch module, and nothing of transformers: the shared trainer trains it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from medchat_bloom.tiny import train_tokenizer
from medchat_bloom.tokenizer import BloomTokenizer
from method_runs import EXAMPLES, hashes
from safetensors.torch import load_file, save_file
from sft_watcher import Watcher
from torch import Tensor, nn

from medchat.api import GenerationConfig, LoadOptions, PromptTemplate, SFTData, SFTOptions
from medchat.checkpoints.stated_template import stated_template
from medchat.errors import MedchatError, UsageError
from medchat.inference.chat_model import ChatTokenizer
from medchat.inference.net_chat_model import NetChatModel
from medchat.inference.token_answers import ModelFacts
from medchat.templates import load_template
from medchat.training.data_loader import CausalCollator
from medchat.training.evaluation import label_losses
from medchat.training.family import Family
from medchat.training.features import Feature
from medchat.training.recipe import recipes_of

pytestmark = pytest.mark.torch
ROWS = 640


class Plain(nn.Module):
    """Sees all ids before it, and returns logits [B, T, V]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(ROWS, 32), nn.GRU(32, 32, batch_first=True)
        self.head = nn.Linear(32, ROWS)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.mix(self.embed(ids))[0])
        return logits


class PlainFamily(Family):
    name = "plain"
    without = frozenset({"lora", "qlora", "adapter", "ptuning"})

    def load(self, options: LoadOptions) -> NetChatModel:
        net = Plain()
        net.load_state_dict(load_file(options.model / "model.safetensors"))
        return NetChatModel(net, self.tokenizer(options), ModelFacts("plain", options.model, 256))

    def check(self, options: LoadOptions) -> None:
        assert (options.model / "config.json").is_file()

    def template(self, options: LoadOptions) -> PromptTemplate:
        return stated_template(options.model) or load_template("bare")

    def tokenizer(self, options: LoadOptions) -> ChatTokenizer:
        return BloomTokenizer.from_folder(options.model)

    def write_small_files(self, options: LoadOptions, model: nn.Module, folder: Path) -> dict[str, Any]:
        (folder / "tokenizer.json").write_bytes((options.model / "tokenizer.json").read_bytes())
        return {"model_type": "plain"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    torch.manual_seed(0)
    save_file(Plain().state_dict(), folder / "model.safetensors")
    words = [text for one in EXAMPLES for text in (one.question, one.answer)]
    (folder / "tokenizer.json").write_text(train_tokenizer(words, 600).to_str())
    (folder / "config.json").write_text(json.dumps({"model_type": "plain"}))
    return folder


def options(base: Path, output: Path, **changes: Any) -> SFTOptions:
    plain = SFTOptions(model=base, output=output, method="full", device="cpu", precision="float32")
    small: dict[str, Any] = {"batch_size": 4, "micro_batch_size": 2, "logging_steps": 1, "samples": 1}
    return replace(plain, **{**small, "learning_rate": 2e-2, "num_epochs": 40, "save_steps": -1, **changes})


def test_a_plain_module_learns_its_examples_and_the_result_answers_so(base: Path, tmp_path: Path) -> None:
    recipe, before, watcher = recipes_of(PlainFamily())["full"], hashes(base), Watcher()
    data = SFTData(EXAMPLES, held_out=EXAMPLES[:1])
    report = recipe.run(data, options(base, tmp_path / "out", eval_steps=20), watcher)
    assert report.last_loss < 0.1 < report.first_loss
    assert report.best_loss is not None
    assert report.parameters == sum(parameter.numel() for parameter in Plain().parameters())
    assert hashes(base) == before
    chat = PlainFamily().load(LoadOptions(report.output, dtype="float32"))
    prompts = [load_template("bare").render(one.turns, one.question) for one in EXAMPLES]
    answers = chat.generate_batch(prompts, GenerationConfig(greedy=True, max_new_tokens=32))
    assert [one.text for one in answers] == [one.answer for one in EXAMPLES]


def test_a_run_of_a_plain_module_that_was_stopped_goes_on_to_the_same_weights(
    base: Path, tmp_path: Path
) -> None:
    recipe, data = recipes_of(PlainFamily())["full"], SFTData(EXAMPLES)
    changes: dict[str, Any] = {"samples": 0, "num_epochs": 4, "save_steps": 1}
    recipe.run(data, options(base, tmp_path / "straight", **changes), Watcher())
    stopped = Watcher()
    stopped.react = lambda event: stopped.cancel.set() if stopped.progress else None
    with pytest.raises(MedchatError):
        recipe.run(data, options(base, tmp_path / "resumed", **changes), stopped)
    assert len(stopped.progress) < 4
    recipe.run(data, options(base, tmp_path / "resumed", resume=True, **changes), Watcher())
    straight, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "resumed"))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_its_losses_are_those_of_its_logits_whatever_stands_beside(base: Path) -> None:
    net = PlainFamily().load(LoadOptions(base)).model
    features = [Feature((5, 6, 7), (8, 9), 1), Feature((10,), (11, 12, 13), 2)]
    losses = label_losses(net, features, CausalCollator(3))
    with torch.no_grad():
        wanted = [
            -net(torch.tensor([[*one.prompt_ids, *one.answer_ids]]))[0].log_softmax(-1)[at - 1, token]
            for one in features
            for at, token in enumerate(one.answer_ids, start=len(one.prompt_ids))
        ]
    assert torch.allclose(losses, torch.stack(wanted), atol=1e-5)


def test_what_only_models_of_transformers_have_is_refused(base: Path, tmp_path: Path) -> None:
    recipe = recipes_of(PlainFamily())["full"]
    with pytest.raises(UsageError, match="--gradient-checkpointing"):
        recipe.run(SFTData(EXAMPLES), options(base, tmp_path / "out", gradient_checkpointing=True), Watcher())
    chat = PlainFamily().load(LoadOptions(base))
    prompt = load_template("bare").render((), "头痛")
    with pytest.raises(UsageError, match="束搜索"):
        chat.generate_batch([prompt], GenerationConfig(num_beams=2))
