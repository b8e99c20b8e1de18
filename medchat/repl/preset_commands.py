"""`/preset`: the user's own questions with placeholders, from the table `[preset]` of the configuration."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from medchat.errors import UsageError
from medchat.language import say
from medchat.repl.model_commands import control_of
from medchat.repl.rows import excerpt, two_columns
from medchat.repl.screen import PROMPT, untrusted
from medchat.repl.slash import ReplCommand

if TYPE_CHECKING:
    from medchat.repl.chat import Chat

_PLACEHOLDER = re.compile(r"\{([\w-]{1,40})\}")


def filled(text: str, words: str) -> tuple[str, list[str]]:
    """Return the preset with its placeholders filled, and the names of those that `words` do not fill.

    `words` are pairs `name=value` of the text's placeholders; anything else fills the only one there is.
    """
    names = list(dict.fromkeys(_PLACEHOLDER.findall(text)))
    values = _pairs(words, names)
    if values is None:
        values = {names[0]: words} if len(names) == 1 and words else {}
    # In one pass: a value may hold what looks like a placeholder.
    whole = _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)
    return whole, [name for name in names if name not in values]


def _pairs(words: str, names: list[str]) -> Mapping[str, str] | None:
    """Return the pairs that `words` are, None where they are something else."""
    try:
        parts = [part.partition("=") for part in shlex.split(words)]
    except ValueError:
        return None
    if not parts or not all(equals and name in names for name, equals, _ in parts):
        return None
    return {name: value for name, _, value in parts}


def _preset(chat: Chat, words: str) -> None:
    presets = control_of(chat).presets
    if not words:
        rows = [(untrusted(name), excerpt(text)) for name, text in presets.items()]
        shown = two_columns(rows, chat.screen.width) or say("还没有预设。", "There are no presets.")
        hint = say(
            '写在 config.toml 的 [preset] 一节里，例如：病历 = "请总结：{内容}"',
            'They stand in [preset] of config.toml, for example: case = "Summarise: {text}"',
        )
        chat.screen.show(f"{shown}\n{hint}")
        return
    name, _, rest = words.partition(" ")
    if name not in presets:
        near = difflib.get_close_matches(name, presets, n=3, cutoff=0.4) or list(presets)[:10]
        raise UsageError(
            say(f"没有名为“{untrusted(name[:40])}”的预设", f"there is no preset {untrusted(name[:40])!r}"),
            say("现有：", "there are: ") + untrusted(", ".join(near))
            if near
            else say("看看怎么写：/预设", "how to write one: /preset"),
        )
    question, missing = filled(presets[name], rest.strip())
    if missing:
        listed = say("、", ", ").join(f"{{{name}}}" for name in missing)
        chat.screen.tell(say(f"还需补全 {listed}，再按 Enter 发送。", f"Fill in {listed}, then press Enter."))
        chat.draft = question
        return
    chat.screen.show(f"{PROMPT} " + untrusted(question))
    chat.draft = chat.handle(question if not question.startswith(("/", "／")) else f"/{question}")


PRESET_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "preset",
        "预设",
        "[name] [words]",
        "用预设的问题提问",
        "ask one of your own presets",
        _preset,
        more=(
            "写在 config.toml 的 [preset] 一节。{名称} 处填入后面的文字，有几处时写 名称=内容；没填的留在输入行里。",
            "They stand in [preset] of config.toml. {name} is filled by the words or by name=value, or in the prompt.",
        ),
        examples=("/预设 病历 发热三天", "/preset case fever for three days"),
    ),
)
