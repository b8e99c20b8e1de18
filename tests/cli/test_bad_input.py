"""Bad input: every kind ends with its exit code and two lines, what happened and what to type next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from child_process import child_environment, command
from cli_program import Call, Outcome, Scripted, copy_of, run

pytest_plugins = ("cli_program",)

WEIGHTS = "pytorch_model-0000"
INDEX = "pytorch_model.bin.index.json"


def assert_refused(outcome: Outcome, code: int, *fragments: str) -> None:
    """Check the exit code, an empty stdout, a message of two lines at the end, and what these name."""
    what, remedy = outcome.failure()
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    for fragment in fragments:
        assert fragment in f"{what}\n{remedy}", outcome.err


# ---------------------------------------------------------------- exit 3: the model


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a miniature in the published layout: `.bin` shards and their index."""
    from medchat_chatglm.backbone import ChatGLMBackbone

    folder = tmp_path_factory.mktemp("published") / "ChatGLM-6B"
    ChatGLMBackbone().tiny(folder, vocabulary_size=300)
    return folder


def shard(folder: Path) -> Path:
    """Return one of several shards."""
    *others, last = sorted(folder.glob(f"{WEIGHTS}*"))
    assert others
    return last


def _text_as_weights(folder: Path) -> None:
    shard(folder).write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")


