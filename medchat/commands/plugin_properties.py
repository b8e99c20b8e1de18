"""`medchat plugins test`: checks a backbone against the contract of all backbones."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from medchat.chat.model_choice import find_model, open_registry
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import write_out
from medchat.errors import PluginError, UsageError
from medchat.language import say
from medchat.registry import Registry
from medchat.sanitize import sanitize, sanitize_line
from medchat.settings import Settings

if TYPE_CHECKING:
    from medchat.testing.kit import BackboneTests
    from medchat.testing.running import Result

_MOST = 600


@click.command(
    "test",
    cls=LocalizedCommand,
    help=say(
        "检验一个模型家族的插件是否符合接口的各项性质；默认用它自己写出的微型模型。",
        "Test whether a backbone has the properties that all must have, on a miniature of its own or on --model.",
    ),
)
@click.argument("name")
@click.option(
    "--model",
    metavar="PATH|NAME",
    help=say("改用这个模型（权重目录、名称或地址）", "test on this model: a folder, a name or an address"),
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help=say("只检验这一项（可重复）", "only this property (repeatable)"),
)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def test_plugin(name: str, model: str | None, only: tuple[str, ...], as_json: bool) -> int:
    """Check the properties one after the other; the exit code is 5 if one fails."""
    from medchat.testing.kit import PROPERTIES
    from medchat.testing.running import run_properties

    if unknown := [one for one in only if one not in PROPERTIES]:
        raise UsageError(
            say(f"没有这一项：{unknown[0]}", f"there is no such property: {unknown[0]}"),
            say("不加 --only 运行，可看到全部名称", "run it without --only to see all the names"),
        )
    registry = open_registry(Settings.load())
    results = []
    for result in run_properties(_tests_of(registry, name, model), only):
        results.append(result)
        if not as_json:
            write_out(_line(result) + "\n")
    if as_json:
        rows = [{**asdict(result), "explained": result.explained} for result in results]
        write_out(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
    return _conclude(name, results, quiet=as_json)


def _tests_of(registry: Registry, name: str, model: str | None) -> type[BackboneTests]:
    from medchat.testing.kit import BackboneTests

    guarded = registry.backbone(name)
    given: dict[str, Any] = {"backbone": guarded.given, "module": guarded.module}
    if model is not None:
        given["model"] = guarded.address(model) or find_model(model, name, registry)
    else:
        with (
            TemporaryDirectory() as folder
        ):  # a backbone without a tiny model is reported once, not for each test
            guarded.tiny(Path(folder) / "tiny")
    tests: type[BackboneTests] = type("Tests", (BackboneTests,), given)
    return tests


def _line(result: Result) -> str:
    words = {
        "passed": say("符合", "holds"),
        "failed": say("不符合", "fails"),
        "skipped": say("不适用", "skipped"),
    }
    line = f"{words[result.outcome]}  {result.name}"
    if result.detail:
        line += say("：", ": ") + sanitize_line(result.detail, _MOST)
    if result.remedy:
        line += "\n    " + say("下一步：", "Next: ") + sanitize_line(result.remedy, _MOST)
    if result.outcome == "failed":
        line += "\n    " + sanitize(result.explained).replace("\n", "\n    ")
    return line


def _conclude(name: str, results: list[Result], *, quiet: bool) -> int:
    counts = Counter(result.outcome for result in results)
    if not quiet:
        holds, fails, skipped = counts["passed"], counts["failed"], counts["skipped"]
        write_out(
            say(
                f"{name}：{holds} 项符合，{fails} 项不符合，{skipped} 项不适用",
                f"{name}: {holds} hold, {fails} fail, {skipped} are skipped",
            )
            + "\n"
        )
    return PluginError.exit_code if counts["failed"] else 0
