"""How often a command opens a file of a model's or an adapter's folder: once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from method_runs import base
from open_counts import count_opens
from sft_arguments import data

from medchat.checkpoints import read_once as module
from medchat.checkpoints.json_object import read_json_object
from medchat.checkpoints.layout import open_checkpoint, read_config
from medchat.checkpoints.read_once import file_bytes, read_once

FAMILIES = ("llama", "bloom", "huozi", "chatglm")
#: A whole run each: Bloom and Huozi share their loader with LLaMA, and are run with the slow tests.
WHOLE_RUNS = [
    pytest.param(family, marks=pytest.mark.slow) if family in ("bloom", "huozi") else family
    for family in FAMILIES
]
#: Where LoRA is attached to in each family: the linear of layer N and its (outputs, inputs).
LINEARS: Mapping[str, tuple[str, int, int]] = {
    "llama": ("model.layers.{}.self_attn.q_proj", 64, 64),
    "bloom": ("transformer.h.{}.self_attention.query_key_value", 192, 64),
    "huozi": ("transformer.h.{}.self_attention.query_key_value", 192, 64),
    "chatglm": ("transformer.layers.{}.attention.query_key_value", 192, 64),
}
PAIRS = [(f"第{number}个问题：头痛怎么办？", "多休息，多喝水。") for number in range(40)]
ONE = ("--device", "cpu", "--backbone")


def adapter(family: str, folder: Path) -> Path:
    """Write a LoRA folder for the family's miniature."""
    name, outputs, inputs = LINEARS[family]
    random = torch.Generator().manual_seed(3)
    tensors = {}
    for layer in range(2):
        prefix = f"base_model.model.{name.format(layer)}"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(4, inputs, generator=random)
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(outputs, 4, generator=random)
    folder.mkdir(parents=True)
    torch.save(tensors, folder / "adapter_model.bin")
    stated = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": [name.rpartition(".")[2]]}
    (folder / "adapter_config.json").write_text(json.dumps(stated), encoding="utf-8")
    return folder


def of_folder(counts: Mapping[str, int], folder: Path) -> dict[str, int]:
    """Return the counts of the files in `folder`."""
    home = str(folder.resolve())
    return {str(Path(name).name): count for name, count in counts.items() if str(Path(name).parent) == home}


def assert_each_once(counts: Mapping[str, int], *folders: Path) -> None:
    for folder in folders:
        found = of_folder(counts, folder)
        # config.json or adapter_config.json: that something was counted at all.
        assert any(name.endswith("config.json") for name in found), found
        often = {name: count for name, count in found.items() if count > 1 and name.endswith(".json")}
        assert not often, f"{folder.name}: {often}"


@pytest.mark.parametrize("family", WHOLE_RUNS)
@pytest.mark.parametrize("command", ["ask", pytest.param("chat", marks=pytest.mark.slow)])
def test_loading_with_an_adapter_opens_each_small_file_once(
    tmp_path: Path, family: str, command: str
) -> None:
    model, lora = base(family, tmp_path), adapter(family, tmp_path / "lora")
    words = [command, "--model", str(model), "--adapter", str(lora), *ONE, family, "--max-new-tokens", "1"]
    counts = count_opens(tmp_path, *words, *(["头痛怎么办？"] if command == "ask" else []))
    assert_each_once(counts, model, lora)


@pytest.mark.parametrize(
    "family", [FAMILIES[0], *(pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES[1:])]
)
def test_showing_a_folder_opens_each_small_file_once(tmp_path: Path, family: str) -> None:
    model, lora = base(family, tmp_path), adapter(family, tmp_path / "lora")
    for folder in (model, lora):
        assert_each_once(count_opens(tmp_path, "models", "show", str(folder)), folder)


