"""`LoadOptions.watch`: whoever waits for weights sees the bytes come, and can stop them."""

from __future__ import annotations

from pathlib import Path

import pytest
from talking_miniatures import FAMILIES

from medchat.api import LoadOptions
from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint
from medchat.errors import MedchatError

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_the_bytes_read_rise_to_the_total_of_the_file(family: str, quantize: str, tmp_path: Path) -> None:
    FAMILIES[family].tiny(tmp_path / "tiny", layout="safetensors")
    seen: list[tuple[int, int]] = []
    options = LoadOptions(
        tmp_path / "tiny", device="cpu", quantize=quantize, watch=lambda *counts: seen.append(counts)
    )
    FAMILIES[family].load(options).close()
    read = [count for count, _ in seen]
    (total,) = {total for _, total in seen}
    stored = sum(header.byte_count for header in read_headers(open_checkpoint(tmp_path / "tiny")).values())
    assert read == sorted(read) and len(read) > 5
    # A tied head may be stored and is not read.
    assert read[-1] == total and stored / 2 < total <= stored


@pytest.mark.parametrize("family", FAMILIES)
def test_raising_stops_the_loading(family: str, tmp_path: Path) -> None:
    FAMILIES[family].tiny(tmp_path / "tiny")
    stopped = MedchatError("enough")

    def watch(read: int, total: int) -> None:
        if read > total / 2:
            raise stopped

    with pytest.raises(MedchatError) as info:
        FAMILIES[family].load(LoadOptions(tmp_path / "tiny", device="cpu", watch=watch))
    assert info.value is stopped
