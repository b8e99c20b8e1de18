"""Click commands whose pages speak the interface language, and the top group that imports a command when it runs."""

from __future__ import annotations

import difflib
import importlib
import re
from typing import Any

import click

from medchat.cli.front import COMMANDS, plugin_command_names, top_help
from medchat.cli.help_page import HelpContext, help_rows, in_words
from medchat.cli.output import ReservedStdout
from medchat.errors import MedchatError, UsageError
from medchat.language import say

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Page:
    """The parts of a help page that click writes in English."""

    context_class: type[click.Context] = HelpContext

    def format_usage(self: Any, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        pieces = in_words(" ".join(self.collect_usage_pieces(ctx)))
        formatter.write_usage(ctx.command_path, pieces, prefix=say("用法：", "Usage: "))

    def _write_options(self: Any, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(say("选项", "Options")):
            formatter.write_dl(list(help_rows(self, ctx).values()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # click forgets it where a flag lacks its value
            raise
        return rest

    def get_help_option(self: Any, ctx: click.Context) -> click.Option | None:
        option: click.Option | None = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.help = say("显示本页", "show this page")
        return option


class LocalizedCommand(_Page, click.Command):
    """A command whose help page speaks the interface language: `@click.command(cls=LocalizedCommand)`.

    While it runs, what anybody prints goes to stderr; the result is written with `write_out`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["context_settings"] = {**CONTEXT, **kwargs.get("context_settings", {})}
        super().__init__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; nobody but itself writes to stdout meanwhile."""
        with ReservedStdout():
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under a heading in the interface language."""
        self._write_options(ctx, formatter)


class Group(_Page, click.Group):
    """A command with subcommands, such as `medchat sessions`: `@click.group(cls=Group)`.

    Its page speaks the interface language, its subcommands are `LocalizedCommand`s.
    """

    command_class = LocalizedCommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["context_settings"] = {**CONTEXT, **kwargs.get("context_settings", {})}
        kwargs.setdefault("subcommand_metavar", "SUBCOMMAND [ARGS]")
        super().__init__(*args, **kwargs)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options and the subcommands under headings in the interface language."""
        self._write_options(ctx, formatter)
        rows = [
            (name, _first_sentence(command.help or "")) for name, command in sorted(self.commands.items())
        ]
        with formatter.section(say("子命令", "Subcommands")):
            formatter.write_dl(rows)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the subcommand; an unknown one is answered with the nearest names. Raises UsageError."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown_command(args[0], list(self.commands), ctx.command_path)
        return super().resolve_command(ctx, args)


def _first_sentence(text: str) -> str:
    return re.split("。|[.] ", text)[0].removesuffix(".")


class TopGroup(Group):
    """`medchat` itself: knows its commands from the table and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, built-in ones first."""
        return [name for name, *_ in COMMANDS] + [name for name, _ in plugin_command_names(allowed_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        for name, module, *_ in COMMANDS:
            if name == cmd_name:
                found: click.Command = importlib.import_module(module).command
                return found
        return self._plugin_command(cmd_name)

    def _plugin_command(self, name: str) -> click.Command | None:
        if name not in dict(plugin_command_names(allowed_plugins())):
            return None
        from medchat.cli.plugin_command import PluginCommand
        from medchat.registry import Registry
        from medchat.settings import Settings

        registry = Registry(allowed=Settings.load().value("plugins"))
        return PluginCommand(*registry.command(name, click.Command))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command; an unknown one is answered with the nearest names. Raises UsageError."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            raise unknown_command(args[0], self.list_commands(ctx), "medchat")
        return click.Group.resolve_command(self, ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """Return the same page as the fast path."""
        return top_help(allowed_plugins())


def allowed_plugins() -> set[str] | None:
    """Return the names that the settings allow, None for all; `MEDCHAT_PLUGINS` alone where they are broken."""
    from medchat.registry.metadata import allowed_names
    from medchat.settings import Settings

    try:
        allowed = Settings.load().value("plugins")
    except (
        MedchatError
    ):  # `config path` and `doctor` must work then; whoever runs plugin code reads them again
        return allowed_names()
    return allowed_names() if allowed is None else set(allowed)


def unknown_command(name: str, known: list[str], path: str) -> UsageError:
    """Return the error for a mistyped command, with the nearest names."""
    # Two letters of a short name in the wrong order still count; a word of another meaning must not.
    near = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.66)
    remedy = (
        say("是不是想用：", "did you mean: ") + ", ".join(f"{path} {other}" for other in near)
        if near
        else say(f"查看全部：{path} --help", f"to see them all: {path} --help")
    )
    return UsageError(say(f"没有命令“{name}”", f"there is no command {name!r}"), remedy)
