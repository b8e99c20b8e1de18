"""A path that is not what was requested is answered with what it is, or where that lies, and what to type."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from refusals import refused

from medchat.checkpoints.adapter_folder import open_adapter
from medchat.checkpoints.elsewhere import file_given, other_than_asked
from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint, read_config, unrecognised

SHOW = "medchat models show"


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def adapter(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return folder


OPEN: dict[str, Callable[[Path], object]] = {"--model": read_config, "--adapter": open_adapter}
MAKE = {"--model": model, "--adapter": adapter}


@pytest.mark.parametrize("below", ["llama-7b", "my models/llama 7b", "a/b", "a/b/c"])
@pytest.mark.parametrize("flag", OPEN)
def test_what_lies_one_to_three_levels_down_is_named_with_the_command(
    tmp_path: Path, flag: str, below: str
) -> None:
    made = MAKE[flag](tmp_path / "given" / below)
    error = refused(lambda: OPEN[flag](tmp_path / "given"))
    assert error.remedy == f"use: {flag} {shlex.quote(str(made))}"
    assert below in error.what and error.where == str(tmp_path / "given")


@pytest.mark.parametrize("flag", OPEN)
def test_four_levels_down_is_too_far(tmp_path: Path, flag: str) -> None:
    MAKE[flag](tmp_path / "given/a/b/c/d")
    assert "a/b/c" not in refused(lambda: OPEN[flag](tmp_path / "given")).remedy


@pytest.mark.parametrize("given", ["hub/models--o--n", "hub", "hub/models--o--n/snapshots"])
def test_in_a_hub_cache_the_commit_of_main_is_named(tmp_path: Path, given: str) -> None:
    repository = tmp_path / "hub/models--o--n"
    for commit in ("aaa", "bbb", "ccc"):
        model(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("bbb\n")
    (repository / "blobs").mkdir()
    error = refused(lambda: read_config(tmp_path / given))
    assert error.where and error.remedy == f"use: --model {repository / 'snapshots' / 'bbb'}"
    assert "2 more" in error.what


@pytest.mark.parametrize("flag", OPEN)
def test_of_several_checkpoints_the_last_step_is_named(tmp_path: Path, flag: str) -> None:
    for step in (500, 1000, 90):
        MAKE[flag](tmp_path / f"checkpoint-{step}")
    error = refused(lambda: OPEN[flag](tmp_path))
    assert error.remedy.endswith("checkpoint-1000") and "checkpoint-500" in error.what


def test_a_checkpoint_of_the_ptuning_script_is_named_as_adapter(tmp_path: Path) -> None:
    model(tmp_path / "out" / "checkpoint-3000")
    error = refused(lambda: open_adapter(tmp_path / "out"))
    assert error.where and error.remedy == f"use: --adapter {tmp_path / 'out' / 'checkpoint-3000'}"


def test_the_wrong_flag_is_answered_with_the_right_one(tmp_path: Path) -> None:
    whole, lora = model(tmp_path / "whole"), adapter(tmp_path / "lora")
    assert refused(lambda: open_adapter(whole)).remedy == f"use: --model {whole}"
    assert refused(lambda: read_config(lora)).remedy == f"use: --model BASE --adapter {lora}"
    assert refused(lambda: open_adapter(tmp_path)).remedy == f"use: --adapter {lora}"
    (lora / "adapter_config.json").unlink()
    assert refused(lambda: open_adapter(tmp_path)).remedy == f"use: --model {whole}"


def test_models_show_is_told_in_its_own_words(tmp_path: Path) -> None:
    lora = adapter(tmp_path / "out" / "lora")
    found = other_than_asked(tmp_path / "out", SHOW)
    assert found is not None and found.remedy.endswith(f"{SHOW} {lora}") and "适配器" in found.what
    whole = model(tmp_path / "models" / "whole")
    found = other_than_asked(tmp_path / "models", SHOW)
    assert found is not None and found.remedy.endswith(f"{SHOW} {whole}") and "适配器" not in found.what


def test_a_folder_of_which_nothing_is_known_is_left_to_the_plain_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "optimizer.pt").write_bytes(b"x")
    assert other_than_asked(tmp_path, "--model") is None
    assert other_than_asked(tmp_path / "absent", "--adapter") is None


def test_a_tree_of_any_size_is_looked_at_only_in_part(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:04d}" / "deeper").mkdir(parents=True)
    model(tmp_path / "zz")  # behind more folders than are looked into
    before = time.monotonic()
    assert other_than_asked(tmp_path, "--model") is None
    (tmp_path / "0" / "loop").parent.mkdir()
    (tmp_path / "0" / "loop").symlink_to(tmp_path)
    other_than_asked(tmp_path, "--model")
    assert time.monotonic() - before < 2


def test_a_kind_of_model_that_no_plugin_knows_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mixtral"}')
    for flag in ("--model", SHOW):
        found = unrecognised(tmp_path, flag)
        assert found is not None and "mixtral" in found.what and "--backbone remote" in found.remedy
        assert "medchat plugins new" in found.remedy and "--family transformers" in found.remedy


def test_a_vocabulary_alone_is_no_model_for_lack_of_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    found = unrecognised(tmp_path, "--model")
    assert found is not None and "config.json" in found.what
    assert unrecognised(tmp_path, SHOW) is None, "an adapter has none"


# ---------------------------------------------------------------- weights of other programs

FOREIGN = {
    "llama-7b.Q4_K_M.gguf": ("GGUF", "llama-server -m"),
    "ggml-model-q4_0.bin": ("llama.cpp", "--backbone remote"),
    "consolidated.00.pth": ("Meta", "convert_llama_weights_to_hf.py"),
    "zero_to_fp32.py": ("DeepSpeed", "zero_to_fp32.py"),
    "__0_0.distcp": ("FSDP", "accelerate merge-weights"),
    "quantize_config.json": ("GPTQ", "--quantize"),
    "gptq_model-4bit-128g.safetensors": ("GPTQ", "--quantize"),
    "llama-7b-4bit-128g.pt": ("GPTQ", "--quantize"),
    "model.onnx": ("ONNX", "safetensors"),
    "weights.npz": ("MLX", "safetensors"),
    "tf_model.h5": ("TensorFlow", "safetensors"),
    "flax_model.msgpack": ("Flax", "safetensors"),
    "openvino_model.xml": ("OpenVINO", "safetensors"),
    "llama.engine": ("TensorRT", "safetensors"),
    "chatglm-6b.zip": ("archive", "unzip"),
    "chatglm-6b.tar.gz": ("archive", "tar -xf"),
    "pytorch_model.bin.incomplete": ("not finished", "download"),
    "model.safetensors.aria2": ("not finished", "download"),
    "RWKV-4-World-7B.pth": ("another program", "safetensors"),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("where", ["as file", "in its folder", "one level down"])
def test_weights_of_another_program_are_called_so_with_the_way_on(
    tmp_path: Path, name: str, where: str
) -> None:
    kind, way = FOREIGN[name]
    file = tmp_path / "given" / ("" if where != "one level down" else "deeper") / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\x01\x02\x03\x04" * 60)
    given = file if where == "as file" else tmp_path / "given"
    error = refused(lambda: read_config(given))
    assert kind in error.what and name in error.what and way in error.remedy
    assert error.where == str(file)


@pytest.mark.parametrize("start", [b"GGUF", b"lmgg", b"tjgg", b"fmgg", b"algg"])
def test_a_file_of_llama_cpp_is_known_by_its_first_bytes_whatever_its_name(
    tmp_path: Path, start: bytes
) -> None:
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(start + bytes(200))
    assert "GGUF" in refused(lambda: read_headers(open_checkpoint(tmp_path))).what
    assert "GGUF" in refused(lambda: read_config(file)).what


def test_any_other_file_is_answered_with_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(b"PK\x03\x04")
    for flag in ("--model", "--adapter", SHOW):
        assert file_given(file, flag).remedy.endswith(f"{flag} {tmp_path}")


@pytest.mark.parametrize("method", ["gptq", "awq", "AWQ", "exl2", "hqq", "aqlm", "fp8", "compressed-tensors"])
def test_weights_that_config_json_calls_quantised_are_refused_by_that_name(
    tmp_path: Path, method: str
) -> None:
    stated = {"model_type": "llama", "quantization_config": {"quant_method": method, "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    error = refused(lambda: read_config(tmp_path))
    assert method.lower().replace("-", "") in error.what.lower().replace("-", "")
    assert "--quantize" in error.remedy and "--backbone remote" in error.remedy


def test_mlx_and_plain_configurations_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization": {"group_size": 64, "bits": 4}}')
    assert "MLX" in refused(lambda: read_config(tmp_path)).what
    for plain in (
        {"quantization_bit": 4},  # ChatGLM's own
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},  # merged back
        {"quantization_config": None},
        {"quantization_config": {"quant_method": ["gptq"]}},
    ):
        (tmp_path / "config.json").write_text(json.dumps(plain))
        assert read_config(tmp_path) == plain


@pytest.mark.parametrize(
    ("name", "dtype", "method"),
    [
        ("model.layers.0.mlp.up_proj.qweight", "I32", "GPTQ"),
        ("model.layers.0.mlp.up_proj.q_weight", "I32", "EXL2"),
        ("model.layers.0.mlp.up_proj.SCB", "F32", "bitsandbytes"),
        ("model.layers.0.mlp.up_proj.weight.absmax", "U8", "bitsandbytes"),
        ("model.layers.0.mlp.up_proj.weight", "U32", "MLX"),
        ("model.layers.0.mlp.up_proj.weight", "F8_E4M3", "FP8"),
    ],
)
def test_weights_whose_tensors_are_packed_are_refused_by_that_name(
    tmp_path: Path, name: str, dtype: str, method: str
) -> None:
    size = {"I32": 4, "F32": 4, "U8": 1, "U32": 4, "F8_E4M3": 1}[dtype]
    table = json.dumps({name: {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, 4 * size]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(table).to_bytes(8, "little") + table + bytes(4 * size))
    assert method in refused(lambda: read_headers(open_checkpoint(tmp_path))).what


def test_a_configuration_beside_another_programs_weights_changes_nothing(tmp_path: Path) -> None:
    model(tmp_path / "given")
    for name, kind in (
        ("gptq_model-4bit-128g.safetensors", "GPTQ"),
        ("q4.gguf", "GGUF"),
        ("model.onnx", "ONNX"),
    ):
        file = tmp_path / "given" / name
        file.write_bytes(b"\x01" * 100)
        assert kind in refused(lambda: open_checkpoint(tmp_path / "given")).what
        file.unlink()