def _truncate(folder: Path) -> None:
    content = shard(folder).read_bytes()
    shard(folder).write_bytes(content[: len(content) // 2])


def _remove_shard(folder: Path) -> None:
    shard(folder).unlink()


def _point_outside(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    name = shard(folder).name
    shard(folder).rename(folder.parent / "outside.bin")
    moved = {
        tensor: "../outside.bin" if file == name else file for tensor, file in index["weight_map"].items()
    }
    (folder / INDEX).write_text(json.dumps({**index, "weight_map": moved}), encoding="utf-8")


def _link_outside(folder: Path) -> None:
    file = shard(folder)
    file.rename(folder.parent / "outside.bin")
    file.symlink_to(folder.parent / "outside.bin")


def _other_vocabulary(folder: Path) -> None:
    from medchat_chatglm.vocabulary import FILE_NAME, train_chatglm_vocabulary

    (folder / FILE_NAME).write_bytes(
        train_chatglm_vocabulary(["头痛怎么办？多喝水。"] * 50, 300, icetk_era=True)
    )


def _no_vocabulary(folder: Path) -> None:
    (folder / "ice_text.model").unlink()


def _not_a_number(folder: Path) -> None:
    import torch

    first, *_ = sorted(folder.glob(f"{WEIGHTS}*"))
    tensors = torch.load(first, weights_only=True)
    next(iter(tensors.values()))[-1] = float("nan")
    torch.save(tensors, first)


def _malicious(folder: Path) -> None:
    from checkpoint_files import poison

    poison(shard(folder), folder.parent / "executed")


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a text file as weights": (_text_as_weights, WEIGHTS),
    "a truncated shard": (_truncate, WEIGHTS),
    "a missing shard": (_remove_shard, WEIGHTS),
    "an index that points outside": (_point_outside, INDEX),
    "a shard that is a link to the outside": (_link_outside, WEIGHTS),
    "the vocabulary of another generation": (_other_vocabulary, "ice_text.model"),
    "no vocabulary": (_no_vocabulary, "ice_text.model"),
    "weights that are no numbers": (_not_a_number, "NaN"),
    "a malicious pickle": (_malicious, WEIGHTS),
    "no config.json": (_no_config, "config.json"),
}


@pytest.mark.torch
@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_model_is_refused_with_3_naming_the_file(
    call: Call, published: Path, tmp_path: Path, kind: str, language: str
) -> None:
    damage, named = DAMAGE[kind]
    folder = copy_of(published, tmp_path / "model")
    damage(folder)
    outcome = call(
        "ask",
        "头痛",
        "--backbone",
        "chatglm",
        "--model",
        str(folder),
        "--lang",
        language,
        "--max-new-tokens",
        "1",
    )
    assert_refused(outcome, 3, named)
    assert not (tmp_path / "executed").exists()


@pytest.mark.torch
@pytest.mark.parametrize("flags", [("--backbone", "chatglm"), ()], ids=["named", "recognised"])
def test_a_malicious_pickle_is_not_run_by_looking_at_the_folder_either(
    call: Call, published: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    folder = copy_of(published, tmp_path / "model")
    _malicious(folder)
    assert_refused(call("models", "show", str(folder), *flags), 3, WEIGHTS)
    assert_refused(call("ask", "头痛", "--model", str(folder), *flags), 3, WEIGHTS)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("verb", ["ask", "chat"])
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--model", "/nowhere/ChatGLM-6B-Med"), "/nowhere/ChatGLM-6B-Med"),
        (("--model", "ChatGLM-6B-Med"), "models"),
        ((), "加上 --model 权重目录；没有权重时可先试：medchat demo"),
        (("--model", "FILE"), "FILE"),
        (("--model", "EMPTY"), "EMPTY"),
        (("--model", "EMPTY", "--backbone", "chatglm"), "config.json"),
        (("--model", "EMPTY", "--adapter", "/nowhere/lora", "--backbone", "chatglm"), "/nowhere/lora"),
    ],
    ids=["no such folder", "no such name", "none given", "a file", "no plugin knows it", "empty", "adapter"],
)
def test_a_model_that_is_not_there_is_refused_with_3(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, flags: tuple[str, ...], named: str
) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").touch()
    monkeypatch.chdir(tmp_path)
    question = ("头痛",) if verb == "ask" else ()
    assert_refused(call(verb, *question, *flags, stdin="头痛\n"), 3, named)


# ---------------------------------------------------------------- exit 2: usage

MODEL = ("--model", "MODEL")
USAGE: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown backbone": (("ask", "头痛", "--backbone", "chatgml", *MODEL), "chatglm"),
    "unknown command": (("aks", "头痛"), "medchat ask"),
    "unknown subcommand": (("sessions", "lst"), "sessions list"),
    "unknown option": (("ask", "头痛", "--temprature", "1"), "--temperature"),
    "no question": (("ask",), "--help"),
    "empty question": (("ask", " \n", *MODEL), "medchat ask"),
    "two answers": (("ask", "头痛", "--json", "--events", *MODEL), "--events"),
    "temperature 0": (("ask", "头痛", "--temperature", "0", *MODEL), "(0, 2]"),
    "temperature 3": (("ask", "头痛", "--temperature", "3", *MODEL), "(0, 2]"),
    "temperature nan": (("ask", "头痛", "--temperature", "nan", *MODEL), "(0, 2]"),
    "temperature inf": (("ask", "头痛", "--temperature", "inf", *MODEL), "(0, 2]"),
    "temperature -inf": (("ask", "头痛", "--temperature", "-inf", *MODEL), "(0, 2]"),
    "temperature warm": (("ask", "头痛", "--temperature", "warm", *MODEL), "--temperature"),
    "top-p 1.5": (("ask", "头痛", "--top-p", "1.5", *MODEL), "(0, 1]"),
    "no new tokens": (("ask", "头痛", "--max-new-tokens", "0", *MODEL), "[1, 32768]"),
    "too many beams": (("ask", "头痛", "--num-beams", "99", *MODEL), "[1, 16]"),
    "half a token": (("ask", "头痛", "--max-new-tokens", "1.5", *MODEL), "--max-new-tokens"),
    "negative seed": (("ask", "头痛", "--seed", "-1", *MODEL), "--seed"),
    "unknown device": (("ask", "头痛", "--device", "gpu", *MODEL), "cuda"),
    "unknown precision": (("ask", "头痛", "--dtype", "fp16", *MODEL), "float16"),
    "unknown template": (("ask", "头痛", "--template", "med_templat", *MODEL), "med_template"),
    "a template that is none": (("ask", "头痛", "--template", "BAD.json", *MODEL), "BAD.json:2"),
    "unknown rule": (("ask", "头痛", "--backbone", "chatglm", "--rule", "v2", *MODEL), "v11"),
    "unknown language": (("ask", "头痛", "--lang", "fr"), "--lang zh"),
    "unknown session": (("chat", "--resume", "20200101-zzzz", *MODEL), "medchat"),
    "no session to go on with": (("chat", "-c", *MODEL), "medchat chat"),
    "no session named": (("ask", "头痛", "--resume", "", *MODEL), "medchat sessions list"),
    "two sessions": (("chat", "-c", "--session", "复诊", *MODEL), "sessions list"),
    "old session unsaved": (("chat", "-c", "--no-save", *MODEL), "--no-save"),
    "session to show": (("sessions", "show", "20200101-zzzz"), "medchat"),
    "delete nothing": (("sessions", "delete"), "--all"),
    "delete without asking": (("sessions", "delete", "--all"), "--yes"),
}


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("kind", USAGE)
def test_wrong_usage_is_refused_with_2_naming_what_is_right(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, language: str
) -> None:
    arguments, named = USAGE[kind]
    monkeypatch.setenv("MEDCHAT_LANG", language)
    monkeypatch.chdir(tmp_path)
    _recognisable(tmp_path / "MODEL")
    (tmp_path / "BAD.json").write_text('{\n"prompt_no_input": 1}', encoding="utf-8")
    outcome = call(*arguments)
    assert_refused(outcome, 2, named)
    assert outcome.err.startswith("错误" if language == "zh" else "Error")


