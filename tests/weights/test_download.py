"""`medchat.weights.download` against a hub on loopback: what is fetched, checked, continued and refused."""

from __future__ import annotations

import fcntl
import shutil
import threading
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import Asked, Fault, Hub, Repository
from published_weights import (
    REPOSITORY,
    SHARDS,
    SilentWatcher,
    known_as,
    known_file,
    published_files,
    some_bytes,
)

from medchat.api import KnownWeights
from medchat.errors import CheckpointError, MedchatError
from medchat.retry import TRIES
from medchat.weights import http as fetching
from medchat.weights.catalogue import Catalogue
from medchat.weights.download import DownloadPlan, plan_download, pull
from medchat.weights.folders import UNFINISHED, State, state_of
from medchat.weights.hub import Hub as HubSource
from medchat.weights.record import read_pull_record
from medchat.weights.thread_pool import DaemonThreadPool

pytest_plugins = ("published_weights",)

FILES = published_files()
NEEDED = {"config.json", "ice_text.model", *SHARDS, "pytorch_model.bin.index.json", "MODEL_LICENSE"}
KNOWN = known_as("tiny-6b", FILES, ("ice_text.model", *SHARDS))
BIG = SHARDS[0]


def planned(
    folder: Path,
    known: KnownWeights = KNOWN,
    watcher: SilentWatcher | None = None,
    revision: str | None = None,
    repository: str = REPOSITORY,
) -> DownloadPlan:
    return plan_download(
        known, HubSource(), repository, revision, folder, Catalogue([]), watcher or SilentWatcher()
    )


def pulled(folder: Path, known: KnownWeights = KNOWN, watcher: SilentWatcher | None = None) -> SilentWatcher:
    watcher = watcher or SilentWatcher()
    doing = planned(folder, known, watcher)
    watcher.done = doing.present
    pull(doing, watcher)
    assert watcher.done == doing.total
    return watcher


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def asked_ranges(requests: list[Asked]) -> list[str]:
    return [one.headers.get("range", "") for one in requests]


# ---------------------------------------------------------------- what comes


def test_a_pull_brings_what_is_needed_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny-6b"
    pulled(folder)
    assert contents(folder).keys() == NEEDED | {"manifest.json"}
    assert all(contents(folder)[name] == FILES[name] for name in NEEDED)
    assert {one.path.rpartition("/")[2] for one in hub.asked if one.sent} == NEEDED
    assert state_of(folder) is State.HERE


def test_a_second_pull_asks_for_no_file_again(hub: Hub, tmp_path: Path) -> None:
    pulled(tmp_path / "tiny")
    hub.asked.clear()
    pulled(tmp_path / "tiny")
    assert not any(one.sent for one in hub.asked)


