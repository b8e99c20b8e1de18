"""Every method on the families: what it trains, what it leaves alone, and that chat has the result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from method_runs import (
    BACKBONES,
    EXAMPLES,
    base,
    hashes,
    load,
    loading,
    options,
    plain_base,
    prompt_logits,
    recipe,
    run,
)
from safetensors.torch import load_file, save_file

from medchat.api import LoadOptions, SFTOptions
from medchat.checkpoints.manifest import verify_manifest
from medchat.errors import CheckpointError, UsageError
from medchat.inference.chat_model import TokenChatModel
from medchat.training.methods import Method
from medchat.training.recipe import METHODS

pytestmark = pytest.mark.torch

slow = pytest.mark.slow
#: One family for each method, and one method at least for each family, in the fast half.
FAST = {
    ("llama", "full"),
    ("llama", "qlora"),
    ("chatglm", "ptuning"),
    ("bloom", "adapter"),
    ("huozi", "lora"),
}
COMBINATIONS = [
    pytest.param(family, kind.name, marks=() if (family, kind.name) in FAST else slow)
    for family in BACKBONES
    for kind in METHODS
]


@pytest.mark.parametrize(("family", "method"), COMBINATIONS)
def test_the_loss_falls_and_chat_loads_what_changes_its_answers(
    family: str, method: str, tmp_path: Path
) -> None:
    source = base(family, tmp_path)
    before = hashes(source)
    report, watcher = run(family, tmp_path, method, samples=1)
    losses = [row.loss for row in watcher.progress]
    assert losses[-1] < losses[0]
    assert hashes(source) == before
    assert verify_manifest(report.output)["method"] == method
    assert (report.kind == "model") == (method == "full")
    asked = options(family, tmp_path, method)
    estimate = recipe(family, method).estimate(asked, None)
    assert estimate is not None and 0 < estimate.trainable <= estimate.parameters
    trained = (report.trainable_parameters, report.parameters)
    assert (estimate.trainable, estimate.parameters) == trained
    (sample,) = report.samples
    assert (sample.question, sample.reference) == (EXAMPLES[0].question, EXAMPLES[0].answer)

    wanted = loading(tmp_path, report)
    backbone = BACKBONES[family]
    assert backbone.template(wanted).name == report.template
    assert backbone.trained_templates(wanted) == (report.template,)
    loaded = load(family, wanted)
    assert not torch.equal(prompt_logits(loaded), prompt_logits(plain_base(family, tmp_path)))
    scores = loaded.score(backbone.template(wanted).render((), EXAMPLES[0].question), EXAMPLES[0].answer)
    assert all(score < 0 for score in scores)


def untrained(family: str, method: Method, wanted: SFTOptions) -> TokenChatModel:
    loaded = method.load(recipe(family, method.name).family, wanted)
    torch.manual_seed(0)
    method.make_trainable(loaded.model, recipe(family, method.name).family, wanted)
    return loaded


@pytest.mark.parametrize("family", ["chatglm", "llama", "bloom"])
def test_an_untrained_lora_and_untrained_bottlenecks_change_no_logit(family: str, tmp_path: Path) -> None:
    base(family, tmp_path)
    expected = prompt_logits(plain_base(family, tmp_path))
    for name in ("lora", "adapter"):
        method = recipe(family, name).tuning_method
        loaded = untrained(family, method, options(family, tmp_path, name))
        assert torch.equal(prompt_logits(loaded), expected), name


@pytest.mark.parametrize(
    ("family", "name", "trained"),
    [
        ("llama", "lora", ("q_proj.lora_", "v_proj.lora_")),
        ("chatglm", "lora", ("query_key_value.lora_",)),
        ("bloom", "lora", ("query_key_value.lora_",)),
        ("llama", "adapter", ("o_proj.bottleneck.", "down_proj.bottleneck.")),
        ("bloom", "adapter", ("self_attention.dense.bottleneck.", "mlp.dense_4h_to_h.bottleneck.")),
        ("chatglm", "adapter", ("attention.dense.bottleneck.", "mlp.dense_4h_to_h.bottleneck.")),
        ("llama", "ptuning", ("prefix_encoder.",)),
        ("chatglm", "ptuning", ("transformer.prefix_encoder.",)),
    ],
)
def test_a_method_trains_its_own_part_of_every_layer_and_nothing_else(
    family: str, name: str, trained: tuple[str, ...], tmp_path: Path
) -> None:
    base(family, tmp_path)
    loaded = untrained(family, recipe(family, name).tuning_method, options(family, tmp_path, name))
    found = [key for key, value in loaded.model.named_parameters() if value.requires_grad]
    assert all(any(mark in key for mark in trained) for key in found)
    layers = loaded.model.config.num_hidden_layers
    for mark in trained:
        own = [key for key in found if mark in key]
        assert own if "prefix" in mark else len(own) in (2 * layers, 4 * layers)


def test_qlora_packs_every_linear_of_the_layers_and_leaves_the_head(tmp_path: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    base("llama", tmp_path)
    loaded = untrained("llama", recipe("llama", "qlora").tuning_method, options("llama", tmp_path, "qlora"))
    packed = [part for part in loaded.model.modules() if isinstance(part, Linear4bit)]
    assert len(packed) == 7 * loaded.model.config.num_hidden_layers
    assert all(part.weight.dtype is torch.uint8 for part in packed)
    assert {part.weight.quant_type for part in packed} == {"nf4"}
    assert all(part.weight.quant_state.nested for part in packed)
    assert type(loaded.model.get_output_embeddings()) is torch.nn.Linear
    expected, found = prompt_logits(plain_base("llama", tmp_path)), prompt_logits(loaded)
    assert not torch.equal(found, expected)
    # Answering must not change what is trained next: some CPUs' code packs the weights again.
    loaded.model.train()
    assert torch.equal(prompt_logits(loaded), found)


@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(name, marks=slow) for name in ("bloom", "chatglm"))]
)
def test_a_merged_lora_answers_as_the_unmerged_one(family: str, tmp_path: Path) -> None:
    """Within 1e-5 of the logits in float32: only the order of sums differs."""
    from medchat.inference.adapters.lora import attached, merge

    base(family, tmp_path)
    report, _ = run(family, tmp_path, "lora")
    loaded = load(family, loading(tmp_path, report))
    expected = prompt_logits(loaded)
    (name,) = attached(loaded.model)
    assert merge(loaded.model, name)
    assert attached(loaded.model) == ()
    assert torch.allclose(prompt_logits(loaded), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(prompt_logits(plain_base(family, tmp_path)), expected, atol=1e-3)


# ---------------------------------------------------------------- what is refused


def changed(folder: Path, factor: float | None = None, **config: object) -> None:
    """Scale an adapter's second matrices, or change its configuration."""
    if factor is not None:
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        scaled = {name: t * factor if ".up." in name else t for name, t in tensors.items()}
        save_file(scaled, path, {"format": "pt"})
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


