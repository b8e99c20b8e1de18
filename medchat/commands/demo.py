"""`medchat demo`: no weights, no GPU: trains a tiny model on the demo's questions, then chats with it."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from medchat import __version__, medical_safety, paths
from medchat.api import Backbone, Example, SFTData
from medchat.chat.conversation import PreparedChat, prepare_conversation
from medchat.chat.demo_mode import demo_folder, is_demo, mark_as_demo
from medchat.chat.events import AnswerPiece
from medchat.chat.model_choice import open_registry
from medchat.chat.session_choice import SessionChoice, disclaimer_lines
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import answer_stream, say_aside, write_out
from medchat.commands.chat import hold, startup_for
from medchat.commands.sft.progress import SilentWatcher, show_training
from medchat.demo_data import DemoPair, demo_examples
from medchat.demo_recipe import DEMO_RECIPES, DemoRecipe
from medchat.errors import UsageError
from medchat.language import say
from medchat.sanitize import sanitize
from medchat.settings import Settings

#: The questions answered if there is no terminal to chat on.
SAMPLES = 3


@click.command(
    cls=LocalizedCommand,
    help=say(
        "无需权重：用真实的训练代码教一个微型模型约 150 条健康常识，然后和它对话。第二次启动直接进入对话。",
        "No weights needed: teach a miniature model about 150 health questions with the real training code, then chat.",
    ),
)
@click.option("--backbone", default="chatglm", metavar="NAME", help=say("模型家族", "model family"))
@click.option("--retrain", is_flag=True, help=say("重新训练", "train it anew"))
@click.option("--no-save", is_flag=True, help=say("不保存会话", "do not save the session"))
@click.option("--style", type=click.Choice(["rich", "plain"]), help=say("显示样式", "how answers look"))
def command(backbone: str, retrain: bool, no_save: bool, style: str | None) -> int:
    """Train if necessary, then chat, or answer a few samples without a terminal."""
    chosen = open_registry(Settings.load()).backbone(backbone)
    pairs = demo_examples()
    for line in banner(len(pairs)):
        say_aside(line)
    model = trained_model(chosen, pairs, retrain=retrain)
    flags: dict[str, Any] = {"backbone": backbone, "model": str(model), "greedy": True, "style": style}
    flags |= {"device": "cpu", "dtype": "float32"}
    prepared = prepare_conversation(flags, SessionChoice(save=not no_save), say_aside)
    try:
        if sys.stdin is not None and sys.stdin.isatty() and answer_stream().isatty():
            return hold(prepared, startup_for(prepared, banner=invitation(pairs)))
        return answer_samples(prepared, pairs)
    finally:
        prepared.store.close()


def banner(count: int) -> list[str]:
    """Return the first lines; they name the emergency number 120."""
    return [
        say(
            f"MedChat 演示：一个只学过 {count} 条健康常识的微型模型。它只会这些题，不能回答真实的病情。",
            f"MedChat demo: a miniature model that has learned {count} pieces of health education and nothing else.",
        ),
        say(
            "有生命危险时请立即拨打 120，不要等待这里的回答。",
            "If a life is at risk call 120 at once; do not wait for an answer here.",
        ),
    ]


def invitation(pairs: Sequence[DemoPair]) -> list[str]:
    """Return the lines with questions to try, one from each of several topics."""
    shown = "  ".join(pair.question for pair in spread(pairs, SAMPLES))
    return [say(f"可以问：{shown}  （/题目 列出全部）", f"ask for example: {shown}  (/questions lists all)")]


def spread(pairs: Sequence[DemoPair], count: int) -> list[DemoPair]:
    """Return `count` pairs evenly spaced in the file, so from different topics."""
    return [pairs[(2 * index + 1) * len(pairs) // (2 * count)] for index in range(count)]


def trained_model(backbone: Backbone, pairs: Sequence[DemoPair], *, retrain: bool = False) -> Path:
    """Return the folder of the trained model, training it (with progress on stderr) if it does not exist yet.

    The folder's name depends on the data, the recipe and the code's version, so a stale model is never used.
    Two demos at once train once: the second waits. Raises UsageError for a backbone without a demo.
    """
    recipe = DEMO_RECIPES.get(backbone.name)
    if recipe is None:
        raise _no_demo(backbone)
    folder = paths.make_private(demo_folder())
    target = folder / f"{backbone.name}-{fingerprint(recipe, pairs)}"
    with _one_at_a_time(folder / "lock"):
        if retrain:
            shutil.rmtree(target, ignore_errors=True)
        if not is_demo(target):
            shutil.rmtree(target, ignore_errors=True)
            _train(backbone, recipe, pairs, target)
            mark_as_demo(target)
    return target


def _no_demo(backbone: Backbone) -> UsageError:
    return UsageError(
        say(f"{backbone.name} 没有演示", f"{backbone.name} has no demo"),
        "medchat demo --backbone " + "|".join(DEMO_RECIPES),
    )


def fingerprint(recipe: DemoRecipe, pairs: Sequence[DemoPair]) -> str:
    """Return 16 hex digits that depend on the training data, the recipe, and the version of the code."""
    taught = "\n".join(f"{pair.question}\t{pair.answer}" for pair in pairs)
    return hashlib.sha256(f"{__version__}\n{recipe.fingerprint}\n{taught}".encode()).hexdigest()[:16]


def _train(backbone: Backbone, recipe: DemoRecipe, pairs: Sequence[DemoPair], target: Path) -> None:
    # Imported only here: it needs torch, whose import would delay the first prompt by seconds.
    if not backbone.recipes:
        raise _no_demo(backbone)
    say_aside(
        say(
            "正在用真实的微调代码训练它（两个 CPU 核约一分钟）。下次直接开始。",
            "Training it with the real fine-tuning code (about a minute on two cores).",
        )
    )
    start = target.with_name(target.name + ".start")
    shutil.rmtree(start, ignore_errors=True)
    corpus = [text for pair in pairs for text in (pair.question, pair.answer)]
    try:
        backbone.tiny(start, corpus=corpus, seed=recipe.seed, **recipe.shape)
        options = recipe.options(start, target)
        examples = [Example(pair.question, pair.answer) for pair in pairs]
        with show_training() as show:
            report = backbone.recipes[options.method].run(SFTData(examples), options, SilentWatcher(show))
    finally:
        shutil.rmtree(start, ignore_errors=True)
    loss = f"{report.first_loss:.2f} → {report.last_loss:.3f}"
    say_aside(
        say(
            f"训练完成：{report.steps} 步，损失 {loss}，用时 {report.seconds:.0f} 秒",
            f"trained: {report.steps} steps, loss {loss}, {report.seconds:.0f} s",
        )
    )


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say_aside(
                say("另一个 medchat demo 正在训练，请稍候……", "another medchat demo is training; waiting…")
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def answer_samples(prepared: PreparedChat, pairs: Sequence[DemoPair]) -> int:
    """Ask a few of the demo's own questions; questions and answers go to stdout, the rest to stderr."""
    for line in [*disclaimer_lines(prepared.store), *prepared.plugin_lines()]:
        say_aside(line)
    model = prepared.opening.load()
    try:
        session = prepared.begin(model)
        for pair in spread(pairs, SAMPLES):
            events = session.ask(pair.question, threading.Event())
            answer = "".join(event.text for event in events if isinstance(event, AnswerPiece))
            write_out(
                sanitize(say(f"问：{pair.question}\n答：{answer}\n", f"Q: {pair.question}\nA: {answer}\n"))
            )
        say_aside(medical_safety.ai_mark())
    finally:
        model.close()
    return 0
