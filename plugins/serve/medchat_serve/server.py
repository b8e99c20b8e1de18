"""The server process: its socket, its loop, and how it comes to an end."""

from __future__ import annotations

import asyncio
import errno
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from medchat.plugin_kit import UsageError, say
from medchat_serve.app import Service

#: Exit codes of a server that a signal ended.
_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
_HEADER_BYTES = 64 << 10
_CONNECTIONS = 1024
#: Seconds for which a connection is kept without a whole head of a request.
_KEPT_SECONDS = 30
#: Seconds for the last bytes of answers that have ended.
_LAST_BYTES_SECONDS = 5


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket at that address, before anything is loaded. Raises UsageError where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = say("已被占用", "is in use") if taken else f"{error.strerror or error}"
        raise UsageError(
            say(f"无法使用地址 {host}:{port}：{why}", f"cannot use the address {host}:{port}: {why}"),
            say(
                "换一个端口，例如 --port 0（任选一个空闲的）",
                "take another port, such as --port 0 (any free one)",
            ),
        ) from None
    return made


class HeadInTime(H11Protocol):
    """A connection that is closed unless the head of a request comes in time (`timeout_keep_alive`).

    Uvicorn waits without end for the first request, and starts again with each byte of the next: connections that say
    nothing, or a byte now and then, would take the place of all others.
    """

    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._close_later()

    def data_received(self, data: bytes) -> None:
        """Take bytes; wait no longer where they complete the head of a request."""
        super().data_received(data)
        if not self._is_waiting():
            self._stop_waiting()
        elif self._closing is None:
            self._close_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_later(self) -> None:
        self._closing = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None


class StoppableServer(uvicorn.Server):
    """Uvicorn that continues answering until no question is under way, and refuses new ones meanwhile.

    `ready` is called once requests are taken. After `most_idle` seconds without a question it ends by itself.
    """

    def __init__(
        self,
        service: Service,
        ready: Callable[[], None] = lambda: None,
        *,
        most_idle: float = math.inf,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                service.app(),
                loop="asyncio",
                http=HeadInTime,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_CONNECTIONS,
                timeout_keep_alive=_KEPT_SECONDS,
                timeout_graceful_shutdown=_LAST_BYTES_SECONDS,
                h11_max_incomplete_event_size=_HEADER_BYTES,
            )
        )
        self._dispatcher, self._seconds = service.dispatcher, service.limits.stop_seconds
        self._ready, self._most_idle = ready, most_idle
        self._deadline = 0.0
        self._asked_to_stop = threading.Event()
        self._insisted = False

    def ask_to_stop(self) -> None:
        """Take no new question, and end once those under way are answered; a second time: at once. From any thread."""
        self._insisted = self._asked_to_stop.is_set()
        self._asked_to_stop.set()
        self._dispatcher.stopping = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs this."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._dispatcher.start()
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether the server should end."""
        if self._dispatcher.idle_seconds > self._most_idle:
            self.ask_to_stop()
        if self._asked_to_stop.is_set():
            now = asyncio.get_running_loop().time()
            self._deadline = self._deadline or now + self._seconds
            if self._insisted or now >= self._deadline:
                self._dispatcher.stop()
            if not self._dispatcher.under_way:
                self.should_exit = True
        return await super().on_tick(counter)


def run_until_stopped(server: StoppableServer, listening: socket.socket) -> int:
    """Serve until a signal ends it, and return the exit code."""
    codes: list[int] = []
    asyncio.run(_with_signals(server, listening, codes))
    return codes[0] if codes else 0


async def _with_signals(server: StoppableServer, listening: socket.socket, codes: list[int]) -> None:
    loop = asyncio.get_running_loop()
    before = {}

    def note(number: signal.Signals) -> None:
        codes.append(_CODES[number])
        server.ask_to_stop()

    if threading.current_thread() is threading.main_thread():
        for number in _CODES:
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:
                before[number] = handler
                loop.add_signal_handler(number, note, number)
    try:
        await server.serve([listening])
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
