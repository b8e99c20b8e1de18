"""`medchat models show PATH`: what a folder is, which adapters fit it, and that a broken adapter is called so."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from bloom_adapters import write_adapter
from checkpoint_files import poison
from cli_program import Call
from llama_checkpoints import copy, published
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_llama.backbone import LlamaBackbone
from safetensors.torch import load_file, save_file

from medchat.api import Backbone

pytestmark = pytest.mark.torch
pytest_plugins = ("cli_program",)

BACKBONES: Mapping[str, Backbone] = {
    backbone.name: backbone
    for backbone in (LlamaBackbone(), BloomBackbone(), HuoziBackbone(), ChatGLMBackbone())
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) / "base" for name in BACKBONES}
    for name, backbone in BACKBONES.items():
        backbone.tiny(made[name], vocabulary_size=400)
    return made


def without_weights(path: Path, sizes: Mapping[str, tuple[int, ...]]) -> Path:
    """Replace a folder's weights by a sparse file: the header of those `sizes` in float16 and no values."""
    for file in [*path.glob("*.bin*"), *path.glob("*.safetensors*")]:
        file.unlink()
    table, end = {}, 0
    for name, shape in sizes.items():
        start, end = end, end + 2 * math.prod(shape)
        table[name] = {"dtype": "F16", "shape": shape, "data_offsets": (start, end)}
    header = json.dumps(table).encode()
    with (path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    return path


def llama_7b(tiny: Path, target: Path, rows: int) -> Path:
    sizes = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    return without_weights(
        copy(tiny, target, **sizes, vocab_size=rows), {"model.embed_tokens.weight": (rows, 4096)}
    )


def bloom_7b(tiny: Path, target: Path) -> Path:
    path = copy(tiny, target, hidden_size=4096, n_embed=None, n_layer=30, n_head=32, vocab_size=250880)
    return without_weights(path, {"word_embeddings.weight": (250880, 4096)})


# ---------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("name", "generation"),
    [("llama", "LLaMA 1"), ("bloom", "BLOOM"), ("huozi", "1.0"), ("chatglm", "v1.1")],
)
def test_the_generation_has_a_field_of_its_own(
    call: Call, folders: dict[str, Path], name: str, generation: str
) -> None:
    shown = call("models", "show", str(folders[name]), "--json").one()
    assert shown["generation"].startswith(generation) and shown["adapters"] == []
    text = call("models", "show", str(folders[name]), "--lang", "en").out
    assert f"generation: {generation}" in text
    assert "adapters that fit: none known" in text
    assert "配套的适配器：没有已知的" in call("models", "show", str(folders[name])).out


def test_the_two_generations_of_chatglm_are_told_apart(
    call: Call, folders: dict[str, Path], tmp_path: Path
) -> None:
    ChatGLMBackbone().tiny(tmp_path / "v0", generation="v0")  # type: ignore[arg-type]
    shown = call("models", "show", str(tmp_path / "v0"), "--json").one()
    assert shown["generation"].startswith("v0") and shown["family"] == "ChatGLM-6B"


@pytest.mark.parametrize(
    ("family", "rows", "fitting", "foreign"),
    [
        ("llama", 32000, {"lora-llama-med", "lora-llama-literature"}, {"lora-alpaca-med", "lora-huozi-med"}),
        ("llama", 49954, {"lora-alpaca-med", "lora-alpaca-med-alldata"}, {"lora-llama-med"}),
        ("bloom", 250880, {"lora-bloom-med-bloom"}, {"lora-huozi-med"}),
        ("huozi", 250880, {"lora-huozi-med"}, {"lora-bloom-med-bloom"}),
    ],
)
def test_a_7b_folder_names_the_adapters_that_fit(
    call: Call,
    folders: dict[str, Path],
    tmp_path: Path,
    family: str,
    rows: int,
    fitting: set[str],
    foreign: set[str],
) -> None:
    base = folders[family]
    path = llama_7b(base, tmp_path / "7b", rows) if family == "llama" else bloom_7b(base, tmp_path / "7b")
    shown = call("models", "show", str(path), "--json").one()
    assert fitting <= set(shown["adapters"]) and not foreign & set(shown["adapters"])
    line = next(
        line
        for line in call("models", "show", str(path), "--lang", "en").out.splitlines()
        if line.startswith("adapters that fit: ")
    )
    assert all(name in line for name in fitting)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_a_folder_with_a_bad_template_is_shown_with_its_fault_and_asked_nothing(
    call: Call, tmp_path: Path, folders: dict[str, Path], name: str
) -> None:
    folder = copy(folders[name], tmp_path / name, medchat_template="theirs")
    whole = call("models", "show", str(folders[name]), "--json").one()
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    template = {"chat_template": "{{ messages[-1].content }}\n" + loops}
    (folder / "medchat_template.json").write_text(json.dumps(template), encoding="utf-8")
    shown = call("models", "show", str(folder), "--json").one()
    assert shown["template"] is None and "medchat_template.json chat_template:2" in shown["notes"][-1]
    assert {key: shown[key] for key in whole if key not in ("template", "notes", "path")} == {
        key: whole[key] for key in whole if key not in ("template", "notes", "path")
    }
    assert "模板：不能使用" in call("models", "show", str(folder)).out
    outcome = call("ask", "头痛", "--backbone", name, "--model", str(folder))
    assert outcome.code == 2 and "medchat_template.json chat_template:2" in outcome.err


