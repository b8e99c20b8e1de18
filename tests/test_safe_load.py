"""Opening checkpoints: every published layout, every kind of damage, nothing of a file's own executed."""

from __future__ import annotations

import json
import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_files import LAYOUTS, RunsCommand, poison, replace_pickle, write_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medchat.errors import CheckpointError, MedchatError, MemoryShortageError, UsageError
from medchat.language import LANGUAGES, set_language
from medchat.torchside import device as device_module
from medchat.torchside import shards
from medchat.torchside.device import available_memory, ensure_memory, pick_device, pick_dtype
from medchat.torchside.headers import read_headers
from medchat.torchside.layout import is_text, open_checkpoint, read_config
from medchat.torchside.load import Conversion, Placement, assign, weight_bytes
from medchat.torchside.shards import read_tensors

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


class Small(nn.Module):
    """A model with a parameter of each kind: matrix, vector, scalar, buffer, tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("count", torch.arange(3, dtype=torch.int64))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


TIED = {"head.weight": "embed.weight"}


def small_weights(seed: int = 0, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return {
        "embed.weight": torch.randn(7, 4, generator=drawn).to(dtype),
        "norm.weight": torch.randn(4, generator=drawn),
        "norm.bias": torch.randn(4, generator=drawn),
        "scale": torch.randn((), generator=drawn),
        "count": torch.tensor([4, 5, 6]),
    }


def load_small(folder: Path, dtype: torch.dtype = torch.float32, **placement: object) -> Small:
    checkpoint = open_checkpoint(folder)
    with torch.device("meta"):
        model = Small()
    # What a plugin does with its own non-persistent buffers.
    model.scratch = torch.zeros(2)
    options = {"tied": TIED} | placement
    assign(model, checkpoint, read_headers(checkpoint), Placement(dtype, CPU, **options))  # type: ignore[arg-type]
    return model


def refused(folder: Path) -> CheckpointError:
    """Load `folder`, which must be refused with a two-line message in both languages, naming the place."""
    caught = []
    for language in LANGUAGES:
        set_language(language)
        try:
            with pytest.raises(CheckpointError) as info:
                load_small(folder)
        finally:
            set_language("zh")
        error = info.value
        assert error.exit_code == 3
        assert error.what and error.remedy and error.where
        assert "\n" not in error.what + error.remedy + error.where
        assert len(error.what) + len(error.where) < 400 and len(error.remedy) < 200
        caught.append(error)
    assert caught[0].what != caught[1].what and caught[0].remedy != caught[1].remedy
    return caught[1]


# ---------------------------------------------------------------- every layout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_stored_values_in_the_compute_dtype(
    tmp_path: Path, layout: str, dtype: torch.dtype
) -> None:
    weights = small_weights()
    write_weights(tmp_path, weights, layout)
    model = load_small(tmp_path, dtype)
    assert model.head.weight is model.embed.weight
    assert model.count.tolist() == [4, 5, 6]
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert torch.equal(parameter, weights[name].to(dtype)), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_headers_say_what_torch_would_say_without_reading_a_weight(tmp_path: Path, layout: str) -> None:
    weights = small_weights()
    write_weights(tmp_path, weights, layout)
    found = read_headers(open_checkpoint(tmp_path))
    assert {name: (header.shape, header.dtype) for name, header in found.items()} == {
        name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in weights.items()
    }
    assert sum(header.byte_count for header in found.values()) == sum(w.nbytes for w in weights.values())


def test_headers_are_read_without_torch(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights(), "sharded-bin")
    program = (
        "import sys, pathlib\n"
        "from medchat.torchside.headers import read_headers\n"
        "from medchat.torchside.layout import open_checkpoint\n"
        "print(len(read_headers(open_checkpoint(pathlib.Path(sys.argv[1])))), 'torch' in sys.modules)"
    )
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.split() == ["5", "False"]


dtypes = st.sampled_from(
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int64, torch.bool]
)
shapes = st.lists(st.integers(0, 5), max_size=3)


@settings(max_examples=40, deadline=None)
@given(
    table=st.dictionaries(st.text("abc._0", min_size=1, max_size=12), st.tuples(shapes, dtypes), min_size=1),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_table_of_tensors_is_listed_and_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    table: dict[str, tuple[list[int], torch.dtype]],
    layout: str,
) -> None:
    folder = tmp_path_factory.mktemp("table")
    drawn = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randint(-9, 9, shape, generator=drawn).to(dtype) for name, (shape, dtype) in table.items()
    }
    if len(weights) == 1:
        layout = layout.removeprefix("sharded-")
    write_weights(folder, weights, layout)
    checkpoint = open_checkpoint(folder)
    assert {n: h.shape for n, h in read_headers(checkpoint).items()} == {
        n: tuple(w.shape) for n, w in weights.items()
    }
    read = {
        stored.name: torch.cat([piece.clone() for _, piece in stored.pieces(16)] or [stored.values])
        for stored in read_tensors(checkpoint, lambda _: True)
    }
    assert read.keys() == weights.keys()
    for name, tensor in weights.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].reshape(tensor.shape), tensor)


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_pages_of_a_used_piece_are_given_back(tmp_path: Path, layout: str) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux counts mapped pages in resident memory this way")
    write_weights(tmp_path, {"big": torch.ones(96, 2**18)}, layout)  # 96 MiB
    checkpoint = open_checkpoint(tmp_path)
    (stored,) = read_tensors(checkpoint, lambda _: True)
    torch.ones(8, 2**18).sum(dtype=torch.float64)  # the library's own pages are in now
    before, peak, total = _resident(), 0, 0.0
    for _, piece in stored.pieces(8 * 2**20):
        total += float(piece.sum(dtype=torch.float64))
        peak = max(peak, _resident())
    assert total == 96 * 2**18
    assert peak - before < 32 * 2**20
    # Given back is not lost: a second look finds the same values.
    assert float(stored.values.sum(dtype=torch.float64)) == total


def _resident() -> int:
    """Return the resident bytes of this process that belong to files."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.split("RssFile:")[1].split()[0])


