"""`Backbone.check`: what loading would refuse is refused without reading a weight."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bloom_adapters import write_adapter
from talking_miniatures import FAMILIES

from medchat.api import LoadOptions
from medchat.errors import CheckpointError, MedchatError, UsageError

pytestmark = pytest.mark.torch

WITH_ADAPTERS = [name for name in FAMILIES if name != "chatglm"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp("tiny") / family
            FAMILIES[family].tiny(made[family], layout="safetensors")
        return made[family]

    return folder


def check(family: str, folder: Path, *adapters: Path, device: str = "cpu") -> None:
    FAMILIES[family].check(LoadOptions(folder, adapters=adapters, device=device))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_loads_passes_and_no_weight_is_read(
    folders: Callable[[str], Path], family: str, tmp_path: Path
) -> None:
    check(family, folders(family))
    copy = Path(shutil.copytree(folders(family), tmp_path / "copy"))
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    file.write_bytes(whole[:header] + b"\xff" * (len(whole) - header))  # all NaN: whoever reads them objects
    check(family, copy)
    with pytest.raises(CheckpointError):
        FAMILIES[family].load(LoadOptions(copy, device="cpu"))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_does_not_load_is_refused(folders: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders(family), tmp_path / "copy"))
    with pytest.raises(UsageError):
        check(family, copy, device="cuda:77")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "hidden_size": 128}))
    with pytest.raises(CheckpointError):
        check(family, copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        check(family, copy)


@pytest.mark.parametrize("family", WITH_ADAPTERS)
def test_an_adapter_of_other_weights_is_refused(
    folders: Callable[[str], Path], family: str, tmp_path: Path
) -> None:
    with pytest.raises(MedchatError) as refusal:
        check(family, folders(family), write_adapter(tmp_path / "lora", width=128))
    assert refusal.value.exit_code == 3 and str(tmp_path / "lora") in str(refusal.value.where)
    # Published ones that go by their name alone: the shapes here are as they should be.
    other = tmp_path / ("alpaca-lora-7b" if family == "huozi" else "lora-huozi-med")
    with pytest.raises(CheckpointError, match=other.name):
        check(family, folders(family), write_adapter(other))
