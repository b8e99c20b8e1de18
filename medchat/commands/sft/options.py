"""The flags of `medchat sft`: one for each setting of a run, and hints for the original projects' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from medchat.cli.help_page import help_rows
from medchat.cli.model_command import ModelCommand
from medchat.cli.options import option_flag_of_backbones
from medchat.errors import UsageError
from medchat.language import say
from medchat.settings import Key
from medchat.settings.keys import Kind
from medchat.settings.plugin_options import split_option
from medchat.sft_job.keys import EXTRA, GROUPS, KEYS, flag_of
from medchat.sft_job.legacy_names import instead_of
from medchat.sft_job.settings import Given, checked_value

F = TypeVar("F", bound=Callable[..., Any])

_METAVARS = {Kind.TEXT: "NAME", Kind.WHOLE: "N", Kind.NUMBER: "X", Kind.LIST: "A,B"}


class _Switch(click.Option):
    """A flag with a `--no-` variant, which the help page shows once."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        return "--[no-]" + self.opts[0].removeprefix("--"), self.help or ""


class RunCommand(ModelCommand):
    """The command class: a help page in groups, and an error with our flag for an original project's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises UsageError with our flags if an original project's were typed."""
        typed = [word for word in args if word.startswith("--") and word != "--"]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            ours = {
                option for parameter in self.params for option in (*parameter.opts, *parameter.secondary_opts)
            }
            unknown = [word.partition("=")[0] for word in typed if word.partition("=")[0] not in ours]
            hints = [hint for word in dict.fromkeys(unknown) if (hint := instead_of(word))]
            if not hints:
                raise
            raise UsageError(
                say(f"没有选项 {error.option_name}", f"there is no option {error.option_name}"),
                say("对应的写法：", "write instead: ") + say("；", "; ").join(hints),
            ) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of a run grouped as in the configuration file."""
        records = help_rows(self, ctx)
        for group in GROUPS:
            with formatter.section(group.title):
                formatter.write_dl([records.pop(key.name) for key in group.keys])
        with formatter.section(say("其他", "Other")):
            formatter.write_dl(list(records.values()))


def run_flags(command: F) -> F:
    """Add a flag for every setting of a run."""
    for key in reversed(list(KEYS.values())):
        command = _option(key)(command)
    command = click.option("--extra", multiple=True, hidden=True)(command)  # the former name of `--option`
    return option_flag_of_backbones(command)


def _option(key: Key) -> Callable[[F], F]:
    flag = flag_of(key.name)
    if key.kind is Kind.FLAG:
        names = f"{flag}/--no-{flag.removeprefix('--')}"
        return click.option(names, key.name, cls=_Switch, default=None, help=key.summary)
    metavar = "PATH" if key.is_path else "|".join(key.choices) or _METAVARS[key.kind]
    kind = {Kind.WHOLE: int, Kind.NUMBER: float}.get(key.kind, str)
    many = key.kind is Kind.LIST
    return click.option(
        flag, key.name, type=kind, metavar=metavar, multiple=many, default=None, help=key.summary
    )


def given_flags(flags: Mapping[str, Any]) -> Given:
    """Return the given settings, checked. Raises UsageError."""
    found: dict[str, tuple[Any, str]] = {}
    for name, key in KEYS.items():
        value = flags.get(name)
        if value is None or value == ():
            continue
        if key.kind is Kind.LIST and not key.is_path:
            value = [part.strip() for item in value for part in item.split(",") if part.strip()]
        found[name] = (checked_value(name, value, flag_of(name)), flag_of(name))
    for item in (*(flags.get("extra") or ()), *(flags.get("option") or ())):
        name, value = split_option(item, "--option")
        found[EXTRA + name] = (value, "--option")
    return found
