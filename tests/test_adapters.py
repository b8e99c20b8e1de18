"""LoRA folders of any age: what they add, what they may not be, and which base they belong to."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import RunsCommand, poison
from medchat_bloom.backbone import BloomBackbone
from medchat_huozi.backbone import HuoziBackbone
from medchat_llama.backbone import LlamaBackbone
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from medchat.api import Backbone
from medchat.errors import CheckpointError
from medchat.language import LANGUAGES, set_language
from medchat.torchside import known_adapters
from medchat.torchside.adapter_files import LoraAdapter, open_lora
from medchat.torchside.adapters import activate, attach, attach_all, attached, merge, require_fit
from medchat.torchside.known_adapters import BASES, KNOWN_ADAPTERS, check_base, recognise

pytestmark = pytest.mark.torch

CPU, FLOAT, WIDTH, LAYERS, RANK = torch.device("cpu"), torch.float32, 16, 2, 4
TARGETS = ("q_proj", "v_proj")
#: What peft 0.3.0 wrote, keys that are gone since included.
OLD_CONFIG: Mapping[str, Any] = {
    "base_model_name_or_path": "/home/somebody/llama_model",
    "bias": "none",
    "enable_lora": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "merge_weights": False,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": RANK,
    "target_modules": list(TARGETS),
    "task_type": "CAUSAL_LM",
}


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        initializer_range=0.4,
    )
    return LlamaForCausalLM(config).eval()


def matrices(seed: int, rank: int = RANK, width: int = WIDTH, layers: int = LAYERS) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    found = {}
    for layer in range(layers):
        for target in TARGETS:
            name = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            found[f"{name}.lora_A.weight"] = torch.randn(rank, width, generator=drawn)
            found[f"{name}.lora_B.weight"] = torch.randn(width, rank, generator=drawn)
    return found


def write(folder: Path, weights: Mapping[str, Tensor], layout: str = "bin", **changes: Any) -> Path:
    """Write an adapter folder: `bin`, `legacy` (torch before 1.6) or `safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**OLD_CONFIG, **changes}), encoding="utf-8")
    if layout == "safetensors":
        save_file(dict(weights), folder / "adapter_model.safetensors")
    else:
        zipped = layout == "bin"
        torch.save(dict(weights), folder / "adapter_model.bin", _use_new_zipfile_serialization=zipped)
    return folder


def logits(model: torch.nn.Module) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(torch.arange(3, 12)[None]).logits
    return found


def by_hand(model: LlamaForCausalLM, *adapters: tuple[Mapping[str, Tensor], float]) -> Tensor:
    """Return the logits with the deltas added to the weights by matrix products, without peft."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    changed = dict(kept)
    for weights, scaling in adapters:
        for name, first in weights.items():
            if name.endswith("lora_A.weight"):
                own = name.removeprefix("base_model.model.").replace(".lora_A", "")
                second = weights[name.replace("lora_A", "lora_B")]
                changed[own] = changed[own] + scaling * (second @ first)
    model.load_state_dict(changed)
    found = logits(model)
    model.load_state_dict(kept)
    return found


def refused(action: Callable[[], object]) -> CheckpointError:
    """Run what must be refused in both languages; return the English error."""
    errors = []
    for language in LANGUAGES:
        set_language(language)
        try:
            with pytest.raises(CheckpointError) as info:
                action()
        finally:
            set_language("zh")
        errors.append(info.value)
    assert all(error.exit_code == 3 and error.what and error.remedy for error in errors)
    assert errors[0].what != errors[1].what
    return errors[1]


# ---------------------------------------------------------------- what they add


@pytest.mark.parametrize("layout", ["bin", "legacy", "safetensors"])
def test_an_adapter_of_any_age_adds_exactly_its_delta(
    model: LlamaForCausalLM, tmp_path: Path, layout: str
) -> None:
    weights = matrices(1)
    expected = by_hand(model, (weights, 16 / RANK))
    plain = logits(model)
    attach_all(model, [open_lora(write(tmp_path / "a", weights, layout))], CPU, torch.float32)
    assert not torch.allclose(plain, expected, atol=1e-2)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


def test_a_config_of_today_means_the_same_as_one_of_2023(model: LlamaForCausalLM, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(4)
    config = LoraConfig(r=RANK, lora_alpha=6, target_modules=list(TARGETS), init_lora_weights=False)
    trained = get_peft_model(model, config).eval()
    expected = logits(trained)
    trained.save_pretrained(tmp_path / "a")
    base = trained.unload()
    attach_all(base, [open_lora(tmp_path / "a")], CPU, torch.float32)
    torch.testing.assert_close(logits(base), expected)


def test_rank_patterns_and_rank_stabilised_scaling_are_kept(model: LlamaForCausalLM, tmp_path: Path) -> None:
    weights = matrices(1)
    folder = write(tmp_path / "a", weights, use_rslora=True)
    expected = by_hand(model, (weights, 16 / RANK**0.5))
    attach_all(model, [open_lora(folder)], CPU, torch.float32)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


def test_several_adapters_act_together_and_can_be_switched_live(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    one, two = matrices(1), matrices(2, rank=2)
    plain = logits(model)
    expected = {
        names: by_hand(model, *[pair for pair in ((one, 4.0), (two, 3.0)) if pair[1] in scalings])
        for names, scalings in {
            ("adapter0",): (4.0,),
            ("adapter1",): (3.0,),
            ("adapter0", "adapter1"): (4.0, 3.0),
        }.items()
    }
    folders = [write(tmp_path / "a", one), write(tmp_path / "b", two, r=2, lora_alpha=6)]
    names = attach_all(model, [open_lora(folder) for folder in folders], CPU, torch.float32)
    assert names == attached(model) == ("adapter0", "adapter1")
    torch.testing.assert_close(logits(model), expected[names], atol=1e-3, rtol=1e-3)
    for chosen, values in expected.items():
        activate(model, chosen)
        torch.testing.assert_close(logits(model), values, atol=1e-3, rtol=1e-3)
    activate(model, ())
    torch.testing.assert_close(logits(model), plain)


def test_a_merged_adapter_gives_the_same_logits_and_leaves_no_layer_behind(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    one, two = matrices(1), matrices(2)
    expected = by_hand(model, (one, 4.0), (two, 4.0))
    kinds = [type(module) for module in model.modules()]
    attach(model, open_lora(write(tmp_path / "a", one)), CPU, torch.float32, "a")
    assert merge(model, "a")
    assert [type(module) for module in model.modules()] == kinds
    attach(model, open_lora(write(tmp_path / "b", two)), CPU, torch.float32, "b")
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


def test_merging_under_another_adapter_leaves_that_one_switchable(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    one, two = matrices(1), matrices(2)
    without, together = by_hand(model, (one, 4.0)), by_hand(model, (one, 4.0), (two, 4.0))
    for name, weights in (("a", one), ("b", two)):
        attach(model, open_lora(write(tmp_path / name, weights)), CPU, torch.float32, name)
    assert merge(model, "a")
    assert attached(model) == ("b",)
    for names, expected in ((("b",), together), ((), without), (("b",), together)):
        activate(model, names)
        torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


def test_lora_stays_float32_over_a_model_in_half_precision(model: LlamaForCausalLM, tmp_path: Path) -> None:
    model = model.to(torch.bfloat16)
    attach_all(model, [open_lora(write(tmp_path / "a", matrices(1)))], CPU, torch.bfloat16)
    dtypes = {parameter.dtype for name, parameter in model.named_parameters() if ".lora_" in name}
    assert dtypes == {torch.float32}
    assert logits(model).dtype == torch.bfloat16


def test_modules_are_read_from_the_tensors_where_the_config_names_none(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    adapter = open_lora(write(tmp_path / "a", matrices(1), target_modules=None))
    assert adapter.settings["target_modules"] == list(TARGETS)
    attach_all(model, [adapter], CPU, torch.float32)


# ---------------------------------------------------------------- what is refused


def changed(weights: dict[str, Tensor], case: str) -> dict[str, Tensor]:
    first = next(iter(weights))
    if case == "missing":
        del weights[first]
    elif case == "unexpected":
        weights["base_model.model.ghost.lora_A.weight"] = torch.ones(RANK, WIDTH)
    elif case == "idle":
        weights = {
            name: torch.zeros_like(value) if "lora_B" in name else value for name, value in weights.items()
        }
    elif case == "nan":
        weights[first][0, 0] = float("nan")
    elif case == "integers":
        weights[first] = weights[first].long()
    elif case == "whole tensor":
        weights["base_model.model.lm_head.weight"] = torch.ones(40, WIDTH)
    return weights


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing", "missing model.layers.0"),
        ("unexpected", "unexpected"),
        ("idle", "changes no logit"),
        ("nan", "NaN"),
        ("integers", "int64"),
        ("whole tensor", "unexpected base_model.model.lm_head.weight"),
    ],
)
@pytest.mark.parametrize("layout", ["bin", "safetensors"])
def test_weights_that_do_not_fit_are_refused(
    model: LlamaForCausalLM, tmp_path: Path, layout: str, case: str, words: str
) -> None:
    folder = write(tmp_path / "a", changed(matrices(1), case), layout)

    def load() -> None:
        attach_all(LlamaForCausalLM(model.config), [open_lora(folder)], CPU, torch.float32)

    error = refused(load)
    assert words in error.what
    assert str(folder) in error.where


def scaled(seed: int, by: float, matrix: str = "lora_B") -> dict[str, Tensor]:
    return {name: value * by if matrix in name else value for name, value in matrices(seed).items()}


@pytest.mark.parametrize(
    ("matrix", "by", "dtype", "loads"),
    [
        ("lora_B", 0.0, torch.float32, False),
        ("lora_A", 0.0, torch.float32, False),
        ("lora_B", 1e-30, torch.float32, False),
        ("lora_A", 1e-30, torch.float32, False),
        ("lora_B", 1e-3, torch.float32, True),
        ("lora_B", 1e-7, torch.float32, True),
        ("lora_B", 1e-7, torch.bfloat16, False),  # there, but lost in what the sum is rounded to
        ("lora_B", 0.1, torch.bfloat16, True),
    ],
)
def test_an_adapter_is_refused_exactly_where_it_changes_no_logit(
    model: LlamaForCausalLM, tmp_path: Path, matrix: str, by: float, dtype: torch.dtype, loads: bool
) -> None:
    folder = write(tmp_path / "a", scaled(1, by, matrix))
    base = model.to(dtype)

    def load() -> None:
        attach_all(copy.deepcopy(base), [open_lora(folder)], CPU, dtype)

    if loads:
        load()
        return
    error = refused(load)
    assert "changes no logit" in error.what and str(folder) in error.where


def test_an_adapter_without_weight_of_its_own_is_refused(model: LlamaForCausalLM, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", matrices(1), lora_alpha=0)
    assert (
        "no logit" in refused(lambda: attach_all(copy.deepcopy(model), [open_lora(folder)], CPU, FLOAT)).what
    )


@pytest.mark.parametrize("place", [0, 1, 2])
def test_of_several_adapters_each_is_judged_by_itself(
    model: LlamaForCausalLM, tmp_path: Path, place: int
) -> None:
    folders = [write(tmp_path / str(number), matrices(number)) for number in range(3)]
    idle = write(tmp_path / "idle", scaled(7, 1e-30))
    mixed = [*folders[:place], idle, *folders[place + 1 :]]
    error = refused(
        lambda: attach_all(copy.deepcopy(model), [open_lora(folder) for folder in mixed], CPU, FLOAT)
    )
    assert str(idle) in error.where


def test_two_adapters_that_cancel_each_other_are_no_idle_ones(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    folders = [write(tmp_path / str(by), scaled(1, by)) for by in (1.0, -1.0)]
    plain = logits(model)
    names = attach_all(model, [open_lora(folder) for folder in folders], CPU, FLOAT)
    assert names == ("adapter0", "adapter1")
    torch.testing.assert_close(logits(model), plain, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("by", [1.0, 1e-30])
def test_a_merged_adapter_is_judged_by_what_rounding_leaves_of_it(
    model: LlamaForCausalLM, tmp_path: Path, by: float
) -> None:
    """One with tensors of its own is merged: the sum is kept in the weights' own dtype."""
    own = {"base_model.model.lm_head.weight": model.lm_head.weight.detach().clone()}
    folder = write(tmp_path / "a", {**scaled(1, by), **own}, modules_to_save=["lm_head"])

    def load() -> LlamaForCausalLM:
        fresh = copy.deepcopy(model)
        fresh.lm_head.weight = torch.nn.Parameter(torch.empty(40, WIDTH, device="meta"))
        assert attach_all(fresh, [open_lora(folder)], CPU, FLOAT) == ()
        return fresh

    if by == 1.0:
        assert not torch.equal(logits(load()), logits(model))
    else:
        assert "no logit" in refused(load).what


def test_judging_costs_one_short_run_for_each_adapter_and_one_without(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    tokens: list[int] = []
    model.register_forward_pre_hook(
        lambda _, __, named: tokens.append(named["input_ids"].numel()), with_kwargs=True
    )
    folders = [write(tmp_path / str(number), matrices(number)) for number in range(2)]
    attach_all(model, [open_lora(folder) for folder in folders], CPU, FLOAT)
    assert len(tokens) == 3 and max(tokens) <= 16


@pytest.mark.parametrize(
    ("width", "layers", "words"),
    [(WIDTH * 2, LAYERS, f"{WIDTH * 2}x{WIDTH * 2}"), (WIDTH, LAYERS + 1, f"layers.{LAYERS}.")],
)
def test_another_models_shapes_are_refused_before_any_weight_is_read(
    model: LlamaForCausalLM, tmp_path: Path, width: int, layers: int, words: str
) -> None:
    adapter = open_lora(write(tmp_path / "a", matrices(1, width=width, layers=layers)))
    with torch.device("meta"):
        empty = LlamaForCausalLM(model.config)
    assert words in refused(lambda: require_fit(empty, [adapter])).what
    require_fit(empty, [open_lora(write(tmp_path / "b", matrices(1)))])


@pytest.mark.parametrize("zipped", [True, False])
def test_the_empty_file_that_early_training_scripts_saved_is_called_empty(
    tmp_path: Path, zipped: bool
) -> None:
    folder = write(tmp_path / "a", {})
    torch.save({}, folder / "adapter_model.bin", _use_new_zipfile_serialization=zipped)
    error = refused(lambda: open_lora(folder))
    assert "empty" in error.what and str((folder / "adapter_model.bin").stat().st_size) in error.what
    (folder / "adapter_model.bin").write_bytes(b"\x80\x02" + bytes(441))
    assert "443 bytes" in refused(lambda: open_lora(folder)).what


def test_an_empty_safetensors_is_called_empty(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {}, "safetensors")
    assert "empty" in refused(lambda: open_lora(folder)).what


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "PROMPT_TUNING"),
        ("bias", "all"),
        ("enable_lora", [True, False, True]),
        ("fan_in_fan_out", True),
        ("use_dora", True),
        ("layer_replication", [[0, 2]]),
        ("trainable_token_indices", [1]),
        ("r", "8"),
        ("r", 0),
        ("lora_alpha", "16"),
        ("target_modules", [3]),
        ("rank_pattern", [1]),
        ("modules_to_save", ["lm_head"]),
    ],
)
def test_what_is_more_than_plain_lora_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    folder = write(tmp_path / "a", matrices(1), **{key: value})
    error = refused(lambda: open_lora(folder))
    assert key in error.what
    assert str(folder) in error.where


@pytest.mark.parametrize("lacking", ["adapter_config.json", "adapter_model.bin"])
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, lacking: str) -> None:
    folder = write(tmp_path / "a", matrices(1))
    (folder / lacking).unlink()
    error = refused(lambda: open_lora(folder))
    assert "adapter" in error.what + error.remedy


def test_nothing_of_a_hostile_adapter_is_executed(tmp_path: Path) -> None:
    folder, marker = write(tmp_path / "a", matrices(1)), tmp_path / "executed"
    poison(folder / "adapter_model.bin", marker)
    assert "refused" in refused(lambda: open_lora(folder)).what
    torch.save({"x": RunsCommand(marker)}, folder / "adapter_model.bin", pickle_protocol=2)
    refused(lambda: open_lora(folder))
    assert not marker.exists()


# ---------------------------------------------------------------- which base


def published(folder: Path, *, targets: tuple[str, ...] = TARGETS, layers: int = 32) -> LoraAdapter:
    """Write an adapter with the shapes of the published ones; one value each, so that the file is small."""
    weights = {}
    for layer in range(layers):
        for target in targets:
            name = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            weights[f"{name}.lora_A.weight"] = torch.ones(8, 1).expand(8, 4096)
            weights[f"{name}.lora_B.weight"] = torch.ones(1, 8).expand(4096, 8)
    return open_lora(write(folder, weights, r=8, target_modules=list(targets)))


def with_blob(monkeypatch: pytest.MonkeyPatch, name: str, adapter: LoraAdapter) -> None:
    """Let the table hold the hash of this adapter's file under `name`."""
    blob = subprocess.run(
        ["git", "hash-object", "--no-filters", str(adapter.weight_file)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    table = tuple(replace(known, blob=blob) if known.name == name else known for known in KNOWN_ADAPTERS)
    monkeypatch.setattr(known_adapters, "KNOWN_ADAPTERS", table)


def test_every_pairing_of_the_specification_is_in_the_table() -> None:
    pairs = {known.name: (known.base, known.template) for known in KNOWN_ADAPTERS}
    assert pairs["lora-llama-med"] == ("llama", "med_template")
    assert pairs["lora-llama-literature"] == ("llama", "literature_template")
    assert pairs["lora-alpaca-med"] == ("chinese-alpaca", "med_template")
    assert pairs["lora-alpaca-med-alldata"] == ("chinese-alpaca", "med_alldata")
    assert pairs["lora-bloom-med-bloom"] == ("bloom", "bloom_deploy")
    assert pairs["lora-huozi-med"] == ("huozi", "bloom_deploy")
    blobs = [known.blob for known in KNOWN_ADAPTERS if known.blob]
    assert len(blobs) == len(set(blobs)) == 4


#: How the names of published bases begin, and the base of the table that each is.
BASES_BY_NAME = {
    "llama-7b": "llama",
    "chinese-alpaca-7b": "chinese-alpaca",
    "bloom": "bloom",
    "huozi-7b": "huozi",
}


@pytest.mark.parametrize(
    "backbone", [LlamaBackbone(), BloomBackbone(), HuoziBackbone()], ids=lambda b: b.name
)
def test_loading_pairs_adapters_as_models_list_does(backbone: Backbone) -> None:
    pairs = {known.name: (known.base, known.template) for known in KNOWN_ADAPTERS}
    offered = [known for known in backbone.known_weights if known.kind == "adapter"]
    assert offered
    for known in offered:
        bases = {
            base for start, base in BASES_BY_NAME.items() if any(n.startswith(start) for n in known.fits)
        }
        assert pairs[known.name] == (bases.pop(), known.template)
        assert not bases


@pytest.mark.parametrize("base", sorted(set(BASES) - {"huozi"}))
def test_huozis_adapter_is_refused_elsewhere_by_its_name_alone(tmp_path: Path, base: str) -> None:
    """Nobody wrote down its size, and its shapes fit a Bloom."""
    adapter = open_lora(write(tmp_path / "lora-huozi-med", matrices(1)))
    assert check_base(adapter, "huozi")
    error = refused(lambda: check_base(adapter, base))
    assert "lora-huozi-med" in error.what and "活字 Huozi 1.0" in error.what and "rename" in error.remedy


def test_a_known_adapter_is_refused_on_the_other_base_by_its_hash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the folder is called: LLaMA's and Alpaca's have equal shapes."""
    adapter = published(tmp_path / "my-adapter")
    with_blob(monkeypatch, "lora-alpaca-med", adapter)
    assert check_base(adapter, "chinese-alpaca")
    error = refused(lambda: check_base(adapter, "llama"))
    assert "lora-alpaca-med" in error.what
    assert "Chinese-Alpaca-7B" in error.what and "LLaMA-7B" in error.what
    assert "--model" in error.remedy


def test_a_known_adapter_is_refused_on_the_other_base_by_its_name_and_size(tmp_path: Path) -> None:
    adapter = published(tmp_path / "lora-llama-med")
    assert check_base(adapter, "llama")
    error = refused(lambda: check_base(adapter, "chinese-alpaca"))
    assert "lora-llama-med" in error.what and "rename" in error.remedy


def test_the_name_alone_is_not_enough(tmp_path: Path) -> None:
    """Another size under a published name is somebody's own adapter."""
    small = published(tmp_path / "lora-llama-med", layers=2)
    assert recognise(small) is None
    assert "not a published one" in in_english(lambda: check_base(small, "chinese-alpaca"))


def test_a_mislabelled_copy_is_recognised_by_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The literature adapter has been spread under the name of the other one."""
    adapter = published(tmp_path / "lora-llama-med")
    with_blob(monkeypatch, "lora-llama-literature", adapter)
    found = recognise(adapter)
    assert found is not None and found.mislabelled
    assert found.known.template == "literature_template"
    note = in_english(lambda: check_base(adapter, "llama"))
    assert "lora-llama-med" in note and "lora-llama-literature" in note


def test_an_unknown_adapter_loads_with_a_note(tmp_path: Path) -> None:
    adapter = published(tmp_path / "mine")
    assert "mine" in in_english(lambda: check_base(adapter, "llama"))


OPENED: list[str] = []


def test_the_path_in_an_adapters_config_is_never_followed(model: LlamaForCausalLM, tmp_path: Path) -> None:
    trap = tmp_path / "base"
    trap.mkdir()
    folder = write(tmp_path / "a", matrices(1), base_model_name_or_path=str(trap))

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir"):
            OPENED.append(str(arguments[0]))

    sys.addaudithook(listen)
    attach_all(model, [open_lora(folder)], CPU, torch.float32)
    assert any(path.startswith(str(folder)) for path in OPENED)
    assert not any(path.startswith(str(trap)) for path in OPENED)


def in_english(action: Callable[[], tuple[str, ...]]) -> str:
    set_language("en")
    try:
        return " ".join(action())
    finally:
        set_language("zh")
