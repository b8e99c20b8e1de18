"""The flags that `chat`, `ask` and later commands share, and what they mean as settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from medchat.api import DEVICES_HELP, DTYPES, ENGINES, GENERATION_RANGES, QUANTIZE, SPECULATE
from medchat.api.option import option_flag
from medchat.language import say

F = TypeVar("F", bound=Callable[..., Any])


def option_flag_of_backbones(command: F) -> F:
    """Add the flag for what a backbone declares for itself (`Backbone.load_keys`)."""
    return click.option(
        "--option",
        metavar="KEY=VALUE",
        multiple=True,
        help=say(
            "模型家族自己的选项，可重复；有哪些：medchat plugins show 名称",
            "an option of the backbone itself, repeatable; medchat plugins show NAME lists them",
        ),
    )(command)


def field_flags(command: F) -> F:
    """Add the flags that name the fields of a data file, `question_field` and its like: "" if none is named."""
    for use, zh in (("context", "背景"), ("answer", "答案"), ("question", "问题")):
        command = click.option(
            f"--{use}-field",
            default="",
            metavar="NAME",
            help=say(
                f"作为{zh}的字段（默认按字段名识别）",
                f"the field that is the {use} (default: recognised by its name)",
            ),
        )(command)
    return command


def model_flags(command: F) -> F:
    """Add the flags that say what to load and how."""
    for decorate in reversed(
        [
            click.option(
                "--profile",
                metavar="NAME",
                help=say(
                    "配置方案：配置文件中 [profile.名称] 一节",
                    "a profile: the table [profile.NAME] of the configuration",
                ),
            ),
            click.option(
                "--backbone",
                metavar="NAME",
                help=say(
                    "模型家族（插件名），见 medchat plugins list",
                    "model family (plugin name), see medchat plugins list",
                ),
            ),
            click.option(
                "--model",
                metavar="PATH|NAME|URL",
                help=say(
                    "权重目录或名称；--backbone remote 用网址",
                    "folder with the weights, or a name; an address for --backbone remote",
                ),
            ),
            click.option(
                "--adapter",
                metavar="PATH|NAME",
                multiple=True,
                help=say("适配器目录或名称，可重复", "adapter folder or name, repeatable"),
            ),
            click.option(
                "--template",
                metavar="NAME|PATH",
                help=say(
                    "提示模板：名称，或 JSON、Jinja 文件", "prompt template: a name, a JSON or Jinja file"
                ),
            ),
            click.option("--system", metavar="TEXT", help=say("系统提示", "system prompt")),
            option_flag_of_backbones,
            _computing_flags,
        ]
    ):
        command = decorate(command)
    return command


def _computing_flags(command: F) -> F:
    """Add the flags that say where a model computes and in which precision, and the one that forbids the network."""
    for decorate in reversed(
        [
            click.option("--device", metavar=DEVICES_HELP, help=say("计算设备", "where to compute")),
            click.option("--dtype", type=click.Choice(DTYPES), help=say("计算精度", "compute precision")),
            click.option(
                "--quantize", type=click.Choice(QUANTIZE), help=say("加载时量化", "quantise while loading")
            ),
            click.option(
                "--engine",
                type=click.Choice(ENGINES),
                help=say("量化权重在 CPU 上用哪个引擎计算", "what computes quantised weights on a CPU"),
            ),
            click.option(
                "--offline", is_flag=True, default=None, help=say("不使用网络", "never use the network")
            ),
        ]
    ):
        command = decorate(command)
    return command


def generation_flags(command: F) -> F:
    """Add the flags that say how to decode."""
    help_texts = {
        "max_new_tokens": (int, "回答的最大词元数", "longest answer in tokens"),
        "temperature": (float, "采样温度", "sampling temperature"),
        "top_p": (float, "核采样", "nucleus sampling"),
        "top_k": (int, "只在概率最高的 K 个词元中采样，0 为关", "sample from the K likeliest, 0 is off"),
        "num_beams": (int, "束搜索宽度（beam），大于 1 时不采样", "beam width; above 1 nothing is sampled"),
        "repetition_penalty": (float, "重复惩罚，1 为关", "repetition penalty, 1 is off"),
        "seed": (int, "随机种子", "random seed"),
    }
    command = click.option(
        "--speculate",
        type=click.Choice(SPECULATE),
        help=say(
            "引用前文的回答一次读入多个词元；回答不变",
            "several tokens at a time where an answer quotes; it stays the same",
        ),
    )(command)
    command = click.option(
        "--greedy",
        is_flag=True,
        default=None,
        help=say(
            "贪心解码：每步取概率最高的词元，结果可重复",
            "greedy decoding: the likeliest token at each step; repeatable",
        ),
    )(command)
    for name, (kind, zh, en) in reversed(help_texts.items()):
        allowed = "" if name == "seed" else f" {GENERATION_RANGES[name]}"
        flag = option_flag(name)
        command = click.option(
            flag, type=kind, metavar="N" if kind is int else "X", help=say(zh, en) + allowed
        )(command)
    return command


def session_flags(command: F) -> F:
    """Add the flags that choose the saved session."""
    for decorate in reversed(
        [
            click.option(
                "--session",
                metavar="NAME",
                help=say("打开（没有则新建）这个名称的会话", "open or create the session with this name"),
            ),
            click.option(
                "-c",
                "--continue",
                "continue_",
                is_flag=True,
                help=say("继续最近的会话", "go on with the latest session"),
            ),
            click.option(
                "--resume",
                metavar="[ID]",
                is_flag=False,
                flag_value="",
                help=say("继续某个会话；不写编号则从中选一个", "go on with a session; without ID, pick one"),
            ),
            click.option(
                "--no-save", is_flag=True, help=say("不在磁盘上留下任何内容", "leave nothing on disk")
            ),
            click.option(
                "--history",
                type=click.Choice(["all", "none"]),
                help=say("none：每个问题单独发送", "none: send each question alone"),
            ),
        ]
    ):
        command = decorate(command)
    return command
