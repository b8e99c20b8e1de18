"""Commands that open a model: a backbone's own options are flags of theirs, `--KEY VALUE` for `--option KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from medchat.chat.model_choice import open_registry
from medchat.cli.group import LocalizedCommand
from medchat.errors import UsageError
from medchat.settings import Settings


class ModelCommand(LocalizedCommand):
    """A command with `model_flags`. What is no flag of its own is looked for among the backbones' options.

    Their plugins are imported only then. Whether the backbone in use has the option, and takes the value, is
    checked like any `--option`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises what click raises."""
        typed = list(args)
        while True:
            try:
                return super().parse_args(ctx, list(typed))
            except click.NoSuchOption as error:
                written = _as_option(typed, error.option_name)
                if written is None:
                    raise
                typed = written


def _as_option(typed: list[str], flag: str) -> list[str] | None:
    """Return the arguments with `flag` and its value as `--option KEY=VALUE`, None where it is no backbone's."""
    end = typed.index("--") if "--" in typed else len(typed)
    at = next((at for at in range(end) if typed[at].partition("=")[0] == flag), None)
    key = flag.removeprefix("--").replace("-", "_")
    if at is None or not flag.startswith("--") or not any(key in keys for keys in _declared(typed)):
        return None
    _, equals, value = typed[at].partition("=")
    after = at + 1
    if not equals:
        if after >= end:
            return None
        value, after = typed[after], after + 1
    return [*typed[:at], "--option", f"{key}={value}", *typed[after:]]


def _declared(typed: list[str]) -> Iterator[frozenset[str]]:
    """Yield the names of the options of the backbone that is named, else of each that there is.

    Raises PluginError if the plugin that is named is broken.
    """
    try:
        registry, name = open_registry(Settings.load()), _named(typed)
        if name:
            yield frozenset(registry.backbone(name).load_keys)
    except UsageError:  # said by the command itself, once its own flags are read
        return
    if not name:
        for _, keys in registry.call_each(lambda backbone: frozenset(backbone.load_keys)):
            yield keys


def _named(typed: list[str]) -> str:
    for at, word in enumerate(typed):
        if word == "--backbone" and at + 1 < len(typed):
            return typed[at + 1]
        if word.startswith("--backbone="):
            return word.partition("=")[2]
    return ""
