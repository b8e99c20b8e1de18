"""What is wrong with an adapter ends the program with 3 and a sentence: each fault, on each family, as typed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from cli_program import Call
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_llama.backbone import LlamaBackbone
from torch import Tensor

from medchat.api import Backbone

pytestmark = pytest.mark.torch
pytest_plugins = ("cli_program",)

Weights = dict[str, Tensor]

BACKBONES: Mapping[str, Backbone] = {
    backbone.name: backbone for backbone in (LlamaBackbone(), BloomBackbone(), HuoziBackbone())
}
FAMILIES = tuple(BACKBONES)
RANK = 4
#: Outputs over inputs of each matrix that BenTsao trained, and where it stands.
_LLAMA = {"model.layers.{}.self_attn.q_proj": 1, "model.layers.{}.self_attn.v_proj": 1}
_BLOOM = {"transformer.h.{}.self_attention.query_key_value": 3}
TARGETS = {"llama": _LLAMA, "bloom": _BLOOM, "huozi": _BLOOM}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) / "base" for name in FAMILIES}
    for name, backbone in BACKBONES.items():
        backbone.tiny(folders[name], vocabulary_size=400)
    return folders


def size(base: Path) -> tuple[int, int]:
    """Return layers and width."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return config.get("n_layer") or config["num_hidden_layers"], config.get("hidden_size") or config[
        "n_embed"
    ]


def matrices(family: str, layers: int, width: int, rank: int = RANK) -> Weights:
    drawn = torch.Generator().manual_seed(3)
    found = {}
    for layer in range(layers):
        for module, times in TARGETS[family].items():
            name = f"base_model.model.{module.format(layer)}"
            found[f"{name}.lora_A.weight"] = torch.randn(rank, width, generator=drawn)
            found[f"{name}.lora_B.weight"] = torch.randn(times * width, rank, generator=drawn)
    return found


def write(folder: Path, family: str, weights: Weights, rank: int = RANK) -> Path:
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted({module.rpartition(".")[2] for module in TARGETS[family]}),
        "enable_lora": None,
        "merge_weights": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save(weights, folder / "adapter_model.bin")
    return folder


def ask(call: Call, family: str, base: Path, *adapters: Path) -> tuple[int, str, str, str]:
    """Ask one question; return the exit code, stdout and, where it failed, what happened and what to do."""
    flags = [word for adapter in adapters for word in ("--adapter", str(adapter))]
    flags += ["--device", "cpu", "--dtype", "float32", "--max-new-tokens", "2"]
    outcome = call("ask", "头痛？", "--backbone", family, "--model", str(base), *flags)
    what, remedy = outcome.failure() if outcome.code else ("", "")
    return outcome.code, outcome.out, what, remedy


def without_one(weights: Weights) -> Weights:
    return dict(list(weights.items())[1:])


def with_a_ghost(weights: Weights) -> Weights:
    return {**weights, "base_model.model.ghost.lora_A.weight": torch.ones(RANK, 8)}


def too_wide(weights: Weights) -> Weights:
    return {
        name: torch.cat([value, value], 1) if "lora_A" in name else value for name, value in weights.items()
    }


def of_another_rank(weights: Weights) -> Weights:
    return {name: value[:-1] if "lora_A" in name else value[:, :-1] for name, value in weights.items()}


def of_zeros(weights: Weights) -> Weights:
    return {name: value * 0 if "lora_B" in name else value for name, value in weights.items()}


def swallowed(weights: Weights) -> Weights:
    return {name: value * 1e-30 if "lora_B" in name else value for name, value in weights.items()}


FAULTS: Mapping[str, tuple[Callable[[Weights], Weights], str]] = {
    "missing": (without_one, "缺少"),
    "unexpected": (with_a_ghost, "ghost"),
    "wrong shapes": (too_wide, "不匹配"),
    "wrong rank": (of_another_rank, "与 adapter_config.json 不符"),
    "all zero": (of_zeros, "没有改变任何一个输出"),
    "swallowed by rounding": (swallowed, "没有改变任何一个输出"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_adapter_answers(call: Call, bases: dict[str, Path], tmp_path: Path, family: str) -> None:
    adapter = write(tmp_path / "mine", family, matrices(family, *size(bases[family])))
    code, out, *_ = ask(call, family, bases[family], adapter)
    assert code == 0 and out


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_do_not_fit_end_the_program_with_3(
    call: Call, bases: dict[str, Path], tmp_path: Path, family: str, fault: str
) -> None:
    change, words = FAULTS[fault]
    adapter = write(tmp_path / "mine", family, change(matrices(family, *size(bases[family]))))
    code, out, what, remedy = ask(call, family, bases[family], adapter)
    assert (code, out) == (3, "")
    assert words in what and str(adapter) in what
    assert "adapter0" not in what  # names are those of the file
    assert len(remedy) > len("下一步：")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_empty_file_of_443_bytes_ends_the_program_with_3(
    call: Call, bases: dict[str, Path], tmp_path: Path, family: str
) -> None:
    adapter = write(tmp_path / "mine", family, {})
    file = adapter / "adapter_model.bin"
    torch.save({}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes().ljust(443, b"\0"))
    code, out, what, remedy = ask(call, family, bases[family], adapter)
    assert (code, out) == (3, "")
    assert "空" in what and "443" in what and "重新下载" in remedy


@pytest.mark.parametrize("family", FAMILIES)
def test_of_two_adapters_the_one_without_effect_is_named(
    call: Call, bases: dict[str, Path], tmp_path: Path, family: str
) -> None:
    sound = matrices(family, *size(bases[family]))
    good = write(tmp_path / "good", family, sound)
    idle = write(tmp_path / "idle", family, swallowed(sound))
    code, out, what, _ = ask(call, family, bases[family], good, idle)
    assert (code, out) == (3, "")
    assert str(idle) in what and str(good) not in what


@pytest.mark.parametrize(
    ("family", "name", "own"),
    [
        ("llama", "lora-alpaca-med", "llama"),
        ("llama", "lora-bloom-med-bloom", "bloom"),
        ("llama", "lora-huozi-med", "huozi"),
        ("bloom", "lora-huozi-med", "huozi"),
        ("bloom", "lora-llama-med", "llama"),
        ("huozi", "lora-bloom-med-bloom", "bloom"),
        ("huozi", "lora-llama-literature", "llama"),
    ],
)
def test_a_known_adapter_on_the_wrong_base_ends_the_program_with_3(
    call: Call, bases: dict[str, Path], tmp_path: Path, family: str, name: str, own: str
) -> None:
    layers = {"llama": 32}.get(own, 30)
    full = {  # the published shapes, one number stored for each
        key: torch.ones(1, 1).expand(value.shape)
        for key, value in matrices(own, layers, 4096, rank=8).items()
    }
    adapter = write(tmp_path / name, own, full, rank=8)
    code, out, what, remedy = ask(call, family, bases[family], adapter)
    assert (code, out) == (3, "")
    assert name in what and "不匹配" in what and "--model" in remedy
