"""`medchat plugins`: the installed plugins, what each offers, and whether it works."""

from __future__ import annotations

import json
from typing import Any

import click

from medchat.api import Option
from medchat.api.option import declared_options
from medchat.chat.model_choice import open_registry
from medchat.cli.group import Group, allowed_plugins
from medchat.cli.output import write_out
from medchat.cli.plugin_table import plugin_rows, plugin_table
from medchat.commands.new_plugin import new_plugin
from medchat.commands.plugin_facts import KINDS, check_plugin, plugin_facts
from medchat.commands.plugin_properties import test_plugin
from medchat.errors import PluginError
from medchat.language import current_language, say
from medchat.registry import Registry
from medchat.registry.metadata import PluginEntry
from medchat.sanitize import sanitize_line
from medchat.settings import Settings
from medchat.settings.plugin_options import option_key


@click.group(cls=Group, help=say("查看、检查和新建插件。", "Look at plugins, check them, write a new one."))
def command() -> None:
    """The command group."""


@command.command(
    "list",
    help=say(
        "列出插件；只读元数据，不运行插件代码。", "List plugins from metadata; runs none of their code."
    ),
)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
@click.option(
    "--check",
    is_flag=True,
    help=say(
        "逐个加载，说明哪些不能使用、哪些文件被改动（退出码 5）",
        "load each; say which cannot be used and which files were changed (exit code 5)",
    ),
)
def list_plugins(as_json: bool, check: bool) -> int:
    """List the plugins."""
    faults = _faults() if check else {}
    rows = plugin_rows(allowed_plugins())
    if as_json:
        if check:
            rows = [{**row, "fault": faults.get(_key(row), "")} for row in rows]
        write_out(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
    else:
        write_out(plugin_table(allowed_plugins()) + "\n")
        for (kind, name, distribution), fault in faults.items():
            write_out(sanitize_line(f"{name} ({kind}, {distribution}): {fault}", 400) + "\n")
        if check and not faults:
            write_out(say("所有插件均可使用", "every plugin works") + "\n")
    return PluginError.exit_code if faults else 0


def _key(row: dict[str, str]) -> tuple[str, str, str]:
    return row["kind"], row["name"], row["distribution"]


def _faults() -> dict[tuple[str, str, str], str]:
    """Load every allowed plugin; return the errors by kind, name and distribution."""
    registry = open_registry(Settings.load())
    found = {}
    for entry in registry.entries:
        if fault := check_plugin(registry, entry):
            found[KINDS[entry.group], entry.name, entry.distribution] = fault
    return found


@command.command(
    "show",
    help=say(
        "加载一个插件，说明它从哪里来、提供什么。",
        "Load a plugin; say where it comes from and what it offers.",
    ),
)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def show_plugin(name: str, as_json: bool) -> int:
    """Show the plugin of that name: a backbone first, then an extension, then a command."""
    registry = open_registry(Settings.load())
    named = sorted(
        (entry for entry in registry.entries if entry.name == name),
        key=lambda entry: list(KINDS).index(entry.group),
    )
    if not named:
        registry.backbone(name)  # raises an error that lists them
    facts = [plugin_facts(registry, entry) for entry in dict.fromkeys(named)]
    if as_json:
        return write_out(json.dumps(facts[0], ensure_ascii=False, indent=2) + "\n")
    texts = [_as_text(registry, one, entry) for one, entry in zip(facts, named, strict=True)]
    return write_out("\n\n".join(texts) + "\n")


def _as_text(registry: Registry, facts: dict[str, Any], entry: PluginEntry) -> str:
    listed = say("、", ", ").join
    record = facts["record"]
    files = say(f"{record['same']} 个文件与安装时相同", f"{record['same']} files as installed")
    if record["changed"] or record["missing"]:
        files = say("安装之后被改动：", "changed since they were installed: ")
        files += listed([*record["changed"], *record["missing"]])
    elif not record["same"]:
        files = say("没有安装记录（可编辑安装）", "nothing was recorded at installation (editable)")
    lines = [
        f"{facts['name']}" + say("：", ": ") + (_summary(facts) or facts["kind"]),
        say("来自", "from") + f" {facts['distribution']} {facts['version']} {facts['module']}",
        say("文件：", "file: ") + (facts["file"] or "?"),
        say("接口版本：", "API version: ") + str(facts["api_version"]),
        say("钩子：", "hooks: ") + listed(facts["hooks"]),
        say("安装记录：", "RECORD: ") + files,
    ]
    lines += _offers(registry, facts, entry)
    return "\n".join([*(sanitize_line(line, 400) for line in lines), *_weights(facts)])


def _summary(facts: dict[str, Any]) -> str:
    texts = facts.get("summary", {})
    return str(texts.get(current_language()) or next(iter(texts.values()), ""))


def _offers(registry: Registry, facts: dict[str, Any], entry: PluginEntry) -> list[str]:
    """Return lines on what a backbone offers; none for other kinds."""
    if "methods" not in facts:
        return []
    listed, none = say("、", ", ").join, say("无", "none")
    can = facts["capabilities"]
    able = [name for name in ("beams", "score", "adapters", "batch", "concurrent") if can[name]]
    able += [f"{name} {'|'.join(can[name])}" for name in ("devices", "dtypes", "quantize") if can[name]]
    methods = facts["methods"]
    if len(methods) > 1:
        methods = [methods[0] + say("（默认）", " (default)"), *methods[1:]]
    lines = [
        say("训练方法：", "fine-tuning methods: ") + (listed(methods) or none),
        say("模板：", "templates: ") + (listed(facts["templates"]) or none),
        say("能力：", "capabilities: ") + (listed(able) or none),
    ]
    declared = declared_options(registry.backbone(entry.name).load_keys)
    lines += [_option_line(key, option) for key, option in declared.items()]
    return lines


def _weights(facts: dict[str, Any]) -> list[str]:
    rows = [
        (known["name"], known["title"], known["source"], f"[{known['licence']}]")
        for known in facts.get("known_weights", ())
    ]
    lines = ["  " + "  ".join(sanitize_line(fact, 120) for fact in row) for row in rows]
    return [say("已知权重：", "known weights:"), *lines] if lines else []


def _option_line(name: str, option: Option) -> str:
    key = option_key(name, option)
    taken = "|".join(option.choices) or f"{option.kind.__name__.upper()} {key.allowed or ''}".rstrip()
    line = f"--option {name}={taken}"
    if option.default is not None:
        line += say(f"（默认 {option.default}）", f" (default {option.default})")
    return f"{line}  {key.summary}".rstrip()


command.add_command(test_plugin)
command.add_command(new_plugin)
