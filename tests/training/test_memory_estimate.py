"""The memory estimate: its arithmetic against published figures, against torch, and what it advises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from launched import launch
from locations import ROOT
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import BloomConfig, BloomForCausalLM, LlamaConfig, LlamaForCausalLM

from medchat.api import SFTOptions, SFTSurvey
from medchat.training import memory_alternatives as alternatives
from medchat.training.activation_memory import ModelDims, block_bytes, model_dims
from medchat.training.memory_estimate import estimate, memory_for, optimizer_bytes, training_weight_bytes
from medchat.training.optimizers import build_optimizer, precision_of

pytestmark = pytest.mark.torch

GIB, CPU = 2**30, torch.device("cpu")
OPTIONS = SFTOptions(model=Path("unused"), output=Path("unused"), precision="mixed")
#: What the seeds fine-tune in full: ChatGLM-6B with 130528 rows.
GLM = {
    "layers": 28,
    "hidden": 4096,
    "inner": 16384,
    "heads": 32,
    "vocabulary": 130_528,
    "block": "plain",
    "tied": True,
    "targets": [(4096, 12288)],
}


def glm(options: SFTOptions = OPTIONS, **changes: Any) -> ModelDims:
    return model_dims(options, **{**GLM, **changes})


def told(options: SFTOptions, available: int = 10**12, shape: ModelDims | None = None) -> Any:
    return estimate(shape or glm(options), options, None, CPU, available)


# ---------------------------------------------------------------- arithmetic


def test_chatglm_6b_has_its_published_number_of_parameters() -> None:
    assert glm().parameters == 6_173_286_400


@pytest.mark.parametrize(
    ("change", "plain", "fused"),
    [
        ({"optimizer": "adamw", "precision": "mixed"}, 92.4, 81.4),
        ({"optimizer": "adamw", "precision": "bfloat16"}, 46.2, 35.2),
        ({"optimizer": "adamw8bit", "precision": "bfloat16"}, 35.0, 24.0),
        ({"optimizer": "adafactor", "precision": "bfloat16"}, 23.2, 12.2),
    ],
)
def test_the_table_for_6_2_billion_parameters(change: dict[str, Any], plain: float, fused: float) -> None:
    """Weights, gradients and states; fused backward left 1/22.5 of the gradients at its peak.

    Figures: docs/specs/training.md, "Memory".
    """
    options = replace(OPTIONS, **change)
    shape = glm(options, parameters=6_200_000_000, tied=True)
    precision = precision_of(options, CPU)
    weights, copies = training_weight_bytes(shape, options, precision)
    states = optimizer_bytes(shape, options, precision)
    gradients = shape.parameters * precision.weights.itemsize
    assert (weights + gradients + states) / GIB == pytest.approx(plain, rel=0.01)
    assert (weights + copies + states + gradients / 22.5) / GIB == pytest.approx(fused, rel=0.012)


def small(block: str, layers: int = 2) -> nn.Module:
    torch.manual_seed(1)
    if block == "plain":
        config = ChatGLMConfig(
            vocab_size=96,
            hidden_size=64,
            inner_hidden_size=96,
            num_layers=layers,
            num_attention_heads=4,
            bos_token_id=90,
            eos_token_id=91,
            mask_token_id=88,
            gmask_token_id=89,
            pad_token_id=3,
        )
        return ChatGLMForConditionalGeneration(config)
    if block == "alibi":
        return BloomForCausalLM(BloomConfig(vocab_size=96, hidden_size=64, n_layer=layers, n_head=4))
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=96,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=layers,
            num_attention_heads=4,
        )
    )


def small_shape(block: str, options: SFTOptions = OPTIONS) -> ModelDims:
    return model_dims(
        options,
        layers=2,
        hidden=64,
        inner=256 if block == "alibi" else 96,
        heads=4,
        vocabulary=96,
        block=block,  # type: ignore[arg-type]
        tied=block != "gated",
        targets=[(64, 64)] * 2 if block == "gated" else [(64, 192)],
    )


BLOCKS = ("gated", "plain", "alibi")


def with_lora(model: nn.Module, block: str) -> nn.Module:
    targets = ["q_proj", "v_proj"] if block == "gated" else ["query_key_value"]
    return get_peft_model(model, LoraConfig(r=8, lora_dropout=0.05, target_modules=targets))


@pytest.mark.parametrize("block", BLOCKS)
def test_parameters_are_counted_as_the_models_have_them(block: str) -> None:
    model = small(block)
    assert small_shape(block).parameters == sum(parameter.numel() for parameter in model.parameters())
    trained = [parameter for parameter in with_lora(model, block).parameters() if parameter.requires_grad]
    assert small_shape(block).trained("lora") == sum(parameter.numel() for parameter in trained)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "adafactor"])
def test_the_optimizers_state_is_as_large_as_told(optimizer: str, precision: str) -> None:
    options = replace(OPTIONS, optimizer=optimizer, precision=precision)
    model = small("gated").to(precision_of(options, CPU).weights)
    built = build_optimizer(model, options)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    built.step()
    real = sum(value.nbytes for state in built.state.values() for value in state.values())
    expected = optimizer_bytes(small_shape("gated"), options, precision_of(options, CPU))
    # Norms are too small for 8 bits, and have no rows and columns: a matter of a few kB here.
    assert abs(real - expected) < max(0.03 * real, 8000)


def kept_by(block: str, layers: int, full: bool, precision: str, rows: int, length: int) -> int:
    """Return the bytes of all tensors that a forward pass keeps for the way back, weights left out."""
    model = small(block, layers)
    wide = {"float32": torch.float32, "mixed": torch.float32, "bfloat16": torch.bfloat16}[precision]
    if full:
        model.to(wide)
    else:
        if precision != "float32":
            model.to(torch.bfloat16)
        model = with_lora(model, block)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(wide)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    alive: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Copies of the weights in the compute dtype are not activations.
        if tensor.untyped_storage().data_ptr() not in own and not _is_weight_copy(tensor, rows * length):
            alive[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    batch: Mapping[str, Tensor] = {
        "input_ids": torch.randint(5, 80, (rows, length)),
        "attention_mask": torch.ones(rows, length, dtype=torch.long).index_fill_(1, torch.tensor([0]), 0),
    }
    if block == "plain":
        batch = {
            "input_ids": batch["input_ids"],
            "attention_mask": torch.ones(rows, 1, length, length).bool().tril(),
            "position_ids": torch.arange(length).expand(rows, 2, length).contiguous(),
        }
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed"),
    ):
        model.train()(**batch, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in alive.values())


def _is_weight_copy(tensor: Tensor, tokens: int) -> bool:
    return tensor.dim() == 2 and tokens not in tensor.shape and tensor.dtype is torch.bfloat16


@pytest.mark.parametrize("precision", ["float32", "mixed", "bfloat16"])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_keeps_what_the_estimate_says(block: str, full: bool, precision: str) -> None:
    rows, length = 2, 40
    real = kept_by(block, 3, full, precision, rows, length) - kept_by(block, 2, full, precision, rows, length)
    expected = block_bytes(small_shape(block), full=full, precision=precision, rows=rows, length=length)
    assert expected == pytest.approx(real, rel=0.04)


# ---------------------------------------------------------------- what fits


def test_full_fine_tuning_of_6b_fits_80_gb_comfortably_and_24_gb_at_all() -> None:
    """By estimate, in the settings named; the default of 8 x 256 tokens at a time."""
    comfortable = replace(OPTIONS, precision="bfloat16", optimizer="adamw8bit")
    assert told(comfortable).total < 0.7 * 80e9
    tight = replace(
        OPTIONS,
        precision="bfloat16",
        optimizer="adafactor",
        fused_backward=True,
        batch_size=8,
        max_grad_norm=0.0,
        gradient_checkpointing=True,
    )
    cards = told(tight).cards
    assert cards[24] == {} and tuple(cards) == (24, 32, 40, 80)
    assert told(OPTIONS).cards[24] != {}
    assert told(replace(OPTIONS, optimizer="adamw", precision="mixed")).cards[80] != {}


def test_the_alternatives_are_every_optimizer_and_what_takes_less() -> None:
    alternatives = told(OPTIONS).alternatives
    assert sum("--optimizer" in name for name in alternatives) == 8
    assert sum("--fused-backward" in name for name in alternatives) == 4
    totals = list(alternatives.values())
    assert totals[0] > totals[2] > totals[4] > totals[6] and totals[0] > totals[1]
    assert alternatives["--method qlora"] < alternatives["--method lora"] < min(totals[:8])


@pytest.mark.parametrize("room", [110, 80, 60, 45, 35, 25, 18, 8])
def test_the_nearest_setting_fits_and_nothing_with_fewer_changes_does(room: int) -> None:
    result = told(OPTIONS, room * GIB)
    assert not result.fits and result.nearest
    changed = replace(OPTIONS, **result.nearest)
    assert told(changed, room * GIB, glm(changed)).fits
    for name, value in result.nearest.items():
        if name in ("batch_size", "max_grad_norm"):
            continue  # they come with fused_backward
        rest = {key: kept for key, kept in result.nearest.items() if key != name}
        if name == "fused_backward":
            rest = {key: kept for key, kept in rest.items() if key not in ("batch_size", "max_grad_norm")}
        assert value != getattr(OPTIONS, name)
        assert not told(replace(OPTIONS, **rest), room * GIB).fits


def test_another_method_is_advised_only_when_nothing_else_fits() -> None:
    assert "method" not in told(OPTIONS, 25 * GIB).nearest
    assert told(OPTIONS, 10 * GIB).nearest["method"] in ("lora", "qlora")
    assert told(OPTIONS, 1 * GIB).nearest is None


def test_what_fits_needs_no_change() -> None:
    result = told(OPTIONS, 10**12)
    assert result.fits and result.nearest == {}


def test_advice_on_fused_backward_is_advice_that_is_accepted() -> None:
    from medchat.training.optimizers import check_optimizer

    nearest = told(OPTIONS, 18 * GIB).nearest
    assert nearest["fused_backward"] is True
    check_optimizer(replace(OPTIONS, **nearest), CPU)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_advice_to_several_processes_is_advice_that_is_accepted(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medchat.training.optimizers import check_optimizer

    launch(monkeypatch, 4)
    wanted = replace(OPTIONS, method=method)
    for room in range(6, 60, 3):
        result = told(wanted, room * GIB)
        assert not any(
            word in name for name in result.alternatives for word in ("fused", "8bit", "adafactor")
        )
        if result.nearest:
            check_optimizer(replace(wanted, **result.nearest), CPU)


def test_the_documented_memory_of_chatglm_6b_is_what_a_dry_run_says() -> None:
    page = (ROOT / "docs" / "sft.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(--precision [^`]+)`[^|]*\| ([\d.]+) \(([\d.]+)\) \| ([\d.]+) \(([\d.]+)\) \|$", page, re.M
    )
    assert len(rows) == 4
    fused = {"fused_backward": True, "batch_size": 8, "max_grad_norm": 0.0}
    for flags, *figures in rows:
        words = flags.split()
        changes = dict(zip((word[2:] for word in words[::2]), words[1::2], strict=True))
        expected = []
        for more in ({}, {"gradient_checkpointing": True}, fused, {**fused, "gradient_checkpointing": True}):
            options = replace(OPTIONS, **changes, **more)
            result = estimate(glm(options), options, None, torch.device("cuda"), 10**12)
            expected.append(f"{result.total / GIB:.1f}")
        assert figures == expected, flags


# ---------------------------------------------------------------- what it depends on


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"gradient_checkpointing": True}, "activations"),
        ({"micro_batch_size": 2}, "activations"),
        ({"max_length": 128}, "activations"),
    ],
)
def test_each_lever_lowers_the_part_it_is_about(change: dict[str, Any], part: str) -> None:
    options = replace(OPTIONS, method="lora")
    assert told(replace(options, **change)).parts[part] < told(options).parts[part]


def test_a_survey_replaces_the_longest_length_allowed_with_the_longest_there_is() -> None:
    options = replace(OPTIONS, method="lora", max_length=2048)
    lengths = (100, 120, 90)
    survey = SFTSurvey("t", 3, 2048, lengths, tokens=310, label_tokens=100, longest=120)
    known = estimate(glm(options), options, survey, CPU, 10**12)
    assert known.parts["activations"] < 0.1 * told(options).parts["activations"]


def test_the_program_itself_is_measured_and_counts_as_available() -> None:
    import psutil

    resident = psutil.Process().memory_info().rss
    assert told(OPTIONS).parts["runtime"] >= resident
    assert memory_for(CPU) > resident


def test_full_fine_tuning_in_several_processes_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = told(OPTIONS)
    launch(monkeypatch, 4)
    shared = told(OPTIONS)
    assert shared.parts["optimizer"] == pytest.approx(alone.parts["optimizer"] / 4, rel=0.01)
    assert shared.notes and not alone.notes


def test_trained_and_all_parameters_are_told() -> None:
    lora = told(replace(OPTIONS, method="lora"))
    assert lora.trainable == 28 * 8 * (4096 + 12288)
    assert told(OPTIONS).trainable == told(OPTIONS).parameters == 6_173_286_400


def test_8bit_adam_is_not_advised_where_bitsandbytes_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(OPTIONS, 75 * GIB).nearest
    monkeypatch.setattr(alternatives, "find_spec", lambda name: None)
    for room in range(10, 100, 5):
        assert (told(OPTIONS, room * GIB).nearest or {}).get("optimizer") != "adamw8bit"


CASES = (
    "chatglm-full",
    "llama-lora-checkpointing",
    "bloom-full-adafactor",
    "llama-full-mixed",
    "chatglm-full-fused",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_within_15_percent_of_what_training_then_takes(
    case: str, device: str, tmp_path: Path
) -> None:
    script = ROOT / "benchmarks" / "sft_memory.py"
    written = tmp_path / "figures.json"
    done = subprocess.run([sys.executable, script, "--case", case, "--device", device, "--json", written])
    assert done.returncode == 0
    assert json.loads(written.read_text(encoding="utf-8"))["cases"][case]["measured"] > 500 * 2**20