def test_safetensors_are_taken_where_nobody_published_pickles(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[REPOSITORY].files["model.safetensors"] = some_bytes(1000, 9)
    pulled(tmp_path / "tiny", replace(KNOWN, files=()))
    names = contents(tmp_path / "tiny").keys()
    assert "model.safetensors" in names and not names & {*SHARDS, "pytorch_model.bin.index.json"}


def test_an_adapter_comes_without_the_rest_of_its_repository(hub: Hub, tmp_path: Path) -> None:
    files = {
        "adapter_config.json": b"{}",
        "adapter_model.bin": b"a" * 99,
        "optimizer.bin": b"o",
        "x/y.bin": b"y",
    }
    hub.repositories[REPOSITORY] = Repository(files)
    pulled(tmp_path / "lora", known_as("lora", files, (), kind="adapter"))
    assert contents(tmp_path / "lora").keys() == {"adapter_config.json", "adapter_model.bin", "manifest.json"}


def test_names_that_lead_out_of_the_folder_are_never_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[REPOSITORY].files |= {
        "../evil.model": b"x",
        ".hidden.model": b"x",
        "a\x1b[2J.model": b"x",
    }
    pulled(tmp_path / "in" / "tiny")
    assert not (tmp_path / "in" / "evil.model").exists()
    assert contents(tmp_path / "in" / "tiny").keys() == NEEDED | {"manifest.json"}


def test_a_login_is_not_sent_to_a_mirror(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pulled(tmp_path / "tiny")
    assert hub.asked and not any("authorization" in one.headers for one in hub.asked)


def test_nothing_is_asked_of_the_hub_but_the_repository(hub: Hub, tmp_path: Path) -> None:
    pulled(tmp_path / "tiny")
    assert all(REPOSITORY in one.path for one in hub.asked)


# ---------------------------------------------------------------- broken connections


def test_a_cut_connection_is_gone_on_with_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    hub.faults[BIG] = [Fault(cut_after=150_000), Fault(cut_after=100_000)]
    watcher = pulled(tmp_path / "tiny")
    assert (tmp_path / "tiny" / BIG).read_bytes() == FILES[BIG]
    assert asked_ranges(hub.downloads(BIG)) == ["", "bytes=150000-", "bytes=250000-"]
    assert hub.sent(BIG) == len(FILES[BIG])
    assert watcher.lines  # the user is told that it waits


def test_more_cuts_than_tries_are_borne_while_something_comes(hub: Hub, tmp_path: Path) -> None:
    hub.faults[BIG] = [Fault(cut_after=20_000)] * (TRIES + 3)
    pulled(tmp_path / "tiny")
    assert hub.sent(BIG) == len(FILES[BIG])


def test_a_server_that_cannot_go_on_begins_anew(hub: Hub, tmp_path: Path) -> None:
    hub.faults[BIG] = [Fault(cut_after=150_000), Fault(whole=True)]
    pulled(tmp_path / "tiny")
    assert (tmp_path / "tiny" / BIG).read_bytes() == FILES[BIG]


def test_a_busy_server_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    hub.faults = {
        "api": [Fault(status=503)],
        BIG: [Fault(status=429, headers={"Retry-After": "1"}), Fault(status=502)],
    }
    began = time.monotonic()
    pulled(tmp_path / "tiny")
    assert time.monotonic() - began >= 1  # as long as it asked for
    assert (tmp_path / "tiny" / BIG).read_bytes() == FILES[BIG]


def test_a_silent_server_counts_as_a_broken_one(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT", 0.3)
    hub.faults[BIG] = [Fault(silent_after=100_000)]
    pulled(tmp_path / "tiny")
    assert asked_ranges(hub.downloads(BIG)) == ["", "bytes=100000-"]


def test_a_server_that_stays_busy_is_given_up_and_what_came_is_kept(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    hub.faults[BIG] = [Fault(cut_after=150_000), *[Fault(status=503)] * (TRIES + 1)]
    with pytest.raises(MedchatError) as caught:
        pulled(folder)
    assert caught.value.exit_code == 1 and "503" in caught.value.what and caught.value.remedy
    assert state_of(folder) is State.UNFINISHED
    hub.faults.clear()
    pulled(folder)
    assert asked_ranges(hub.downloads(BIG)) == ["", "bytes=150000-"]
    assert state_of(folder) is State.HERE and not (folder / UNFINISHED).exists()


def test_a_server_that_is_not_there_is_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MedchatError) as caught:
        planned(tmp_path / "tiny")
    assert caught.value.exit_code == 1 and caught.value.where == "http://127.0.0.1:9"


def test_what_came_of_another_version_of_a_file_is_not_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    free = replace(KNOWN, files=())
    hub.faults[BIG] = [Fault(cut_after=150_000), *[Fault(status=503)] * (TRIES + 1)]
    with pytest.raises(MedchatError):
        pulled(folder, free)
    hub.faults.clear()
    hub.repositories[REPOSITORY].files[BIG] = some_bytes(400_000, 77)
    pulled(folder, free)
    assert (folder / BIG).read_bytes() == some_bytes(400_000, 77)


# ---------------------------------------------------------------- checksums


def test_a_wrong_file_is_set_aside_and_named_and_the_others_are_kept(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    hub.faults[BIG] = [Fault(spoil=True)]
    with pytest.raises(CheckpointError) as caught:
        pulled(folder)
    aside = folder / f"{BIG}.wrong"
    assert caught.value.exit_code == 3 and BIG in caught.value.what and aside.name in caught.value.what
    assert aside.stat().st_size == len(FILES[BIG]) and not (folder / BIG).exists()
    assert (folder / SHARDS[1]).read_bytes() == FILES[SHARDS[1]]
    assert state_of(folder) is State.UNFINISHED
    hub.asked.clear()
    pulled(folder)
    assert (folder / BIG).read_bytes() == FILES[BIG] and aside.exists()
    assert not hub.downloads(SHARDS[1])


def test_a_small_file_is_checked_too(hub: Hub, tmp_path: Path) -> None:
    hub.faults["config.json"] = [Fault(spoil=True)]
    with pytest.raises(CheckpointError, match=r"config\.json"):
        pulled(tmp_path / "tiny")


@pytest.mark.parametrize("change", ["content", "size"])
def test_a_repository_that_holds_something_else_is_refused_before_any_byte(
    hub: Hub, tmp_path: Path, change: str
) -> None:
    files = hub.repositories[REPOSITORY].files
    files[BIG] = some_bytes(len(files[BIG]) + (change == "size"), 88)
    with pytest.raises(CheckpointError, match=BIG):
        pulled(tmp_path / "tiny")
    assert not any(one.sent for one in hub.asked) and not (tmp_path / "tiny").exists()


def test_a_repository_without_a_shard_is_refused(hub: Hub, tmp_path: Path) -> None:
    del hub.repositories[REPOSITORY].files[SHARDS[1]]
    for known in (KNOWN, replace(KNOWN, files=())):
        with pytest.raises(CheckpointError) as caught:
            pulled(tmp_path / "tiny", known)
        assert caught.value.exit_code == 3
    assert not any(one.sent for one in hub.asked)


def test_another_version_is_taken_at_its_sources_word(hub: Hub, tmp_path: Path) -> None:
    repository = hub.repositories[REPOSITORY]
    repository.revisions = ("main", "old")
    repository.files[BIG] = some_bytes(1234, 5)
    known = replace(KNOWN, revision="d" * 40)
    doing = planned(tmp_path / "tiny", known, revision="old")
    pull(doing, SilentWatcher())
    assert not doing.held
    record = read_pull_record(tmp_path / "tiny")
    assert record is not None and record.weights == "" and record.facts["revision"] == repository.commit
    assert known_file(BIG, some_bytes(1234, 5)) in record.files


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("repository", "revision", "word"),
    [("lab/absent", None, "lab/absent"), (REPOSITORY, "nowhere", "nowhere")],
)
def test_what_is_not_there_is_said_with_its_place(
    hub: Hub, tmp_path: Path, repository: str, revision: str | None, word: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        planned(tmp_path / "tiny", repository=repository, revision=revision)
    assert caught.value.exit_code == 3 and word in caught.value.what + caught.value.where
    assert caught.value.remedy


def test_a_full_disk_is_seen_before_the_download(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))
    with pytest.raises(MedchatError) as caught:
        pulled(tmp_path / "tiny")
    assert caught.value.exit_code == 1 and "--dir" in caught.value.remedy
    assert not any(one.sent for one in hub.asked) and not (tmp_path / "tiny").exists()


def test_a_file_of_the_users_own_is_renamed_not_overwritten(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text('{"mine": true}')
    (folder / BIG).write_bytes(FILES[BIG])
    watcher = pulled(folder)
    assert (folder / "config.json.wrong").read_text() == '{"mine": true}'
    assert any("config.json.wrong" in line for line in watcher.lines)
    assert not hub.downloads(BIG)  # what was right already is kept


def test_two_pulls_into_one_folder_do_not_meet(hub: Hub, tmp_path: Path) -> None:
    nest = tmp_path / "tiny" / UNFINISHED
    nest.mkdir(parents=True)
    with (nest / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(MedchatError) as caught:
            pulled(tmp_path / "tiny")
    assert caught.value.exit_code == 1 and not any(one.sent for one in hub.asked)


def test_the_first_failure_stops_the_whole_crew() -> None:
    stopped = threading.Event()

    def work(item: int, cancel: threading.Event) -> None:
        if item == 0:
            raise ValueError("broken")
        assert cancel.wait(10)
        stopped.set()

    with pytest.raises(ValueError, match="broken"):
        DaemonThreadPool(work, 2).run([1, 0, 2, 3])
    assert stopped.is_set()
