"""Help pages: what click writes in English on them said in both languages, columns by what a terminal shows.

click measures text by its characters. A Chinese one takes two cells, and a Chinese sentence has no blanks
to break it at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click

from medchat.language import current_language, say

#: The placeholders of flags, arguments and slash commands, which are named in English.
PLACEHOLDERS = {
    "ADDRESS": "地址",
    "ARGS": "参数",
    "COMMAND": "命令",
    "DIR": "目录",
    "FILE": "文件",
    "FLOAT": "数",
    "ID": "编号",
    "INTEGER": "整数",
    "KEY": "键",
    "LABEL": "列名",
    "METRIC": "指标",
    "NAME": "名称",
    "OPTIONS": "选项",
    "ORIGIN": "来源",
    "OWNER": "用户",
    "PATH": "路径",
    "QUESTION": "问题",
    "RANGE": "范围",
    "RESULT": "结果",
    "REVISION": "版本",
    "RULE": "规则",
    "SESSION": "会话",
    "SHARE": "比例",
    "SPLIT": "部分",
    "SUBCOMMAND": "子命令",
    "TASK": "任务",
    "TEXT": "文字",
    "TIME": "时间",
    "URL": "网址",
    "VALUE": "值",
    "WORDS": "内容",
}


def in_words(placeholder: str) -> str:
    """Return a placeholder such as `PATH|NAME` in the interface language; names of flags stay as they are."""
    placeholder = placeholder.replace("...", "…")  # click's mark of an argument that repeats
    if current_language() == "en":
        return placeholder
    return re.sub("[A-Z]{2,}", lambda word: PLACEHOLDERS.get(word[0], word[0]), placeholder)


class HelpFormatter(click.HelpFormatter):
    """click's formatter with headings in the interface language and lines broken by cells."""

    def write_heading(self, heading: str) -> None:
        """Write a heading and its colon."""
        self.write(" " * self.current_indent + heading + say("：", ":") + "\n")

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        from medchat.cli.cjk_wrap import wrapped  # rich is slow to import, and most commands show no page

        indent = " " * self.current_indent
        lines = wrapped(text, self.width - self.current_indent).split("\n")
        self.write("".join(f"{indent}{line}\n" for line in lines))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write terms and what they mean in two columns; a term wider than `col_max` cells is alone."""
        from rich.cells import cell_len  # see `write_text`

        from medchat.cli.cjk_wrap import wrapped

        rows = list(rows)
        indent = " " * self.current_indent
        first = min(max(cell_len(term) for term, _ in rows), col_max) + col_spacing
        for term, meaning in rows:
            lines = wrapped(meaning, max(self.width - first - 2, 10)).split("\n")
            blanks = first - cell_len(term)
            if blanks < col_spacing and meaning:
                self.write(f"{indent}{term}\n")
                term, blanks = "", first
            self.write(f"{indent}{term}{' ' * blanks}{lines[0]}".rstrip() + "\n")
            self.write("".join(f"{indent}{' ' * first}{line}\n" for line in lines[1:]))


class HelpContext(click.Context):
    """A context whose pages are written by `HelpFormatter`."""

    formatter_class = HelpFormatter


def help_rows(command: click.Command, ctx: click.Context) -> dict[str, tuple[str, str]]:
    """Return what the page says of each parameter that it explains, by the parameter's name."""
    rows = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and parameter.name is not None and isinstance(parameter, click.Option):
            rows[parameter.name] = (in_words(record[0]), (parameter.help or "") + _remarks(parameter, ctx))
    return rows


def _remarks(option: click.Option, ctx: click.Context) -> str:
    default = option.get_help_extra(ctx).get("default")
    valid = range_of(option.type)
    return "".join(
        (
            say(f"（默认：{default}）", f" (default: {default})") if default else "",
            f" {valid}" if valid else "",
            say("（必填）", " (required)") if option.required else "",
        )
    )


def range_of(kind: click.ParamType[Any]) -> str:
    """Return the numbers that a parameter takes as an interval such as `[1, 4096]`, "" if all are taken."""
    if not isinstance(kind, click.IntRange | click.FloatRange) or kind.min is kind.max is None:
        return ""
    low = "(" if kind.min_open or kind.min is None else "["
    high = ")" if kind.max_open or kind.max is None else "]"
    return f"{low}{'-∞' if kind.min is None else kind.min}, {'∞' if kind.max is None else kind.max}{high}"
