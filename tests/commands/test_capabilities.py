"""What a backbone cannot do is refused before loading; a model may be a file; `models show` prints what is true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_program import Call
from openai_server import serving
from plugin_packages import write_distribution

from medchat import paths
from medchat.chat.conversation import prepare_conversation
from medchat.chat.model_control import ModelControl
from medchat.chat.session_choice import SessionChoice
from medchat.errors import UsageError
from medchat.plugin_kit import Capabilities, open_model

pytest_plugins = ("plugin_sites", "cli_program")


@pytest.fixture
def limited(site: Path, tmp_path: Path) -> Path:
    """Install `limited` and `filed`; return the folder of a model of `limited`."""
    both = {"medchat": {"limited": "limited_backbone", "filed": "limited_backbone"}}
    write_distribution(site, "medchat-limited", both)
    folder = tmp_path / "limited-model"
    folder.mkdir()
    (folder / "limited").touch()
    return folder


def asked(call: Call, model: Path | str, *words: str) -> str:
    """Return the answer, which says how the model was loaded."""
    done = call("ask", "头痛", "--no-save", "--json", "--model", str(model), *words)
    assert done.code == 0, done.err
    return str(done.one()["answer"])


# ---------------------------------------------------------------- flags

REFUSED = {
    "beams": (("--num-beams", "2"), "--num-beams"),
    "a precision": (("--dtype", "bfloat16"), "auto | float32"),
    "a device": (("--device", "cuda:1"), "auto | cpu"),
    "quantisation": (("--quantize", "int8"), "--quantize"),
    "engine": (("--engine", "native"), "--engine"),
}


@pytest.mark.parametrize("verb", ["ask", "infer"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_flag_that_cannot_be_honoured_is_refused(
    call: Call, limited: Path, tmp_path: Path, case: str, verb: str
) -> None:
    flags, named = REFUSED[case]
    (tmp_path / "q.txt").write_text("头痛\n", encoding="utf-8")
    own = (
        ("头痛",)
        if verb == "ask"
        else ("--data", str(tmp_path / "q.txt"), "--output", str(tmp_path / "o.jsonl"))
    )
    refused = call(verb, *own, "--model", str(limited), *flags)
    assert refused.code == 2 and "limited" in refused.failure()[0]
    assert named in " ".join(refused.failure())
    assert not (tmp_path / "o.jsonl").exists()


def test_adapters_are_refused_wherever_they_were_chosen(call: Call, limited: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    refused = call("ask", "头痛", "--model", str(limited), "--adapter", str(adapter))
    assert refused.code == 2 and "--adapter" in refused.failure()[0]
    paths.config_file().parent.mkdir(parents=True, exist_ok=True)
    paths.config_file().write_text(f'adapter = ["{adapter}"]\n', encoding="utf-8")
    assert call("ask", "头痛", "--model", str(limited)).code == 2


def test_what_can_be_had_is_had(call: Call, limited: Path) -> None:
    assert asked(call, limited, "--device", "cpu", "--dtype", "float32", "--num-beams", "1") == (
        "limited-model cpu float32 none"
    )


def test_a_preference_for_all_models_is_said_to_have_no_effect(call: Call, limited: Path) -> None:
    path = paths.config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('dtype = "bfloat16"\nquantize = "int4"\n', encoding="utf-8")
    done = call("ask", "头痛", "--no-save", "--json", "--model", str(limited))
    assert done.one()["answer"] == "limited-model auto auto none"
    for line, setting in enumerate(("dtype = bfloat16", "quantize = int4"), start=1):
        assert f"{setting}（{path}:{line}）" in done.err


def test_an_endpoint_takes_no_flag_of_this_machine(call: Call) -> None:
    with serving() as server:
        there = ("--backbone", "remote", "--model", f"{server.url}#tiny")
        for flags in (
            ("--device", "cpu"),
            ("--dtype", "float32"),
            ("--quantize", "int4"),
            ("--num-beams", "4"),
        ):
            refused = call("ask", "头痛", *there, *flags)
            assert refused.code == 2 and flags[0] in refused.failure()[0]
        assert server.seen == []


def test_one_at_a_time_is_one_at_a_time(call: Call, limited: Path, tmp_path: Path) -> None:
    data, output = tmp_path / "q.txt", tmp_path / "o.jsonl"
    data.write_text("头痛\n发烧\n", encoding="utf-8")
    words = ("infer", "--data", str(data), "--output", str(output), "--model", str(limited))
    refused = call(*words, "--batch-size", "2")
    assert refused.code == 2 and "--batch-size" in refused.failure()[0]
    assert call(*words).code == 0
    assert [json.loads(line)["answer"] for line in output.read_text().splitlines()] == ["1", "1"]


def test_beams_are_refused_in_a_chat_too(limited: Path) -> None:
    flags = {"model": str(limited)}
    prepared = prepare_conversation(flags, SessionChoice(save=False), lambda line: None)
    control = ModelControl(prepared)
    with pytest.raises(UsageError, match="--num-beams 2"):
        control.check_setting("num-beams", "2")
    for name, typed in (("num-beams", "1"), ("num-beams", "many"), ("top-k", "2")):
        control.check_setting(name, typed)
    prepared.store.close()


def test_a_command_that_needs_probabilities_is_told(limited: Path) -> None:
    with open_model(model=str(limited)) as opened, pytest.raises(UsageError, match="limited"):
        opened.score("头痛", "休息")


@pytest.mark.parametrize("wrong", [{"dtypes": ("float8",)}, {"quantize": ("int2",)}, {"devices": ("tpu",)}])
def test_what_no_flag_takes_cannot_be_declared(wrong: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="Capabilities"):
        Capabilities(**wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------- a model that is a file


def words_file(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("头 痛", encoding="utf-8")
    return folder / names[0]


def test_a_model_may_be_a_file(call: Call, limited: Path, tmp_path: Path) -> None:
    file = words_file(tmp_path / "files", "甲 乙.words")
    assert asked(call, file) == "甲 乙.words auto auto none"
    assert asked(call, file, "--backbone", "filed").startswith("甲 乙.words")
    assert asked(call, file.parent) == "甲 乙.words auto auto none"
    assert asked(call, file.parent, "--backbone", "filed").startswith("甲 乙.words")


def test_a_folder_of_several_wants_one_named(call: Call, limited: Path, tmp_path: Path) -> None:
    file = words_file(tmp_path / "files", "a.words", "b.words")
    for words in ((), ("--backbone", "filed")):
        refused = call("ask", "头痛", "--model", str(file.parent), *words)
        what, remedy = refused.failure()
        assert refused.code == 3 and "2" in what
        assert f"--model {file}" in remedy and "b.words" in remedy
    assert asked(call, file) == "a.words auto auto none"


def test_a_name_under_the_models_folder_may_hold_a_file(call: Call, limited: Path) -> None:
    paths.models_dir().mkdir(parents=True)
    words_file(paths.models_dir() / "small", "small-q4.words")
    assert asked(call, "small") == "small-q4.words auto auto none"


def test_a_file_that_nobody_takes_is_told_of_as_before(call: Call, limited: Path, tmp_path: Path) -> None:
    other = tmp_path / "model.bin"
    other.write_bytes(b"\0" * 64)
    words = words_file(tmp_path / "files", "a.words")
    assert call("ask", "头痛", "--model", str(other)).code == 3
    refused = call("ask", "头痛", "--model", str(words), "--backbone", "limited")
    assert refused.code == 3 and str(words) in refused.failure()[0]


def test_answers_are_not_written_over_the_model(call: Call, limited: Path, tmp_path: Path) -> None:
    file = words_file(tmp_path / "files", "a.words")
    (tmp_path / "q.txt").write_text("头痛\n", encoding="utf-8")
    words = ("--data", str(tmp_path / "q.txt"), "--output", str(file), "--model", str(file), "--overwrite")
    refused = call("infer", *words)
    assert refused.code == 2 and "--model" in refused.failure()[0]
    assert file.read_text(encoding="utf-8") == "头 痛"


# ---------------------------------------------------------------- models show


def test_models_show_prints_what_is_true_and_nothing_else(call: Call, limited: Path, tmp_path: Path) -> None:
    shown = call("models", "show", str(limited)).out
    for absent in ("参数量", "层数", "词表", "权重大小", "内存", "适配器的", "bfloat16", "int8"):
        assert absent not in shown
    assert "--num-beams、--adapter、--quantize" in shown
    file = words_file(tmp_path / "files", "a.words")
    shown = call("models", "show", str(file)).out
    assert all(fact in shown for fact in ("文件", str(file), "8.00M", "float32"))
    assert "bfloat16" not in shown and "int4" not in shown
    card = call("models", "show", str(file.parent), "--json").one()
    assert card["path"] == str(file) and list(card["memory_bytes"]) == ["float32"]
    assert card["capabilities"]["beams"] is False and card["capabilities"]["devices"] == ["cpu"]
