"""LoRA beside the layers of a net of one's own: which layers, what is written, loaded, merged and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from byte_nets import AttendingBackbone
from net_training import data, sft
from plugin_sites import import_example
from safetensors.torch import load_file, save_file
from sft_watcher import Watcher
from torch import Tensor, nn

from medchat.api import LoadOptions
from medchat.errors import CheckpointError, UsageError
from medchat.inference.chat_model import TokenChatModel
from medchat.testing import BackboneTests
from medchat.testing.running import run_properties

pytestmark = pytest.mark.torch
BACKBONE = AttendingBackbone()
#: All linear layers of the net, but the head, which shares its weight, and attention's own, which is never called.
LINEARS = ["block.linear1", "block.linear2", "out"]
DATA = data()


def options(folder: Path, *adapters: Path) -> LoadOptions:
    return LoadOptions(folder, adapters=adapters, device="cpu", dtype="float32")


def train(base: Path, output: Path, **changes: Any) -> Path:
    given = sft(base, output, **changes)
    BACKBONE.recipes[given.method].run(DATA, given, Watcher())
    return output


def logits(folder: Path, *adapters: Path) -> Tensor:
    model = BACKBONE.load(options(folder, *adapters))
    assert isinstance(model, TokenChatModel)
    with torch.inference_mode():
        found: Tensor = model.model(torch.arange(3, 27)[None])
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "base"
    BACKBONE.tiny(path)
    return path


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    return train(base, base.with_name("adapter"))


def test_lora_goes_on_every_linear_that_is_called_and_shares_no_weight(adapter: Path) -> None:
    stated = json.loads((adapter / "adapter_config.json").read_text())
    assert sorted(stated["target_modules"]) == LINEARS
    stored = load_file(adapter / "adapter_model.safetensors")
    wanted = {f"base_model.model.{name}.lora_{side}.weight" for name in LINEARS for side in "AB"}
    assert set(stored) == wanted
    assert all(bool(matrix.any()) for matrix in stored.values())
    assert not list(adapter.rglob("*.bin")) and not list(adapter.rglob("*.pt"))


def test_every_layer_s_matrices_act_in_chat(base: Path, adapter: Path, tmp_path: Path) -> None:
    """torch's encoder layer computes from the weights of its linears where nothing is trained, and calls none."""
    plain, whole = logits(base), load_file(adapter / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    for layer in LINEARS:
        kept = {
            name: matrix if f".{layer}." in name else torch.zeros_like(matrix)
            for name, matrix in whole.items()
        }
        save_file(kept, tmp_path / "adapter_model.safetensors")
        assert not torch.equal(logits(base, tmp_path), plain), layer


def test_a_merged_net_loads_alone_and_computes_what_its_parts_do(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    BACKBONE.save_merged(options(base, adapter), tmp_path, "float32")
    torch.testing.assert_close(logits(tmp_path), logits(base, adapter), rtol=0, atol=1e-5)
    assert BACKBONE.trained_templates(options(tmp_path)) == ("bare",)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_full_fine_tuning_over_an_adapter_needs_it_no_more(base: Path, adapter: Path, tmp_path: Path) -> None:
    options_of_run = {"method": "full", "adapters": (adapter,), "learning_rate": 1e-12}
    result = train(base, tmp_path / "out", **options_of_run)
    torch.testing.assert_close(logits(result), logits(base, adapter), rtol=0, atol=1e-5)


def test_targets_are_the_plugin_s_own_or_those_of_the_run(base: Path, tmp_path: Path) -> None:
    class Own(AttendingBackbone):
        lora_targets: ClassVar = ("linear2",)

    run = sft(base, tmp_path / "own", num_epochs=1, samples=0)
    Own().recipes["lora"].run(DATA, run, Watcher())
    train(base, tmp_path / "asked", num_epochs=1, samples=0, lora_targets=("head",))
    for folder, layer in (("own", "block.linear2"), ("asked", "head")):
        names = load_file(tmp_path / folder / "adapter_model.safetensors")
        assert {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in names} == {layer}


def test_an_adapter_over_a_weight_that_others_have_is_loaded_but_not_merged(
    base: Path, tmp_path: Path
) -> None:
    adapter = train(base, tmp_path / "head", num_epochs=1, samples=0, lora_targets=("head",))
    assert not torch.equal(logits(base, adapter), logits(base))
    (tmp_path / "merged").mkdir()
    with pytest.raises(UsageError, match="head"):
        BACKBONE.save_merged(options(base, adapter), tmp_path / "merged", "float32")
    with pytest.raises(UsageError, match="head"):
        train(base, tmp_path / "full", method="full", adapters=(adapter,))
    assert not list((tmp_path / "merged").iterdir())


@pytest.mark.parametrize("targets", [("linear1", "q_proj"), ("out_proj",), ("block",)])
def test_targets_that_are_no_linears_of_the_net_are_refused_before_training(
    base: Path, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match=targets[-1]) as refused:
        train(base, tmp_path / "out", lora_targets=targets)
    assert "linear1 linear2 out" in refused.value.remedy


def test_a_net_without_linears_is_told_of_full_fine_tuning(tmp_path: Path) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(257, 257)

        def forward(self, ids: Tensor) -> Tensor:
            found: Tensor = self.table(ids)
            return found

    class RowsBackbone(AttendingBackbone):
        name = "rows"

        def net(self, config: Any) -> nn.Module:
            return Rows()

    RowsBackbone().tiny(tmp_path / "base")
    run = sft(tmp_path / "base", tmp_path / "out", samples=0)
    with pytest.raises(UsageError, match="LoRA") as refused:
        RowsBackbone().recipes["lora"].run(DATA, run, Watcher())
    assert "--method full" in refused.value.remedy


@pytest.mark.parametrize("fault", ["wider", "prefix", "zero", "vocabulary"])
def test_an_adapter_that_does_not_fit_is_refused(
    base: Path, adapter: Path, tmp_path: Path, fault: str
) -> None:
    folder, stored = tmp_path / "adapter", load_file(adapter / "adapter_model.safetensors")
    stated = json.loads((adapter / "adapter_config.json").read_text())
    folder.mkdir()
    if fault == "wider":
        stored = {name: torch.cat((matrix, matrix), 1) for name, matrix in stored.items()}
    elif fault == "zero":
        stored = {name: torch.zeros_like(matrix) for name, matrix in stored.items()}
    elif fault == "vocabulary":
        stated["modules_to_save"] = ["embedding"]
        stored["base_model.model.embedding.weight"] = torch.zeros(257, 16)
    else:
        stated, stored = {"peft_type": "PREFIX_TUNING"}, {"prompt_embeddings": torch.zeros(4, 64)}
    save_file(stored, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    with pytest.raises(CheckpointError) as refused:
        BACKBONE.load(options(base, folder))
    assert refused.value.where == str(folder)
    if fault != "zero":  # which takes a pass through the net
        with pytest.raises(CheckpointError):
            BACKBONE.check(options(base, folder))


#: What the kit says of fine-tuning.
PROPERTIES = (
    "test_only_the_answer_is_learned",
    "test_one_example_is_learned_by_heart",
    "test_a_run_that_goes_on_ends_as_one_that_never_stopped",
    "test_fine_tuning_leaves_the_base_alone",
    "test_a_result_holds_safetensors_alone",
    "test_the_result_answers_as_the_model_that_was_trained",
)


def test_the_kit_holds_for_lora_on_the_example() -> None:
    charlm = type(import_example("medchat-charlm").medchat_backbones()[0])
    learner = type("Learner", (charlm,), {"first_method": "lora"})()
    tests = type(
        "Tests", (BackboneTests,), {"backbone": learner, "training": {"learning_rate": 0.1, "num_epochs": 60}}
    )
    found = {result.name: (result.outcome, result.detail) for result in run_properties(tests, PROPERTIES)}
    assert found == dict.fromkeys(PROPERTIES, ("passed", ""))