@pytest.mark.parametrize(
    ("family", "dry"),
    [
        ("chatglm", False),
        ("llama", True),
        *(
            pytest.param(family, dry, marks=pytest.mark.slow)
            for family in FAMILIES
            for dry in (True, False)
            if (family, dry) not in (("chatglm", False), ("llama", True))
        ),
    ],
)
def test_a_fine_tuning_run_opens_each_small_file_once(tmp_path: Path, family: str, dry: bool) -> None:
    model, lora = base(family, tmp_path), adapter(family, tmp_path / "lora")
    words = [
        "sft",
        "--model",
        str(model),
        "--adapter",
        str(lora),
        *ONE,
        family,
        "--data",
        data(tmp_path, PAIRS),
    ]
    words += [
        "--method",
        "lora",
        "--lora-r",
        "4",
        "--num-epochs",
        "1",
        "--samples",
        "1",
        "--output",
        str(tmp_path / "out"),
    ]
    counts = count_opens(tmp_path, *words, *(["--dry-run"] if dry else ["--yes"]))
    assert_each_once(counts, model, lora)


# ---------------------------------------------------------------- what was read is never used beyond its time


def settled(file: Path, text: str) -> Path:
    """Write the file and give it a time long past, as anything that lay on the disk for a while has."""
    file.write_text(text, encoding="utf-8")
    long_ago = time.time() - 3600.5
    os.utime(file, (long_ago, long_ago))
    return file


def reads_of(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let the clock be far ahead, so that no file counts as just written; collect what is read."""
    later = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr(module.time, "time_ns", lambda: later)
    return []


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = reads_of(monkeypatch)

    def read(path: Path) -> str:
        reads.append(path)
        return path.read_text()

    file = settled(tmp_path / "a.json", "{}")
    assert read_once(read, file) == read_once(read, file) == "{}"
    assert reads == [file]


@pytest.mark.parametrize("how", ["longer", "as long, its time put back", "replaced", "removed"])
def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    reads_of(monkeypatch)
    file = settled(tmp_path / "a.json", '{"a": 1}')
    assert read_json_object(file) == {"a": 1}
    before = file.stat()
    time.sleep(0.02)
    match how:
        case "longer":
            file.write_text('{"a": 234}')
        case "as long, its time put back":
            file.write_text('{"a": 2}')
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "replaced":
            (tmp_path / "b.json").write_text('{"a": 2}')
            os.utime(tmp_path / "b.json", ns=(before.st_atime_ns, before.st_mtime_ns))
            (tmp_path / "b.json").replace(file)
        case "removed":
            file.unlink()
            with pytest.raises(OSError):
                file_bytes(file, 100)
            return
    assert read_json_object(file)["a"] in (2, 234)


def test_a_file_written_a_moment_ago_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for number in range(200):  # faster than the times of a file can tell
        file.write_text(json.dumps({"a": number % 10}))
        assert read_json_object(file) == {"a": number % 10}


def test_whole_seconds_are_not_trusted_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    state = (1, 2, 3, 10**10, 10**10)  # device, inode, size, then the times
    for after, kept in ((10**8, False), (19 * 10**8, False), (21 * 10**8, True)):
        monkeypatch.setattr(module.time, "time_ns", lambda after=after: 10**10 + after)
        assert module.may_change_unseen(state) is not kept


def test_a_file_beside_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads_of(monkeypatch)
    file, beside = settled(tmp_path / "a.json", "{}"), tmp_path / "b.json"

    def names(path: Path) -> tuple[str, ...]:
        return tuple(sorted(one.name for one in path.parent.iterdir()))

    assert read_once(names, file, beside=[beside]) == ("a.json",)
    settled(beside, "{}")
    assert read_once(names, file, beside=[beside]) == ("a.json", "b.json")


def test_what_is_handed_out_is_the_callers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads_of(monkeypatch)
    settled(tmp_path / "config.json", '{"a": {"b": [1]}}')
    read_config(tmp_path)["a"]["b"].append(2)
    assert read_config(tmp_path) == {"a": {"b": [1]}}


def test_a_shard_that_goes_after_the_folder_was_opened_is_missed(tmp_path: Path) -> None:
    model = base("llama", tmp_path)
    shard = open_checkpoint(model).files[-1]
    shard.unlink()
    with pytest.raises(Exception, match=shard.name):
        open_checkpoint(model)
