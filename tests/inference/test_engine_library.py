"""The native library is looked for in one place, and whoever lacks it is told why and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from native_engine import COMPILED

from medchat.errors import UsageError
from medchat.inference.cpu_engine.library import (
    INSTRUCTION_SETS,
    VARIABLE,
    EngineUnavailableError,
    chosen_instructions,
    open_library,
)


def test_a_missing_library_is_an_error_that_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        open_library(tmp_path / "_native.so")
    assert str(tmp_path) in caught.value.where
    assert "pip install -e ." in caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF" + bytes(100)])
def test_a_file_that_is_no_library_is_an_error_not_a_crash(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "_native.so"
    file.write_bytes(content)
    with pytest.raises(EngineUnavailableError):
        open_library(file)


def test_a_library_without_our_functions_is_refused() -> None:
    math = next((Path(file) for file in _loaded_files() if "libm" in Path(file).name), None)
    if math is None:
        pytest.skip("no other library to try")
    with pytest.raises(EngineUnavailableError, match="medchat_interface_version"):
        open_library(math)


def _loaded_files() -> list[str]:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    return [line.split()[-1] for line in maps.read_text().splitlines() if ".so" in line]


@COMPILED
def test_the_fastest_instructions_are_chosen_unless_the_variable_names_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = open_library()
    assert library.usable[0] == "scalar"
    monkeypatch.delenv(VARIABLE, raising=False)
    assert chosen_instructions(library) == library.fastest
    for name in library.usable:
        monkeypatch.setenv(VARIABLE, name)
        assert chosen_instructions(library) == name


@COMPILED
@pytest.mark.parametrize("wanted", ["sse9", "AVX2", "scalar "])
def test_unknown_instructions_are_a_usage_error_that_lists_the_known(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, wanted)
    with pytest.raises(UsageError) as caught:
        chosen_instructions(open_library())
    assert "scalar" in caught.value.remedy


@COMPILED
def test_instructions_that_this_cpu_lacks_are_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    library = open_library()
    for name in set(INSTRUCTION_SETS) - set(library.usable):
        monkeypatch.setenv(VARIABLE, name)
        with pytest.raises(UsageError, match=name):
            chosen_instructions(library)


def test_the_engine_needs_no_torch() -> None:
    script = (
        "import sys; from medchat.inference.cpu_engine import packed_matrix; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
