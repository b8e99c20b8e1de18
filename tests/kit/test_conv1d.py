"""GPT-2, whose fused projections are Conv1D and no linears of torch, as a backbone of `medchat.hf`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sft_watcher import Watcher
from transformers import PreTrainedModel

from medchat.api import (
    Capabilities,
    Example,
    GenerationConfig,
    LoadOptions,
    SFTData,
    SFTNote,
    SFTOptions,
    SFTReport,
    Text,
)
from medchat.errors import UsageError
from medchat.hf import TransformersBackbone
from medchat.inference.chat_model import TokenChatModel
from medchat.testing import BackboneTests
from medchat.training.recipe import FamilyRecipe

pytestmark = pytest.mark.torch


class GPT2(TransformersBackbone):
    """Its projections are fused in Conv1D, which is no linear of torch."""

    name = "gpt2"
    summary: ClassVar[Mapping[str, str]] = {"zh": "", "en": ""}
    model_types = ("gpt2",)
    lora_targets = ("c_attn",)
    bottleneck_targets = ("c_proj", "c_proj")
    capabilities = Capabilities(quantize=())


@pytest.mark.slow
class TestGPT2(BackboneTests):
    backbone = GPT2()
    module = "medchat.hf"  # this one imports torch for other tests


#: Prompt, answer and prefix fill the 64 learned positions of `folder`.
EXAMPLES = [Example("头痛怎么办？", "多休息")] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpt2") / "base"
    GPT2().tiny(path, corpus=["头痛怎么办？多休息" * 9], max_position_embeddings=64)
    return path


def chosen(folder: Path, output: Path, method: str, **changes: Any) -> SFTOptions:
    plain = SFTOptions(model=folder, output=output, method=method, device="cpu")
    return replace(
        replace(plain, **GPT2().recipes[method].defaults), num_epochs=1, batch_size=4, micro_batch_size=4,
        precision="float32", eval_steps=0, save_steps=-1, max_length=48, **changes,
    )  # fmt: skip


def tuned(folder: Path, output: Path, watcher: Watcher) -> SFTReport:
    options = chosen(folder, output, "ptuning", pre_seq_len=16, samples=1)
    return GPT2().recipes["ptuning"].run(SFTData(EXAMPLES), options, watcher)


def test_a_prefix_leaves_the_samples_after_training_the_positions_that_are_left(
    folder: Path, tmp_path: Path
) -> None:
    watcher = Watcher()
    report = tuned(folder, tmp_path / "out", watcher)
    assert [sample.question for sample in report.samples] == [EXAMPLES[0].question]
    assert GPT2().load(LoadOptions(folder, adapters=(report.output,))).context_length == 64 - 16


def test_qlora_over_layers_without_linears_is_refused_before_training(folder: Path, tmp_path: Path) -> None:
    recipe = GPT2().recipes["qlora"]
    assert isinstance(recipe, FamilyRecipe)
    options = chosen(folder, tmp_path / "out", "qlora")
    for refused in (
        lambda: recipe.resolve_options(options),
        lambda: recipe.run(SFTData(EXAMPLES), options, Watcher()),
        # Also where a family of somebody else's refuses nothing beforehand.
        lambda: recipe.tuning_method.load(recipe.family, options),
    ):
        with pytest.raises(UsageError) as caught:
            refused()
        assert caught.value.what == refusal_of_quantize(folder)
        assert "--method lora" in caught.value.remedy
    assert not options.output.exists()


def refusal_of_quantize(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        GPT2().load(LoadOptions(folder, quantize="int8"))
    return caught.value.what


def test_no_estimate_offers_what_cannot_be_packed(folder: Path, tmp_path: Path) -> None:
    options = chosen(folder, tmp_path / "out", "lora")
    estimate = GPT2().recipes["lora"].estimate(options, None)
    assert estimate is not None
    assert [name for name in estimate.alternatives if "lora" in name]
    assert not [name for name in estimate.alternatives if "qlora" in name]
    assert not [card for card, changes in estimate.cards.items() if "qlora" in str(changes)]


def test_samples_that_fail_after_training_cost_no_result(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, calls = TokenChatModel.generate_batch, iter(range(9))

    def fails_the_second_time(self: TokenChatModel, *args: Any) -> Any:
        if next(calls):
            raise IndexError("index out of range in self")
        return answer(self, *args)

    monkeypatch.setattr(TokenChatModel, "generate_batch", fails_the_second_time)
    watcher = Watcher()
    report = tuned(folder, tmp_path / "out", watcher)
    assert report.samples == ()
    notes = [event.text for event in watcher.events if isinstance(event, SFTNote)]
    assert len([note for note in notes if "IndexError: index out of range in self" in note]) == 1
    assert GPT2().load(LoadOptions(folder, adapters=(report.output,))).context_length == 64 - 16


def test_an_answer_and_its_scores_say_which_ids_are_padding(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[Any] = []
    monkeypatch.setattr(
        PreTrainedModel,
        "warn_if_padding_and_no_attention_mask",
        lambda model, ids, mask: masks.append(mask),
    )
    model = GPT2().load(LoadOptions(folder))
    prompt = [Text("头痛")]
    list(model.stream(prompt, GenerationConfig(greedy=True, max_new_tokens=3), threading.Event()))
    lengths = [mask.shape[1] for mask in masks]
    assert len(lengths) >= 2 and lengths == list(range(lengths[0], lengths[0] + len(lengths)))
    model.score(prompt, "多喝水")
    assert len(masks) > len(lengths) and not any(mask is None for mask in masks)