@pytest.mark.parametrize("content", ["", "{", '{"prompt_no_input": 3}', "[]", "\x00", "[" * 5000])
@pytest.mark.parametrize("name", list(BACKBONES))
def test_whatever_its_template_file_holds_a_folder_is_shown(
    call: Call, tmp_path: Path, folders: dict[str, Path], name: str, content: str
) -> None:
    folder = copy(folders[name], tmp_path / name, medchat_template="theirs")
    (folder / "medchat_template.json").write_text(content, encoding="utf-8")
    outcome = call("models", "show", str(folder))
    assert outcome.code == 0 and "medchat_template.json" in outcome.out and "！模板不能使用" in outcome.out


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_a_small_checkpoint_is_sized_in_megabytes(call: Call, folders: dict[str, Path], name: str) -> None:
    for language in ("zh", "en"):
        text = call("models", "show", str(folders[name]), "--lang", language).out
        assert "0.00 GB" not in text and ("MB" in text or "kB" in text)
    assert " tokens" in text
    assert " tokens" not in call("models", "show", str(folders[name])).out


# ---------------------------------------------------------------- adapters


def shown(call: Call, folder: Path) -> tuple[dict[str, object], str, str]:
    """Return the facts as JSON, in Chinese and in English."""
    texts = []
    for flags in (("--json",), (), ("--lang", "en")):
        outcome = call("models", "show", str(folder), *flags)
        assert outcome.code == 0, outcome.err
        texts.append(outcome.out)
    return json.loads(texts[0]), texts[1], texts[2]


def test_a_sound_adapter_has_no_fault_and_its_stated_base_is_not_trusted(call: Call, tmp_path: Path) -> None:
    facts, chinese, english = shown(call, write_adapter(tmp_path / "mine"))
    assert facts["fault"] is None and facts["known_as"] is None
    assert "不能使用" not in chinese and "cannot be used" not in english
    assert "another/machine" in english and "not trusted" in english


@pytest.mark.parametrize("stated", ["", None])
def test_a_base_that_the_file_does_not_state_takes_no_line(
    call: Call, tmp_path: Path, stated: str | None
) -> None:
    facts, chinese, english = shown(call, write_adapter(tmp_path / "mine", base_model_name_or_path=stated))
    assert facts["stated_base"] is None
    assert "底座（未经核实）" not in chinese and "not trusted" not in english
    assert not any(line.endswith((":", "：", "None")) for line in (chinese + english).splitlines())


def to_zero(folder: Path, matrix: str = "lora_B") -> None:
    file = folder / "adapter_model.safetensors"
    tensors = {name: value * 0 if matrix in name else value for name, value in load_file(file).items()}
    save_file(tensors, file)


def to_443_bytes(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"\x80\x02" + bytes(441))


def to_nan(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, file)


