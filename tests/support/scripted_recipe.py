"""A backbone that pretends to be trained, for the tests of `medchat sft`: no torch, a fraction of a second.

Its folder is its model; `config.json` there scripts the run: `waits` (seconds before it), `steps`, `seconds`
a step, `needs` and `free` (bytes of memory), `fails` (what the run says when it fails), `diverges_at`. Its
options are written to `called.json` in the output. (PYTEST_DONT_REWRITE: imported by name too.)
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from child_process import SOURCES, child_environment, command, start_python
from cli_program import Outcome, run
from plugin_packages import write_distribution

_PLUGIN = """
import json, time
from dataclasses import asdict
from medchat.api import *
from medchat.errors import MedchatError
from medchat.hookspecs import hookimpl
from medchat.templates import load_template

medchat_api_version = 1

class Pretended(SFTRecipe):
    collators = ("default", "other")

    def __init__(self, method, **defaults):
        self.method, self.defaults = method, defaults

    def survey(self, data, options):
        script = read(options)
        if script.get("untold"):
            return None
        first = data.train[0]
        pieces = (PreviewPiece("问：" + first.question + "\\n答：", False), PreviewPiece("<sop>", False, True),
                  PreviewPiece(first.answer, True), PreviewPiece("</s>", True, True))
        lengths = tuple(len(each.question + each.answer) for each in data.train)
        return SFTSurvey("med_template", len(lengths), options.max_length, lengths, 1, 2, 3, ("a:7",),
                         sum(lengths), sum(len(each.answer) for each in data.train), max(lengths), pieces)

    def estimate(self, options, survey):
        script = read(options)
        if script.get("untold"):
            return None
        needs, free = script.get("needs", 2**30), script.get("free", 2**33)
        nearest = {} if needs <= free else {"gradient_checkpointing": True, "micro_batch_size": 1}
        return MemoryEstimate({"weights": needs // 2, "logits": needs - needs // 2}, "cpu", free,
                              {"--optimizer adafactor": needs // 3}, nearest, ("a note",), 1000, 10,
                              {24: {"gradient_checkpointing": True}, 80: {}})

    def run(self, data, options, watch):
        script, out = read(options), options.output
        out.mkdir(exist_ok=True)
        (out / "called.json").write_text(json.dumps(asdict(options), default=str))
        steps = script.get("steps", 10)
        watch.on_event(SFTNote("a \\x1b[31mnote"))
        if script.get("waits"):
            watch.on_event(SFTStatus("先想一想"))
            time.sleep(script["waits"])
        with (out / "metrics.jsonl").open("a") as log:
            for step in range(1, steps + 1):
                time.sleep(script.get("seconds", 0))
                if step == script.get("diverges_at"):
                    raise MedchatError("it diverged", "lower the rate")
                loss = 3.0 / step
                log.write(json.dumps({"step": step, "loss": loss, "lr": 1e-4, "seconds": 0.1 * step}) + "\\n")
                log.flush()
                watch.on_event(SFTProgress(step, steps, loss, 1e-4, 1234.5, 0.1 * step))
                if watch.cancel.is_set():
                    watch.on_event(SFTSaved(step, out / "checkpoints" / f"step-{step:08}"))
                    raise MedchatError("stopped and saved", "medchat sft --resume")
            log.write(json.dumps({"step": steps, "eval_loss": 0.5}) + "\\n")
        watch.on_event(SFTEvaluation(steps, 0.5, 1.65, True))
        samples = (SFTSample("问题<b>", "参考", "前", "后 <script>alert(1)</script> | [x](http://e.x)"),)
        report = SFTReport(out, steps, len(data.train), 99, 3.0, 3.0 / steps, 12.5, "adapter", "med_template",
                           5000, len(data.held_out), steps, 0.5, trainable_parameters=10, parameters=1000,
                           peak_bytes=2**30, samples=samples)
        watch.finish(out, report)
        return report

def read(options):
    return json.loads((options.model / "config.json").read_text())

class Pupil(Backbone):
    name = "pupil"
    summary = {"zh": "", "en": ""}
    load_keys = {"rule": ("one", "two")}
    recipes = {"lora": Pretended("lora", learning_rate=3e-4, batch_size=128, micro_batch_size=8),
               "full": Pretended("full")}
    def load(self, options): raise AssertionError("its recipe only pretends to train: no model is loaded")
    def template(self, options): return load_template("med_template")
    def inspect(self, path): return None
    def tiny(self, path, *, corpus=(), seed=0, **shape): pass

@hookimpl
def medchat_backbones():
    return [Pupil()]
"""

#: What a file of training data holds in these tests.
RECORDS = tuple(
    {"instruction": f"问题{number}？", "input": "", "output": f"回答{number}。"} for number in range(40)
)


class Pupil:
    """A folder with the plugin, its model and data, and the environment that finds them."""

    def __init__(self, folder: Path, records: Sequence[Mapping[str, Any]] = RECORDS, **script: Any) -> None:
        self.folder, self.site, self.model = folder, folder / "site", folder / "权重"
        self.output = folder / "结果"
        self.model.mkdir(parents=True)
        self.script(**script)
        self.data = folder / "data.json"
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        self.data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_distribution(
            self.site, "pupil", {"medchat": {"pupil": "pupil_plugin"}}, {"pupil_plugin": _PLUGIN}
        )

    def script(self, **script: Any) -> None:
        """Script the run."""
        (self.model / "config.json").write_text(json.dumps(script), encoding="utf-8")

    @property
    def flags(self) -> tuple[str, ...]:
        """The words after `medchat` of an ordinary run."""
        base = ("sft", "--backbone", "pupil", "--model", str(self.model))
        return (*base, "--data", str(self.data), "--output", str(self.output))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a child that finds the plugin."""
        return {"PYTHONPATH": os.pathsep.join([*SOURCES, str(self.site)])}

    def called(self) -> dict[str, Any]:
        """Return the options that the run got."""
        return json.loads((self.output / "called.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def start(self, *more: str, **environment: str) -> subprocess.Popen[str]:
        """Start the run in a process of its own, its streams piped."""
        return start_python(
            *command(*self.flags, *more)[1:],
            environment=child_environment(**self.environment, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *more: str, **environment: str) -> Outcome:
        """Run it in a process of its own."""
        return run(*self.flags, *more, **self.environment, **environment)
