"""`medchat models quantize` writes a model that loads by its path alone, on either engine."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from native_engine import COMPILED
from talking_miniatures import FAMILIES, WEIGHTS

from medchat.api import GenerationConfig, LoadOptions, Text
from medchat.cli.program import run
from medchat.errors import CheckpointError, UsageError

pytest_plugins = ("talking_miniatures",)
pytestmark = pytest.mark.torch

GREEDY = GenerationConfig(max_new_tokens=12, greedy=True)
Quantised = Callable[..., Path]


@pytest.fixture(scope="module")
def quantised(talkative: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Quantised:
    """Return a function from a family to its miniature as the command writes it, in int4."""
    made: dict[str, Path] = {}

    def folder(family: str = "llama") -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp("quantised") / "new" / family
            assert quantize(talkative(family), made[family], 4) == 0
        return made[family]

    return folder


def quantize(model: Path, output: Path, bits: int) -> int:
    flags = ["--bits", str(bits), "--output", str(output)]
    return run(["models", "quantize", str(model), *flags], language=None, debug=False)


def answer(family: str, folder: Path, **options: Any) -> str:
    how = {"device": "cpu", "dtype": "bfloat16", **options}
    chat = FAMILIES[family].load(LoadOptions(folder, **how))
    return "".join(delta.text for delta in chat.stream([Text("头痛怎么办？")], GREEDY, threading.Event()))


@COMPILED
@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_as_the_original_quantised_while_loading(
    family: str, quantised: Quantised, talkative: Callable[[str], Path]
) -> None:
    written = quantised(family)
    expected = answer(family, talkative(family), quantize="int4", engine="native")
    assert answer(family, written) == expected
    assert answer(family, written, quantize="int4") == expected


@COMPILED
def test_torch_takes_the_same_weights(quantised: Quantised) -> None:
    how = {"device": "cpu", "dtype": "float32"}
    native, torch_ = (
        FAMILIES["llama"].load(LoadOptions(quantised(), engine=engine, **how))
        for engine in ("native", "torch")
    )
    assert [chat.describe()["quantization"] for chat in (native, torch_)] == ["int4", "int4"]
    scores = [chat.score([Text("头痛")], "多喝水") for chat in (native, torch_)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    assert scores[0] != scores[1]  # two engines, after all


@pytest.mark.parametrize("family", FAMILIES)
def test_show_says_what_it_is_and_verify_that_it_is_whole(
    family: str, quantised: Quantised, talkative: Callable[[str], Path]
) -> None:
    shown, before = (FAMILIES[family].inspect(folder) for folder in (quantised(family), talkative(family)))
    assert shown
    assert before
    assert (shown.quantization, shown.dtypes) == ("int4", ("float16",))
    assert shown.parameters == pytest.approx(before.parameters, rel=0.02)
    assert shown.weight_bytes < 0.9 * before.weight_bytes
    assert run(["models", "verify", str(quantised(family))], language=None, debug=False) == 0


def test_the_result_is_written_whole_or_not_at_all(
    talkative: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(talkative("llama"), broken)
    raw = bytearray((broken / WEIGHTS).read_bytes())
    raw[-100:] = b"\xff" * 100  # NaN in float16
    (broken / WEIGHTS).write_bytes(raw)
    assert quantize(broken, tmp_path / "out" / "new", 8) == CheckpointError.exit_code
    assert "NaN" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("there", ["a file", "a folder with something in it", "a link"])
def test_what_is_there_is_not_overwritten(
    there: str, talkative: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "target"
    if there == "a file":
        target.write_text("mine", encoding="utf-8")
    elif there == "a link":
        target.symlink_to(tmp_path)
    else:
        target.mkdir()
        (target / "mine").touch()
    assert quantize(talkative("llama"), target, 8) == UsageError.exit_code
    assert "--output" in capsys.readouterr().err


def test_quantised_weights_are_not_quantised_twice(quantised: Quantised, tmp_path: Path) -> None:
    assert quantize(quantised(), tmp_path / "again", 8) == UsageError.exit_code
    assert not (tmp_path / "again").exists()
    with pytest.raises(UsageError, match="int4"):
        FAMILIES["llama"].load(LoadOptions(quantised(), quantize="int8"))


@pytest.mark.parametrize("cut", [1, 18])
def test_a_folder_from_elsewhere_with_weights_of_another_length_is_refused(
    cut: int, quantised: Quantised, tmp_path: Path
) -> None:
    """Its header agrees with itself, not with config.json."""
    foreign = tmp_path / "foreign"
    shutil.copytree(quantised(), foreign)
    raw = (foreign / WEIGHTS).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    table = json.loads(raw[8 : 8 + length])
    last = max(
        (name for name in table if name != "__metadata__"), key=lambda name: table[name]["data_offsets"]
    )
    table[last]["shape"] = [table[last]["shape"][0] - cut]
    table[last]["data_offsets"][1] -= cut
    header = json.dumps(table).encode()
    (foreign / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length : -cut])
    with pytest.raises(CheckpointError, match="不匹配"):
        FAMILIES["llama"].load(LoadOptions(foreign))


@pytest.mark.parametrize("method", ["full", "qlora"])
def test_quantised_weights_are_not_trained(
    method: str, quantised: Quantised, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.json"
    data.write_text('[{"instruction": "头痛", "output": "多喝水"}]', encoding="utf-8")
    flags = ["--data", str(data), "--output", str(tmp_path / "run"), "--method", method, "--dry-run"]
    assert (
        run(["sft", "--model", str(quantised()), *flags], language=None, debug=False) == UsageError.exit_code
    )
    assert "--method lora" in capsys.readouterr().err
