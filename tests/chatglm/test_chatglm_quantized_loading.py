"""ChatGLM weights packed to 8 or 4 bits, in files or while loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from chatglm_variants import EMBEDDING, HEAD, load, logits, tensors_of, variant
from checkpoint_files import LAYOUTS
from medchat_chatglm.quantised import QUANTISED_NAMES
from native_engine import EITHER_ENGINE
from refusals import refused

from medchat.errors import UsageError
from medchat.inference.engine import engine_of
from medchat.inference.quantization import quantize_rows

pytest_plugins = ("chatglm_variants",)
pytestmark = pytest.mark.torch


@pytest.mark.parametrize("bits", [8, 4])
def test_quantising_while_loading_gives_the_bytes_of_the_published_form(tiny: Path, bits: int) -> None:
    model = load(tiny, quantize=f"int{bits}", engine="torch").model
    seen = 0
    for name, stored in tensors_of(tiny).items():
        if name.endswith(".weight") and name.split(".")[-2] in QUANTISED_NAMES:
            packed, scale = quantize_rows(stored, bits)
            assert torch.equal(model.get_parameter(name), packed)
            assert torch.equal(model.get_parameter(f"{name}_scale"), scale)
            seen += 1
    assert seen == 4 * model.config.num_layers and model.config.quantization_bit == bits


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
@EITHER_ENGINE
def test_a_quantised_checkpoint_loads_as_it_was_written(
    tiny: Path, tmp_path: Path, bits: int, layout: str, engine: str
) -> None:
    made = load(tiny, quantize=f"int{bits}", engine="torch")
    weights = {name: p.detach() for name, p in made.model.state_dict().items() if name != HEAD}
    folder = variant(tiny, tmp_path / "model", weights, layout, quantization_bit=bits)
    for quantize in ("none", f"int{bits}"):
        loaded = load(folder, quantize=quantize, engine=engine)
        allowed = {"torch": 0.0, "native": 1e-4}[engine]
        found, wanted = logits(loaded.model, loaded.config), logits(made.model, made.config)
        torch.testing.assert_close(found, wanted, atol=allowed, rtol=allowed)
        assert engine_of(loaded.model).startswith(engine)
    other = {8: "int4", 4: "int8"}[bits]
    assert other in refused(lambda: load(folder, quantize=other), UsageError, 2).what


@pytest.mark.parametrize("with_head", [True, False])
def test_a_checkpoint_with_quantised_embeddings_uses_them_as_its_head(
    tiny: Path, tmp_path: Path, with_head: bool
) -> None:
    made = load(tiny, quantize="int4", engine="torch")
    weights = {name: p.detach() for name, p in made.model.state_dict().items() if name != HEAD}
    packed, scale = quantize_rows(tensors_of(tiny)[EMBEDDING], 4)
    weights |= {EMBEDDING: packed, f"{EMBEDDING}_scale": scale}
    if with_head:
        weights |= {HEAD: packed.clone(), f"{HEAD}_scale": scale.clone()}
    folder = variant(tiny, tmp_path / "qe", weights, quantization_bit=4, quantization_embeddings=True)
    model = load(folder, engine="torch").model
    assert model.lm_head.weight is model.transformer.word_embeddings.weight
    expected = logits(made.model, made.config)
    found = logits(model, made.config)
    assert torch.nn.functional.cosine_similarity(expected.flatten(), found.flatten(), dim=0) > 0.97
    # float32 after packing the embedding alone: the rest is the same model
    assert not torch.equal(expected, found)


def test_quantised_weights_without_the_key_are_told_by_their_kind(tiny: Path, tmp_path: Path) -> None:
    weights = {
        name: p.detach()
        for name, p in load(tiny, quantize="int8", engine="torch").model.state_dict().items()
        if name != HEAD
    }
    folder = variant(tiny, tmp_path / "model", weights)
    assert "int8" in refused(lambda: load(folder)).what
