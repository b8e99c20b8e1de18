"""`medchat ask`: one question, the answer alone on stdout."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from medchat.api import ChatModel, PromptTemplate
from medchat.chat.attachments import read_attachment
from medchat.chat.conversation import PreparedChat, prepare_conversation
from medchat.chat.demo_mode import UnknownToDemo
from medchat.chat.presets import Preset, preset_named
from medchat.chat.session_choice import SessionChoice, disclaimer_lines, model_notes
from medchat.chat.setup import ChatSetup
from medchat.cli.leaving import when_left
from medchat.cli.model_command import ModelCommand
from medchat.cli.native_output import HeldNativeOutput
from medchat.cli.options import generation_flags, model_flags, session_flags
from medchat.cli.output import answer_stream, say_aside, silence_stdout
from medchat.cli.piped_input import QuestionInput
from medchat.cli.signals import cancel_on_signals
from medchat.cli.stuck import PATIENCE
from medchat.commands.ask_output import AskedAnswer, OutputClosed, say_notice
from medchat.commands.ask_server import AUTO, model_in_background, settings_of_address
from medchat.errors import Interruption, UsageError
from medchat.language import say
from medchat.repl.messages import load_with_line
from medchat.sanitize import StreamSanitizer
from medchat.settings import Settings
from medchat.sft_job.shell_words import joined
from medchat.store import SessionKind


class _AskCommand(ModelCommand):
    """The command class: explains that a question which begins with a dash was parsed as an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises UsageError, with the command to type, for an option that may be a question."""
        typed = list(args)
        try:
            rest = super().parse_args(ctx, args)
            if ctx.params["question"] is None and ctx.params["preset"] is None:
                raise click.MissingParameter(ctx=ctx, param=self.params[0])
            return rest
        except click.NoSuchOption as error:
            word = next((word for word in typed if word.startswith(error.option_name)), error.option_name)
            if error.possibilities:
                raise
            raise _perhaps_a_question(
                say(f"没有选项 {error.option_name}", f"there is no option {error.option_name}"), word
            ) from None
        except click.MissingParameter:
            # `-fever?` parses as `-f ever?`, and then there is no question.
            word = next((word for word in typed if word[:2] == "-f" and word[2:]), "")
            if not word:
                raise
            raise _perhaps_a_question(say("没有问题", "there is no question"), word) from None


def _perhaps_a_question(what: str, word: str) -> UsageError:
    return UsageError(
        what,
        say(
            "如果它是问题，写在 -- 之后，选项写在 -- 之前：",
            "if it is the question, put it after -- and the options before: ",
        )
        + joined(["medchat", "ask", "--", word]),
    )


@click.command(
    cls=_AskCommand,
    help=say(
        "回答一个问题。问题为 - 时从标准输入读取；另有管道或文件接入时，其内容作为问题的背景。",
        "Answer one question; - reads it from standard input. With a question given, piped input is its context.",
    ),
)
@click.argument("question", metavar="QUESTION|-", required=False)
@model_flags
@generation_flags
@session_flags
@click.option(
    "--server",
    metavar="URL|auto",
    help=say(
        "让已经运行的 medchat serve 回答，如 http://127.0.0.1:8321；auto：没有就在后台启动一个",
        "have a running medchat serve answer, as at http://127.0.0.1:8321; auto: start one if none runs",
    ),
)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    help=say("附上一个文本文件，可重复", "attach a text file, repeatable"),
)
@click.option(
    "--preset",
    metavar="NAME",
    help=say(
        "用预设（config.toml 的 [preset]）提问；问题填入其中的 {名称}，没有写问题时读标准输入",
        "ask a preset ([preset] of config.toml); the question, else standard input, fills its {name}",
    ),
)
@click.option(
    "--fill",
    "fills",
    multiple=True,
    metavar="NAME=TEXT",
    help=say("填入预设中的一处，可重复", "fill one place of the preset, repeatable"),
)
@click.option("--json", "as_json", is_flag=True, help=say("输出一个 JSON 对象", "print one JSON object"))
@click.option("--events", is_flag=True, help=say("边生成边输出 JSONL", "print JSON lines while streaming"))
@click.option(
    "--force-answer",
    is_flag=True,
    help=say(
        "演示模型没有学过的问题也照样生成回答（内容没有意义）",
        "let the demo model answer what it has not learned",
    ),
)
@click.option(
    "--stats", is_flag=True, help=say("结束时在标准错误显示统计", "print statistics on stderr at the end")
)
def command(
    question: str | None,
    server: str | None,
    files: tuple[str, ...],
    preset: str | None,
    fills: tuple[str, ...],
    as_json: bool,
    events: bool,
    stats: bool,
    force_answer: bool,
    **flags: Any,
) -> int:
    """Answer one question."""
    if as_json and events:
        raise _two_styles()
    if server not in (None, AUTO):
        flags |= settings_of_address(server, flags)
    choice = SessionChoice(
        flags["session"], flags["continue_"], flags["resume"], not flags["no_save"], SessionKind.ASK
    )
    prepared = prepare_conversation(flags, choice, say_aside)
    try:
        words, wording = _worded(prepared.settings, question, preset, fills)
        most = int(prepared.settings.value("max_question_bytes"))
        asked = QuestionInput(words, most, [read_attachment(file) for file in files], wording)
        asked.begin()
        for line in [
            *disclaimer_lines(prepared.store),
            *prepared.plugin_lines(),
            *prepared.opening.notices(),
        ]:
            say_aside(line)
        style = "json" if as_json else "events" if events else "text"
        with HeldNativeOutput():
            background = server == AUTO
            return _answer(prepared, asked, style, background, figures=stats, insist=force_answer)
    finally:
        prepared.store.close()


def _two_styles() -> UsageError:
    return UsageError(
        say("--json 和 --events 只能用一个", "use only one of --json and --events"),
        say(
            "--json 在最后输出一个对象，--events 边生成边输出",
            "--json prints one object at the end, --events prints while streaming",
        ),
    )


def _worded(
    settings: Settings, question: str | None, name: str | None, fills: Sequence[str]
) -> tuple[str, Callable[[str], str]]:
    """Return the words to use, `-` for standard input, and a function that makes the question of them.

    Raises UsageError for an unknown preset, and for `--fill` without a preset or for an unknown placeholder.
    """
    if name is None and not fills:
        return str(question), str
    if name is None:
        raise UsageError(
            say("--fill 要和 --preset 一起用", "--fill goes with --preset"),
            say("加上 --preset 名称", "add --preset NAME"),
        )
    preset = preset_named(name, settings.presets)
    values = preset.pairs(fills)
    left = [place for place in preset.placeholders if place not in values]
    if question is None:
        on_terminal = sys.stdin is None or sys.stdin.isatty()
        question = "-" if left and not on_terminal else ""
    if question == "-" and len(left) == 1:  # piped input is used verbatim, even if it looks like pairs
        return question, lambda text: _filled(preset, "", {**values, left[0]: text} if text else values)
    return question, lambda text: _filled(preset, text, values)


def _filled(preset: Preset, words: str, values: Mapping[str, str]) -> str:
    """Return the preset's question. Raises UsageError if a placeholder stays empty."""
    question, missing = preset.filled(words, values)
    if missing:
        flags = " ".join(f"--fill {place}=…" for place in missing)
        raise UsageError(
            say(f"预设“{preset.name}”没有填完", f"preset {preset.name} is not filled"),
            say(f"加上 {flags}，或从标准输入读", f"add {flags}, or pipe it in"),
        )
    return question


