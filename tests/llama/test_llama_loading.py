"""Loading LLaMA checkpoints in every published layout, what is refused, and how they chat."""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_checkpoints import copy, load, logits, with_pieces
from locations import SHARED
from medchat_llama.backbone import LlamaBackbone
from medchat_llama.loading import LLAMA
from medchat_llama.tiny import STYLES, write_tiny_llama
from native_engine import EITHER_ENGINE, round_head, rounded
from refusals import refused
from transformers import LlamaForCausalLM

from medchat.api import LoadOptions
from medchat.errors import UsageError
from medchat.inference.write_checkpoint import LAYOUTS

pytestmark = pytest.mark.torch

SEEDS = Path(os.environ.get("MEDCHAT_GOLDENS", SHARED / "goldens")) / "seed-stack"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "tiny"
    write_tiny_llama(path)
    return path


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_to_the_same_logits(tiny: Path, tmp_path: Path, layout: str, style: str) -> None:
    write_tiny_llama(tmp_path / "other", layout=layout, style=style)
    torch.testing.assert_close(
        logits(load(tmp_path / "other").model), logits(load(tiny).model), atol=0, rtol=0
    )


def test_the_logits_are_those_of_the_librarys_own_loader(tmp_path: Path) -> None:
    """The repaired layout is one that transformers reads itself: another road to the same weights."""
    write_tiny_llama(tmp_path / "repaired", style="repaired", layout="safetensors")
    library = LlamaForCausalLM.from_pretrained(tmp_path / "repaired", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(load(tmp_path / "repaired").model), logits(library))


def test_the_wrong_ids_of_the_first_conversion_are_repaired_everywhere(tiny: Path) -> None:
    stated = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    assert (stated["bos_token_id"], stated["eos_token_id"], stated["pad_token_id"]) == (0, 1, -1)
    loaded = load(tiny)
    for holder in (loaded.tokenizer, loaded.model.config, loaded.model.generation_config):
        assert (holder.bos_token_id, holder.eos_token_id, holder.pad_token_id) == (1, 2, 0)
    assert loaded.tokenizer.id_of("<unk>") == 0


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"max_sequence_length": 512}, 512),
        ({"max_sequence_length": None, "max_position_embeddings": 1024}, 1024),
        ({"max_sequence_length": 2048, "max_position_embeddings": 512}, 2048),
        ({"max_sequence_length": None}, 2048),
    ],
)
def test_the_context_length_is_read_under_either_name(
    tiny: Path, tmp_path: Path, keys: dict[str, Any], expected: int
) -> None:
    path = copy(tiny, tmp_path / "m", **keys)
    assert LLAMA.chat(LoadOptions(path, device="cpu")).context_length == expected


@pytest.mark.parametrize("keys", [{"rope_theta": 500.0}, {"rope_parameters": {"rope_theta": 500.0}}])
def test_the_base_of_the_rotation_is_kept_whichever_key_holds_it(
    tiny: Path, tmp_path: Path, keys: dict[str, Any]
) -> None:
    loaded = load(copy(tiny, tmp_path / "m", **keys))
    assert loaded.shape.rope_theta == 500.0
    assert not torch.allclose(logits(loaded.model), logits(load(tiny).model), atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_take_the_dtype_asked_for_and_frequencies_stay_exact(tiny: Path, dtype: str) -> None:
    loaded = load(tiny, dtype=dtype)
    assert {str(parameter.dtype) for parameter in loaded.model.parameters()} == {f"torch.{dtype}"}
    assert loaded.model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert not any(buffer.is_meta for buffer in loaded.model.buffers())


def test_a_config_that_still_states_the_rows_before_a_merge_loads_with_a_note(
    tiny: Path, tmp_path: Path
) -> None:
    loaded = load(copy(tiny, tmp_path / "m", vocab_size=32))
    assert loaded.model.config.vocab_size == load(tiny).model.config.vocab_size
    assert any("32" in note for note in loaded.notes)


@pytest.mark.parametrize(("quantize", "bits"), [("int8", 8), ("int4", 4)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@EITHER_ENGINE
def test_quantising_on_the_way_in_gives_the_logits_of_weights_rounded_by_hand(
    tiny: Path, quantize: str, bits: int, dtype: str, engine: str
) -> None:
    dense = load(tiny, dtype="float32").model
    with torch.no_grad():
        for layer in dense.model.layers:
            for name, linear in layer.named_modules():
                if name.endswith("_proj"):
                    linear.weight.copy_(rounded(linear.weight.half(), bits, engine))
    round_head(dense, bits, engine)
    packed_model = load(tiny, quantize=quantize, dtype=dtype, engine=engine).model
    assert not torch.allclose(logits(dense), logits(load(tiny).model), atol=1e-6, rtol=0)
    allowed = {"torch": 1e-5, "native": 1e-4}[engine] if dtype == "float32" else 2e-2
    torch.testing.assert_close(logits(packed_model).float(), logits(dense), atol=allowed, rtol=allowed)
    integers = [weight for weight in packed_model.parameters() if not weight.is_floating_point()]
    assert len(integers) == 7 * packed_model.config.num_hidden_layers + (engine == "native")


def test_an_unknown_width_is_refused(tiny: Path) -> None:
    assert "int8" in refused(lambda: load(tiny, quantize="int3"), UsageError, 2).remedy


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "keys",
    [
        {"num_hidden_layers": 3},
        {"hidden_size": 128},
        {"hidden_size": "64"},
        {"hidden_size": True},
        {"num_attention_heads": 3},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 3},
        {"intermediate_size": 2**40},
        {"intermediate_size": None},
        {"rms_norm_eps": 2.0},
        {"rms_norm_eps": "1e-6"},
        {"rope_theta": -1},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}},
        {"rope_scaling": 7},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"head_dim": 64},
        {"tie_word_embeddings": "no"},
        {"model_type": "mistral"},
        {"model_type": None},
    ],
    ids=lambda keys: "-".join(f"{key}={value}"[:40] for key, value in keys.items()),
)
def test_a_config_of_no_llama_or_of_other_weights_is_refused_by_name(
    tiny: Path, tmp_path: Path, keys: dict[str, Any]
) -> None:
    path = copy(tiny, tmp_path / "m", **keys)
    error = refused(lambda: load(path))
    assert str(path) in error.where