def _recognisable(folder: Path) -> None:
    """Write as much of a ChatGLM folder as is looked at before torch is imported: its configuration and headers."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    config = {"model_type": "chatglm", "vocab_size": 130528, "inner_hidden_size": 8, "hidden_size": 4}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({"transformer.word_embeddings.weight": torch.zeros(1)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ('device = "cpu"\ntemprature = 1\n', 2, "generation.temperature"),
        ("[generation]\ntemperature = 9.0\n", 2, "(0, 2]"),
        ('device = "cpu"\nbackbone = = 1\n', 2, 'device = "cpu"'),
        ('\n\nstyle = "shiny"\n', 3, "plain"),
        ('\nfrobnicate = "x"\n', 2, "config show"),
        ('\n\n\napi_key = "sk-123"\n', 4, "api_key"),
    ],
    ids=["misspelt", "out of range", "broken", "no such choice", "unknown", "secret"],
)
@pytest.mark.parametrize("which", ["config.toml", "medchat.toml"])
def test_a_bad_configuration_is_refused_with_its_file_and_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, text: str, line: int, named: str
) -> None:
    home = Path(os.environ["MEDCHAT_HOME"])
    home.mkdir()
    monkeypatch.chdir(tmp_path)
    ((home if which == "config.toml" else tmp_path) / which).write_text(text, encoding="utf-8")
    for arguments in (("ask", "头痛", "--model", "x"), ("config", "show")):
        assert_refused(call(*arguments), 2, f"{which}:{line}", named)


def test_with_a_broken_configuration_one_can_still_look_for_the_fault(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "medchat.commands.doctor.torch_devices", lambda: iter(())
    )  # seconds, and no matter here
    home = Path(os.environ["MEDCHAT_HOME"])
    home.mkdir()
    file = home / "config.toml"
    file.write_text("lang = = 1\n", encoding="utf-8")
    assert call("config", "path").out == f"{file}\n"
    assert call("--help").code == call("ask", "--help").code == call("plugins", "list").code == 0
    doctor = call("doctor")
    assert doctor.code == 1 and f"{file}:1" in doctor.out
    found = call("doctor", "--json").one()["findings"]
    assert [item["status"] for item in found if item["name"] == "settings"] == ["fail"]


# ---------------------------------------------------------------- exit 2: the question


#: Runs a command and prints the peak of its memory in bytes. A process between it and pytest, whose own
#: size the kernel would count as the child's, from before its exec.
MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stderr=subprocess.PIPE)
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)
sys.stderr.buffer.write(done.stderr)
sys.exit(done.returncode)
"""


def test_a_question_of_100_mb_is_refused_at_once_and_in_little_memory(
    scripted: Scripted, tmp_path: Path
) -> None:
    def cost(question: Path) -> tuple[Outcome, float, int]:
        started = time.monotonic()
        with question.open("rb") as stdin:
            done = subprocess.run(
                [sys.executable, "-c", MEASURED, *command("ask", "-", *scripted.flags)],
                stdin=stdin,
                capture_output=True,
                env=child_environment(PYTHONPATH=scripted.python_path),
                check=False,
            )
        *printed, memory = done.stdout.decode().splitlines()
        outcome = Outcome(done.returncode, "\n".join(printed), done.stderr.decode())
        return outcome, time.monotonic() - started, int(memory)

    small, big = tmp_path / "small", tmp_path / "big"
    small.write_text("头痛", encoding="utf-8")
    with big.open("wb") as file:
        for _ in range(100):
            file.write("头痛怎么办？".encode() * (1_000_000 // 18))
    assert big.stat().st_size > 99_000_000
    answered, seconds, memory = cost(small)
    refused, big_seconds, big_memory = cost(big)
    assert answered.code == 0
    assert_refused(refused, 2, "1048576", "max_question_bytes")
    assert big_memory < memory + 16_000_000
    assert big_seconds < seconds + 2


def test_the_size_that_is_stated_is_the_size_that_counts(scripted: Scripted) -> None:
    def asked(size: int) -> int:
        return scripted.run(
            "ask", "-", "--max-new-tokens", "1", stdin="a" * size, MEDCHAT_MAX_QUESTION_BYTES="3000"
        ).code

    assert (asked(3000), asked(3001)) == (0, 2)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_piped_question_that_is_not_utf8_is_refused_with_its_place(
    scripted: Scripted, language: str
) -> None:
    outcome = scripted.run("ask", "-", "--lang", language, stdin="头痛怎么办".encode("gb18030"))
    assert_refused(outcome, 2, "1", "iconv")
    assert_refused(scripted.run("ask", "-", stdin="头痛".encode() + b"\xff"), 2, "7")


def test_an_argument_that_is_not_utf8_is_refused(scripted: Scripted) -> None:
    done = subprocess.run(
        [os.fsencode(word) for word in command("ask", *scripted.flags)] + ["怎么办".encode("gb18030")],
        capture_output=True,
        env=child_environment(PYTHONPATH=scripted.python_path),
        check=False,
    )
    assert_refused(Outcome(done.returncode, done.stdout.decode(), done.stderr.decode()), 2, "UTF-8")


def test_a_refused_question_is_never_saved_nor_sent(scripted: Scripted) -> None:
    assert scripted.run("ask", "-", stdin=b"\xff").code == 2
    assert scripted.run("sessions", "list", "--json").one() == []


def test_a_mistake_is_told_in_the_process_the_user_runs_too() -> None:
    assert_refused(run("ask", "头痛", "--model", "/nowhere/x"), 3, "/nowhere/x")
    assert_refused(run("aks"), 2, "medchat ask")
