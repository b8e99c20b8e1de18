"""Packaging. The packages and entry points of plugins come from the tables of medchat/builtin.py."""

import runpy
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
VERSION = runpy.run_path(str(HERE / "medchat" / "__init__.py"))["__version__"]
TABLES = runpy.run_path(str(HERE / "medchat" / "builtin.py"))
BACKBONES, COMMANDS = TABLES["BUILTIN_BACKBONES"], TABLES["BUILTIN_COMMANDS"]
LINES = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
REQUIREMENTS = [line for line in LINES if line and not line.startswith("#")]

# The CPU engine: plain C++ behind a C interface, no Python inside. Without a compiler pip builds on without it.
ENGINE = "medchat/inference/cpu_engine"
NATIVE_SOURCES = sorted(str(file.relative_to(HERE)) for file in (HERE / ENGINE / "native").glob("*.cpp"))
NATIVE_HEADERS = sorted(str(file.relative_to(HERE)) for file in (HERE / ENGINE / "native").glob("*.h"))
#: No fused operations but those that are written (every instruction set gives the same bits), nothing about
#: this machine or its folders. The last: GCC 12 warns of its own headers.
COMPILE_FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-Wno-maybe-uninitialized",
]


class BuildLibrary(build_ext):
    """Builds a library that any Python loads through ctypes: its name says nothing of an interpreter."""

    def get_ext_filename(self, name: str) -> str:
        return str(Path(*name.split("."))) + ".so"


class AnyPythonWheel(bdist_wheel):
    """A wheel for one platform and every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


package_dir = {"medchat": "medchat", "medchat_templates": "templates"}
packages = ["medchat_templates", *find_packages(include=["medchat", "medchat.*"])]
plugin_packages = sorted({plugin.package for plugin in (*BACKBONES, *COMMANDS)})
for package in plugin_packages:
    folder = f"plugins/{package.removeprefix('medchat_')}/{package}"
    package_dir[package] = folder
    packages += [package, *(f"{package}.{sub}" for sub in find_packages(str(HERE / folder)))]

setup(
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": AnyPythonWheel},
    ext_modules=[
        Extension(
            f"{ENGINE.replace('/', '.')}._native",
            NATIVE_SOURCES,
            depends=NATIVE_HEADERS,
            extra_compile_args=COMPILE_FLAGS,
            extra_link_args=["-pthread"],
            language="c++",
            optional=True,
        )
    ],
    name="medchat",
    version=VERSION,
    description="Terminal chat and fine-tuning for Chinese medical language models",
    long_description=(HERE / "README_EN.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=packages,
    package_dir=package_dir,
    package_data={
        "medchat": ["data/*", "plugin_templates/*.tmpl", "py.typed"],
        "medchat.medical_safety": ["lexicon/*.toml", "lexicon/*.json"],
        "medchat_templates": ["*.json"],
        **{package: ["data/*"] for package in plugin_packages},
    },
    install_requires=REQUIREMENTS,
    extras_require={
        "eval": ["jieba>=0.42.1", "sacrebleu>=2.5"],
        "export": ["gguf>=0.17"],
        "lm-eval": ["lm-eval>=0.4.13", "pyyaml>=6"],
        "data": ["datasketch>=2"],
        "qlora": ["bitsandbytes>=0.48"],
        "ray": ["ray>=2.60"],
        "serve": ["starlette>=1", "uvicorn>=0.30"],
        "tensorboard": ["tensorboard>=2.18"],
        "wandb": ["wandb>=0.19"],
        "swanlab": ["swanlab>=0.5"],
        "test": [
            "bitsandbytes>=0.48",
            "coverage>=7.6",
            "datasketch>=2",
            "deptry>=0.23",
            "fastapi>=0.115",
            "gguf>=0.17",
            "hypothesis>=6.100",
            "import-linter>=2.3",
            "jieba>=0.42.1",
            "mypy>=1.15",
            "openai>=1.98",
            "opencc-python-reimplemented>=0.1.7",
            "pyte>=0.8.2",
            "pytest>=8.3",
            "pytest-cov>=6",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            "sacrebleu>=2.5",
            "scikit-learn>=1.6",
            "setuptools>=68",
            "starlette>=1",
            "tensorboard>=2.18",
            "uvicorn>=0.30",
            "xllamacpp>=2026.10",
        ],
    },
    entry_points={
        "console_scripts": ["medchat = medchat.__main__:main"],
        "medchat": [f"{plugin.name} = {plugin.module}" for plugin in BACKBONES],
        "medchat.commands": [f"{plugin.name} = {plugin.module}" for plugin in COMMANDS],
    },
    classifiers=[
        "Environment :: Console",
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