def test_values_that_would_choose_code_never_reach_the_library(tiny: Path, tmp_path: Path) -> None:
    path = copy(
        tiny,
        tmp_path / "m",
        _attn_implementation="somebody/kernel",
        attn_implementation="somebody/kernel",
        auto_map={"AutoModelForCausalLM": "modeling.Evil"},
        quantization_config={"quant_method": "evil"},
    )
    torch.testing.assert_close(logits(load(path).model), logits(load(tiny).model))


@pytest.mark.parametrize("added", [1, -65])
def test_a_vocabulary_of_other_weights_is_refused_naming_both(tiny: Path, tmp_path: Path, added: int) -> None:
    path = with_pieces(copy(tiny, tmp_path / "m"), added)
    rows = load(tiny).tokenizer.size
    error = refused(lambda: load(path))
    assert str(path / "tokenizer.model") in error.what
    assert str(rows) in error.what and str(rows + added) in error.what


def test_a_few_rows_more_than_pieces_are_a_published_habit(tiny: Path, tmp_path: Path) -> None:
    path = with_pieces(copy(tiny, tmp_path / "m"), -2)
    torch.testing.assert_close(logits(load(path).model), logits(load(tiny).model))


@pytest.mark.skipif(not (SEEDS / "alpaca").is_dir(), reason=f"no recorded checkpoints at {SEEDS}")
@pytest.mark.parametrize(
    ("weights", "vocabulary", "numbers"),
    [
        ("llama", "chinese-alpaca", ("32000", "49954")),
        ("llama", "chinese-llama", ("32000", "49953")),
        ("alpaca", "llama", ("49954", "32000")),
        ("alpaca", "chinese-llama", ("49954", "49953")),
    ],
)
def test_the_published_vocabularies_are_told_apart(
    tmp_path: Path, weights: str, vocabulary: str, numbers: tuple[str, str]
) -> None:
    path = tmp_path / "m"
    shutil.copytree(SEEDS / weights / "base", path, copy_function=shutil.copyfile)
    path.chmod(0o700)
    shutil.copyfile(SHARED / "tokenizers" / vocabulary / "tokenizer.model", path / "tokenizer.model")
    error = refused(lambda: load(path))
    assert str(path / "tokenizer.model") in error.what and all(number in error.what for number in numbers)
    card = LlamaBackbone().inspect(path)
    assert card is not None and any(numbers[1] in note for note in card.notes)


def test_a_missing_vocabulary_is_refused(tiny: Path, tmp_path: Path) -> None:
    path = copy(tiny, tmp_path / "m")
    (path / "tokenizer.model").unlink()
    assert "tokenizer.model" in refused(lambda: load(path)).remedy


# ---------------------------------------------------------------- what the folder is


