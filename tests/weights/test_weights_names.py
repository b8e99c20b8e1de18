"""Names in place of paths, the table of published weights, choosing files, hashing a folder again."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medchat_llama.backbone import LlamaBackbone
from published_weights import SHARDS, known_as, known_file, published_files

from medchat import paths
from medchat.api import KnownWeights
from medchat.errors import CheckpointError, UsageError
from medchat.hashing import git_blob_of
from medchat.registry import Registry
from medchat.templates import load_template
from medchat.units import amount
from medchat.weights.catalogue import Catalogue
from medchat.weights.folders import UNFINISHED, folder_of, locate_weights
from medchat.weights.record import write_pull_record
from medchat.weights.selection import choose, is_plain
from medchat.weights.source import Listing, RemoteFile
from medchat.weights.verifying import ChecksumSource, Verdict, Verification, verify

pytest_plugins = ("published_weights",)

FILES = published_files()
BASE = known_as("tiny-6b", FILES, ("ice_text.model", *SHARDS))
LORA = known_as("tiny-lora", FILES, (), kind="adapter", fits=("tiny-6b",))


class Backbone:
    """As much of a backbone as a catalogue looks at."""

    name = "tiny"
    known_weights = (BASE, LORA)


CATALOGUE = Catalogue([Backbone()])  # type: ignore[list-item]


def resolved(value: str, kind: str = "base") -> Path:
    return locate_weights(value, kind, lambda: CATALOGUE)  # type: ignore[arg-type]


# ---------------------------------------------------------------- names


def test_a_path_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of("tiny-6b").mkdir(parents=True)
    assert resolved("tiny-6b") == folder_of("tiny-6b")
    Path("tiny-6b").mkdir()
    assert resolved("tiny-6b") == Path("tiny-6b")


def test_a_folder_of_the_users_own_under_the_models_folder_is_a_name(tmp_path: Path) -> None:
    folder_of("mine").mkdir(parents=True)
    assert resolved("mine") == resolved("mine", "adapter") == folder_of("mine")


def test_a_known_name_is_found_in_any_case_and_by_its_repository() -> None:
    folder_of("tiny-6b").mkdir(parents=True)
    assert resolved("Tiny-6B") == resolved("lab/tiny-6b") == folder_of("tiny-6b")


def adapter_folder(place: Path, **config: object) -> Path:
    place.mkdir(parents=True)
    (place / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return place


@pytest.mark.parametrize(
    ("name", "config", "what", "base"),
    [
        ("run-7", {"peft_type": "LORA", "base_model_name_or_path": "lab/tiny-6b"}, "LORA", "tiny-6b"),
        ("run-7", {"peft_type": "LORA", "base_model_name_or_path": "/data/Tiny-6B/"}, "LORA", "tiny-6b"),
        ("tiny-lora", {"peft_type": "LORA"}, "LORA", "tiny-6b"),
        ("run-7", {"peft_type": "IA3", "base_model_name_or_path": "a; rm -rf ~"}, "a; rm -rf ~", "底座"),
        ("run-7", {"peft_type": "\x1b[31mX", "base_model_name_or_path": "tiny-lora"}, "X", "底座"),
        ("run 7", {"base_model_name_or_path": 5}, "未注明", "底座"),
    ],
)
def test_an_adapter_given_as_the_model_is_named_with_the_flags_that_load_it(
    tmp_path: Path, name: str, config: dict[str, object], what: str, base: str
) -> None:
    folder = adapter_folder(tmp_path / name, **config)
    with pytest.raises(CheckpointError) as caught:
        resolved(str(folder))
    assert "适配器" in caught.value.what and what in caught.value.what and "\x1b" not in caught.value.what
    words = shlex.split(caught.value.remedy.removeprefix("请改用："))
    assert words == ["--model", base, "--adapter", str(folder)]
    assert resolved(str(folder), "adapter") == folder
    assert locate_weights(str(folder), "base", lambda: CATALOGUE, either=True) == folder


def test_an_adapter_whose_file_cannot_be_read_is_an_adapter_still(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "torn")
    (folder / "adapter_config.json").write_text('{"peft_type": "LO', encoding="utf-8")
    with pytest.raises(CheckpointError, match="适配器"):
        resolved(str(folder))


def test_a_model_that_an_adapters_file_was_left_in_is_a_model(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "merged", peft_type="LORA")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert resolved(str(folder)) == folder


@pytest.mark.parametrize("value", ["..", ".", "a/../..", "", "tiny\0", "/nowhere"])
def test_no_name_leads_out_of_the_models_folder(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.models_dir().mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    if value in ("..", ".", "", "a/../.."):
        # These are paths, and are taken as such.
        if value == "a/../..":
            Path("a").mkdir()
        assert resolved(value) == Path(value)
    else:
        with pytest.raises(UsageError if "\0" in value else CheckpointError):
            resolved(value)


@pytest.mark.parametrize(
    ("value", "kind", "what", "remedy"),
    [
        ("tiny-6b", "base", "tiny-6b", "medchat models pull tiny-6b"),
        ("tiny-lora", "adapter", "tiny-lora", "medchat models pull tiny-lora"),
        ("tiny-lora", "base", "适配器", "--model tiny-6b --adapter tiny-lora"),
        ("tiny-6b", "adapter", "完整的模型", "--model tiny-6b"),
        ("tiny-6", "base", "找不到模型", "tiny-6b"),
        ("tiny_lora", "adapter", "找不到适配器", "tiny-lora"),
        ("全然不同", "base", "找不到模型", "medchat demo"),
        ("全然不同", "adapter", "找不到适配器", "medchat models list"),
    ],
)
def test_what_is_not_here_is_answered_with_what_to_type(
    value: str, kind: str, what: str, remedy: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        resolved(value, kind)
    assert caught.value.exit_code == 3
    assert what in caught.value.what and remedy in caught.value.remedy


def test_an_unfinished_download_is_no_model(tmp_path: Path) -> None:
    for folder, remedy in (
        (folder_of("tiny-6b"), "medchat models pull tiny-6b"),
        (tmp_path / "tiny-6b", f"medchat models pull tiny-6b --dir {tmp_path / 'tiny-6b'}"),
    ):
        (folder / UNFINISHED).mkdir(parents=True)
        with pytest.raises(CheckpointError) as caught:
            resolved("tiny-6b" if folder == folder_of("tiny-6b") else str(folder))
        assert caught.value.remedy == remedy


# ---------------------------------------------------------------- the table


def test_every_published_entry_is_whole_and_points_at_what_there_is() -> None:
    registry = Registry()
    catalogue = Catalogue(registry.backbones())
    entries = {entry.known.name: entry for entry in catalogue}
    assert len(entries) == len(list(catalogue)) >= 15
    backbones = {backbone.name: backbone for backbone in registry.backbones()}
    for name, entry in entries.items():
        known = entry.known
        assert is_plain(name) and known.title and known.licence and known.source.startswith("https://")
        assert known.repository.count("/") == 1 or (not known.repository and known.by_hand)
        assert (known.kind == "adapter") == bool(known.fits) and set(known.fits) <= entries.keys()
        assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) and is_plain(file.name) for file in known.files)
        assert not known.note or {"zh", "en"} <= known.note.keys()
        templates = registry.extensions().templates()
        assert load_template(known.template, templates).name == known.template, backbones[entry.backbone]


def test_the_adapters_of_the_papers_are_in_the_table() -> None:
    catalogue = Catalogue(Registry().backbones())
    assert {known.name for known in catalogue.adapters_for("llama-7b")} >= {
        "lora-llama-med",
        "lora-llama-literature",
    }
    assert {known.name for known in catalogue.adapters_for("huozi-7b-sft")} == {"lora-huozi-med"}


# ---------------------------------------------------------------- choosing files

NAMES = st.sampled_from(
    [
        "config.json", "tokenizer.model", "tokenizer.json", "model.safetensors", "pytorch_model.bin",
        "model.safetensors.index.json", "pytorch_model.bin.index.json", "optimizer.pt", "run.py", "../a.model",
        *(f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)),
        *(f"pytorch_model-{number:05}-of-00002.bin" for number in (1, 2)),
    ]
)  # fmt: skip


@given(st.sets(NAMES))
def test_never_two_sets_of_weights_nor_half_of_one(names: set[str]) -> None:
    listing = Listing("lab/tiny", "main", tuple(RemoteFile(name, 10) for name in sorted(names)))
    chosen = {file.name for file in choose(listing, replace(BASE, files=()))}
    weights = {name for name in chosen if name.endswith((".bin", ".safetensors"))}
    sets = [
        {f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)},
        {"model.safetensors"},
        {f"pytorch_model-{number:05}-of-00002.bin" for number in (1, 2)},
        {"pytorch_model.bin"},
    ]
    assert weights == next((one for one in sets if one <= names), set())
    assert not chosen & {"optimizer.pt", "run.py", "../a.model"}


# ---------------------------------------------------------------- hashing again


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the published files, fetched by hand: no list of its own."""
    place = tmp_path / "by-hand"
    place.mkdir()
    for name in ("config.json", "ice_text.model", *SHARDS, "pytorch_model.bin.index.json"):
        (place / name).write_bytes(FILES[name])
    return place


