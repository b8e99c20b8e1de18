"""A model served by this process over loopback, and ways of asking it.

A test module states `pytest_plugins = ("served_model",)` to use the fixtures. (PYTEST_DONT_REWRITE:
imported by name as well as as a plugin.)
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from medchat_serve.app import Service
from medchat_serve.guard import Guard
from medchat_serve.server import StoppableServer, bound_socket

from medchat.plugin_kit import OpenedModel, open_model

pytest_plugins = ("cli_program",)
SECONDS = 20.0
Ask = dict[str, Any]


@dataclass
class Served:
    """A running server: where it is, what it serves, and what it has logged."""

    url: str
    service: Service
    server: StoppableServer
    opened: OpenedModel
    log: list[str] = field(default_factory=list)

    def wait_until_idle(self) -> None:
        """Wait until no question is under way."""
        end = time.monotonic() + SECONDS
        while self.service.dispatcher.under_way:
            assert time.monotonic() < end
            time.sleep(0.002)

    def logged(self, lines: int) -> str:
        """Wait for so many lines of the log, which are written once an answer is sent, and return them."""
        end = time.monotonic() + SECONDS
        while len(self.log) < lines:
            assert time.monotonic() < end, self.log
            time.sleep(0.01)
        return "\n".join(self.log)

    def client(self, **options: Any) -> httpx2.Client:
        """Return a client of the server."""
        return httpx2.Client(base_url=self.url, timeout=SECONDS, trust_env=False, **options)

    @contextmanager
    def streaming(self, body: Ask) -> Iterator[Iterator[Any]]:
        """Ask for a stream and give its events' objects as they come; leaving the block goes away."""
        asked = {**body, "stream": True}
        with self.client() as client, client.stream("POST", "/v1/chat/completions", json=asked) as response:
            lines = response.iter_lines()
            yield (json.loads(line[6:]) for line in lines if line.startswith("data: {"))

    def post(self, body: object, call: str = "/v1/chat/completions", **headers: str) -> httpx2.Response:
        """Send a request and return what came."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.client() as client:
            return client.post(call, json=body, headers=named)


def texts_of(stream: str) -> list[str]:
    """Return the pieces of text in the events of a streamed answer, empty ones left out."""
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


def question(text: str, **fields: Any) -> Ask:
    """Return the body of a chat completion that asks `text`."""
    return {"model": "served", "messages": [{"role": "user", "content": text}], **fields}


def answers_of_those_who_stay(served: Served, asked: Ask, endless: Ask, clients: int = 50) -> list[str]:
    """Have so many clients ask at once; every fifth asks `endless` and goes away. Return the others' answers."""
    answers: list[str] = []

    def stay(number: int) -> None:
        said = served.post({**asked, "stream": True, "user": str(number)})
        answers.append("".join(texts_of(said.text)))

    def vanish(number: int) -> None:
        with served.streaming({**endless, "user": str(number)}) as stream:
            next(stream)

    with ThreadPoolExecutor(clients) as pool:
        tasks = [pool.submit(vanish if number % 5 == 0 else stay, number) for number in range(clients)]
        for task in tasks:
            task.result(SECONDS * 3)
    served.wait_until_idle()
    return answers


@contextmanager
def serving(opened: OpenedModel, **options: Any) -> Iterator[Served]:
    """Serve the opened model until the block is left. `options` are fields of `Service`."""
    log: list[str] = []
    service = Service(opened, "served", **{"guard": Guard(), "log": log.append, **options})
    listening, ready = bound_socket("127.0.0.1", 0), threading.Event()
    server = StoppableServer(service, ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    try:
        assert ready.wait(SECONDS)
        port = listening.getsockname()[1]
        yield Served(f"http://127.0.0.1:{port}", service, server, opened, log)
    finally:
        server.ask_to_stop()
        server.ask_to_stop()
        thread.join(SECONDS)
        assert service.dispatcher.close(SECONDS) and not thread.is_alive()
        listening.close()


Serve = Callable[..., AbstractContextManager[Served]]


@pytest.fixture(scope="module")
def scripted_model(scripted_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenedModel]:
    """Give the opened model of `scripted_backbone`."""
    from scripted_backbone import Scripted

    folder = tmp_path_factory.mktemp("served")
    Scripted().tiny(folder / "脚本模型")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCHAT_HOME", str(folder / "home"))
        patch.syspath_prepend(str(scripted_site))
        with open_model(backbone="scripted", model=str(folder / "脚本模型")) as opened:
            yield opened


@pytest.fixture(scope="module")
def running(scripted_model: OpenedModel) -> Iterator[Served]:
    """Give the one server of a test module."""
    with serving(scripted_model) as server:
        yield server


@pytest.fixture
def served(running: Served) -> Served:
    """Give a server of the scripted model that has nothing to do and has logged nothing."""
    running.wait_until_idle()
    running.log.clear()
    return running