def test_the_card_says_what_the_folder_holds(tiny: Path) -> None:
    card, loaded = LlamaBackbone().inspect(tiny), load(tiny)
    assert card is not None
    assert (card.backbone, card.family, card.template) == ("llama", "LLaMA", "ori_template")
    assert card.parameters == loaded.model.num_parameters()
    assert (card.vocab_size, card.layers, card.hidden_size) == (loaded.tokenizer.size, 2, 64)
    assert (card.dtypes, card.context_length) == (("float16",), 2048)
    assert card.weight_bytes == 2 * card.parameters


def test_a_7b_card_names_the_adapters_that_fit(tiny: Path, tmp_path: Path) -> None:
    """A sparse file: the header of 13.5 GB of weights and no weights."""
    config = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    path = copy(tiny, tmp_path / "m", **config, num_attention_heads=32, vocab_size=32000)
    for file in path.glob("*.bin*"):
        file.unlink()
    sizes = {"model.embed_tokens": (32000, 4096), "lm_head": (32000, 4096), "model.norm": (4096,)}
    for layer in range(32):
        inner = {"gate_proj": (11008, 4096), "up_proj": (11008, 4096), "down_proj": (4096, 11008)}
        sizes |= {f"model.layers.{layer}.self_attn.{name}_proj": (4096, 4096) for name in "qkvo"}
        sizes |= {f"model.layers.{layer}.mlp.{name}": shape for name, shape in inner.items()}
        norms = ("input_layernorm", "post_attention_layernorm")
        sizes |= {f"model.layers.{layer}.{name}": (4096,) for name in norms}
    table, end = {}, 0
    for name, shape in sizes.items():
        start, end = end, end + 2 * math.prod(shape)
        table[f"{name}.weight"] = {"dtype": "F16", "shape": shape, "data_offsets": (start, end)}
    header = json.dumps(table).encode()
    with (path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    card = LlamaBackbone().inspect(path)
    assert card is not None
    assert (card.family, card.parameters) == ("LLaMA-7B", 6_738_415_616)
    assert "lora-llama-med" in card.adapters and "lora-alpaca-med" not in card.adapters
    assert any("32000" in note for note in card.notes)  # the tiny vocabulary is not its own


@pytest.mark.parametrize("keys", [{"model_type": "bloom"}, {"model_type": None}])
def test_a_folder_of_another_family_is_none_of_ours(tiny: Path, tmp_path: Path, keys: dict[str, Any]) -> None:
    assert LlamaBackbone().inspect(copy(tiny, tmp_path / "m", **keys)) is None
    assert LlamaBackbone().inspect(tmp_path) is None


# ---------------------------------------------------------------- miniatures


def test_a_miniature_is_the_same_twice_and_another_with_another_seed(tiny: Path, tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "same")
    write_tiny_llama(tmp_path / "other", seed=1)
    torch.testing.assert_close(logits(load(tmp_path / "same").model), logits(load(tiny).model))
    assert not torch.equal(logits(load(tmp_path / "other").model), logits(load(tiny).model))


def test_a_miniature_has_the_faults_of_the_first_conversion(tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((tiny / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LLaMAForCausalLM"]
    assert "max_position_embeddings" not in config
    assert (tokenizer["tokenizer_class"], tokenizer["bos_token"]) == ("LLaMATokenizer", "")
    index = json.loads((tiny / "pytorch_model.bin.index.json").read_text(encoding="utf-8"))
    assert any(name.endswith("rotary_emb.inv_freq") for name in index["weight_map"])


@pytest.mark.parametrize(
    "wrong",
    [{"hidden_size": 30}, {"num_hidden_layers": 0}, {"vocabulary_size": 20}, {"style": "x"}, {"layout": "x"}],
)
def test_an_impossible_miniature_is_refused_and_leaves_nothing(tmp_path: Path, wrong: dict[str, Any]) -> None:
    refused(lambda: write_tiny_llama(tmp_path / "m", **wrong), UsageError, 2)
    assert not (tmp_path / "m").exists()


def test_closing_frees_the_weights(tiny: Path) -> None:
    chat = LLAMA.chat(LoadOptions(tiny, device="cpu"))
    weight = weakref.ref(chat.model.lm_head.weight)
    chat.close()
    gc.collect()
    assert weight() is None


def test_importing_and_inspecting_import_neither_torch_nor_transformers(tiny: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import medchat_llama.plugin as plugin;"
        "from medchat.api import LoadOptions;"
        "(b,) = plugin.medchat_backbones(); b.summary, b.known_weights, b.generation, b.load_keys;"
        "print(*{'torch', 'transformers', 'sentencepiece', 'numpy'} & set(sys.modules));"
        f"path = Path({str(tiny)!r}); b.inspect(path), b.template(LoadOptions(path)), plugin.medchat_templates();"
        "print(*{'torch', 'transformers'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert found.stdout.split() == []
