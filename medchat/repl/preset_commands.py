"""`/preset`: the user's own questions with placeholders, from the table `[preset]` of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medchat.chat.presets import preset_named
from medchat.language import say
from medchat.repl import offers
from medchat.repl.model_commands import control_of
from medchat.repl.rows import excerpt, two_columns
from medchat.repl.screen import PROMPT, untrusted, untrusted_line
from medchat.repl.slash import ReplCommand

if TYPE_CHECKING:
    from medchat.repl.chat import Chat


def _preset(chat: Chat, words: str) -> None:
    presets = control_of(chat).presets
    if not words:
        rows = [(untrusted_line(name), excerpt(text)) for name, text in presets.items()]
        shown = two_columns(rows, chat.screen.width) or say("还没有预设。", "There are no presets.")
        hint = say(
            '写在 config.toml 的 [preset] 一节里，例如：病历 = "请总结：{内容}"',
            'They stand in [preset] of config.toml, for example: case = "Summarise: {text}"',
        )
        chat.screen.show(f"{shown}\n{hint}")
        return
    name, _, rest = words.partition(" ")
    question, missing = preset_named(name, presets).filled(rest.strip())
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
        complete=offers.presets,
    ),
)
