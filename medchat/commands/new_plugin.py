"""`medchat plugins new`: writes a distribution with a working backbone and its tests, as a starting point."""

from __future__ import annotations

import keyword
import re
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

import click

from medchat.chat.model_choice import open_registry
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import say_aside, write_out
from medchat.errors import UsageError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.settings import Settings
from medchat.sft_job.shell_words import joined
from medchat.user_paths import user_path

#: For each family: the files of its package and of its tests, with their templates.
FAMILIES: Mapping[str, Mapping[str, str]] = {
    "transformers": {"__init__.py": "transformers.py", "tests": "properties.py"},
    "custom": {"__init__.py": "custom.py", "model.py": "model.py", "tests": "properties.py"},
    "file": {"__init__.py": "file.py", "model.py": "model.py", "tests": "properties.py"},
    "remote": {"__init__.py": "remote.py", "model.py": "model.py", "tests": "service.py"},
}
#: What to change first.
_FIRST = {
    "transformers": (
        "先改 `model_types`、`lora_targets` 和 `bottleneck_targets`。",
        "Change `model_types`, `lora_targets` and `bottleneck_targets` first.",
    ),
    "custom": (
        "先把 `model.py` 换成自己的模型，再改 `_read` 和 `tiny`。",
        "Put your model in the place of `model.py`, then change `_read` and `tiny`.",
    ),
    "file": (
        "先把 `model.py` 换成自己的模型，再改 `SUFFIX`、`_read` 和 `tiny`。",
        "Put your model in the place of `model.py`, then change `SUFFIX`, `_read` and `tiny`.",
    ),
    "remote": ("先改 `_ask` 和 `address`。", "Change `_ask` and `address` first."),
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@click.command(
    "new",
    cls=LocalizedCommand,
    help=say(
        "新建一个模型家族插件：目录 medchat-名称，含可运行的代码和测试。",
        "Write a new backbone plugin: the folder medchat-NAME, with code that runs and tests.",
    ),
)
@click.argument("name")
@click.option(
    "--family",
    type=click.Choice(list(FAMILIES)),
    default="transformers",
    help=say(
        "transformers：transformers 的对话模型（默认）；custom：自己的模型；file：模型是文件；remote：网络服务",
        "transformers: chat models of transformers (the default); custom: a model of your own; file: models are"
        " files; remote: a service",
    ),
)
@click.option(
    "--output",
    metavar="DIR",
    default=".",
    help=say("写到哪个目录下（默认当前目录）", "where to write it (here)"),
)
def new_plugin(name: str, family: str, output: str) -> int:
    """Write the distribution."""
    _check_name(name)
    parent = user_path(output)
    if not parent.is_dir():
        raise UsageError(
            say("没有这个目录", "there is no such folder"),
            say("先建立它，或换一个 --output", "make it first, or use another --output"),
            where=str(parent),
        )
    target = parent / f"medchat-{name}"
    if target.exists() or target.is_symlink():
        raise UsageError(
            say(
                "这里已经有同名的目录，没有改动",
                "something with that name is there already; it was left alone",
            ),
            say("换一个名称或 --output", "take another name, or another --output"),
            where=str(target),
        )
    with tempfile.TemporaryDirectory(dir=parent, prefix=".medchat-new-") as beside:
        made = Path(beside) / target.name
        for place, text in distribution_files(name, family).items():
            (made / place).parent.mkdir(parents=True, exist_ok=True)
            (made / place).write_text(text, encoding="utf-8")
        made.rename(target)
    first = sanitize_line(str(target / f"medchat_{name}" / "__init__.py"))
    say_aside(
        say(
            f"已写好 {sanitize_line(str(target))}，从 {first} 改起。{_FIRST[family][0]}接着（测试需要 pytest）：",
            f"{sanitize_line(str(target))} is written. Begin with {first}. {_FIRST[family][1]} Then (the tests need"
            " pytest):",
        )
    )
    place = joined([str(target)])
    return write_out(
        f"python -m pytest {place}\npython -m pip install -e {place}\nmedchat plugins test {name}\n"
    )


def distribution_files(name: str, family: str) -> dict[str, str]:
    """Return the text of each file of a new distribution by its relative path."""
    package = f"medchat_{name}"
    words = "".join(part.capitalize() for part in name.split("_"))
    todo = "\n".join(_FIRST[family])
    values = {"name": name, "cls": words, "family": family, "todo": todo}
    places = {"pyproject.toml": "pyproject.toml", "README.md": "README.md"}
    for file, template in FAMILIES[family].items():
        places[f"tests/test_{package}.py" if file == "tests" else f"{package}/{file}"] = template
    folder = files("medchat") / "plugin_templates"
    return {
        place: Template((folder / f"{template}.tmpl").read_text(encoding="utf-8")).substitute(values)
        for place, template in places.items()
    }


def _check_name(name: str) -> None:
    """Raise UsageError for an invalid name, or one of another plugin or package."""
    shown = sanitize_line(name, 60)
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        plain = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_0123456789")[:40]
        usable = _NAME.fullmatch(plain) and not keyword.iskeyword(plain)
        raise UsageError(
            say(f"“{shown}”不能作插件的名称", f"{shown!r} cannot be the name of a plugin"),
            say(
                "只用小写字母、数字和 _，以字母开头，不能是 Python 的关键字",
                "use lower-case letters, digits and _, beginning with a letter; not a Python keyword",
            )
            + (say("，例如：", ", such as ") + plain if usable else ""),
        )
    taken = {entry.name for entry in open_registry(Settings.load()).entries}
    if name in taken or find_spec(f"medchat_{name}") is not None:
        raise UsageError(
            say(f"名称 {shown} 已经被占用", f"the name {shown} is taken already"),
            say("换一个名称（medchat plugins list）", "take another one (medchat plugins list)"),
        )
