"""How a failure is shown: one or two sanitised lines, and a traceback only for `--debug`."""

from __future__ import annotations

import sys
import traceback

from medchat.cli.output import say_aside
from medchat.errors import MedchatError
from medchat.language import say
from medchat.sanitize import sanitize, sanitize_line

#: What a defect of ours exits with.
DEFECT = 1


def show_failure(error: BaseException, *, debug: bool) -> int:
    """Print `error` to stderr and return the exit code. Values of variables are never shown."""
    if debug:
        frames = traceback.format_exception(type(error), error, error.__traceback__)
        say_aside(sanitize("".join(frames)))
    if isinstance(error, MedchatError):
        if not error.what:  # another process of the run says it
            return error.exit_code
        where = sanitize_line(error.where)
        place = say(f"（{where}）", f" ({where})") if where else ""
        say_aside(say("错误：", "Error: ") + sanitize_line(error.what, 600) + place)
        if error.remedy:
            say_aside(say("下一步：", "Next: ") + sanitize_line(error.remedy, 600))
        return error.exit_code
    say_aside(
        say("程序内部错误：", "Internal error: ") + sanitize_line(f"{type(error).__name__}: {error}", 300)
    )
    if not debug:
        command = " ".join(sanitize_line(word, 80) for word in sys.argv[1:3])
        say_aside(
            say(
                "下一步：加上 --debug 再运行一次，并报告输出：medchat ",
                "Next: run again with --debug and report the output: medchat ",
            )
            + f"{command} … --debug"
        )
    return DEFECT
