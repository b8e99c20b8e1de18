"""`Backbone.save_merged`: a whole checkpoint that computes what base and adapters compute together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bloom_adapters import write_adapter
from chatglm_variants import load, variant
from medchat_bloom.backbone import BloomBackbone
from safetensors.torch import load_file, save_file
from talking_miniatures import FAMILIES
from transformers import AutoModelForCausalLM

from medchat.api import Backbone, LoadOptions
from medchat.checkpoints.adapter_folder import open_adapter
from medchat.errors import UsageError
from medchat.inference.adapters.linears import linear_sizes

pytest_plugins = ("chatglm_variants", "talking_miniatures")
pytestmark = pytest.mark.torch

IDS = list(range(5, 29))


def logits(backbone: Backbone, folder: Path, *adapters: Path) -> torch.Tensor:
    loaded: object = backbone.load(LoadOptions(folder, adapters=adapters, device="cpu", dtype="float32"))
    return logits_of(loaded.model)  # type: ignore[attr-defined]


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.tensor([IDS])
    trial = getattr(model, "config", None)
    if trial is not None and trial.model_type == "chatglm":
        ids = torch.tensor([[*IDS, trial.gmask_token_id, trial.bos_token_id]])
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


def lora_for(backbone: Backbone, base: Path, folder: Path, *, seed: int, targets: int = 2) -> Path:
    """Write LoRA matrices over the first linears of every layer of `base`."""
    model = backbone.load(LoadOptions(base, device="cpu", dtype="float32")).model  # type: ignore[attr-defined]
    random = torch.Generator().manual_seed(seed)
    tensors, named = {}, []
    for name, module in model.named_modules():
        sizes = linear_sizes(module)
        leaf = name.rpartition(".")[2]
        if sizes is None or leaf == "lm_head" or (leaf not in named and len(named) == targets):
            continue
        named = list(dict.fromkeys([*named, leaf]))
        outputs, inputs = sizes[:2]
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(4, inputs, generator=random) * 0.3
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(outputs, 4, generator=random) * 0.3
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    stated = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": named, "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(stated), encoding="utf-8")
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_checkpoint_computes_what_its_parts_do(family: str, tmp_path: Path) -> None:
    backbone = FAMILIES[family]
    base, merged = tmp_path / "base", tmp_path / "merged"
    backbone.tiny(base)
    adapters = [lora_for(backbone, base, tmp_path / f"lora{number}", seed=number) for number in range(2)]
    merged.mkdir()
    backbone.save_merged(LoadOptions(base, adapters=tuple(adapters)), merged, "float32")

    alone = logits(backbone, base)
    together, whole = logits(backbone, base, *adapters), logits(backbone, merged)
    assert (together - alone).abs().max() > 0.1
    torch.testing.assert_close(whole, together, rtol=0, atol=1e-4)
    assert (
        backbone.template(LoadOptions(merged)).name
        == backbone.template(LoadOptions(base, adapters=tuple(adapters))).name
    )
    if family != "chatglm":  # whose architecture is not the library's
        plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
        torch.testing.assert_close(logits_of(plain), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_rounds_each_sum_once(dtype: str, tmp_path: Path) -> None:
    """Not the base to half and then the sum, and not one rounding an adapter."""
    backbone, base, merged = BloomBackbone(), tmp_path / "base", tmp_path / "merged"
    backbone.tiny(base, layout="safetensors")
    adapters = [write_adapter(tmp_path / f"lora{seed}", seed=seed) for seed in (1, 2)]
    merged.mkdir()
    backbone.save_merged(LoadOptions(base, adapters=tuple(adapters)), merged, dtype)

    name = "transformer.h.0.self_attention.query_key_value.weight"
    stored = load_file(base / "model.safetensors")
    exact = stored[name if name in stored else name.removeprefix("transformer.")].double()
    for adapter in adapters:
        matrices = torch.load(adapter / "adapter_model.bin")
        module = f"base_model.model.{name.removesuffix('.weight')}"
        scale = open_adapter(adapter).settings["lora_alpha"] / 4  # type: ignore[union-attr]
        exact += (
            scale
            * matrices[f"{module}.lora_B.weight"].double()
            @ matrices[f"{module}.lora_A.weight"].double()
        )
    written = load_file(merged / "model.safetensors")[name]
    assert written.dtype is getattr(torch, dtype)
    off = (written.double() - exact.to(written.dtype).double()).abs() > 0
    assert off.double().mean() < 0.01  # where the float32 sum lies on the other side of a tie


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_in_half_precision_is_the_sum_in_float32_rounded(family: str, tmp_path: Path) -> None:
    """Every tensor to the bit, so that a merged checkpoint is no further off than its precision makes it."""
    backbone, base = FAMILIES[family], tmp_path / "base"
    backbone.tiny(base, layout="safetensors")
    adapters = tuple(lora_for(backbone, base, tmp_path / f"lora{number}", seed=number) for number in range(2))
    written = {}
    for dtype in ("float32", "bfloat16"):
        (tmp_path / dtype).mkdir()
        backbone.save_merged(LoadOptions(base, adapters=adapters), tmp_path / dtype, dtype)
        written[dtype] = load_file(tmp_path / dtype / "model.safetensors")
    assert written["float32"].keys() == written["bfloat16"].keys()
    for name, exact in written["float32"].items():
        assert torch.equal(written["bfloat16"][name], exact.bfloat16()), name


@pytest.mark.slow
def test_rounding_to_half_precision_changes_the_digits_of_logits_that_the_page_names(
    talkative: Callable[[str], Path], tmp_path: Path
) -> None:
    """docs/export.md, "merge": the largest difference over all logits of some tokens, and the root mean square."""
    backbone, base = FAMILIES["llama"], talkative("llama")
    adapter = lora_for(backbone, base, tmp_path / "lora", seed=3)
    apart = logits(backbone, base, adapter)
    assert float(apart.abs().max()) == pytest.approx(10.6, abs=0.1)
    found = {}
    for dtype in ("float16", "bfloat16"):
        (tmp_path / dtype).mkdir()
        backbone.save_merged(LoadOptions(base, adapters=(adapter,)), tmp_path / dtype, dtype)
        off = logits(backbone, tmp_path / dtype) - apart
        found[dtype] = (float(off.abs().max()), float(off.square().mean().sqrt()))
    assert found == {
        "float16": pytest.approx((0.041, 0.0046), rel=0.2),
        "bfloat16": pytest.approx((0.64, 0.057), rel=0.2),
    }


def test_an_adapter_over_a_tied_head_unties_it(tmp_path: Path) -> None:
    backbone, base, merged = BloomBackbone(), tmp_path / "base", tmp_path / "merged"
    backbone.tiny(base)
    adapter = tmp_path / "lora"
    adapter.mkdir()
    rows = backbone.inspect(base).vocab_size  # type: ignore[union-attr]
    torch.manual_seed(3)
    matrices = {"lora_A": torch.randn(4, 64) * 0.3, "lora_B": torch.randn(rows, 4) * 0.3}
    save_file(
        {f"base_model.model.lm_head.{name}.weight": value for name, value in matrices.items()},
        adapter / "adapter_model.safetensors",
    )
    stated = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["lm_head"]}
    (adapter / "adapter_config.json").write_text(json.dumps(stated), encoding="utf-8")
    merged.mkdir()
    backbone.save_merged(LoadOptions(base, adapters=(adapter,)), merged, "float32")
    torch.testing.assert_close(logits(backbone, merged), logits(backbone, base, adapter), rtol=0, atol=1e-4)


def test_a_sum_out_of_range_is_refused(tmp_path: Path) -> None:
    backbone, base, merged = BloomBackbone(), tmp_path / "base", tmp_path / "merged"
    backbone.tiny(base)
    adapter = write_adapter(tmp_path / "lora", scale=1e6)
    merged.mkdir()
    with pytest.raises(UsageError, match="float16"):
        backbone.save_merged(LoadOptions(base, adapters=(adapter,)), merged, "float16")
    assert not (merged / "config.json").exists()


def test_quantised_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    made, merged = load(tiny, quantize="int8", engine="torch"), tmp_path / "merged"
    weights = {
        name: value.detach() for name, value in made.model.state_dict().items() if name != "lm_head.weight"
    }
    base = variant(tiny, tmp_path / "base", weights, quantization_bit=8)
    merged.mkdir()
    with pytest.raises(UsageError, match="量化"):
        FAMILIES["chatglm"].save_merged(LoadOptions(base), merged, "float16")
