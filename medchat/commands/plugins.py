"""`medchat plugins`: what is installed, and what a backbone offers."""

from __future__ import annotations

import json

import click

from medchat.api import Backbone, Option
from medchat.chat.model_choice import open_registry
from medchat.cli.group import Group, allowed_plugins
from medchat.cli.output import write_out
from medchat.cli.plugin_table import plugin_rows, plugin_table
from medchat.commands.plugin_properties import test_plugin
from medchat.language import current_language, say
from medchat.sanitize import sanitize_line
from medchat.settings import Settings
from medchat.settings.plugin_options import declared_options, option_key


@click.group(cls=Group, help=say("查看插件。", "Look at plugins."))
def command() -> None:
    """Hold the subcommands."""


@command.command(
    "list",
    help=say(
        "列出插件；只读元数据，不运行插件代码。", "List plugins from metadata; runs none of their code."
    ),
)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def list_plugins(as_json: bool) -> int:
    """List the plugins."""
    if as_json:
        return write_out(json.dumps(plugin_rows(allowed_plugins()), ensure_ascii=False, indent=2) + "\n")
    return write_out(plugin_table(allowed_plugins()) + "\n")


@command.command(
    "show",
    help=say("加载一个模型家族的插件并说明它提供什么。", "Load one backbone plugin and say what it offers."),
)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def show_plugin(name: str, as_json: bool) -> int:
    """Show one backbone."""
    registry = open_registry(Settings.load())
    rows = [
        row for row in plugin_rows(allowed_plugins()) if row["name"] == name and row["kind"] == "backbone"
    ]
    origin: dict[str, str] = rows[0] if rows else {}
    described = _as_json if as_json else _as_text
    backbone = registry.backbone(name)
    with backbone.guard():
        text = described(backbone, origin)
    return write_out(text + "\n")


command.add_command(test_plugin)


def _as_json(backbone: Backbone, origin: dict[str, str]) -> str:
    generation = backbone.generation
    whole = {
        "name": backbone.name,
        "summary": dict(backbone.summary),
        "distribution": origin.get("distribution", ""),
        "version": origin.get("version", ""),
        "module": origin.get("module", ""),
        "methods": sorted(backbone.recipes),
        "options": {
            name: {
                "type": option.kind.__name__.lower(),
                "choices": list(option.choices),
                "low": option.low,
                "high": option.high,
                "default": None if option.default is None else str(option.default),
                "summary": dict(option.summary),
            }
            for name, option in declared_options(backbone.load_keys).items()
        },
        "generation": {
            name: None if name in generation.unset else getattr(generation, name)
            for name in ("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens")
        },
        "known_weights": [
            {
                "name": known.name,
                "title": known.title,
                "source": known.source,
                "licence": known.licence,
                "template": known.template,
            }
            for known in backbone.known_weights
        ],
    }
    return json.dumps(whole, ensure_ascii=False, indent=2)


def _as_text(backbone: Backbone, origin: dict[str, str]) -> str:
    summary = backbone.summary.get(current_language()) or next(iter(backbone.summary.values()), "")
    lines = [
        sanitize_line(backbone.name) + say("：", ": ") + sanitize_line(summary, 200),
        say("来自", "from")
        + "".join(
            f" {sanitize_line(str(origin.get(key, '')))}" for key in ("distribution", "version", "module")
        ),
        say("训练方法：", "fine-tuning methods: ")
        + (say("、", ", ").join(sorted(backbone.recipes)) or say("无", "none")),
    ]
    lines += [_option_line(key, option) for key, option in declared_options(backbone.load_keys).items()]
    if backbone.known_weights:
        lines.append(say("已知权重：", "known weights:"))
    for known in backbone.known_weights:
        facts = (known.name, known.title, known.source, f"[{known.licence}]")
        lines.append("  " + "  ".join(sanitize_line(fact, 120) for fact in facts))
    return "\n".join(lines)


def _option_line(name: str, option: Option) -> str:
    key = option_key(name, option)
    taken = "|".join(option.choices) or " ".join(
        filter(None, (option.kind.__name__.upper(), str(key.allowed or "")))
    )
    line = f"--option {name}={taken}"
    if option.default is not None:
        line += say(f"（默认 {option.default}）", f" (default {option.default})")
    return sanitize_line(f"{line}  {key.summary}".rstrip(), 300)
