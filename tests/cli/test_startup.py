"""Starting costs little more than Python itself. Measured by `benchmarks/startup.py`, side by side in one run."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from child_process import child_environment
from locations import ROOT

BENCHMARK = ROOT / "benchmarks" / "startup.py"
sys.path.insert(0, str(BENCHMARK.parent))  # scripts beside one another, no package
#: Another process may take the processors in the middle of one run, not of three.
ATTEMPTS = 3


@pytest.fixture(scope="module")
def startup_benchmark() -> ModuleType:
    specification = importlib.util.spec_from_file_location("startup", BENCHMARK)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def measured(file: Path) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--asks", "0", "--json", str(file)], capture_output=True, check=False
    )
    assert file.exists(), done.stderr.decode()[-2000:]
    return done.returncode, json.loads(file.read_text(encoding="utf-8"))


def test_help_and_the_list_of_plugins_take_at_most_four_times_bare_python(
    tmp_path: Path, startup_benchmark: ModuleType
) -> None:
    assert startup_benchmark.RATIO_BAR == 4.0
    for attempt in range(ATTEMPTS):
        code, report = measured(tmp_path / f"{attempt}.json")
        assert report["runs"] == 20
        assert report["heavy_imports"] == {"medchat --help": [], "medchat plugins list": []}
        assert (code == 1) == bool(report["failures"])
        if max(report["ratio"].values()) <= startup_benchmark.RATIO_BAR:
            return
    pytest.fail(f"{ATTEMPTS} runs were over the bar, the last with {report['ratio']}")


@pytest.mark.parametrize(
    "change",
    [
        {"ratio": {"medchat --help": 4.1, "medchat plugins list": 2.0}},
        {"median_ms": {"medchat --help": 10.0, "medchat plugins list": 121.0}},
        {"heavy_imports": {"medchat --help": ["rich"], "medchat plugins list": []}},
        {"first_prompt_ms": 401.0},
        {"ask": {"llama": {"median_ms": {"without torch": 1500.1}, "imports": []}}},
        {"ask": {"chatglm": {"median_ms": {"without torch": 900.0}, "imports": ["torch"]}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_benchmark_notices_each_bar_that_is_missed(
    startup_benchmark: ModuleType, change: dict[str, Any]
) -> None:
    good = {
        "ratio": {"medchat --help": 4.0, "medchat plugins list": 2.0},
        "median_ms": {"medchat --help": 10.0, "medchat plugins list": 120.0},
        "heavy_imports": {"medchat --help": [], "medchat plugins list": []},
        "first_prompt_ms": 400.0,
        "ask": {"llama": {"median_ms": {"without torch": 1500.0}, "imports": []}},
    }
    assert startup_benchmark.missed(good) == []
    assert len(startup_benchmark.missed({**good, **change})) == 1


def test_the_benchmark_notices_a_heavy_import(startup_benchmark: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import rich\n", encoding="utf-8")
    variables = child_environment(PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert startup_benchmark.heavy_imports(["--help"], variables) == ["rich"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "--help"],
        ["sessions", "list"],
        ["config", "show"],
        ["models", "show", "/nowhere"],
        ["demo", "-h"],
    ],
    ids=" ".join,
)
def test_no_command_pays_for_torch_before_it_needs_a_model(arguments: list[str]) -> None:
    script = "import sys; from medchat.__main__ import main; main()\n"
    script += "assert not {'torch', 'transformers'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, env=child_environment(), check=False
    )
    assert done.returncode == 0, done.stderr.decode()
