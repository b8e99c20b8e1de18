"""A plugin's click command behind the guard."""

from __future__ import annotations

from typing import Any

import click

from medchat.errors import MedchatError
from medchat.language import say
from medchat.registry import ContractError
from medchat.registry.metadata import PluginEntry
from medchat.registry.plugin import guarded

#: How click ends a command in order, and a reader of its output that has gone.
_IN_ORDER = (MedchatError, click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError)
_LARGEST_CODE = 255


class PluginCommand(click.Command):
    """The command `inner` of the plugin behind `entry`: what it raises is a BrokenPluginError.

    It may return an exit code, call `ctx.exit` and raise what click and MedChat have errors for.
    """

    def __init__(self, inner: click.Command, entry: PluginEntry) -> None:
        super().__init__(inner.name)
        self._inner, self._entry = inner, entry

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Let the command read its arguments, and show its help where that is requested."""
        with guarded(self._entry, f"medchat {self.name}", _IN_ORDER):
            context = self._inner.make_context(info_name, args, parent, **extra)
        context.command = self
        return context

    def invoke(self, ctx: click.Context) -> int:
        """Run the command and return its exit code. Raises PluginError, and what click and MedChat have errors for."""
        ctx.command = self._inner
        with guarded(self._entry, f"medchat {self.name}", _IN_ORDER):
            code = self._inner.invoke(ctx)
            if code is not None and (type(code) is not int or not 0 <= code <= _LARGEST_CODE):
                shown = repr(code)[:60]
                raise ContractError(
                    say(f"应返回退出码或 None，却得到 {shown}", f"expected an exit code or None, got {shown}")
                )
        return code or 0
