"""Published weights that a loopback hub serves, and the program with a backbone that knows them.

A test module states `pytest_plugins = ("published_weights",)`. (PYTEST_DONT_REWRITE: imported by name too.)
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from child_process import SOURCES
from cli_program import Outcome, run, start
from hub_server import Hub, Repository, running_hub
from plugin_packages import write_distribution
from published_backbone import VARIABLE

from medchat import retry as backoff
from medchat.api import HUB, KnownFile, KnownWeights

REPOSITORY = "lab/tiny-6b"
SHARDS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")


def some_bytes(count: int, seed: int) -> bytes:
    """Return `count` incompressible bytes."""
    return random.Random(seed).randbytes(count)


def published_files() -> dict[str, bytes]:
    """Return a repository like published ones: the necessary files, and many others."""
    index = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
    return {
        "config.json": b'{"model_type": "scripted"}',
        "ice_text.model": some_bytes(30_000, 1),
        SHARDS[0]: some_bytes(400_000, 2),
        SHARDS[1]: some_bytes(300_000, 3),
        "pytorch_model.bin.index.json": json.dumps(index).encode(),
        "MODEL_LICENSE": b"for study only\n",
        "modeling_chatglm.py": b"raise SystemExit('code from a model folder ran')\n",
        "flax_model.msgpack": some_bytes(50_000, 4),
        "ggml-model-q4.bin": some_bytes(50_000, 5),
        "training_args.bin": some_bytes(3_000, 6),
        "README.md": b"# tiny\n",
    }


def known_file(name: str, content: bytes) -> KnownFile:
    """Return the facts of a file."""
    return KnownFile(name, len(content), hashlib.sha256(content).hexdigest())


def known_as(name: str, files: dict[str, bytes], stated: tuple[str, ...], **more: Any) -> KnownWeights:
    """Return published weights in the tiny repository; checksums were published for the `stated` files."""
    facts: dict[str, Any] = {
        "title": "Tiny",
        "source": f"{HUB}{REPOSITORY}",
        "licence": "test",
        "template": "bare",
        "files": tuple(known_file(one, files[one]) for one in stated),
        "size": 700_000,
    }
    return KnownWeights(name, **{**facts, **more})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Yield a running hub with one repository; `HF_ENDPOINT` names it, and nothing waits long."""
    with running_hub() as server:
        server.repositories[REPOSITORY] = Repository(published_files())
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(backoff, "FIRST_WAIT", 0.01)
        yield server


@dataclass
class SilentWatcher:
    """A `Watcher` that remembers."""

    done: int = 0
    lines: list[str] = field(default_factory=list)

    def advance(self, count: int) -> None:
        self.done += count

    def tell(self, line: str) -> None:
        self.lines.append(line)


@dataclass(frozen=True)
class Program:
    """The program with the backbone `published`, which knows `weights`, and no other."""

    site: Path
    weights: Path

    def know(self, *known: KnownWeights) -> None:
        """Set the backbone's published weights."""
        self.weights.write_text(json.dumps([asdict(one) for one in known]), encoding="utf-8")

    def run(self, *arguments: str, **options: Any) -> Outcome:
        """Run `medchat ARGUMENTS`."""
        return run(*arguments, **{**self.environment(), **options})

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `medchat ARGUMENTS`."""
        return start(*arguments, **self.environment())

    def environment(self) -> dict[str, str]:
        """Return the variables that make the program find the backbone and nothing else."""
        path = os.pathsep.join([*SOURCES, str(self.site)])
        return {"PYTHONPATH": path, VARIABLE: str(self.weights), "MEDCHAT_PLUGINS": "published"}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Return the program; it knows `tiny-6b` with all its checksums."""
    site = tmp_path / "site"
    write_distribution(site, "medchat-published", {"medchat": {"published": "published_backbone"}})
    made = Program(site, tmp_path / "weights.json")
    made.know(known_as("tiny-6b", published_files(), ("ice_text.model", *SHARDS)))
    return made
