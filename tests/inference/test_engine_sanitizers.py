"""The native engine's own tests under the compiler's sanitizers: no access out of bounds, nothing undefined."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from locations import ROOT

COMPILER = shutil.which(os.environ.get("CXX", "g++"))
SOURCES = sorted((ROOT / "medchat" / "inference" / "cpu_engine" / "native").glob("*.cpp"))
FLAGS = (
    "-std=c++17",
    "-O1",
    "-g",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-pthread",
)
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
#: Runs tests with the library that is named first, their output unheld: a sanitizer ends the process at once.
TESTS = """
import sys
from pathlib import Path
import pytest
from medchat.inference.cpu_engine import library
library.open_library.__defaults__ = (Path(sys.argv[1]),)
sys.exit(pytest.main(["-q", "-s", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


def runtime(name: str) -> str:
    """Return the path of the compiler's run time of that name."""
    command = [str(COMPILER), f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def under_sanitizers(library: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        # The interpreter itself is not instrumented, and never gives all its memory back.
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [sys.executable, "-c", TESTS, str(library), *tests]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=500, check=False
    )


def build(folder: Path, sources: list[Path]) -> Path:
    library = folder / "_native.so"
    command = [str(COMPILER), *FLAGS, *SANITIZERS, "-o", str(library), *map(str, sources)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"the compiler has no sanitizers: {built.stderr.strip().splitlines()[-1]}")
    return library


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_the_engine_reads_and_writes_its_own_memory_alone_and_does_nothing_undefined(tmp_path: Path) -> None:
    files = ("test_packed_matrix.py", "test_native_decoder.py", "test_native_draw.py")
    tests = [f"tests/inference/{file}" for file in files]
    done = under_sanitizers(build(tmp_path, SOURCES), *tests)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_the_sanitizers_see_a_write_out_of_bounds(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    broken = tmp_path / "native"
    shutil.copytree(SOURCES[0].parent, broken)
    file = broken / "product.h"
    text = file.read_text(encoding="utf-8")
    bound = "row < kBlockRows && block * kBlockRows + row < product.matrix.rows"
    assert bound in text
    file.write_text(text.replace(bound, "row < kBlockRows"), encoding="utf-8")
    library = build(tmp_path, sorted(broken.glob("*.cpp")))
    done = under_sanitizers(library, "tests/inference/test_packed_matrix.py", "-x", "-k", "product_is_that")
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr
