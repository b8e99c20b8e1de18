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
from batch_fixtures import rows, without_seconds
from medchat_chatglm.tiny import write_tiny
from safetensors.torch import load_file, save_file

from medchat.cli.program import run
from medchat.torchside.device import pick_device

pytestmark = pytest.mark.torch

SHARED = Path(os.environ.get("MEDCHAT_SHARED") or Path(__file__).resolve().parents[2] / "shared")
DATA = SHARED / "data"
SEED_STACK = Path(os.environ.get("MEDCHAT_GOLDENS") or SHARED / "goldens") / "seed-stack"
#: The data files of the original projects, and under which key their questions stand.
FILES = {"infer.json": "instruction", "liver_cancer.json": "instruction", "cmcoqa_question.json": "question"}
BODY = ["头痛", "发热", "咳嗽", "心悸", "乏力", "失眠", "腹泻", "胸闷"]


def records(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def corpus() -> list[str]:
    """Texts that the miniature's vocabulary is made from: the data's own where there is any."""
    texts = [word + "怎么办？要不要去医院？" for word in BODY]
    for name, key in FILES.items():
        if (DATA / name).exists():
            texts += [record[key] for record in records(name)][:300]
    return texts


@pytest.fixture(scope="module")
def chatglm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature that says something: each token depends on all before it."""
    folder = tmp_path_factory.mktemp("tiny") / "chatglm"
    write_tiny(folder, corpus=corpus(), vocabulary_size=3000, layout="safetensors")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    torch.manual_seed(3)
    for name, tensor in tensors.items():
        if tensor.dim() == 2:
            tensors[name] = torch.randn(tensor.shape).half()
    tensors["transformer.word_embeddings.weight"][:6] = 0  # no control id is ever the best
    tensors["lm_head.weight"] = tensors["transformer.word_embeddings.weight"].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def infer(model: Path, data: Path, output: Path, *flags: str) -> list[dict[str, Any]]:
    """Run the command in this process and return the lines of its result."""
    loading = ["--model", str(model), "--device", "cpu", "--dtype", "float32"]
    files = ["--data", str(data), "--output", str(output)]
    assert run(["infer", *loading, *files, *flags], language=None, debug=True) == 0
    return rows(output)


def as_file(path: Path, questions: Sequence[Any]) -> Path:
    path.write_text(json.dumps(list(questions), ensure_ascii=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_record_of_the_published_files_is_answered(chatglm: Path, tmp_path: Path, name: str) -> None:
    expected = records(name)
    lines = infer(chatglm, DATA / name, tmp_path / "a.jsonl", "--max-new-tokens", "2", "--batch-size", "32")
    assert [line["question"] for line in lines] == [record[FILES[name]] for record in expected]
    assert [line.get("reference") for line in lines] == [record.get("output") for record in expected]
    assert {line["finish"] for line in lines} <= {"stop", "length"}
    assert {line["tokens"] for line in lines if line["finish"] == "length"} == {2}
    assert len({line["answer"] for line in lines}) > len(lines) // 4
    assert [line.get("turns", 0) for line in lines] == [
        record[FILES[name]].count("<bot>:") for record in expected
    ]


@pytest.mark.parametrize("flags", [[], ["--num-beams", "4"], ["--top-p", "0.9", "--seed", "7"]])
def test_answers_in_a_batch_equal_the_answers_alone(
    chatglm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    luck = random.Random(5)
    questions = ["，".join(luck.choices(BODY, k=count % 9 + 1)) + "怎么办？" for count in range(20)]
    data = as_file(tmp_path / "questions.json", questions)
    flags = [*flags, "--max-new-tokens", "12"]
    alone = infer(chatglm, data, tmp_path / "alone.jsonl", "--batch-size", "1", *flags)
    for size in ("8", "20"):
        together = infer(chatglm, data, tmp_path / f"{size}.jsonl", "--batch-size", size, *flags)
        assert without_seconds(together) == without_seconds(alone)
    assert len({line["answer"] for line in alone}) > 10
    capsys.readouterr()
    asked = ["ask", "--model", str(chatglm), "--device", "cpu", "--dtype", "float32", "--no-save"]
    decoding = flags if len(flags) > 2 else [*flags, "--greedy"]
    assert run([*asked, "--json", *decoding, questions[3]], language=None, debug=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["answer"], answer["finish"]) == (alone[3]["answer"], alone[3]["finish"])


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_killed_five_times_on_a_published_file_is_as_if_it_never_was(
    chatglm: Path, tmp_path: Path, name: str
) -> None:
    records(name)
    flags = ["--max-new-tokens", "4", "--batch-size", "8"]
    uninterrupted = infer(chatglm, DATA / name, tmp_path / "whole.jsonl", *flags)
    output, luck = tmp_path / "killed.jsonl", random.Random(name)
    words = ["infer", "--model", str(chatglm), "--device", "cpu", "--dtype", "float32", "--resume", *flags]
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
    assert without_seconds(infer(chatglm, DATA / name, output, "--resume", *flags)) == without_seconds(
        uninterrupted
    )


def recorded() -> list[Any]:
    """One item for each checkpoint of the seed stack, with or without its adapter, and each decoding."""
    found = []
    for file in sorted(SEED_STACK.glob("*/expected.json")):
        expected = json.loads(file.read_text(encoding="utf-8"))
        for part in ("base_only", "with_adapter"):
            found += [
                pytest.param(file.parent, part, expected[part], kind, id=f"{file.parent.name}-{part}-{kind}")
                for kind in ("greedy", "beam4")
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
        assert [line["answer"] for line in lines] == [case[f"{kind}_text"] for case in wanted]
        assert [line["tokens"] for line in lines] == [len(case[f"{kind}_ids"]) for case in wanted]
        assert [line["prompt_tokens"] for line in lines] == [len(case["input_ids"]) for case in wanted]


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    for rank, index in (("", 0), ("0", 0), ("1", 1), ("2", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert pick_device("auto") == pick_device("cuda") == torch.device("cuda", index)
        assert pick_device("cuda:1") == torch.device("cuda", 1)
