"""`medchat infer` with real backbones on miniatures and recorded checkpoints: each answer as if asked alone."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_program import without_seconds
from bloom_adapters import write_adapter
from launched import launch
from locations import SHARED
from seed_stack import recorded_text
from talking_miniatures import BODY, DATA, FAMILIES, FILES, Talkative, infer, records

from medchat.cli.program import run
from medchat.inference.device import pick_device

pytest_plugins = ("talking_miniatures",)
pytestmark = pytest.mark.torch

SEED_STACK = Path(os.environ.get("MEDCHAT_GOLDENS") or SHARED / "goldens") / "seed-stack"


def as_file(path: Path, questions: Sequence[Any]) -> Path:
    path.write_text(json.dumps(list(questions), ensure_ascii=False), encoding="utf-8")
    return path


def each_family_and_file() -> list[Any]:
    """One item for each family and data file, and of the thousand dialogues the first; what takes long is slow."""
    whole = [
        pytest.param(
            family,
            name,
            1000,
            marks=[] if name == "infer.json" else [pytest.mark.slow],
            id=f"{family}-{name}",
        )
        for family in FAMILIES
        for name in FILES
    ]
    return [*whole, pytest.param("chatglm", "liver_cancer.json", 24, id="chatglm-first dialogues")]


@pytest.mark.parametrize(("family", "name", "first"), each_family_and_file())
def test_every_record_of_the_published_files_is_answered_as_it_would_be_alone(
    talkative: Talkative, tmp_path: Path, family: str, name: str, first: int
) -> None:
    model, expected = talkative(family), records(name)[:first]
    flags = ["--limit", str(first), "--max-new-tokens", "4", "--batch-size"]
    lines = infer(model, DATA / name, tmp_path / "a.jsonl", *flags, "16")
    assert [line["question"] for line in lines] == [record[FILES[name]] for record in expected]
    assert [line.get("reference") for line in lines] == [record.get("output") for record in expected]
    assert {line["finish"] for line in lines} <= {"stop", "length"}
    assert {line["tokens"] for line in lines if line["finish"] == "length"} == {4}
    assert len({line["answer"] for line in lines}) > len(lines) // 4
    assert [line.get("turns", 0) for line in lines] == [
        record[FILES[name]].count("<bot>:") for record in expected
    ]
    alone = infer(model, DATA / name, tmp_path / "alone.jsonl", *flags, "1")
    assert without_seconds(alone) == without_seconds(lines)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "flags",
    [
        [],
        pytest.param(["--num-beams", "4"], marks=pytest.mark.slow),
        pytest.param(["--top-p", "0.9", "--seed", "7"], marks=pytest.mark.slow),
    ],
)
def test_answers_in_a_batch_equal_the_answers_alone(
    talkative: Talkative, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], family: str
) -> None:
    luck, model = random.Random(5), talkative(family)
    questions = ["，".join(luck.choices(BODY, k=count % 9 + 1)) + "怎么办？" for count in range(18)]
    data = as_file(tmp_path / "questions.json", questions)
    flags = [*flags, "--max-new-tokens", "12"]
    alone = infer(model, data, tmp_path / "alone.jsonl", "--batch-size", "1", *flags)
    # Two whole batches and a rest, each with short questions among long ones.
    together = infer(model, data, tmp_path / "together.jsonl", "--batch-size", "8", *flags)
    assert without_seconds(together) == without_seconds(alone)
    assert len({line["answer"] for line in alone}) > 10
    capsys.readouterr()
    asked = ["ask", "--model", str(model), "--device", "cpu", "--dtype", "float32", "--no-save"]
    decoding = flags if len(flags) > 2 else [*flags, "--greedy"]
    assert run([*asked, "--json", *decoding, questions[3]], language=None, debug=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["answer"], answer["finish"]) == (alone[3]["answer"], alone[3]["finish"])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", FILES)
def test_killed_five_times_on_a_published_file_is_as_if_it_never_was(
    talkative: Talkative, tmp_path: Path, name: str, family: str
) -> None:
    model, count = talkative(family), len(records(name))
    flags = ["--max-new-tokens", "4", "--batch-size", "1" if count < 10 else "8"]
    uninterrupted = infer(model, DATA / name, tmp_path / "whole.jsonl", *flags)
    output, luck = tmp_path / "killed.jsonl", random.Random(name)
    words = ["infer", "--model", str(model), "--device", "cpu", "--dtype", "float32", "--resume", *flags]
    words += ["--data", str(DATA / name), "--output", str(output)]
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-m", "medchat", *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.DEVNULL,
        )
        before = output.stat().st_size if output.exists() else 0
        while process.poll() is None and (not output.exists() or output.stat().st_size == before):
            time.sleep(0.01)
        time.sleep(luck.random() * 0.5)
        process.kill()
        process.wait()
    assert without_seconds(infer(model, DATA / name, output, "--resume", *flags)) == without_seconds(
        uninterrupted
    )


@pytest.mark.parametrize(("with_adapter", "template"), [(False, "huozi"), (True, "bloom_deploy")])
def test_huozi_answers_a_file_in_its_own_form_or_in_its_adapters(
    talkative: Talkative,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    with_adapter: bool,
    template: str,
) -> None:
    model = talkative("huozi")
    more = ["--adapter", str(write_adapter(tmp_path / "lora", scale=0.05))] if with_adapter else []
    questions = ["发热、乏力，怎么办？", "咳嗽、发热、胸闷，要不要去医院？", "失眠<|endofutterance|>"]
    data = as_file(tmp_path / "questions.json", questions)
    flags = [*more, "--max-new-tokens", "8"]
    lines = infer(model, data, tmp_path / "a.jsonl", *flags)
    assert {(line["backbone"], line["template"]) for line in lines} == {("huozi", template)}
    assert {tuple(line["adapter"]) for line in lines} == {tuple(more[1:])}
    capsys.readouterr()
    for line in lines:
        asked = ["ask", "--model", str(model), "--device", "cpu", "--dtype", "float32", "--no-save", "--json"]
        assert run([*asked, *flags, "--greedy", line["question"]], language=None, debug=True) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["answer"], answer["finish"]) == (line["answer"], line["finish"])
        assert line["answer"]


def recorded() -> list[Any]:
    """One item for each checkpoint of the seed stack, with or without its adapter, and each decoding.

    Beams are slow here: that the models write their recorded ids is tested beside the models.
    """
    found = []
    for file in sorted(SEED_STACK.glob("*/expected.json")):
        expected = json.loads(file.read_text(encoding="utf-8"))
        for part in ("base_only", "with_adapter"):
            found += [
                pytest.param(
                    file.parent,
                    part,
                    expected[part],
                    kind,
                    id=f"{file.parent.name}-{part}-{kind}",
                    marks=marks,
                )
                for kind, marks in (("greedy", ()), ("beam4", pytest.mark.slow))
            ]
    return found


@pytest.mark.golden
@pytest.mark.skipif(not recorded(), reason="the recorded answers are not on this machine")
@pytest.mark.parametrize(("folder", "part", "cases", "kind"), recorded())
def test_answers_are_those_that_the_original_stack_gave(
    folder: Path, part: str, cases: list[dict[str, Any]], kind: str, tmp_path: Path
) -> None:
    flags = ["--adapter", str(folder / "adapter")] if part == "with_adapter" else []
    flags += ["--num-beams", "4"] if kind == "beam4" else []
    for template in sorted({case["template"] for case in cases}):
        wanted = [case for case in cases if case["template"] == template]
        length = len(wanted[0][f"{kind}_ids"])
        data = as_file(
            tmp_path / f"{template}.json", [{"instruction": case["instruction"]} for case in wanted]
        )
        decoding = ["--template", template, "--max-new-tokens", str(length)]
        lines = infer(folder / "base", data, tmp_path / f"{template}.jsonl", *flags, *decoding)
        assert [line["answer"] for line in lines] == [recorded_text(case, kind) for case in wanted]
        assert [line["tokens"] for line in lines] == [len(case[f"{kind}_ids"]) for case in wanted]
        assert [line["prompt_tokens"] for line in lines] == [len(case["input_ids"]) for case in wanted]


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    for rank, index in (("", 0), ("0", 0), ("1", 1), ("2", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.delenv("MASTER_ADDR", raising=False)
        assert pick_device("auto") == torch.device("cuda", 0), "left behind by something else"
        launch(monkeypatch, 2)
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert pick_device("auto") == pick_device("cuda") == torch.device("cuda", index)
        assert pick_device("cuda:1") == torch.device("cuda", 1)
