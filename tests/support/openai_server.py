"""An OpenAI-compatible server on loopback with scripted failures.

Each question gets the next reply of `server.script`, and `server.usual` once that is used up. The requests
are in `server.seen`. It listens on 127.0.0.1 only.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@dataclass(frozen=True)
class Asked:
    """One request as it arrived. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """How one question is answered.

    `pieces` are streamed, one event each; a number among them is a delay in seconds. `cut` closes the
    connection after the pieces, without a finish; `reset` does so with RST; `silent` sends nothing more until
    the client has gone. `raw` is sent verbatim in place of events, a number in it is a delay.
    """

    pieces: Sequence[str | float] = ("多喝水", "，", "多休息。")
    finish: str | None = "stop"
    usage: Mapping[str, Any] | None = None
    done: bool = True
    cut: bool = False
    reset: bool = False
    silent: bool = False
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    kind: str = "text/event-stream"
    raw: Iterable[bytes | float] | None = None
    line_end: str = "\n"


def refusal(status: int, message: str, **headers: str) -> Reply:
    """Return an error in OpenAI's format."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"error": {"message": message, "type": "refused"}}, ensure_ascii=False)
    return Reply(status=status, headers=named, body=body, kind="application/json")


class OpenAIServer:
    """The server; use `with serving() as server`."""

    def __init__(self) -> None:
        self.usual = Reply()
        self.script: deque[Reply] = deque()
        self.models: Any = {"object": "list", "data": [{"id": "tiny", "max_model_len": 2048}]}
        self.models_status = 200
        #: In place of `models`: how the list is answered.
        self.models_reply: Reply | None = None
        #: The replies of other paths: path -> function of the body, which returns JSON or a Reply.
        self.calls: dict[str, Callable[[Any], Any]] = {}
        self.seen: list[Asked] = []
        #: How a question is answered, decided as it arrives and before a word is said.
        self.reply_to: Callable[[Asked], Reply] = self.next_reply
        self.silent = threading.Event()
        self.client_gone = threading.Event()
        self.under_way = 0
        self.most_under_way = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = _HTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The endpoint's address."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def questions(self) -> list[Asked]:
        """What was asked of the model."""
        return [asked for asked in self.seen if asked.path in (CHAT, TEXT)]

    def next_reply(self, asked: Asked) -> Reply:
        """Return what the script says."""
        with self.lock:
            return self.script.popleft() if self.script else self.usual

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Use TLS from now on."""
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@contextmanager
def serving() -> Iterator[OpenAIServer]:
    """Run a server for the time of the block."""
    server = OpenAIServer()
    try:
        yield server
    finally:
        server.close()


def free_port() -> int:
    """Return a loopback port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    #: A whole batch connects at once; a connection that finds no room is made a second later.
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    owner: OpenAIServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep the tests' stderr clean."""

    def do_GET(self) -> None:
        self._note(None)
        if self.path == "/v1/models" and self.owner.models_reply is not None:
            with suppress(OSError):
                self._reply(self.owner.models_reply, chat=False)
            self.close_connection = True
        elif self.path == "/v1/models" and self.owner.models is not None:
            self._send_json(self.owner.models_status, self.owner.models)
        else:
            self._send_json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = self._note(body)
        if self.path in self.owner.calls:
            answer = self.owner.calls[self.path](body)
            if isinstance(answer, Reply):
                self._reply(answer, chat=False)
            else:
                self._send_json(200, answer)
        elif self.path in (CHAT, TEXT):
            self._answer(asked)
        else:
            self._send_json(404, {"detail": "Not Found"})

    def _note(self, body: Any) -> Asked:
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        self.owner.seen.append(asked)
        return asked

    def _answer(self, asked: Asked) -> None:
        reply = self.owner.reply_to(asked)
        with self.owner.lock:
            self.owner.under_way += 1
            self.owner.most_under_way = max(self.owner.most_under_way, self.owner.under_way)
        try:
            self._reply(reply, chat=asked.path == CHAT)
        except OSError:
            self.owner.client_gone.set()
        finally:
            self.close_connection = True
            with self.owner.lock:
                self.owner.under_way -= 1

    def _reply(self, reply: Reply, *, chat: bool) -> None:
        if reply.body is not None:
            self._send(reply.status, reply.kind, reply.body.encode(), reply.headers)
            return
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Connection", "close")
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for chunk in reply.raw if reply.raw is not None else _events(reply, chat=chat):
            if isinstance(chunk, float):
                time.sleep(chunk)
            else:
                self.wfile.write(chunk)
                self.wfile.flush()
        if reply.silent:
            self._wait_for_the_client_to_go()
        if reply.reset:
            linger = struct.pack("ii", 1, 0)  # closing sends RST in place of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _wait_for_the_client_to_go(self) -> None:
        self.owner.silent.set()
        readable, _, _ = select.select([self.connection], [], [], 20)
        if readable and not self.connection.recv(1):
            self.owner.client_gone.set()

    def _send_json(self, status: int, value: Any) -> None:
        self._send(status, "application/json", json.dumps(value).encode(), {})

    def _send(self, status: int, kind: str, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _events(reply: Reply, *, chat: bool) -> Iterator[bytes | float]:
    end = reply.line_end
    if chat:
        yield _event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}, end)
    for piece in reply.pieces:
        if isinstance(piece, float):
            yield piece
        else:
            yield _event({"choices": [{"index": 0, **_said(piece, chat), "finish_reason": None}]}, end)
    if reply.cut or reply.reset or reply.silent:
        return
    if reply.finish is not None:
        yield _event({"choices": [{"index": 0, **_said("", chat), "finish_reason": reply.finish}]}, end)
    if reply.usage is not None:
        yield _event({"choices": [], "usage": reply.usage}, end)
    if reply.done:
        yield f"data: [DONE]{end}{end}".encode()


def _said(text: str, chat: bool) -> dict[str, Any]:
    return {"delta": {"content": text}} if chat else {"text": text}


def _event(value: Any, end: str) -> bytes:
    return f": keep-alive{end}data: {json.dumps(value)}{end}{end}".encode()