# ---------------------------------------------------------------- damage


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "absent")
    assert error.where.endswith("absent") and "no such" in error.what


def test_a_file_given_as_folder_is_answered_with_its_folder(tmp_path: Path) -> None:
    (file,) = write_weights(tmp_path, small_weights(), "safetensors")
    assert f"--model {tmp_path}" in refused(file).remedy


def test_a_folder_without_weights_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    assert "no weights" in refused(tmp_path).what


def test_shards_without_their_index_are_pointed_out(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights(), "sharded-bin")
    (tmp_path / "pytorch_model.bin.index.json").unlink()
    assert "no index" in refused(tmp_path).what


TEXTS = {
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "html": b"  <!DOCTYPE html><html><body>404</body></html>",
    "text": "这不是权重文件。\n".encode() * 40,
    "ascii": b"Entry not found",
    "empty": b"",
}
SAID = {"lfs": "git-lfs", "html": "web page", "text": "text", "ascii": "text", "empty": "empty"}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_text_in_the_place_of_weights_is_called_what_it_is(tmp_path: Path, layout: str, kind: str) -> None:
    file = write_weights(tmp_path, small_weights(), layout)[-1]
    file.write_bytes(TEXTS[kind])
    error = refused(tmp_path)
    assert error.where == str(file) and SAID[kind] in error.what
    if kind == "lfs":
        assert f"git -C {tmp_path} lfs pull" in error.remedy


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_truncated_file_is_named(tmp_path: Path, layout: str, share: float) -> None:
    weights = small_weights() | {"norm.bias": torch.zeros(4), "embed.weight": torch.ones(7, 4)}
    file = write_weights(tmp_path, weights, layout)[-1]
    whole = file.read_bytes()
    file.write_bytes(whole[: max(9, int(len(whole) * share))])
    assert refused(tmp_path).where == str(file)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_cut_of_a_file_goes_unnoticed(tmp_path: Path, layout: str) -> None:
    file = write_weights(tmp_path, small_weights(), layout)[-1]
    whole = file.read_bytes()
    for length in (len(whole) - 1, *random.Random(3).sample(range(len(whole)), 25)):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):  # already by the headers: inspection sees it too
            read_headers(open_checkpoint(tmp_path))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), changes=st.integers(1, 6), layout=st.sampled_from(LAYOUTS))
def test_garbled_bytes_never_escape_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, seed: int, changes: int, layout: str
) -> None:
    folder = tmp_path_factory.mktemp("garbled")
    file = write_weights(folder, small_weights(), layout)[-1]
    content = bytearray(file.read_bytes())
    # Not drawn from the strategy: a file need not be equally long each time it is written.
    luck = random.Random(seed)
    for _ in range(changes):
        content[luck.randrange(len(content))] = luck.randrange(256)
    file.write_bytes(content)
    try:  # a changed weight may pass; anything else is one clear error
        load_small(folder)
    except CheckpointError as error:
        assert error.where


@pytest.mark.parametrize("layout", ["sharded-safetensors", "sharded-bin"])
def test_a_missing_shard_is_named(tmp_path: Path, layout: str) -> None:
    file = write_weights(tmp_path, small_weights(), layout)[1]
    file.unlink()
    assert file.name in refused(tmp_path).what


