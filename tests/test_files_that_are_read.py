"""In the place of each file that is read: a pipe, a device, a folder, a file that is too large. None is waited for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from file_list import documented, size_of
from gguf import GGUFWriter
from locations import ROOT
from medchat_bloom.tokenizer import BloomTokenizer
from medchat_chatglm.tokenizer import ChatGLMTokenizer
from medchat_eval.comparing import read_run
from medchat_eval.task_yaml import read_task_file
from medchat_export.gguf_file import stated_config
from medchat_export.gguf_vocabulary import TokenIds, write_byte_level
from medchat_export.licences import licence_of
from medchat_export.merge_command import states_template
from medchat_llama.tokenizer import LlamaTokenizer
from medchat_serve.access_token import find_token

from medchat.api import SFTOptions
from medchat.batch.results import read_results
from medchat.chat.attachments import read_attachment
from medchat.checkpoints.elsewhere import other_than_asked
from medchat.checkpoints.gguf_header import read_gguf_header
from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.kept_quantized import all_kept
from medchat.checkpoints.layout import open_checkpoint, read_config
from medchat.checkpoints.manifest import verify_manifest
from medchat.checkpoints.read_once import VOCABULARY_BYTES, file_bytes
from medchat.checkpoints.stated_base import fingerprint_of_models, recorded_model
from medchat.checkpoints.weight_files import Checkpoint
from medchat.cli.front import language_may_be_configured
from medchat.commands.ask_server import running_server
from medchat.commands.plugin_facts import check_record
from medchat.datafiles.data_file import open_data_file
from medchat.errors import MedchatError
from medchat.hashing import sha256_of
from medchat.inference.mapped_weights import MappedWeights
from medchat.registry.metadata import scan
from medchat.settings.files import read_file
from medchat.sft_job.facts import read_facts
from medchat.sft_job.metrics import read_metrics
from medchat.templates.json_template import read_template
from medchat.training.checkpoint import load_pytree
from medchat.training.metrics_log import Counters, StepLog
from medchat.training.previous_run import check_output
from medchat.training.run_record import read_run_record, write_run_record
from medchat.transcripts.importing import read_transcripts
from medchat.weights.record import read_pull_record
from medchat.weights.verifying import verify

pytestmark = pytest.mark.torch


def open_data(path: Path) -> None:
    with open_data_file(path):
        pass


def finished_run(path: Path) -> None:
    options = SFTOptions(model=path.parent, output=path.parent, resume=True)
    write_run_record(path.parent, options, "data", {})
    check_output(options)


def cache_of_hub(path: Path) -> None:
    (path.parent.parent / "snapshots" / "abc").mkdir(parents=True)
    (path.parent.parent / "snapshots" / "abc" / "config.json").write_text("{}")
    found = other_than_asked(path.parent.parent, "--model")
    assert found is not None and found.remedy.endswith("abc")


#: By the module that reads it: the file's place under a folder, and what reads it there.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "medchat/settings/files.py": ("config.toml", lambda path: read_file(path, project=False)),
    "medchat/cli/front.py": ("config.toml", lambda path: language_may_be_configured()),
    "medchat/registry/metadata.py": (
        "some-1.0.dist-info/entry_points.txt",
        lambda path: scan([str(path.parent.parent)]),
    ),
    "medchat/commands/plugin_facts.py": (
        "some-1.0.dist-info/RECORD",
        lambda path: check_record("some", "some", [str(path.parent.parent)]),
    ),
    "medchat/templates/json_template.py": ("one.json", read_template),
    "plugins/eval/medchat_eval/task_yaml.py": ("task.yaml", read_task_file),
    "plugins/eval/medchat_eval/comparing.py": ("results.json", lambda path: read_run("one", path)),
    "medchat/datafiles/data_file.py": ("data.json", open_data),
    "medchat/chat/attachments.py": ("case.txt", lambda path: read_attachment(str(path))),
    "medchat/transcripts/importing.py": ("sessions.json", read_transcripts),
    "medchat/batch/results.py": ("results.jsonl", read_results),
    "medchat/checkpoints/json_object.py": ("config.json", lambda path: read_config(path.parent)),
    "medchat/checkpoints/read_once.py": ("config.json", lambda path: file_bytes(path, VOCABULARY_BYTES)),
    "medchat/checkpoints/elsewhere.py": ("refs/main", cache_of_hub),
    "medchat/checkpoints/weight_files.py": ("pytorch_model.bin", lambda path: open_checkpoint(path.parent)),
    "medchat/checkpoints/headers.py": (
        "model.safetensors",
        lambda path: read_headers(open_checkpoint(path.parent)),
    ),
    "medchat/checkpoints/gguf_header.py": ("model.gguf", read_gguf_header),
    "medchat/checkpoints/pickle_header.py": (
        "pytorch_model.bin",
        lambda path: read_headers(open_checkpoint(path.parent)),
    ),
    "medchat/checkpoints/vocabulary_file.py": ("tokenizer.model", LlamaTokenizer.from_file),
    "medchat/hashing.py": ("file", sha256_of),
    "medchat/weights/record.py": ("manifest.json", lambda path: read_pull_record(path.parent)),
    "medchat/weights/verifying.py": (
        "model.safetensors.index.json",
        lambda path: verify(path.parent, None, [], lambda count: None),
    ),
    "medchat/checkpoints/stated_base.py": ("run.json", lambda path: recorded_model(path.parent)),
    "medchat/checkpoints/kept_quantized.py": (
        "key/manifest.json",
        lambda path: all_kept(path.parent.parent),
    ),
    "medchat/inference/mapped_weights.py": (
        "model.safetensors",
        lambda path: MappedWeights(Checkpoint(path.parent, "safetensors", (path,)), {}, "bfloat16"),
    ),
    "medchat/training/run_record.py": ("run.json", lambda path: read_run_record(path.parent)),
    "medchat/checkpoints/manifest.py": ("manifest.json", lambda path: verify_manifest(path.parent)),
    "medchat/training/previous_run.py": ("manifest.json", finished_run),
    "medchat/training/checkpoint.py": ("state.json", lambda path: load_pytree(path.parent, "state")),
    "medchat/training/metrics_log.py": (
        "metrics.jsonl",
        lambda path: StepLog(path, lambda event: None).begin(1, Counters()),
    ),
    "medchat/sft_job/metrics.py": ("metrics.jsonl", lambda path: read_metrics(path.parent)),
    "medchat/commands/ask_server.py": ("address", running_server),
    "plugins/serve/medchat_serve/access_token.py": ("token", lambda path: find_token({}, path)),
    "plugins/export/medchat_export/gguf_file.py": ("config.json", lambda path: stated_config(path.parent)),
    "plugins/export/medchat_export/gguf_vocabulary.py": (
        "tokenizer.json",
        lambda path: write_byte_level(GGUFWriter(None, "bloom"), path.parent, 9, TokenIds(1, 2, 3)),
    ),
    "plugins/export/medchat_export/licences.py": ("README.md", lambda path: licence_of(path.parent, ())),
    "plugins/export/medchat_export/merge_command.py": (
        "tokenizer_config.json",
        lambda path: states_template(path.parent),
    ),
    "medchat/sft_job/facts.py": ("report.json", lambda path: read_facts(path.parent)),
}
#: Takes what is no file for the text itself.
ELSEWHERE = {"medchat/commands/safety/check.py": "tests/commands/test_safety_command.py"}
#: What the system says of itself: nobody else can put anything there.
OF_THE_SYSTEM = {
    "plugins/bench/medchat_bench/machine.py",
    "medchat/inference/machine.py",
    "medchat/inference/shards.py",
    "medchat/training/train_result.py",
}
#: Files of our own making, besides those of training.
OF_OUR_MAKING = {"medchat/checkpoints/manifest.py", "medchat/sft_job/facts.py"}
#: Documented to raise OSError; or, where the file is of no other use, to continue without it.
OS_ERRORS = {
    *("medchat/hashing.py", "medchat/checkpoints/read_once.py", "medchat/training/metrics_log.py"),
    "medchat/inference/mapped_weights.py",
}
WITHOUT_IT = {
    *("medchat/cli/front.py", "medchat/registry/metadata.py", "medchat/checkpoints/elsewhere.py"),
    *(
        "medchat/commands/plugin_facts.py",
        "medchat/commands/ask_server.py",
        "medchat/checkpoints/stated_base.py",
    ),
    "medchat/checkpoints/kept_quantized.py",
    *("plugins/export/medchat_export/licences.py", "plugins/export/medchat_export/merge_command.py"),
    *("medchat/weights/record.py", "medchat/weights/verifying.py", "medchat/sft_job/metrics.py"),
}

ODD: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
}


def read(module: str, path: Path) -> None:
    """Let the module's reader read `path`: it must end at once, in the way that is documented of it."""
    _, reader = READERS[module]
    before = time.monotonic()
    try:
        reader(path)
    except MedchatError as error:
        assert error.what and module not in WITHOUT_IT
    except OSError:
        assert module in OS_ERRORS
    else:
        assert module in WITHOUT_IT
    assert time.monotonic() - before < 2


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return where the file of a module has to lie."""

    def made(module: str) -> Path:
        path = tmp_path / "folder" / READERS[module][0]
        path.parent.mkdir(parents=True)
        monkeypatch.setenv("MEDCHAT_HOME", str(path.parent))
        return path

    return made


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["tokenizer.json", "ice_text.model"])
def test_no_family_waits_for_its_vocabulary(tmp_path: Path, name: str, kind: str) -> None:
    ODD[kind](tmp_path / name)
    read_it = BloomTokenizer.from_folder if name == "tokenizer.json" else ChatGLMTokenizer.from_file
    with pytest.raises(MedchatError, match="词表"):
        read_it(tmp_path if name == "tokenizer.json" else tmp_path / name)


def test_a_pointer_in_the_place_of_a_vocabulary_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n")
    with pytest.raises(MedchatError, match="git-lfs"):
        LlamaTokenizer.from_file(path)


def test_every_row_of_the_list_is_tried() -> None:
    assert {module for _, module in documented()} == READERS.keys() | ELSEWHERE.keys() | OF_THE_SYSTEM
    assert all((ROOT / test).is_file() for test in ELSEWHERE.values())


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("module", READERS)
def test_what_is_no_file_is_never_waited_for(place: Callable[[str], Path], module: str, kind: str) -> None:
    path = place(module)
    ODD[kind](path)
    read(module, path)


@pytest.mark.parametrize(
    ("module", "limit"),
    [(module, size) for limit, module in documented() if (size := size_of(limit)) and module in READERS],
)
def test_a_file_beyond_its_limit_is_not_read(
    place: Callable[[str], Path], module: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(module)
    with path.open("wb") as file:
        file.truncate(limit + 1)
    read(module, path)


def test_the_record_of_a_runs_models_reads_both_ends_of_what_is_large(tmp_path: Path) -> None:
    for name in ("model.safetensors", "large.json"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**33)
    os.mkfifo(tmp_path / "pipe")
    before = time.monotonic()
    assert fingerprint_of_models([tmp_path])
    assert time.monotonic() - before < 2


@pytest.mark.parametrize("module", [name for name in READERS if name not in WITHOUT_IT | OS_ERRORS])
def test_a_pipe_is_called_one(place: Callable[[str], Path], module: str) -> None:
    if module.startswith("medchat/training/") or module in (
        "medchat/checkpoints/manifest.py",
        "medchat/sft_job/facts.py",
    ):
        pytest.skip("files of our own making: that they are damaged is enough")
    path = place(module)
    os.mkfifo(path)
    with pytest.raises(MedchatError, match="命名管道"):
        READERS[module][1](path)
