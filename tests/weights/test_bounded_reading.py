"""No source of weights makes a pull read without end, whatever it answers."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest
from hub_server import Fault, Hub
from published_weights import REPOSITORY, SHARDS, SilentWatcher, known_as, published_files

from medchat.errors import MedchatError, UsageError
from medchat.retry import TRIES
from medchat.weights import errors as weights_errors
from medchat.weights.catalogue import Catalogue
from medchat.weights.download import plan_download, pull
from medchat.weights.hub import Hub as HubSource
from medchat.weights.modelscope import ModelScope
from medchat.weights.source import Source

pytest_plugins = ("published_weights",)

#: What a socket may hold that nobody reads any more.
UNREAD = 16 << 20
PIECE = b"[" * 65536


@pytest.fixture(params=[HubSource, ModelScope])
def source(request: pytest.FixtureRequest, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Give each source, at the hub on loopback."""
    monkeypatch.setenv("MODELSCOPE_DOMAIN", hub.url)
    made: Source = request.param()
    return made


def try_to_pull(folder: Path, source: Source) -> MedchatError:
    known = known_as("tiny-6b", published_files(), ("ice_text.model", *SHARDS))
    with pytest.raises(MedchatError) as caught:
        planned = plan_download(known, source, REPOSITORY, None, folder, Catalogue([]), SilentWatcher())
        pull(planned, SilentWatcher())
    return caught.value


@pytest.mark.parametrize("asked", ["api", SHARDS[0]])
def test_an_error_without_end_is_not_read(hub: Hub, source: Source, tmp_path: Path, asked: str) -> None:
    hub.faults[asked] = [Fault(status=403, flood=PIECE)] * (TRIES + 1)
    error = try_to_pull(tmp_path / "tiny", source)
    assert "403" in error.what and error.remedy
    assert hub.flooded < UNREAD * (TRIES + 1)


def test_a_list_of_files_without_end_is_given_up(hub: Hub, source: Source, tmp_path: Path) -> None:
    hub.faults["api"] = [Fault(flood=PIECE)] * (TRIES + 1)
    error = try_to_pull(tmp_path / "tiny", source)
    assert "too long" in error.what and error.exit_code == 1
    assert hub.flooded < (UNREAD + (32 << 20)) * (TRIES + 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"[]",
        b"5",
        b"{}",
        b'{"sha": 5, "siblings": 3}',
        b"<html>",
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"Success": true, "Data": {"Files": [{"Type": "blob", "Path": 3, "Size": "9"}]}}',
    ],
)
@pytest.mark.parametrize("status", [200, 401, 404])
def test_an_answer_that_is_no_hubs_is_a_failure_of_the_source(
    hub: Hub, source: Source, tmp_path: Path, answer: bytes, status: int
) -> None:
    hub.faults["api"] = [Fault(status=status, body=answer)] * 2
    error = try_to_pull(tmp_path / "tiny", source)
    assert error.what and error.where and error.exit_code in (1, 3)


def test_a_list_that_comes_drop_by_drop_is_given_up(
    hub: Hub, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medchat.weights import client

    monkeypatch.setattr(client, "DOCUMENT_SECONDS", 0.0)
    hub.faults["api"] = [Fault(flood=b" ")] * (TRIES + 1)
    began = time.monotonic()
    assert "too long" in try_to_pull(tmp_path / "tiny", source).what
    assert time.monotonic() - began < 20


def test_a_compressed_list_is_not_unpacked(hub: Hub, source: Source, tmp_path: Path) -> None:
    bomb = gzip.compress(gzip.compress(b"[" * 10_000_000))
    hub.faults["api"] = [Fault(headers={"Content-Encoding": "gzip, gzip"}, flood=bomb)] * (TRIES + 1)
    assert "compressed" in try_to_pull(tmp_path / "tiny", source).what


def test_a_list_with_too_many_files_is_refused_with_the_way_on(
    hub: Hub, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_errors, "MAX_ENTRIES", 3)
    error = try_to_pull(tmp_path / "tiny", source)
    assert "3" in error.what and "--repo" in error.remedy


@pytest.mark.parametrize("name", ["a b/c", "a/b/c", "../c", "/etc", "头痛/模型"])
def test_what_is_no_name_of_a_repository_is_wrong_usage(hub: Hub, source: Source, name: str) -> None:
    with pytest.raises(UsageError, match="不是仓库名"):
        source.listing(name, source.default_revision)
    assert not hub.asked