BAD_NAMES = ["../outside.bin", "/etc/passwd", "sub/shard.bin", "..", ".", "", "a\\b.bin", "C:x.bin", "a\0b"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_shard_name_with_a_path_in_it_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    write_weights(folder, small_weights(), "sharded-bin")
    index = folder / "pytorch_model.bin.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["scale"] = name
    index.write_text(json.dumps(table))
    assert refused(folder).where == str(index)


@settings(max_examples=60, deadline=None)
@given(name=st.text(min_size=1, max_size=20))
def test_whatever_the_index_says_no_shard_lies_outside(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("index")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}), encoding="utf-8")
    with pytest.raises(CheckpointError):
        checkpoint = open_checkpoint(folder)
        assert all(file.parent == folder for file in checkpoint.files)
        raise CheckpointError("stayed inside")


def test_a_shard_that_links_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "model"
    real = write_weights(outside, small_weights(), "sharded-safetensors")[1]
    write_weights(folder, small_weights(), "sharded-safetensors")
    link = folder / real.name
    link.unlink()
    link.symlink_to(real)
    assert "outside" in refused(folder).what


def test_the_links_of_the_hugging_face_cache_are_followed(tmp_path: Path) -> None:
    blobs, folder = tmp_path / "models--a--b/blobs", tmp_path / "models--a--b/snapshots/1f2e"
    files = write_weights(folder, small_weights(), "sharded-safetensors")
    blobs.mkdir()
    for number, file in enumerate(files):
        blob = blobs / f"{number:064x}"
        file.rename(blob)
        file.symlink_to(Path("../../blobs") / blob.name)
    assert load_small(folder).count.tolist() == [4, 5, 6]


@pytest.mark.parametrize("layout", ["sharded-safetensors", "sharded-bin"])
def test_an_index_naming_what_its_shard_lacks_is_refused(tmp_path: Path, layout: str) -> None:
    write_weights(tmp_path, small_weights(), layout)
    index = next(tmp_path.glob("*.index.json"))
    table = json.loads(index.read_text())
    table["weight_map"]["ghost.weight"] = table["weight_map"]["scale"]
    index.write_text(json.dumps(table))
    error = refused(tmp_path)
    assert "ghost.weight" in error.what and error.where == str(index)


@pytest.mark.parametrize("layout", ["sharded-safetensors", "sharded-bin"])
def test_a_tensor_in_two_shards_is_refused(tmp_path: Path, layout: str) -> None:
    weights = small_weights()
    first, second = write_weights(tmp_path, weights, layout)
    spare = write_weights(tmp_path / "spare", weights, layout.removeprefix("sharded-"))[0]
    spare.replace(second)
    error = refused(tmp_path)
    assert first.name in error.what and second.name in error.what


