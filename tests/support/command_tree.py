"""Every command of the program, and its help page."""

from __future__ import annotations

import importlib

import click

from medchat.builtin import BUILTIN_COMMANDS
from medchat.cli.front import COMMANDS
from medchat.cli.group import TopGroup


def tree_of_commands() -> dict[tuple[str, ...], click.Command]:
    """Return every command by its words: ("sessions", "list") and so on."""
    found: dict[tuple[str, ...], click.Command] = {}
    for name, module, *_ in COMMANDS:
        found |= _with_subcommands((name,), importlib.import_module(module).command)
    for plugin in BUILTIN_COMMANDS:
        for command in importlib.import_module(plugin.module).medchat_commands():
            found |= _with_subcommands((command.name,), command)
    return found


def _with_subcommands(words: tuple[str, ...], command: click.Command) -> dict[tuple[str, ...], click.Command]:
    found = {words: command}
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            found |= _with_subcommands((*words, name), each)
    return found


def help_page(words: tuple[str, ...], columns: int = 100) -> str:
    """Return the page that `medchat WORDS --help` shows on a terminal of so many columns.

    Its texts are in the language in which the commands were imported: Chinese in a test's own process.
    """
    commands = tree_of_commands()
    context = click.Context(TopGroup(name="medchat"), info_name="medchat")
    for end in range(1, len(words) + 1):
        command = commands[words[:end]]
        context = command.context_class(
            command, parent=context, info_name=words[end - 1], **command.context_settings
        )
    context.terminal_width = columns - 2  # click leaves a margin
    return command.get_help(context)