def test_bottlenecks_of_another_model_or_without_effect_are_refused(tmp_path: Path) -> None:
    base("llama", tmp_path)
    report, _ = run("llama", tmp_path, "adapter")
    BACKBONES["llama"].tiny(tmp_path / "wider", hidden_size=32, num_attention_heads=2)
    BACKBONES["bloom"].tiny(tmp_path / "bloom")
    for family, other in (("llama", "wider"), ("bloom", "bloom")):
        with pytest.raises(CheckpointError) as caught:
            BACKBONES[family].load(LoadOptions(tmp_path / other, adapters=(report.output,), device="cpu"))
        assert str(report.output) in caught.value.where
    wanted = loading(tmp_path, report)
    with pytest.raises(CheckpointError):
        BACKBONES["llama"].load(
            LoadOptions(wanted.model, adapters=(report.output, report.output), device="cpu")
        )
    changed(report.output, factor=0.0)
    with pytest.raises(CheckpointError):
        BACKBONES["llama"].load(wanted)
    (report.output / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError):
        BACKBONES["llama"].load(wanted)


def test_a_prefix_of_another_model_is_refused(tmp_path: Path) -> None:
    base("llama", tmp_path)
    report, _ = run("llama", tmp_path, "ptuning")
    BACKBONES["llama"].tiny(tmp_path / "deeper", num_hidden_layers=3)
    for family, folder in (("llama", "deeper"), ("chatglm", "chatglm")):
        if family == "chatglm":
            BACKBONES["chatglm"].tiny(tmp_path / folder)
        with pytest.raises(CheckpointError):
            BACKBONES[family].load(LoadOptions(tmp_path / folder, adapters=(report.output,), device="cpu"))


