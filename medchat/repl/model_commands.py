"""The slash commands about the model and how it answers: adapters, template, system text, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medchat.chat.loading import LoadingCancelled
from medchat.chat.model_control import ModelControl
from medchat.chat.session import ChatSession
from medchat.chat.switching import GoneModel
from medchat.errors import UsageError
from medchat.language import say
from medchat.repl import offers
from medchat.repl.rows import two_columns
from medchat.repl.screen import untrusted, untrusted_line
from medchat.repl.set_command import (
    ON_SCREEN,
    apply_setting,
    screen_setting,
    shown_value,
    typed_setting,
    values_in_force,
    without_effect,
)
from medchat.repl.slash import ReplCommand
from medchat.repl.typed_paths import paths_in

if TYPE_CHECKING:
    from medchat.repl.chat import Chat

#: The words that remove something, in both languages.
NOTHING = ("none", "无", "-")


def control_of(chat: Chat) -> ModelControl:
    """Return the control of model and settings. Raises UsageError if nothing can be changed."""
    if chat.control is None:
        raise UsageError(
            say("此处不能更换模型", "the model of this chat cannot be changed"),
            say("请用 medchat chat --model 目录", "use medchat chat --model FOLDER"),
        )
    return chat.control


def _model(chat: Chat, words: str) -> None:
    control = control_of(chat)
    if not words:
        chat.screen.show(
            say(
                f"现在回答的是 {untrusted_line(chat.model_label)}",
                f"answering now: {untrusted_line(chat.model_label)}",
            )
            + f"\n  {untrusted_line(control.model)}\n"
            + say(
                "换一个：/模型 目录或名称；已有的：medchat models list",
                "another: /model FOLDER|NAME; there are: medchat models list",
            )
        )
    elif chat.exchange.held_back or chat.exchange.ready():
        (path, *others) = paths_in(words)
        if others:
            raise UsageError(
                say("/模型 只接受一个目录或名称", "/model takes one folder or name"),
                say(
                    "路径中有空格时，请用引号把整个路径括起来",
                    "put a path that contains spaces in quotation marks",
                ),
            )
        _switch(chat, control.as_model(path), say("/模型", "/model"))


def _adapter(chat: Chat, words: str) -> None:
    control = control_of(chat)
    if not words:
        shown = "\n".join(f"  {untrusted_line(path)}" for path in control.adapters)
        chat.screen.show(
            (shown or say("没有使用适配器。", "No adapter is in use."))
            + "\n"
            + say(
                "换一个：/适配器 目录或名称；去掉：/适配器 none",
                "another: /adapter FOLDER|NAME; to remove it: /adapter none",
            )
        )
    elif chat.exchange.ready():
        paths = () if words in NOTHING else tuple(paths_in(words))
        _switch(chat, {"adapter": paths}, say("/适配器", "/adapter"))


def _template(chat: Chat, words: str) -> None:
    control = control_of(chat)
    if not chat.exchange.ready():
        return
    if not words:
        name = chat.exchange.call(lambda session: session.template.name)
        listed = say("、", ", ").join(control.templates)
        chat.screen.show(
            say(f"现在的模板：{untrusted_line(name)}", f"The template now: {untrusted_line(name)}")
            + "\n"
            + say(
                f"可选：{untrusted_line(listed)}，或 JSON、Jinja 文件；/模板 none 用模型自己的",
                f"others: {untrusted_line(listed)}, or a JSON or Jinja file; /template none takes the model's own",
            )
        )
        return
    _switch(chat, {"template": None if words in NOTHING else words}, say("/模板", "/template"))


def _switch(chat: Chat, changes: Mapping[str, Any], command: str) -> None:
    """Switch, and say who answers now; after a failure or an interruption, who still does."""
    try:
        lines = chat.exchange.switch(changes, command)
    except LoadingCancelled:
        chat.screen.tell(say("已取消加载。", "Loading was cancelled. ") + _still(chat))
        return
    except Exception as error:
        chat.report(error)
        chat.screen.tell(_still(chat))
        return
    for line in lines:
        chat.screen.tell(line)
    chat.screen.tell(
        say(
            f"现在由 {chat.model_label} 回答，对话继续。",
            f"{chat.model_label} answers from now on; the conversation goes on.",
        )
    )


def _still(chat: Chat) -> str:
    """Say which model still answers; if no model is left, how to load one."""
    if chat.exchange.held_back or chat.exchange.call(lambda session: isinstance(session.model, GoneModel)):
        return say("现在没有加载任何模型：/模型 加载一个。", "No model is loaded now: /model loads one.")
    return say(f"仍由 {chat.model_label} 回答。", f"{chat.model_label} still answers.")


def _system(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    if not words:
        text = chat.exchange.call(lambda session: session.conversation.system)
        chat.screen.show(untrusted(text) or say("没有系统提示。", "There is no system prompt."))
        return
    text = "" if words in NOTHING else words
    ignored = chat.exchange.call(lambda session: _set_system(session, text))
    if chat.control is not None:
        chat.control.change({"system": text or None}, say("/系统", "/system"))
    told = (
        say("系统提示已修改，下一个回答起生效。", "The system prompt is changed, from the next answer on.")
        if text
        else say("系统提示已去掉。", "The system prompt is removed.")
    )
    chat.screen.show(told + ignored)


def _set_system(session: ChatSession, text: str) -> str:
    """Change the system text; return a remark if the template has no place for one.

    Raises UsageError, and changes nothing, if the template takes none.
    """
    taken = not text or session.template.render((), "?", text) != session.template.render((), "?")
    session.set_system(text)
    if taken:
        return ""
    return say("但现在的模板不使用系统提示。", " The present template has no place for it, though.")


def _set(chat: Chat, words: str) -> None:
    if not words:
        _parameters(chat, words)
        return
    name, typed = typed_setting(words)
    remark = ""
    if name in ON_SCREEN:
        value: Any = screen_setting(name, typed)
        setattr(chat.exchange, name, value)
    elif not chat.exchange.ready():
        return
    else:
        if chat.control is not None:
            chat.control.check_setting(name, typed)
        value = chat.exchange.call(lambda session: apply_setting(session, name, typed))
        remark = chat.exchange.call(lambda session: without_effect(session, name))
    if chat.control is not None:
        chat.control.change({name: value}, say("/设置", "/set"))
    shown = shown_value(value)
    chat.screen.show(
        say(f"{name} = {shown}（下一个回答起生效）", f"{name} = {shown} (from the next answer on)") + remark
    )


def _parameters(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    if chat.control is None:
        rows = chat.exchange.call(values_in_force)
    else:
        rows = [
            (f"{row.key.name} = {untrusted(_excerpt(row.value))}", untrusted(str(row.origin)))
            for row in chat.control.effective()
        ]
    example = say("例如：/设置 temperature 0.7", "For example: /set temperature 0.7")
    chat.screen.show(two_columns(rows, chat.screen.width) + "\n" + example)


def _excerpt(value: object) -> str:
    if value is None or value == ():
        return say("（未设置）", "(unset)")
    text = ", ".join(value) if isinstance(value, tuple) else shown_value(value)
    return text if len(text) <= 60 else text[:59] + "…"


MODEL_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "model",
        "模型",
        "[path|name]",
        "换一个模型，对话继续",
        "go on with another model",
        _model,
        more=(
            "加载时 Ctrl-C 取消。无论因为什么失败，都会换回原来的模型。内存放不下两个时先释放旧的。",
            "Ctrl-C stops the loading. Whatever fails, the old model is back. It goes first where both do not fit.",
        ),
        examples=("/模型 ~/weights/ChatGLM-6B-Med", "/model ~/weights/ChatGLM-6B-Med"),
        complete=offers.models,
    ),
    ReplCommand(
        "adapter",
        "适配器",
        "[path|name|none]",
        "换适配器，对话继续",
        "go on with another adapter",
        _adapter,
        more=(
            "底座不必重新加载（自带词表的适配器除外）。可以给出几个；none 去掉全部。",
            "The base stays loaded, but for an adapter with a vocabulary. Several may be given; none takes all off.",
        ),
        examples=("/适配器 ~/weights/bentsao", "/adapter ~/weights/bentsao"),
        complete=offers.adapters,
    ),
    ReplCommand(
        "system",
        "系统",
        "[text|-]",
        "查看或修改系统提示",
        "show or change the system prompt",
        _system,
        more=("- 去掉它。之前的回答不变。", "- takes it away. Earlier answers stay as they are."),
        examples=("/系统 只用一句话回答。", "/system Answer in one sentence."),
    ),
    ReplCommand(
        "template",
        "模板",
        "[name|path]",
        "查看或更换提示模板",
        "show or change the prompt template",
        _template,
        more=("none 用模型自己的模板。", "none takes the model's own."),
        examples=("/模板 bare", "/template bare"),
        complete=offers.templates,
    ),
    ReplCommand(
        "set",
        "设置",
        "[key value]",
        "查看或修改生成参数",
        "show or change decoding settings",
        _set,
        more=(
            "只影响本次对话。footer off 不显示用量，bell on 在较长的回答结束时响铃。不带参数时列出全部。",
            "It holds in this chat alone. footer off hides the figures, bell on rings when a long answer ends.",
        ),
        examples=("/设置 temperature 0.7", "/set temperature 0.7"),
        complete=offers.settings,
    ),
    ReplCommand(
        "params",
        "参数",
        "",
        "当前的全部参数",
        "all settings in force",
        _parameters,
        more=(
            "每一项的值和来源。生成参数可用 /设置 修改。",
            "The value of each and where it came from. /set changes the decoding settings.",
        ),
    ),
)