def checked(folder: Path, known: KnownWeights | None = None) -> tuple[Verification, dict[str, Verdict]]:
    found = verify(folder, known, [LORA, BASE], lambda count: None)
    return found, {file.name: file.verdict for file in found.files}


def test_a_folder_is_recognised_by_its_bytes(folder: Path) -> None:
    found, verdicts = checked(folder)
    assert found.known == BASE and found.sound
    assert verdicts[SHARDS[0]] is Verdict.OK and verdicts["config.json"] is Verdict.UNKNOWN


def test_one_spoiled_shard_does_not_hide_what_the_folder_is(folder: Path) -> None:
    (folder / SHARDS[0]).write_bytes(b"x" * len(FILES[SHARDS[0]]))
    found, verdicts = checked(folder)
    assert found.known == BASE and not found.sound and verdicts[SHARDS[0]] is Verdict.WRONG


def test_a_shard_that_the_index_names_is_missed(folder: Path) -> None:
    (folder / SHARDS[0]).unlink()
    (folder / SHARDS[1]).write_bytes(b"of my own")
    found, verdicts = checked(folder)
    assert found.known is None and verdicts == {
        **dict.fromkeys(("config.json", "ice_text.model", "pytorch_model.bin.index.json"), Verdict.UNKNOWN),
        SHARDS[0]: Verdict.MISSING,
        SHARDS[1]: Verdict.UNKNOWN,
    }