def _loaded(opening: ChatSetup, background: bool) -> tuple[ChatModel, PromptTemplate]:
    """Return the model, here or in the background, and the template to ask it in."""
    if background:
        return model_in_background(opening)
    options = replace(opening.options, quick_start=opening.generation.num_beams == 1)
    return load_with_line(replace(opening, options=options)), opening.template


def _answer(
    prepared: PreparedChat,
    asked: QuestionInput,
    style: str,
    background: bool,
    *,
    figures: bool,
    insist: bool,
) -> int:
    try:
        for notice in prepared.early_notices(asked.so_far):
            say_notice(notice, style)
    except OutputClosed as closed:
        silence_stdout()
        return closed.exit_code()
    model, template = _loaded(prepared.opening, background)
    try:
        for note in model_notes(model):
            say_aside(note)
        screen = StreamSanitizer() if answer_stream().isatty() else None
        session = prepared.begin(model)
        session.template = template
        answer = AskedAnswer(session, prepared, style, figures=figures, screen=screen)
        return _written(answer, asked.complete(), insist=insist)
    finally:
        model.close()


def _written(answer: AskedAnswer, question: str, *, insist: bool) -> int:
    """Ask the question and write the events; return the exit code.

    A signal asks the model to stop; a second one ends the program if the model does not, and saves what came.
    """
    cancel = threading.Event()
    events = answer.session.ask(question, cancel, insist=insist)

    def save() -> None:
        answer.session.leave_alone()
        answer.break_off()

    with cancel_on_signals(cancel, insist=True, limit=PATIENCE) as codes, when_left(save):
        try:
            answer.start(question)
            for event in events:
                answer.take(event)
            answer.finish()
        except OutputClosed as closed:
            silence_stdout()
            cancel.set()
            for _ in events:  # what had come is still saved
                pass
            return closed.exit_code()
        except UnknownToDemo as unknown:
            answer.refuse(unknown)
            raise
        except (Exception, Interruption):
            answer.break_off()
            raise
    return codes[0] if codes else 0
