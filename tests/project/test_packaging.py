"""The wheel holds what runs and nothing else, and works where there is no source tree."""

from __future__ import annotations

import configparser
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from locations import ROOT
from setuptools import Distribution, Extension

from medchat import __version__
from medchat.builtin import BUILTIN_BACKBONES, BUILTIN_COMMANDS

#: What a build reads; a copy of it, so that no build leftover lands in the source tree.
SOURCES = (
    "medchat",
    "plugins",
    "templates",
    "setup.py",
    "pyproject.toml",
    "README_EN.md",
    "LICENSE",
    "requirements.txt",
    "NOTICE",
)
BUILTIN = (*BUILTIN_BACKBONES, *BUILTIN_COMMANDS)
#: The time that every file in the archive bears; scripts/wheel.sh takes that of the last commit.
BUILT_AT = "1700000000"
SCRATCH = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "*.so")
LIBRARY = "medchat/inference/cpu_engine/_native.so"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    if (
        ROOT / LIBRARY
    ).exists():  # installing compiled it: nothing is compiled again that is newer than its sources
        built = tree / "build" / platform_folder() / LIBRARY
        built.parent.mkdir(parents=True)
        shutil.copy2(ROOT / LIBRARY, built)
    return build(tree, tmp_path_factory.mktemp("wheel"))


def platform_folder() -> str:
    """Return the name of the folder below build/ in which setuptools puts a package with compiled code."""
    command: Any = Distribution({"ext_modules": [Extension("x", [])]}).get_command_obj("build")
    command.ensure_finalized()
    return Path(command.build_lib).name


def build(tree: Path, out: Path, **environment: str) -> Path:
    """Build a wheel, offline, with the setuptools that is installed."""
    tree.mkdir(exist_ok=True)
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=SCRATCH)
        else:
            shutil.copy(source, tree / name)
    built = pip(
        "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(out), str(tree), **environment
    )
    assert built.returncode == 0, built.stderr.decode()[-3000:]
    (file,) = out.glob("*.whl")
    return file


