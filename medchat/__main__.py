"""`medchat` and `python -m medchat`."""

from __future__ import annotations

import os
import sys

# Whatever else is imported, is imported once Ctrl-C has a handler: its import may take long enough to be cut short.


def end_quietly_on_signals() -> None:
    """From here on Ctrl-C, SIGTERM and SIGHUP end the program at once, without a word: nothing has begun yet.

    `medchat.cli.signals` takes over where there is something to finish or to save. A signal that whoever
    started the program has turned off (nohup, a job in the background) stays so.
    """
    import signal

    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
    for number, code in codes.items():
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, lambda *_, code=code: os._exit(code))


#: How long a thread that waits for others spins instead of sleeping, for each runtime torch may come with.
PASSIVE_WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


def wait_passively() -> None:
    """Let threads sleep while they wait, unless the user has said how they wait; torch reads it as it loads.

    Spinning threads take the cores from the one that they wait for, where others work on the machine too
    (docs/measurements.md, "Waiting threads").
    """
    if not PASSIVE_WAITING.keys() & os.environ.keys():
        os.environ.update(PASSIVE_WAITING)


#: Seconds that what a plugin leaves behind has at the end: a thread that is no daemon, a function for `atexit`.
LEAVING_SECONDS = 3.0


def leave_in_time(code: int) -> None:
    """Let the program end with `code` soon, whatever a plugin that was imported leaves behind.

    Where there was none, what libraries do at the end takes the time that it needs.
    """
    plugins = sys.modules.get("medchat.registry.plugin")
    if plugins is None or not plugins.imported_distributions:
        return
    from threading import Timer

    from medchat.cli.leaving import end_now

    timer = Timer(LEAVING_SECONDS, end_now, (code,))
    timer.daemon = True
    timer.start()


def split_global_flags(arguments: list[str]) -> tuple[list[str], str | None, bool]:
    """Take `--lang X` and `--debug` out of `arguments`, wherever they are before `--`.

    Returns what is left, the language (as typed, possibly wrong) and whether `--debug` was there.
    """
    rest: list[str] = []
    language: str | None = None
    debug = False
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--debug":
            debug = True
        elif word == "--lang":
            language = next(words, "")
        elif word.startswith("--lang="):
            language = word.removeprefix("--lang=")
        else:
            rest.append(word)
    return rest, language, debug


def main() -> int:
    """Run the program on `sys.argv` and return its exit code."""
    if sys.platform != "win32":  # there not all of these signals exist
        end_quietly_on_signals()
    wait_passively()
    from medchat.language import LANGUAGES, language_from_environment, say, set_language

    arguments, language, debug = split_global_flags(sys.argv[1:])
    set_language(language if language in LANGUAGES else language_from_environment())
    if sys.platform == "win32":  # before an import that fails there
        sentence = say(
            "MedChat 在 Windows 上需要 WSL 2：先运行 wsl --install，再在 WSL 里安装和使用",
            "On Windows MedChat needs WSL 2: run wsl --install, then install and use MedChat inside WSL",
        )
        sys.stderr.write(sentence + "\n")
        return 2
    if language is None or language in LANGUAGES:
        from medchat.cli.front import answer_quickly, language_may_be_configured

        chosen = language or os.environ.get("MEDCHAT_LANG")
        answer = answer_quickly(arguments) if chosen or not language_may_be_configured() else None
        if answer is not None:
            from medchat.cli.output import write_out

            return write_out(answer + "\n")
    from medchat.cli.program import run

    code = run(arguments, language=language, debug=debug)
    leave_in_time(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