def test_weights_in_another_layout_are_not_missed(folder: Path) -> None:
    for name in (*SHARDS, "pytorch_model.bin.index.json"):
        (folder / name).unlink()
    (folder / "model.safetensors").write_bytes(b"converted")
    found, verdicts = checked(folder, BASE)
    assert found.sound and verdicts["ice_text.model"] is Verdict.OK
    assert not verdicts.keys() & set(SHARDS)


def test_an_empty_folder_misses_what_was_published(tmp_path: Path) -> None:
    found, verdicts = checked(tmp_path, BASE)
    assert not found.sound and verdicts == dict.fromkeys(("ice_text.model", *SHARDS), Verdict.MISSING)


def test_the_folders_own_list_speaks_for_another_version(folder: Path) -> None:
    (folder / SHARDS[0]).write_bytes(b"another version")
    files = {name: known_file(name, (folder / name).read_bytes()) for name in SHARDS}
    write_pull_record(folder, "", {"revision": "old"}, files)
    found, verdicts = checked(folder, BASE)
    assert found.known is None and found.sound
    assert {file.name: file.origin for file in found.files}[SHARDS[0]] is ChecksumSource.RECORDED
    assert verdicts[SHARDS[0]] is Verdict.OK


@pytest.mark.parametrize("text", ["", "[]", '{"format": "medchat-checkpoint-1"}', '{"files": {}}', "\xff"])
def test_a_list_that_is_none_is_passed_over(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text, encoding="latin-1")
    found, _ = checked(folder)
    assert found.known == BASE


def test_a_list_cannot_name_files_outside_the_folder(folder: Path) -> None:
    (folder.parent / "secret.bin").write_bytes(b"s")
    listed = {"../secret.bin": {"bytes": 1, "sha256": "0" * 64}}
    text = json.dumps({"format": "medchat-checkpoint-1", "files": listed})
    (folder / "manifest.json").write_text(text)
    assert "../secret.bin" not in checked(folder)[1]


def test_gits_id_of_a_file_is_gits(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    assert git_blob_of(file) == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


@pytest.mark.parametrize(
    ("size", "words"), [(13_419_613_034, "13.4 GB"), (790_000_000, "790 MB"), (472, "472 B"), (0, "0 B")]
)
def test_sizes_are_as_publishers_state_them(size: int, words: str) -> None:
    assert amount(size) == words


def test_merged_chinese_alpaca_is_larger_than_llama_by_its_rows() -> None:
    size = {one.name: one.size for one in LlamaBackbone().known_weights}
    rows = 2 * (49954 - 32000) * 4096  # of the embedding and of the head
    more = size["chinese-alpaca-7b"] - size["llama-7b"]
    assert more == pytest.approx(2 * rows, abs=0.05e9)  # two bytes a value; sizes are told in 0.1 GB