def test_a_tensor_named_twice_in_a_safetensors_header_is_refused(tmp_path: Path) -> None:
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f'{{"a":{entry},"a":{entry}}}'.encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "twice" in refused(tmp_path).what


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "[" * 99999, "\xff"]
)
def test_a_broken_index_is_named(tmp_path: Path, text: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(text.encode("latin-1"))
    assert refused(tmp_path).where.startswith(str(index))


def test_a_broken_config_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{\n  "hidden_size": 4,\n  "num_layers": \n}', encoding="utf-8")
    with pytest.raises(CheckpointError) as info:
        read_config(tmp_path)
    assert info.value.where == f"{tmp_path / 'config.json'}:4"


# ---------------------------------------------------------------- pickles


@pytest.mark.parametrize("layout", ["bin", "sharded-bin"])
def test_a_malicious_pickle_executes_nothing(tmp_path: Path, layout: str) -> None:
    marker = tmp_path / "executed"
    file = write_weights(tmp_path, small_weights(), layout)[-1]
    poison(file, marker)
    error = refused(tmp_path)
    assert not marker.exists()
    assert "system" in error.what and "safetensors" in error.remedy and error.where == str(file)


def test_a_bare_pickle_as_weights_executes_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": RunsCommand(marker)}, protocol=2))
    refused(tmp_path)
    assert not marker.exists()


def test_torchs_own_reader_refuses_the_pickle_too(tmp_path: Path) -> None:
    """The second door holds without the first."""
    marker = tmp_path / "executed"
    (file,) = write_weights(tmp_path, small_weights(), "bin")
    poison(file, marker)
    with pytest.raises(CheckpointError):
        shards.load_pickle(file)
    assert not marker.exists()


NAMES = [("builtins", "eval"), ("os", "system"), ("collections", "Counter"), ("torch", "load"),
         ("torch._utils", "_rebuild_wrapper_subclass"), ("torch.storage", "_load_from_bytes")]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_only_the_names_of_a_plain_state_dict_are_resolved(tmp_path: Path, module: str, name: str) -> None:
    (file,) = write_weights(tmp_path, small_weights(), "bin")
    replace_pickle(file, b"\x80\x02}q\x00X\x01\x00\x00\x00ac" + f"{module}\n{name}\n".encode() + b"s.")
    assert f"{module}.{name}" in refused(tmp_path).what


def test_an_older_torch_is_refused_for_pickles_and_fine_for_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    write_weights(tmp_path / "bin", small_weights(), "bin")
    write_weights(tmp_path / "safe", small_weights(), "safetensors")
    error = refused(tmp_path / "bin")
    assert "2.9.1" in error.what and "2.10" in error.remedy
    load_small(tmp_path / "safe")


def test_a_pickle_with_more_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": small_weights()}, tmp_path / "pytorch_model.bin")
    assert "epoch" in refused(tmp_path).what


# ---------------------------------------------------------------- strictness


def test_missing_tensors_are_named_before_any_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = small_weights()
    del weights["norm.bias"]
    (file,) = write_weights(tmp_path, weights, "safetensors")
    monkeypatch.setattr("medchat.torchside.load.read_tensors", lambda *_: pytest.fail("read a weight"))
    error = refused(tmp_path)
    assert "missing norm.bias" in error.what and error.where == str(file)


def test_unexpected_tensors_are_named_with_their_number(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights() | {f"extra.{n}": torch.zeros(1) for n in range(5)}, "sharded-bin")
    error = refused(tmp_path)
    assert "extra.0" in error.what and "(5)" in error.what and "missing" not in error.what
    assert error.where.endswith(".index.json")


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights() | {"embed.weight": torch.zeros(8, 4)}, "bin")
    error = refused(tmp_path)
    assert "embed.weight 8x4" in error.what and "7x4" in error.what


def test_integers_in_the_place_of_weights_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights() | {"embed.weight": torch.zeros(7, 4, dtype=torch.int8)}, "bin")
    assert "int8" in refused(tmp_path).what


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused_naming_tensor_and_file(
    tmp_path: Path, layout: str, value: float
) -> None:
    weights = small_weights()
    weights["norm.bias"][2] = value
    files = write_weights(tmp_path, weights, layout)
    error = refused(tmp_path)
    assert "norm.bias" in error.what and error.where in map(str, files)


def test_a_value_beyond_float16_is_told_apart_from_a_broken_one(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights() | {"norm.bias": torch.full((4,), 7e4)}, "safetensors")
    with pytest.raises(CheckpointError, match="float16") as info:
        load_small(tmp_path, torch.float16)
    assert "--dtype bfloat16" in info.value.remedy
    load_small(tmp_path, torch.bfloat16)


def test_ignored_renamed_kept_and_optional_names_follow_the_placement(tmp_path: Path) -> None:
    weights = {f"model.{name}": tensor for name, tensor in small_weights().items() if name != "scale"}
    weights["model.rotary.inv_freq"] = torch.tensor([float("nan")])
    write_weights(tmp_path, weights, "sharded-bin")
    model = load_small(
        tmp_path,
        torch.bfloat16,
        ignore=("*.inv_freq",),
        keep=("norm.*",),
        optional=("scale",),
        rename=lambda name: name.removeprefix("model."),
    )
    assert model.norm.weight.dtype == torch.float32 and model.embed.weight.dtype == torch.bfloat16
    assert model.scale.is_meta


def test_a_conversion_replaces_its_tensor_on_the_way_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = small_weights()
    weights["both"] = torch.stack((weights.pop("norm.weight"), weights.pop("norm.bias")), dim=1)
    write_weights(tmp_path, weights, "bin")
    split = Conversion(
        (4, 2),
        ("norm.weight", "norm.bias"),
        lambda rows: {"norm.weight": rows[:, 0], "norm.bias": rows[:, 1]},
    )
    monkeypatch.setattr(shards, "PIECE_BYTES", 16)  # two rows at a time
    model = load_small(tmp_path, conversions={"both": split})
    assert torch.equal(model.norm.weight, weights["both"][:, 0])
    assert torch.equal(model.norm.bias, weights["both"][:, 1])


def test_a_tied_head_of_the_file_is_not_read(tmp_path: Path) -> None:
    broken = {"head.weight": torch.full((7, 4), float("nan"))}
    write_weights(tmp_path, small_weights() | broken, "bin")
    model = load_small(tmp_path)
    assert model.head.weight is model.embed.weight


