"""From arguments to an exit code: choose the language, run the click command, show what failed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

import click

from medchat import launcher
from medchat.cli.group import TopGroup
from medchat.cli.output import CLOSED_PIPE, failure_lines, forgive_encoding, say_aside, silence_stdout
from medchat.cli.signals import Stopped, stop_on_signals
from medchat.cli.usage_errors import as_usage_error
from medchat.errors import MedchatError, UsageError
from medchat.language import LANGUAGES, say, set_language
from medchat.registry.metadata import strict
from medchat.sanitize import sanitize, sanitize_line

#: What a defect of ours exits with.
DEFECT = 1


def run(arguments: list[str], *, language: str | None, debug: bool) -> int:
    """Run one command line (global flags already taken out) and return its exit code."""
    forgive_encoding()

    def invoke() -> int:
        _choose_language(language)
        _name_misspelt_variables(arguments)
        return _invoke(arguments or _default_command(), debug=debug)

    return exit_code_of(invoke, debug=debug)


def exit_code_of(work: Callable[[], int], *, debug: bool) -> int:
    """Do the `work` and return its exit code; what it raises is shown on stderr, and has an exit code too."""
    try:
        with stop_on_signals():
            return work()
    except Stopped as stopped:
        return stopped.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        silence_stdout()
        return CLOSED_PIPE
    except click.exceptions.Abort:
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        say_aside(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        return show_failure(as_usage_error(error), debug=debug)
    except OSError as error:
        return show_failure(_refused_by_system(error), debug=debug)
    except Exception as error:
        return show_failure(error, debug=debug)


def _refused_by_system(error: OSError) -> MedchatError:
    """Return what to say of a file or a device that the system refused: the machine's failure, and no defect."""
    reason = error.strerror or str(error)
    refused = MedchatError(
        say(f"系统报告：{reason}", f"the system says: {reason}"),
        say("请检查路径、权限和磁盘空间", "check the path, its permissions and the space on the disk"),
        where=str(error.filename or ""),
    )
    refused.__cause__ = error
    return refused


def _choose_language(flag: str | None) -> None:
    from medchat.settings import configured_language

    if flag is not None:
        if flag not in LANGUAGES:
            raise UsageError(
                say(f"--lang 的值“{flag}”无效", f"invalid --lang {flag!r}"), "--lang zh | --lang en"
            )
        set_language(flag)
        return
    # `config path` and `doctor` must work above all when the configuration is broken.
    set_language(configured_language())


def _name_misspelt_variables(arguments: list[str]) -> None:
    """Point out variables that are nearly ours, whatever the command; `doctor` lists them itself."""
    from medchat.settings import Settings

    if arguments[:1] == ["doctor"] or launcher.local_rank():  # one process of a machine says it
        return
    with suppress(MedchatError):  # see `_choose_language`
        for warning in Settings.load().warnings:
            say_aside(sanitize_line(warning, 300))


def _default_command() -> list[str]:
    """`medchat` alone opens chat on a terminal; with piped input it is `ask -`."""
    if sys.stdin is None or sys.stdin.isatty():
        return ["chat"]
    return ["ask", "-"]


def _invoke(arguments: list[str], *, debug: bool) -> int:
    group = TopGroup(name="medchat", no_args_is_help=False)
    try:
        # Not `group.main`: it answers a closed pipe and Ctrl-C in its own way.
        with group.make_context("medchat", arguments, obj={"debug": debug}) as context:
            result = group.invoke(context)
    except click.exceptions.Exit as left:
        return left.exit_code
    return result if isinstance(result, int) else 0


def show_failure(error: BaseException, *, debug: bool) -> int:
    """Print `error` to stderr and return the exit code. Values of variables are never shown.

    The traceback goes before it where `debug` asks for it, and of what is no `MedchatError` in strict mode:
    that is a plugin's own exception.
    """
    traced = debug or (strict() and not isinstance(error, MedchatError))
    if traced:
        frames = traceback.format_exception(type(error), error, error.__traceback__)
        say_aside(sanitize("".join(frames)))
    if isinstance(error, MedchatError):
        if not error.what:  # another process of the run says it
            return error.exit_code
        for line in failure_lines(error):
            say_aside(line)
        return error.exit_code
    say_aside(
        say("程序内部错误：", "Internal error: ") + sanitize_line(f"{type(error).__name__}: {error}", 300)
    )
    if not traced:
        command = " ".join(sanitize_line(word, 80) for word in sys.argv[1:3])
        say_aside(
            say(
                "下一步：加上 --debug 再运行一次，并反馈输出的内容：medchat ",
                "Next: run again with --debug and report the output: medchat ",
            )
            + f"{command} … --debug"
        )
    return DEFECT
