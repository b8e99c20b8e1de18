"""Adapters exchanged over a loaded LLaMA: the same model as loaded again, and untouched where it fails."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_checkpoints import grow, logits, lora
from llama_checkpoints import load as load_weights
from medchat_llama.backbone import LlamaBackbone
from medchat_llama.tiny import write_tiny_llama
from safetensors.torch import save_file

from medchat.api import GenerationConfig, LoadOptions, Text
from medchat.errors import MedchatError
from medchat.inference.adapters import attach, bottleneck, prefix_tuning

pytestmark = pytest.mark.torch
BACKBONE: Any = LlamaBackbone()
PROMPT = [Text("感冒了怎么办？发热三天了。")]
GREEDY = GenerationConfig(max_new_tokens=8, greedy=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "tiny"
    write_tiny_llama(path)
    return path


@pytest.fixture(scope="module")
def adapters(tiny: Path) -> dict[str, Path]:
    """A folder of each kind: two LoRA, bottlenecks, a prefix."""
    folders = {name: tiny.parent / name for name in ("lora", "other", "bottleneck", "prefix")}
    for seed, name in ((3, "lora"), (4, "other")):
        lora(load_weights(tiny).model, folders[name], seed)
    torch.manual_seed(5)
    model = load_weights(tiny).model
    bottleneck.insert_bottlenecks(model, ["o_proj"], 4)
    for part in bottleneck.bottlenecks(model).values():
        torch.nn.init.normal_(part.up.weight)
    _write(folders["bottleneck"], bottleneck.stated(4, ["o_proj"]), dict(bottleneck.tensors_of(model)))
    model = load_weights(tiny).model
    settings = prefix_tuning.insert_prefix(model, 3)
    _write(
        folders["prefix"],
        {**settings.to_dict(), "peft_type": "PREFIX_TUNING"},
        prefix_tuning.stored_tensors(model),
    )
    return folders


def _write(folder: Path, stated: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(stated, default=str), encoding="utf-8")
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors"
    )


def options(tiny: Path, *folders: Path) -> LoadOptions:
    return LoadOptions(tiny, adapters=folders, device="cpu", dtype="float32")


def answered(model: Any) -> str:
    return "".join(delta.text for delta in model.stream(PROMPT, GREEDY, threading.Event()))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), ("lora",)),
        (("lora",), ("other",)),
        (("lora",), ("bottleneck",)),
        (("bottleneck",), ("prefix",)),
        (("prefix",), ("prefix", "other", "lora")),
        (("lora", "bottleneck", "prefix"), ()),
    ],
)
def test_exchanged_adapters_equal_a_fresh_load(
    tiny: Path, adapters: dict[str, Path], before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    wanted = options(tiny, *(adapters[name] for name in after))
    fresh = BACKBONE.load(wanted)
    loaded = BACKBONE.load(options(tiny, *(adapters[name] for name in before)))
    weight = loaded.model.get_parameter("model.embed_tokens.weight")
    answered(loaded)  # fills the cache, which must not serve the next model
    exchanged = BACKBONE.exchange_adapters(loaded, wanted)
    assert exchanged is not None
    assert exchanged.model.get_parameter("model.embed_tokens.weight") is weight
    torch.testing.assert_close(logits(exchanged.model), logits(fresh.model), rtol=0, atol=0)
    assert answered(exchanged) == answered(fresh)
    assert exchanged.context_length == fresh.context_length
    assert exchanged.describe() == fresh.describe()


def test_a_series_of_exchanges_leaves_no_trace(tiny: Path, adapters: dict[str, Path]) -> None:
    model = BACKBONE.load(options(tiny))
    bare, names = logits(model.model), [name for name, _ in model.model.named_modules()]
    for name in [*adapters, *reversed(adapters)]:
        model = BACKBONE.exchange_adapters(model, options(tiny, adapters[name]))
        assert not torch.equal(logits(model.model), bare)
    model = BACKBONE.exchange_adapters(model, options(tiny))
    assert torch.equal(logits(model.model), bare)
    assert [name for name, _ in model.model.named_modules()] == names


class Stop(BaseException):
    """Ctrl-C at an awkward moment."""


def _missing(folder: Path, adapters: dict[str, Path]) -> Path:
    return folder / "absent"


def _truncated(folder: Path, adapters: dict[str, Path]) -> Path:
    return _copy(folder, adapters["other"], lambda data: data[: len(data) // 2])


def _not_finite(folder: Path, adapters: dict[str, Path]) -> Path:
    return _copy(folder, adapters["other"], lambda data: data[:-8] + b"\xff" * 8)


def _of_another_width(folder: Path, adapters: dict[str, Path]) -> Path:
    write_tiny_llama(folder / "wide", hidden_size=96)
    lora(load_weights(folder / "wide").model, folder / "other", 3)
    return folder / "other"


def _copy(folder: Path, source: Path, change: Callable[[bytes], bytes]) -> Path:
    target = folder / "changed"
    target.mkdir()
    for file in source.iterdir():
        data = file.read_bytes()
        (target / file.name).write_bytes(change(data) if file.suffix == ".safetensors" else data)
    return target


@pytest.mark.parametrize("spoil", [_missing, _truncated, _not_finite, _of_another_width])
@pytest.mark.parametrize("before", ["lora", "bottleneck", "prefix"])
def test_a_refused_adapter_leaves_the_old_one_in_force(
    tiny: Path, tmp_path: Path, adapters: dict[str, Path], before: str, spoil: Callable[..., Path]
) -> None:
    loaded = BACKBONE.load(options(tiny, adapters[before]))
    expected, text = logits(loaded.model), answered(loaded)
    with pytest.raises(MedchatError):
        BACKBONE.exchange_adapters(loaded, options(tiny, spoil(tmp_path, adapters)))
    assert torch.equal(logits(loaded.model), expected)
    assert answered(loaded) == text


@pytest.mark.parametrize("raised", [MemoryError(), Stop()])
def test_a_failure_after_the_adapter_is_attached_takes_it_off_again(
    tiny: Path, adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch, raised: BaseException
) -> None:
    whole = attach.attach_adapters

    def attached_and_failed(*args: Any) -> None:
        whole(*args)
        raise raised

    loaded = BACKBONE.load(options(tiny, adapters["lora"]))
    expected = logits(loaded.model)
    monkeypatch.setattr(attach, "attach_adapters", attached_and_failed)
    with pytest.raises(type(raised)):
        BACKBONE.exchange_adapters(loaded, options(tiny, adapters["other"]))
    assert torch.equal(logits(loaded.model), expected)


def test_an_adapter_that_brings_a_vocabulary_takes_a_new_load(tiny: Path, tmp_path: Path) -> None:
    grow(tiny, tmp_path / "grown")
    plain, grown = BACKBONE.load(options(tiny)), BACKBONE.load(options(tiny, tmp_path / "grown"))
    assert BACKBONE.exchange_adapters(plain, options(tiny, tmp_path / "grown")) is None
    assert BACKBONE.exchange_adapters(grown, options(tiny)) is None
    assert answered(plain) and answered(grown)


def test_a_closed_model_gives_its_weights_back(tiny: Path, adapters: dict[str, Path]) -> None:
    model = BACKBONE.load(options(tiny, adapters["lora"]))
    model = BACKBONE.exchange_adapters(model, options(tiny, adapters["other"]))
    weights = weakref.ref(model.model.get_parameter("model.embed_tokens.weight"))
    model.close()
    gc.collect()
    assert weights() is None
