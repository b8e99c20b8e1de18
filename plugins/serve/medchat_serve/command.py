"""`medchat serve`: the flags, what is said at the start, and the run."""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from medchat.plugin_kit import (
    LocalizedCommand,
    OpenedModel,
    UsageError,
    generation_flags,
    model_flags,
    open_model,
    require_extra,
    sanitize_line,
    say,
    user_path,
)
from medchat_serve.access_token import VARIABLE, find_token
from medchat_serve.announcement import announced_in
from medchat_serve.guard import Guard, is_loopback
from medchat_serve.limits import ServerLimits

if TYPE_CHECKING:  # needs the extra
    from medchat_serve.app import Service

_WILDCARDS = ("0.0.0.0", "::")
_LONGEST_NAME = 100


@click.command(
    "serve",
    cls=LocalizedCommand,
    help=say(
        "加载一个模型，供多人和其他程序使用（OpenAI 兼容接口）。默认只有本机能访问。",
        "Load a model and serve it to users and programs (OpenAI-compatible); by default this machine alone.",
    ),
)
@model_flags
@generation_flags
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help=say("监听的地址；其他机器能访问的地址需要令牌", "the address to listen at; others' need a token"),
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8321,
    show_default=True,
    metavar="N",
    help=say("端口；0 为任选一个空闲的", "the port; 0 is any free one"),
)
@click.option(
    "--name",
    default="",
    metavar="NAME",
    help=say(
        "模型在接口中的名称（默认取权重目录名）", "the model's name for clients (default: its folder's)"
    ),
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help=say("允许这个来源的网页访问，可重复", "let pages of this origin ask, repeatable"),
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help=say("允许用这个主机名访问，可重复", "a host name by which the server is reached, repeatable"),
)
@click.option(
    "--token-file",
    metavar="FILE",
    help=say(
        f"存放令牌的文件（权限 0600）；也可用 {VARIABLE}",
        f"the file with the token (mode 0600); or {VARIABLE}",
    ),
)
@click.option(
    "--queue",
    type=click.IntRange(1, 1000),
    default=ServerLimits().waiting,
    show_default=True,
    metavar="N",
    help=say("最多多少个问题排队", "the most questions that wait"),
)
@click.option(
    "--batch",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    metavar="N",
    help=say(
        "最多同时回答多少个问题；只在不改变回答时",
        "the most questions answered at a time, where that changes no answer",
    ),
)
@click.option(
    "--idle",
    type=click.IntRange(1),
    metavar="N",
    help=say("N 秒没有问题就退出（默认不退出）", "end after N seconds without a question (default: never)"),
)
@click.option(
    "--announce",
    metavar="FILE",
    help=say(
        "运行期间把地址、令牌和进程号放在这个文件里（权限 0600）",
        "keep address, token and process number in this file while serving (mode 0600)",
    ),
)
@click.option(
    "--save",
    is_flag=True,
    help=say(
        "把问答保存为会话，与 medchat chat 相同",
        "save questions and answers as sessions, as medchat chat does",
    ),
)
def serve(
    host: str,
    port: int,
    name: str,
    origins: Sequence[str],
    hosts: Sequence[str],
    token_file: str | None,
    queue: int,
    batch: int,
    idle: int | None,
    announce: str | None,
    save: bool,
    **flags: Any,
) -> int:
    """Serve one model until a signal ends it."""
    require_extra("serve", "starlette", "uvicorn")
    from medchat_serve.app import Service, log_to_stderr
    from medchat_serve.server import StoppableServer, bound_socket, run_until_stopped

    guard = _guard(host, hosts, origins, token_file)
    listening = bound_socket(host, port)
    announcing = announced_in(user_path(announce)) if announce else nullcontext()
    try:
        with (
            announcing as announcement,
            open_model(flags) as opened,
            opened.saving() if save else nullcontext() as saved,
        ):
            service = Service(
                opened,
                name or model_name(opened),
                guard,
                ServerLimits(waiting=queue),
                log=log_to_stderr,
                saved=saved,
                batch=batch,
            )

            def ready() -> None:
                if announcement is not None:
                    announcement.publish(_address(listening), guard.token)
                _say_ready(listening, service, bool(guard.token))

            server = StoppableServer(service, ready, most_idle=idle or math.inf)
            code = run_until_stopped(server, listening)
            service.dispatcher.close(service.limits.stop_seconds)
    finally:
        listening.close()
    return code


def _guard(host: str, hosts: Sequence[str], origins: Sequence[str], token_file: str | None) -> Guard:
    """Return who may ask. Raises UsageError where other machines could without a token."""
    token = find_token(os.environ, user_path(token_file) if token_file else None)
    if not is_loopback(host) and not token:
        raise _needs_token(host)
    return Guard(
        frozenset({*map(str.lower, hosts), host.lower()} - set(_WILDCARDS)),
        any_address=not is_loopback(host),
        origins=frozenset(map(_origin, origins)),
        token=token,
    )


def _needs_token(host: str) -> UsageError:
    return UsageError(
        say(
            f"{host} 是其他机器能访问的地址，需要令牌：谁有令牌，谁就能提问",
            f"{host} can be reached from other machines and needs a token: whoever has it can ask",
        ),
        say(f"设置环境变量 {VARIABLE}，或用 --token-file", f"set {VARIABLE}, or give --token-file"),
    )


def _origin(value: str) -> str:
    """Return an origin as browsers send it. Raises UsageError for `*` and whatever is none."""
    if not re.fullmatch(r"https?://[^/*\s]+", value):
        raise UsageError(
            say(
                f"--origin {sanitize_line(value, 60)} 不是网页的来源",
                f"--origin {sanitize_line(value, 60)} is no origin",
            ),
            "--origin http://localhost:3000",
        )
    return value


def model_name(opened: OpenedModel) -> str:
    """Return what clients call the model: the last part of where it lies, and of its adapters; never a whole path."""
    about = opened.provenance
    adapters = about.get("adapters") or ()
    parts = [re.split(r"[/\\#]", str(place).rstrip("/\\"))[-1] for place in (about["model"], *adapters)]
    name = re.sub(r"[^\w.+-]+", "-", "+".join(parts))
    return name[:_LONGEST_NAME] or opened.backbone


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say_ready(listening: socket.socket, service: Service, with_token: bool) -> None:
    host, address = listening.getsockname()[0], _address(listening)
    name, batch = service.model_id, service.dispatcher.batch
    lines = [
        say(f"模型 {name} 已就绪：{address}/v1", f"model {name} is ready: {address}/v1"),
        say(f"最多同时回答 {batch} 个问题", f"up to {batch} questions are answered at a time")
        if batch > 1
        else say("问题逐个回答", "questions are answered one after another"),
    ]
    fragment = say("#token=令牌", "#token=TOKEN") if with_token else ""
    lines.append(say(f"网页：{address}/{fragment}", f"The page: {address}/{fragment}"))
    if not is_loopback(host):
        lines.append(
            say(
                "！其他机器可以访问。连接没有加密：途中任何人都能读到问题、回答和令牌。请放在加密的反向代理之后",
                "! Other machines can ask. The connection is not encrypted: anyone on the way can read questions,"
                " answers and the token. Put it behind a proxy that encrypts",
            )
        )
    lines.append(say("按 Ctrl-C 停止", "Ctrl-C stops it"))
    for line in lines:
        click.echo(line, err=True)
