"""A backbone that needs no torch, for the tests of batch inference: found on PYTHONPATH like any plugin.

Its folder is its model: `config.json` there scripts it. An answer depends on the prompt alone, not on the
rest of the batch. Every batch is logged in `calls.jsonl`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from child_process import SOURCES, child_environment, start_python
from plugin_packages import write_distribution

_PLUGIN = """
import json, os, time
from medchat.api import Backbone, Completion, Finish, Text
from medchat.errors import CheckpointError, MedchatError, MemoryShortageError
from medchat.hookspecs import hookimpl
from medchat.templates import load_template

medchat_api_version = 1

class Parrot:
    def __init__(self, folder):
        self.folder = folder
        self.script = json.loads((folder / "config.json").read_text())
        self.context_length = self.script.get("context", 2048)

    def generate_batch(self, prompts, config):
        texts = ["".join(part.text for part in prompt) for prompt in prompts]
        call = {"texts": texts, "config": repr(config), "rank": os.environ.get("RANK"),
                "world_size": os.environ.get("WORLD_SIZE")}
        with (self.folder / "calls.jsonl").open("a") as file:
            file.write(json.dumps(call) + "\\n")
        time.sleep(self.script.get("seconds", 0.0))
        if (gate := self.script.get("gate")) and gate in "".join(texts):
            while not (self.folder / "gate").exists():
                time.sleep(0.005)
        if len(texts) > self.script.get("memory", 10**9):
            raise MemoryShortageError("no memory") if self.script.get("told") else MemoryError()
        for text in texts:
            if any(bad in text for bad in self.script.get("fails", ())):
                raise MedchatError("it failed")
        return [self.answer(text, config) for text in texts]

    def answer(self, text, config):
        words = (text[::-1] * 2)[: config.max_new_tokens]
        return Completion(words, Finish.STOP, len(text), len(words))

    def stream(self, segments, config, cancel): raise AssertionError("infer asks in batches")
    def score(self, segments, answer): raise AssertionError("infer scores nothing")
    def count(self, segments): return sum(len(part.text) for part in segments)
    def describe(self):
        about = {"backbone": "parrot", "model": str(self.folder), "dtype": "float32", "device": "cpu"}
        return about | {"notes": ("a note",)}
    def close(self): pass

class ParrotBackbone(Backbone):
    name = "parrot"
    summary = {"zh": "", "en": ""}
    def load(self, options): return Parrot(options.model)
    def check(self, options):
        for adapter in options.adapters:
            if (adapter / "of-another-base").exists():
                raise CheckpointError("the adapter does not fit", where=str(adapter))
    def template(self, options): return load_template("med_template")
    def inspect(self, path): return None
    def notices(self, options): return ("the words stay in the cage",)
    def tiny(self, path, *, corpus=(), seed=0, **shape): pass

@hookimpl
def medchat_backbones():
    return [ParrotBackbone()]
"""


class Parrot:
    """A folder with the plugin and its model, and the environment to use them."""

    def __init__(self, folder: Path, **script: Any) -> None:
        self.model = folder / "model"
        self.model.mkdir(parents=True)
        self.script(**script)
        write_distribution(
            folder / "site", "parrot", {"medchat": {"parrot": "parrot_plugin"}}, {"parrot_plugin": _PLUGIN}
        )
        self.environment = child_environment(PYTHONPATH=os.pathsep.join([*SOURCES, str(folder / "site")]))

    def script(self, **script: Any) -> None:
        """Change what the model does: seconds, memory, told, fails, context, gate."""
        (self.model / "config.json").write_text(json.dumps(script), encoding="utf-8")

    def arguments(self, data: Path, output: Path, *more: str) -> list[str]:
        """Return the arguments of the program."""
        where = ["--data", str(data), "--output", str(output)]
        return ["infer", "--backbone", "parrot", "--model", str(self.model), *where, *more]

    def start(
        self,
        data: Path,
        output: Path,
        *more: str,
        environment: Mapping[str, str] | None = None,
        file_limit: int | None = None,
    ) -> subprocess.Popen[str]:
        """Start `medchat infer`. No file may grow beyond `file_limit` bytes."""

        def limit_files() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit or 0,) * 2)

        words = ("-m", "medchat", *self.arguments(data, output, *more))
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        }
        given = {**self.environment, **(environment or {})}
        if file_limit is None:
            return start_python(*words, environment=given, **options)
        return subprocess.Popen([sys.executable, *words], env=given, preexec_fn=limit_files, **options)

    def infer(
        self,
        data: Path,
        output: Path,
        *more: str,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run `medchat infer` to its end; `options` are those of `start`."""
        process = self.start(data, output, *more, **options)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def calls(self) -> list[dict[str, Any]]:
        """Return every batch that reached the model so far."""
        path = self.model / "calls.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_questions(path: Path, count: int) -> Path:
    """Write `count` questions of different lengths as JSON lines."""
    rows = [{"question": f"第{number}题" + "为什么？" * (number * 7 % 11)} for number in range(count)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a result file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def without_seconds(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines without their times."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
