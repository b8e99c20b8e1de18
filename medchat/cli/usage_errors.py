"""What click says of wrong usage, in the interface language and as our own error."""

from __future__ import annotations

import re

import click

from medchat.cli.help_page import in_words, range_of
from medchat.errors import UsageError
from medchat.language import say

#: click's words for arguments that no parameter takes; it has no exception of their own.
_UNEXPECTED = re.compile(r"Got unexpected extra arguments? \((.*)\)", re.DOTALL)


def as_usage_error(error: click.ClickException) -> UsageError:
    """Translate a click exception into a UsageError (exit code 2) that names the next command to type."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "medchat"
    see = say(f"用法见：{path} --help", f"for usage: {path} --help")
    if isinstance(error, click.NoSuchOption):
        near = ", ".join(sorted(error.possibilities or ()))
        return UsageError(
            say(f"没有选项 {error.option_name}", f"there is no option {error.option_name}"),
            say(f"是不是想用：{near}", f"did you mean: {near}") if near else see,
        )
    if isinstance(error, click.MissingParameter):
        name = _name(error, context)
        return UsageError(say(f"缺少参数 {name}", f"missing {name}"), see)
    if isinstance(error, click.BadParameter):
        name = _name(error, context)
        return UsageError(
            say(f"{name} 的值无效：{_expected(error)}", f"invalid value for {name}: {_expected(error)}"), see
        )
    if isinstance(error, click.BadOptionUsage):
        return UsageError(_misused(error.option_name, context), see)
    if extra := _UNEXPECTED.match(error.message):
        return UsageError(
            say(f"多余的参数：{extra[1]}", f"too many arguments: {extra[1]}"),
            say("文字里有空格时请加引号；", "put text with spaces in quotes; ") + see,
        )
    return UsageError(error.format_message(), see)


def _name(error: click.BadParameter, context: click.Context | None) -> str:
    if error.param is None or context is None:
        return str(error.param_hint or "?")
    hint = error.param.get_error_hint(context)
    return in_words(hint.strip("'")) if hint else str(error.param.name)


def _misused(flag: str, context: click.Context | None) -> str:
    """Return what is wrong with a flag that click could not take: a value too many, or none."""
    parameters = context.command.params if context is not None else []
    if any(
        flag in (*each.opts, *each.secondary_opts) and getattr(each, "is_flag", False) for each in parameters
    ):
        return say(f"选项 {flag} 不带值", f"{flag} takes no value")
    return say(f"选项 {flag} 缺少值", f"{flag} needs a value")


def _expected(error: click.BadParameter) -> str:
    kind = error.param.type if error.param is not None else None
    if isinstance(kind, click.Choice):
        choices = say("、", ", ").join(str(choice) for choice in kind.choices)
        return say(f"可选 {choices}", f"choose from {choices}")
    valid = range_of(kind) if kind is not None else ""
    within = say(f"，范围 {valid}", f", within {valid}") if valid else ""
    if isinstance(kind, click.types.IntParamType):
        return say("需要一个整数", "a whole number is needed") + within
    if isinstance(kind, click.types.FloatParamType):
        return say("需要一个数", "a number is needed") + within
    return error.message
