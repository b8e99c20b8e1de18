"""The server that `ask --server` asks: one that runs at an address, or, with `auto`, one in the background.

That one is found where it runs and started where it does not.

Each model as it lies on the disk, and each way of loading it, has a folder of its own under the cache, private to the
user. The server holds a lock on the file `address` there for as long as it runs, and writes its address and token into
it once it takes questions: whether it runs is a matter of the lock alone, so that what a killed server left counts for
nothing. Whoever starts one holds a lock too, and the others wait for its result.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat import __version__, paths
from medchat.api import ChatModel, LoadOptions, PromptTemplate
from medchat.chat.setup import UNSET, ChatSetup
from medchat.cli.output import say_aside
from medchat.errors import MedchatError, UsageError
from medchat.language import current_language, say
from medchat.regular_files import read_regular
from medchat.sanitize import sanitize_line

#: Seconds without a question after which the server ends.
IDLE_SECONDS = 900
#: What `--server` says for a server in the background.
AUTO = "auto"
#: From where the server takes its token, and the backbone `remote` its key.
_TOKEN_VARIABLE, _KEY_VARIABLE = "MEDCHAT_SERVE_TOKEN", "MEDCHAT_REMOTE_KEY"
#: Settings that belong to a model which is loaded here.
_OF_A_MODEL = ("adapter", "template", "option")
_ADDRESS_BYTES, _LOG_BYTES = 4096, 1 << 20
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class RunningServer:
    """Where a server takes questions, and the token that it wants."""

    url: str
    token: str
    pid: int


def settings_of_address(where: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags by which the server at the address `where` answers, whatever model the settings choose.

    Raises UsageError for flags that load a model here.
    """
    loading = [name for name in ("backbone", "model", "adapter", "template") if flags[name]]
    if loading:
        raise UsageError(
            say(f"--server 不能和 --{loading[0]} 一起用", f"--server does not go with --{loading[0]}"),
            say("模型由服务端决定，去掉一个", "the server decides on the model: leave one of them out"),
        )
    return {"backbone": "remote", "model": where, UNSET: _OF_A_MODEL}


def model_in_background(opening: ChatSetup) -> tuple[ChatModel, PromptTemplate]:
    """Return the model of `opening` as the server in the background has it, and the template to ask it in.

    The server is started if none runs. Raises MedchatError with the server's own words if it does not start.
    """
    running = server_for(opening)
    remote = opening.registry.backbone("remote")
    address = str(remote.address(running.url))
    options = LoadOptions(Path(address), address=address)
    before = os.environ.get(_KEY_VARIABLE)
    os.environ[_KEY_VARIABLE] = running.token
    try:
        return remote.load(options), remote.template(options)
    finally:
        if before is None:
            del os.environ[_KEY_VARIABLE]
        else:
            os.environ[_KEY_VARIABLE] = before


def server_for(opening: ChatSetup) -> RunningServer:
    """Return the server of the model that `opening` would load, started if none runs.

    Raises MedchatError with the server's own words if it does not start.
    """
    folder = paths.make_private(paths.cache_dir() / "servers" / server_key(opening))
    with _only_one_starts(folder):
        running = running_server(folder / "address")
        if running is None:
            (folder / "address").unlink(missing_ok=True)  # of a server that was killed
            say_aside(
                say(
                    f"正在后台启动 medchat serve，{IDLE_SECONDS // 60} 分钟没有问题就退出……",
                    f"starting medchat serve in the background; it ends after {IDLE_SECONDS // 60} minutes"
                    " without a question …",
                )
            )
            running = _started(folder, serve_flags(opening))
            say_aside(say(f"立即停止它：kill {running.pid}", f"to end it at once: kill {running.pid}"))
    return running


def running_server(address: Path) -> RunningServer | None:
    """Return the server that holds the file `address`, None if none does. Waits for one that is loading."""
    while _is_held(address):
        try:
            found = json.loads(read_regular(address, _ADDRESS_BYTES))
            return RunningServer(str(found["url"]), str(found["token"]), int(found["pid"]))
        except (OSError, ValueError, KeyError, TypeError):  # nothing in it yet
            time.sleep(_POLL_SECONDS)
    return None


def server_key(opening: ChatSetup) -> str:
    """Return what tells servers apart: the model, the state of its files, how it is loaded and asked."""
    options, template = opening.options, opening.template_value
    places = [options.model, *options.adapters, Path(template)]
    loaded = [options.device, options.dtype, options.quantize, options.engine, options.extra]
    chosen = [__version__, opening.backbone.name, template, loaded, [*map(_state, places)]]
    return hashlib.sha256(json.dumps(chosen, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _state(place: Path) -> list[tuple[str, int, int]]:
    """Return the names, sizes and times of the files there: another checkpoint in the same place is another model."""
    with suppress(OSError):
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        about = [(file, file.stat()) for file in files if file.exists()]
        return [(str(file.absolute()), one.st_size, one.st_mtime_ns) for file, one in about]
    return [(str(place.absolute()), 0, 0)]


def serve_flags(opening: ChatSetup) -> list[str]:
    """Return the flags that choose the model, for the command line of the server."""
    settings, options = opening.settings, opening.options
    chosen: dict[str, Sequence[object]] = {
        "backbone": [opening.backbone.name],
        "model": [options.address or options.model.absolute()],
        "adapter": [adapter.absolute() for adapter in options.adapters],
        "template": [opening.template_value],
        "option": settings.value("option") or (),
        "profile": [one for one in [settings.profile] if one],
        **{name: [settings.value(name)] for name in ("device", "dtype", "quantize", "engine")},
    }
    # What the user wants the model to be told comes with each question.
    words = [word for name, values in chosen.items() for one in values for word in (f"--{name}", str(one))]
    return [*words, "--system", "", *(["--offline"] if settings.value("offline") else [])]


def _is_held(address: Path) -> bool:
    try:
        descriptor = os.open(address, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _only_one_starts(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _started(folder: Path, words: Sequence[str]) -> RunningServer:
    address, log = folder / "address", folder / "log"
    own = ["--port", "0", "--idle", str(IDLE_SECONDS), "--announce", str(address)]
    command = [sys.executable, "-m", "medchat", "--lang", current_language(), "serve", *own, *words]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            # It keeps nothing, nor notes that the user has read the disclaimer, which goes into its log.
            env={**os.environ, _TOKEN_VARIABLE: secrets.token_urlsafe(32), "MEDCHAT_SAVE": "false"},
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    while (running := running_server(address)) is None:
        if process.poll() is not None:
            raise _not_started(log)
        time.sleep(_POLL_SECONDS)
    return running


def _not_started(log: Path) -> MedchatError:
    try:
        lines = read_regular(log, _LOG_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    *_, what, remedy = ["", "", *(sanitize_line(line, 300) for line in lines)]
    return MedchatError(
        say("后台的 medchat serve 没有启动：", "medchat serve in the background did not start: ") + what,
        remedy or say("直接运行 medchat serve 查看原因", "run medchat serve itself to see why"),
        where=str(log),
    )