def to_half(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors[next(iter(tensors))]
    save_file(tensors, file)


def to_cut(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def to_nothing(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def to_scaling_of_zero(folder: Path) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_alpha": 0}))


FAULTS: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "empty": (to_443_bytes, "443"),
    "all zero": (to_zero, "zero"),
    "first matrix zero": (lambda folder: to_zero(folder, "lora_A"), "zero"),
    "no scaling": (to_scaling_of_zero, "zero"),
    "NaN": (to_nan, "NaN"),
    "a matrix missing": (to_half, "lora_A"),
    "cut": (to_cut, "truncated"),
    "no weights": (to_nothing, "weights"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_adapter_is_shown_as_broken(call: Call, tmp_path: Path, fault: str) -> None:
    breaking, word = FAULTS[fault]
    folder = write_adapter(tmp_path / "mine", safetensors=True)
    breaking(folder)
    facts, chinese, english = shown(call, folder)
    assert word in english.splitlines()[-1] and "cannot be used" in english.splitlines()[-1]
    assert "不能使用" in chinese.splitlines()[-1]
    assert facts["fault"]


def test_a_hostile_adapter_is_shown_as_broken_and_nothing_of_it_runs(call: Call, tmp_path: Path) -> None:
    folder, marker = write_adapter(tmp_path / "mine"), tmp_path / "executed"
    poison(folder / "adapter_model.bin", marker)
    facts, *_ = shown(call, folder)
    assert facts["fault"] and not marker.exists()


def test_show_recognises_an_adapter_as_loading_does(
    call: Call, folders: dict[str, Path], tmp_path: Path
) -> None:
    facts, *_ = shown(call, published(tmp_path / "lora-llama-med", folders["llama"]))
    assert (facts["known_as"], facts["template"], facts["backbone"]) == (
        "lora-llama-med",
        "med_template",
        "llama",
    )
    assert "llama-7b" in facts["fits"]  # type: ignore[operator]
    # Under a published name, but of another size: somebody's own, to loading as to `show`.
    facts, chinese, english = shown(call, write_adapter(tmp_path / "lora-bloom-med-bloom"))
    assert facts["known_as"] is None and facts["fits"] == []
    assert "未知" in chinese and "unknown" in english


def test_another_kind_of_adapter_is_described_without_a_verdict(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "prefix"
    folder.mkdir()
    config = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"prompt_embeddings": torch.ones(4, 8)}, folder / "adapter_model.safetensors")
    facts, *_ = shown(call, folder)
    assert facts["method"] == "PREFIX_TUNING" and facts["fault"] is None


def test_the_memory_at_each_precision_stands_apart(call: Call, folders: dict[str, Path]) -> None:
    for language, mark in (("zh", "；"), ("en", "; ")):
        (line,) = [
            line
            for line in call("--lang", language, "models", "show", str(folders["chatglm"])).out.splitlines()
            if line.startswith(("加载所需内存", "memory to load"))
        ]
        parts = re.split("[：:] ?", line, maxsplit=1)[1].split(mark)
        assert len(parts) >= 4 and all(re.fullmatch(r"\w+ [\d.]+ [GM]iB", part) for part in parts), line


# ---------------------------------------------------------------- files that are passed over

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 14000000000\n"
INDEX = b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("model.safetensors", POINTER, "git-lfs"),
        ("model.safetensors", b"", "空文件"),
        ("model.safetensors", b"<!DOCTYPE html><html>404", "网页"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{", ""),
        ("model.safetensors.index.json", INDEX, "缺少分片"),
        ("model.safetensors.index.json", b"{", ""),
    ],
)
def test_what_is_passed_over_for_another_set_is_named_with_the_reason(
    call: Call, tmp_path: Path, folders: dict[str, Path], file: str, content: bytes, why: str
) -> None:
    folder = copy(folders["chatglm"], tmp_path / "m")
    assert not list(folder.glob("*.safetensors*"))
    (folder / file).write_bytes(content)
    notes = call("models", "show", str(folder), "--json").one()["notes"]
    (note,) = [note for note in notes if file in note or "分片" in note]
    assert why in note and "改用 pytorch_model" in note
    assert f"！{note}" in call("models", "show", str(folder)).out


def test_so_it_is_of_an_adapter(call: Call, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").write_bytes(POINTER)
    outcome = call("models", "show", str(folder), "--json").one()
    assert outcome["fault"] is None
    assert [note for note in outcome["notes"] if "git-lfs" in note and "adapter_model.bin" in note]
    assert "git-lfs" in call("models", "show", str(folder)).out