def test_a_tied_head_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights() | {"head.weight": torch.zeros(8, 4)}, "bin")
    assert "head.weight 8x4" in refused(tmp_path).what


def test_what_has_its_value_already_is_left_alone(tmp_path: Path) -> None:
    weights = small_weights()
    write_weights(tmp_path, {"norm.bias": weights["norm.bias"]}, "safetensors")
    model = Small()
    before = model.norm.weight
    model.norm.bias = nn.Parameter(torch.empty(4, device="meta"))
    checkpoint = open_checkpoint(tmp_path)
    assign(model, checkpoint, read_headers(checkpoint), Placement(torch.float32, CPU))
    assert model.norm.weight is before and torch.equal(model.norm.bias, weights["norm.bias"])


def test_weight_bytes_counts_each_memory_once() -> None:
    with torch.device("meta"):
        model = Small()
    half = Placement(torch.float16, CPU, keep=("norm.*",), tied=TIED)
    assert weight_bytes(model, half) == 7 * 4 * 2 + 8 * 4 + 2 + 3 * 8


# ---------------------------------------------------------------- device, dtype, memory


@pytest.mark.parametrize("wanted", ["gpu", "cuda:", "cuda:x", "CPU", "", "cuda:99", "mps:1"])
def test_an_impossible_device_is_wrong_usage(wanted: str) -> None:
    with pytest.raises(UsageError) as info:
        pick_device(wanted)
    assert info.value.exit_code == 2 and info.value.remedy


def test_auto_is_a_device_and_a_dtype_that_compute() -> None:
    device = pick_device("auto")
    dtype = pick_dtype("auto", device)
    ones = torch.ones(4, 4, dtype=dtype, device=device)
    assert float((ones @ ones).sum()) == 64


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [("avx512_bf16", torch.bfloat16), ("bf16", torch.bfloat16), ("avx512_f", torch.float32)],
)
def test_auto_on_a_cpu_is_bfloat16_only_with_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, capability: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    assert pick_dtype("auto", CPU) == dtype
    assert pick_dtype("float16", CPU) == torch.float16


def test_an_unknown_dtype_is_wrong_usage() -> None:
    with pytest.raises(UsageError):
        pick_dtype("int8", CPU)


def test_a_model_too_large_is_refused_with_need_room_and_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "available_memory", lambda _: 4 * 2**30)
    ensure_memory(3 * 2**30, CPU)
    with pytest.raises(MemoryShortageError) as info:
        ensure_memory(12 * 2**30, CPU)
    assert info.value.exit_code == 4
    assert "12.4 GiB" in info.value.what and "4.0 GiB" in info.value.what and "int4" in info.value.remedy


def test_a_container_limit_bounds_the_available_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "cgroup/app/inner"
    group.mkdir(parents=True)
    limits = {group: "max", group.parent: str(3 * 2**20)}
    for folder, limit in limits.items():
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text(str(2 * 2**20))
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {2**19}\n")
    own = tmp_path / "own"
    own.write_text("0::/app/inner\n")
    room = device_module._control_group_room(tmp_path / "cgroup", own)
    assert room == [2**20 + 2**19]
    monkeypatch.setattr(device_module, "_control_group_room", lambda: room)
    assert available_memory(CPU) == room[0]


def test_an_address_space_limit_is_an_error_of_ours_before_or_while_loading(tmp_path: Path) -> None:
    program = (
        "import resource, torch\n"
        "from medchat.torchside.device import ensure_memory, available_memory\n"
        "import psutil\n"
        "resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**28,) * 2)\n"
        "assert available_memory(torch.device('cpu')) <= 2**28\n"
        "ensure_memory(2**30, torch.device('cpu'))"
    )
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert "MemoryShortageError" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_an_allocation_that_fails_while_loading_is_a_memory_shortage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write_weights(tmp_path, small_weights(), "safetensors")

    def fail(*_: object, **__: object) -> Tensor:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("medchat.torchside.load._filled", fail)
        with pytest.raises(MemoryShortageError):
            load_small(tmp_path)
    with monkeypatch.context() as patch:  # any other failure is a defect and stays visible
        error.args = ("something else",)
        patch.setattr("medchat.torchside.load._filled", fail)
        with pytest.raises(type(error) if not isinstance(error, MemoryError) else MedchatError):
            load_small(tmp_path)


@given(st.binary(min_size=1, max_size=64))
def test_text_is_never_taken_for_weights(content: bytes) -> None:
    assert not is_text(b"\x80\x02" + content) or b"\x02" not in content
    assert is_text("药".encode() * 200 + "病".encode()[:1])