def pip(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        env={**os.environ, "PIP_NO_INDEX": "1", "SOURCE_DATE_EPOCH": BUILT_AT, **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"medchat-{__version__}.dist-info/{name}").decode()


def files_under(folder: str, *patterns: str) -> set[str]:
    return {
        str(path.relative_to(ROOT / folder))
        for pattern in patterns
        for path in (ROOT / folder).rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_module_template_and_data_file(names: set[str]) -> None:
    wanted = {
        f"medchat/{file}"
        for file in files_under("medchat", "*.py", "py.typed", "data/*", "lexicon/*", "plugin_templates/*")
    }
    wanted |= {f"medchat_templates/{file}" for file in files_under("templates", "*.py", "*.json")}
    for package in {plugin.package for plugin in BUILTIN}:
        folder = f"plugins/{package.removeprefix('medchat_')}/{package}"
        wanted |= {f"{package}/{file}" for file in files_under(folder, "*.py", "data/*")}
    assert {"medchat/py.typed", "medchat/data/demo_qa.jsonl", "medchat_templates/med_template.json"} <= wanted
    assert wanted <= names, wanted - names


def test_the_wheel_holds_nothing_else(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    expected = {"medchat", "medchat_templates", f"medchat-{__version__}.dist-info"}
    assert tops == expected | {plugin.package for plugin in BUILTIN}
    own = [name.removeprefix("medchat/testing/") for name in names]
    assert not [name for name in own if "test" in name.lower() or name.endswith(("tokenizer.model", ".pyc"))]


@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler")
def test_the_wheel_holds_the_compiled_library_and_none_of_its_source(wheel: Path, names: set[str]) -> None:
    assert LIBRARY in names
    assert not [name for name in names if name.endswith((".cpp", ".h"))]
    # One platform, any Python.
    assert wheel.name.startswith(f"medchat-{__version__}-py3-none-") and "-any" not in wheel.name


def test_without_a_compiler_a_wheel_without_the_library_is_built(tmp_path: Path) -> None:
    none = str(tmp_path / "no-compiler")
    built = build(tmp_path / "tree", tmp_path / "wheel", CC=none, CXX=none)
    with zipfile.ZipFile(built) as archive:
        held = archive.namelist()
    assert LIBRARY not in held and LIBRARY.replace("_native.so", "library.py") in held


@pytest.mark.slow
def test_a_second_build_gives_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "tree", tmp_path / "wheel")
    assert again.name == wheel.name
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()


def test_every_plugin_folder_is_in_the_tables() -> None:
    folders = {
        path.parent.name for path in (ROOT / "plugins").glob("*/medchat_*") if (path / "plugin.py").exists()
    }
    assert folders == {plugin.package.removeprefix("medchat_") for plugin in BUILTIN}


def test_entry_points_come_from_the_tables(wheel: Path) -> None:
    found = configparser.ConfigParser()
    found.read_string(metadata(wheel, "entry_points.txt"))
    assert dict(found["console_scripts"]) == {"medchat": "medchat.__main__:main"}
    assert dict(found["medchat"]) == {plugin.name: plugin.module for plugin in BUILTIN_BACKBONES}
    assert dict(found["medchat.commands"]) == {plugin.name: plugin.module for plugin in BUILTIN_COMMANDS}


def test_the_metadata_states_version_licence_and_what_it_needs(wheel: Path, names: set[str]) -> None:
    stated = Parser().parsestr(metadata(wheel, "METADATA"))
    assert (stated["Name"], stated["Version"], stated["Requires-Python"]) == (
        "medchat",
        __version__,
        ">=3.11",
    )
    assert {"LICENSE", "NOTICE"} <= {Path(name).name for name in names}
    needed = {line.split(">")[0].split(";")[0].strip() for line in stated.get_all("Requires-Dist", [])}
    assert {"torch", "transformers", "pluggy", "click", "platformdirs", "cpm-kernels"} <= needed


def test_the_tested_versions_cover_everything_that_is_needed(wheel: Path) -> None:
    pinned = {
        line.split("==")[0].strip().lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    stated = Parser().parsestr(metadata(wheel, "METADATA"))
    # Extras that what installs the tests leaves out: for those who have such an account, for a cluster, and one beside
    # which transformers takes seconds more to import.
    untested = ("wandb", "swanlab", "ray", "lm-eval")
    needed = {
        line.split(">")[0].split(";")[0].strip().lower()
        for line in stated.get_all("Requires-Dist", [])
        if not any(f'extra == "{name}"' in line for name in untested)
    }
    assert needed <= pinned, needed - pinned


@pytest.mark.slow
def test_an_installed_wheel_works_without_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed = pip("install", "--no-deps", "--no-compile", "--target", str(site), str(wheel))
    assert installed.returncode == 0, installed.stderr.decode()[-3000:]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {**kept, "PYTHONPATH": str(site), "LANG": "C.UTF-8"}

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    script = (
        "import medchat, medchat_templates; from medchat.templates import list_templates;"
        "from medchat.demo_data import demo_examples; from medchat.medical_safety import find_red_flags;"
        "print(medchat.__file__, len(list_templates()), len(demo_examples()));"
        "print(find_red_flags('i want to die').notices[0].key)"
    )
    place, templates, pairs, key = python("-c", script).split()
    assert key == "self-harm"
    assert Path(place).is_relative_to(site)
    assert int(templates) == len(list((ROOT / "templates").glob("*.json"))) and int(pairs) > 100
    assert python("-m", "medchat", "--version") == f"medchat {__version__}\n"
    assert python(str(site / "bin" / "medchat"), "--help") == python("-m", "medchat", "--help")
    listed = python("-m", "medchat", "plugins", "list").splitlines()
    kinds = (BUILTIN_BACKBONES, BUILTIN_COMMANDS)
    assert [line.split()[0] for line in listed] == [
        name for kind in kinds for name in sorted(plugin.name for plugin in kind)
    ]
    show = (
        "import sys; from medchat.__main__ import main\n"
        "for name in sys.argv[1:]: sys.argv = ['medchat', 'plugins', 'show', name]; assert main() == 0"
    )
    # In one process: to name its methods a plugin imports torch.
    shown = python("-c", show, *(plugin.name for plugin in BUILTIN_BACKBONES))
    for plugin in BUILTIN_BACKBONES:
        assert f"\n{plugin.name}：" in f"\n{shown}"
