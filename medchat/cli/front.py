"""The front door: the one table of commands, and the top-level help made from it.

`medchat --help` and `medchat plugins list` are answered within a few times the start of bare Python
(see docs/decisions/0003-fast-start.md), which is less than importing click takes. So this module
imports nothing but `medchat.language` and the names-only half of the registry.
"""

from __future__ import annotations

import os

from medchat import __version__
from medchat.language import say
from medchat.regular_files import SETTINGS_BYTES, read_regular

#: name, module that holds a click command called `command`, one line in Chinese and in English.
COMMANDS = (
    ("chat", "medchat.commands.chat", "多轮对话（不带参数时的默认命令）", "chat, with history (the default)"),
    ("ask", "medchat.commands.ask", "只问一个问题，回答写到标准输出", "one question, the answer on stdout"),
    ("infer", "medchat.commands.infer.command", "批量回答一个文件里的问题", "answer a file of questions"),
    ("compare", "medchat.commands.compare", "把几次批量回答并排成表", "put batch answers side by side"),
    (
        "sft",
        "medchat.commands.sft.command",
        "用问答数据微调模型",
        "fine-tune a model on questions and answers",
    ),
    (
        "demo",
        "medchat.commands.demo",
        "无需权重：现场训练一个微型模型并对话",
        "no weights needed: train a tiny model and chat",
    ),
    (
        "models",
        "medchat.commands.models",
        "查看、下载、校验权重",
        "list, show, fetch and check weights",
    ),
    (
        "sessions",
        "medchat.commands.sessions",
        "保存的会话：查看、搜索、导出、删除",
        "saved sessions: list, search, export, delete",
    ),
    (
        "safety",
        "medchat.commands.safety",
        "紧急情况提示和急救电话",
        "emergency notices and numbers",
    ),
    ("plugins", "medchat.commands.plugins", "查看插件", "look at plugins"),
    ("config", "medchat.commands.config", "查看配置及其来源", "show settings and where they come from"),
    (
        "debug",
        "medchat.commands.debug",
        "查看模型实际收到的提示词",
        "see the prompt that a model is given",
    ),
    ("doctor", "medchat.commands.doctor", "检查运行环境", "check this machine and installation"),
)


def plugin_command_names(allowed: set[str] | None) -> list[tuple[str, str]]:
    """Return (command, distribution) for what the `allowed` plugins (None: all) add, from metadata alone."""
    from medchat.registry.metadata import COMMANDS as GROUP
    from medchat.registry.metadata import scan

    builtin = {name for name, *_ in COMMANDS}
    found: dict[str, str] = {}
    for entry in scan():
        if entry.group == GROUP and entry.name not in builtin and (allowed is None or entry.name in allowed):
            found.setdefault(entry.name, entry.distribution)
    return sorted(found.items())


def top_help(allowed: set[str] | None) -> str:
    """Return the page that `medchat --help` prints."""
    from medchat.builtin import BUILTIN_COMMANDS

    rows = [(name, say(zh, en)) for name, _, zh, en in COMMANDS]
    shipped = {name: say(zh, en) for name, _, _, zh, en in BUILTIN_COMMANDS}
    for name, dist in plugin_command_names(allowed):
        summary = shipped.get(name) if dist == "medchat" else None
        rows.append((name, summary or say(f"来自插件 {dist}", f"from plugin {dist}")))
    width = max(len(name) for name, _ in rows) + 2
    lines = [
        say(
            "用法：medchat [--lang zh|en] [--debug] 命令 [参数]",
            "Usage: medchat [--lang zh|en] [--debug] COMMAND [ARGS]",
        ),
        "",
        say(
            "MedChat：中文医学语言模型的终端对话与微调程序。仅供研究，不能替代医生诊疗。",
            "MedChat: terminal chat and fine-tuning for Chinese medical language models. Research only;"
            " no substitute for a physician.",
        ),
        "",
        say("命令：", "Commands:"),
        *(f"  {name.ljust(width)}{summary}" for name, summary in rows),
        "",
        say("选项：", "Options:"),
        "  --lang zh|en  " + say("界面语言", "interface language"),
        "  --debug       " + say("出错时显示调用栈", "show the traceback of an error"),
        "  --version     " + say("版本", "version"),
        "  -h, --help    "
        + say("本页；“medchat 命令 --help”看某个命令", "this page; 'medchat COMMAND --help' for one command"),
        "",
        say("第一次用？medchat demo", "New here? medchat demo"),
    ]
    return "\n".join(lines)


def answer_quickly(arguments: list[str]) -> str | None:
    """Return what to print if `arguments` is one of the calls that need no click, else None."""
    if arguments == ["--version"]:
        return f"medchat {__version__}"
    if arguments not in (["--help"], ["-h"], ["plugins", "list"]) or _plugins_may_be_configured():
        return None
    from medchat.registry.metadata import allowed_names

    if arguments != ["plugins", "list"]:
        return top_help(allowed_names())
    from medchat.cli.plugin_table import plugin_table

    return plugin_table(allowed_names())


def language_may_be_configured() -> bool:
    """Whether a configuration file speaks of the language: then the full start must read it."""
    return any(_mentions(file, b"lang") for file in (*_user_files(), "medchat.toml"))


def _plugins_may_be_configured() -> bool:
    """Whether the user's configuration says which plugins are allowed, and no variable goes over it."""
    return "MEDCHAT_PLUGINS" not in os.environ and any(_mentions(file, b"plugins") for file in _user_files())


def _user_files() -> list[str]:
    """Return every place where `medchat.paths` may find the user's configuration.

    Whoever asks looks for a setting's name alone: parsing TOML, like asking platformdirs, costs as much as
    Python's own start.
    """
    home = os.environ.get("MEDCHAT_HOME")
    if home:
        return [f"{os.path.expanduser(home)}/config.toml"]  # noqa: PTH111  (pathlib: see above)
    folders = (os.environ.get("XDG_CONFIG_HOME"), "~/.config", "~/Library/Application Support")
    return [f"{os.path.expanduser(folder)}/medchat/config.toml" for folder in folders if folder]  # noqa: PTH111


def _mentions(file: str, name: bytes) -> bool:
    try:
        return name in read_regular(file, SETTINGS_BYTES)
    except OSError:
        return False
