"""Files of a run in which anything may stand are read, or refused with the code that is documented."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import EXAMPLES, fuzz, json_files, toml_files

from medchat.checkpoints.manifest import verify_manifest
from medchat.errors import CheckpointError, UsageError
from medchat.sft_job.facts import read_facts
from medchat.sft_job.keys import KEYS
from medchat.sft_job.metrics import read_metrics
from medchat.sft_job.run_file import read_run_file
from medchat.training.run_record import read_run_record
from medchat.weights.record import read_pull_record

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_settings_of_a_run_are_read_or_refused(tmp_path: Path, examples: int) -> None:
    def read(content: bytes) -> None:
        (tmp_path / "sft.toml").write_bytes(content)
        read_run_file(tmp_path / "sft.toml")

    fuzz(read, toml_files([*KEYS, "extra.rule", "data"]), examples, UsageError)


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize(
    ("name", "reader", "keys"),
    [
        (
            "report.json",
            read_facts,
            ("run", "result", "settings", "data", "notes", "lengths", "output", "samples"),
        ),
        ("run.json", read_run_record, ("format", "options", "model", "data", "medchat", "unused_fields")),
        ("manifest.json", verify_manifest, ("files", "format", "bytes", "sha256", "a.bin", "..")),
        ("manifest.json", read_pull_record, ("files", "format", "weights", "bytes", "sha256", "a.bin")),
        ("metrics.jsonl", read_metrics, ("step", "loss", "lr", "eval_loss", "tokens_per_second")),
    ],
)
def test_any_record_of_a_run_is_read_or_refused(
    tmp_path: Path, examples: int, name: str, reader: object, keys: tuple[str, ...]
) -> None:
    def read(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        assert callable(reader)
        reader(tmp_path)

    fuzz(read, json_files(keys), examples, CheckpointError, UsageError)
