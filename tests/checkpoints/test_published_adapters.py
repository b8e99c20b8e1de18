"""Which adapter belongs on which base, told by name, size and hash."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_miniatures import CPU, TARGETS, matrices, write
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_llama.backbone import LlamaBackbone
from refusals import refused
from transformers import LlamaForCausalLM

from medchat.api import Backbone
from medchat.checkpoints import published_adapters as known_adapters
from medchat.checkpoints.lora_folder import LoraAdapter, open_lora
from medchat.checkpoints.published_adapters import BASES, KNOWN_ADAPTERS, check_base, match_published
from medchat.inference.adapters.lora import attach_loras
from medchat.language import set_language

pytest_plugins = ("adapter_miniatures",)
pytestmark = pytest.mark.torch

#: The folder of a base; what is asked here of it is its name alone.
MODEL = Path("base")


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


def test_every_published_pairing_is_in_the_table() -> None:
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
    assert check_base(adapter, "huozi", MODEL)
    error = refused(lambda: check_base(adapter, base, MODEL))
    assert "lora-huozi-med" in error.what and "活字 Huozi 1.0" in error.what and "rename" in error.remedy


def test_a_known_adapter_is_refused_on_the_other_base_by_its_hash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the folder is called: LLaMA's and Alpaca's have equal shapes."""
    adapter = published(tmp_path / "my-adapter")
    with_blob(monkeypatch, "lora-alpaca-med", adapter)
    assert check_base(adapter, "chinese-alpaca", MODEL)
    error = refused(lambda: check_base(adapter, "llama", MODEL))
    assert "lora-alpaca-med" in error.what
    assert "Chinese-Alpaca-7B" in error.what and "LLaMA-7B" in error.what
    assert "--model" in error.remedy


def test_a_known_adapter_is_refused_on_the_other_base_by_its_name_and_size(tmp_path: Path) -> None:
    adapter = published(tmp_path / "lora-llama-med")
    assert check_base(adapter, "llama", MODEL)
    error = refused(lambda: check_base(adapter, "chinese-alpaca", MODEL))
    assert "lora-llama-med" in error.what and "rename" in error.remedy


def test_the_name_alone_is_not_enough(tmp_path: Path) -> None:
    """Another size under a published name is somebody's own adapter."""
    small = published(tmp_path / "lora-llama-med", layers=2)
    assert match_published(small) is None
    assert "not a published one" in in_english(lambda: check_base(small, "chinese-alpaca", MODEL))


def test_a_mislabelled_copy_is_recognised_by_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The literature adapter has been spread under the name of the other one."""
    adapter = published(tmp_path / "lora-llama-med")
    with_blob(monkeypatch, "lora-llama-literature", adapter)
    found = match_published(adapter)
    assert found is not None and found.mislabelled
    assert found.known.template == "literature_template"
    note = in_english(lambda: check_base(adapter, "llama", MODEL))
    assert "lora-llama-med" in note and "lora-llama-literature" in note


def test_an_unknown_adapter_loads_with_a_note(tmp_path: Path) -> None:
    adapter = published(tmp_path / "mine")
    assert "mine" in in_english(lambda: check_base(adapter, "llama", MODEL))


def stating(folder: Path, template: str, base: object) -> LoraAdapter:
    """Write an adapter that states a template, as our own trainer's do, and a base."""
    config = folder / "adapter_config.json"
    published(folder, layers=1)
    stated = json.loads(config.read_text()) | {"medchat_template": template, "base_model_name_or_path": base}
    config.write_text(json.dumps(stated))
    return open_lora(folder)


def test_an_adapter_of_our_own_is_held_against_the_base_it_states(tmp_path: Path) -> None:
    same = stating(tmp_path / "mine", "med_template", "base")
    assert "mine states that it was trained on base" in in_english(lambda: check_base(same, "llama", MODEL))
    other = in_english(lambda: check_base(same, "llama", tmp_path / "else"))
    assert other.startswith("! ") and "trained on base" in other and "this model is else" in other


@pytest.mark.parametrize("record", ["", "{", "[]", '{"model": 3}', '{"model": "0"}'])
def test_a_record_that_tells_nothing_leaves_the_name_to_decide(tmp_path: Path, record: str) -> None:
    mine = stating(tmp_path / "mine", "med_template", "base")
    (tmp_path / "mine" / "run.json").write_text(record)
    assert check_base(mine, "llama", tmp_path / "else")[0].startswith("！")
    assert not check_base(mine, "llama", MODEL)[0].startswith("！")


@pytest.mark.parametrize("base", ["", None, 3, ["base"]])
def test_what_names_no_base_is_not_known(tmp_path: Path, base: object) -> None:
    mine = stating(tmp_path / "mine", "med_template", base)
    assert "is not known" in in_english(lambda: check_base(mine, "llama", MODEL))


def test_the_path_in_somebody_elses_configuration_states_nothing(tmp_path: Path) -> None:
    theirs = stating(tmp_path / "theirs", "", "/home/somebody/base")
    assert "is not known" in in_english(lambda: check_base(theirs, "llama", MODEL))


OPENED: list[str] = []


def test_the_path_in_an_adapters_config_is_never_followed(model: LlamaForCausalLM, tmp_path: Path) -> None:
    trap = tmp_path / "base"
    trap.mkdir()
    folder = write(tmp_path / "a", matrices(1), base_model_name_or_path=str(trap))

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir"):
            OPENED.append(str(arguments[0]))

    sys.addaudithook(listen)
    attach_loras(model, [open_lora(folder)], CPU, torch.float32)
    assert any(path.startswith(str(folder)) for path in OPENED)
    assert not any(path.startswith(str(trap)) for path in OPENED)


def in_english(action: Callable[[], tuple[str, ...]]) -> str:
    set_language("en")
    try:
        return " ".join(action())
    finally:
        set_language("zh")