def test_settings_that_no_run_of_the_method_has_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    base("llama", tmp_path)
    base("chatglm", tmp_path / "glm")
    for family, folder, method, wrong in (
        ("llama", tmp_path, "lora", {"lora_r": 0}),
        ("llama", tmp_path, "lora", {"lora_dropout": 1.0}),
        ("llama", tmp_path, "adapter", {"adapter_size": 0}),
        ("llama", tmp_path, "ptuning", {"pre_seq_len": 0}),
        ("llama", tmp_path, "ptuning", {"gradient_checkpointing": True}),
        ("llama", tmp_path, "lora", {"collator": "med"}),
        ("chatglm", tmp_path / "glm", "ptuning", {"pre_seq_len": -1}),
    ):
        with pytest.raises(UsageError):
            run(family, folder, method, **wrong)
        assert not (folder / "out").exists()


def test_lora_targets_that_the_model_lacks_are_refused_with_those_it_has(tmp_path: Path) -> None:
    base("llama", tmp_path)
    with pytest.raises(UsageError) as caught:
        run("llama", tmp_path, "lora", lora_targets=("query_key_value",))
    assert "q_proj" in caught.value.remedy
    run("llama", tmp_path, "lora", lora_targets=("o_proj", "down_proj"), num_epochs=1, warmup_ratio=0.0)
    stated = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert stated["target_modules"] == ["o_proj", "down_proj"]


@slow
@pytest.mark.parametrize("family", ["chatglm", "llama", "bloom"])
def test_all_linear_means_every_linear_of_the_layers_and_not_the_head(family: str, tmp_path: Path) -> None:
    base(family, tmp_path)
    given = options(family, tmp_path, "lora", lora_targets=("all-linear",), num_epochs=1)
    estimated = recipe(family, "lora").estimate(given, None)
    run(family, tmp_path, "lora", lora_targets=("all-linear",), num_epochs=1)
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert not any("head" in name for name in stored) and any(
        "layers.1." in name or "h.1." in name for name in stored
    )
    assert estimated is not None and estimated.trainable == sum(matrix.numel() for matrix in stored.values())


def test_targets_of_which_one_is_lacking_are_refused_before_training(tmp_path: Path) -> None:
    base("llama", tmp_path)
    with pytest.raises(UsageError, match="query_key_value"):
        run("llama", tmp_path, "lora", lora_targets=("q_proj", "query_key_value"))


@slow
def test_training_goes_on_over_a_lora_and_over_no_other_adapter(tmp_path: Path) -> None:
    base("llama", tmp_path)
    first, _ = run("llama", tmp_path, "lora", output=tmp_path / "first")
    second, _ = run("llama", tmp_path, "lora", adapters=(first.output,))
    both = load("llama", loading(tmp_path, second, first.output))
    alone = load("llama", loading(tmp_path, second))
    assert not torch.equal(prompt_logits(both), prompt_logits(alone))
    bottlenecks, _ = run("llama", tmp_path, "adapter", output=tmp_path / "bottlenecks")
    with pytest.raises(UsageError):
        run("llama", tmp_path, "lora", adapters=(bottlenecks.output,), output=tmp_path / "third")
