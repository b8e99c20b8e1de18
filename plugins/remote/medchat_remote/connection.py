"""The HTTP side of one endpoint: an event loop in a thread of its own, so that any wait can be broken off.

Cancelling a task closes its connection at once, whether it is connecting, waiting for the first word or
reading; a thread blocked in a socket could not be woken. Redirects are never followed, so neither words
nor key go anywhere but to the endpoint.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import httpx2

from medchat.retry import RetrySchedule
from medchat_remote.address import Endpoint
from medchat_remote.chunks import MalformedPayloadError, ServerError, StreamChunk, read_chunk
from medchat_remote.errors import EndpointErrors, RequestError
from medchat_remote.events import EventReader, EventTooLongError
from medchat_remote.key import ApiKey
from medchat_remote.proxy import proxy_for

Result = TypeVar("Result")

CONNECT_SECONDS = 10.0
#: How long the counts may take that some servers send after the end of an answer.
AFTERWARDS_SECONDS = 5.0
#: The longest body that is read whole: an answer of a server that does not stream, a list of models.
LONGEST_BODY = 16 << 20
#: Questions of a batch that are under way together; the server makes batches of them as it likes.
TOGETHER = 32


class Connection:
    """Sends requests to one endpoint. Its coroutines run in its own thread: use `start` and `call`."""

    def __init__(
        self, endpoint: Endpoint, key: ApiKey | None, *, timeout: float, backoff: RetrySchedule | None = None
    ) -> None:
        """`timeout` is how many seconds the endpoint may be silent."""
        self.endpoint = endpoint
        self.errors = EndpointErrors(endpoint, key, timeout)
        self._backoff = backoff or RetrySchedule()
        headers = {"User-Agent": "medchat", "Accept-Encoding": "identity"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key.value}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(timeout, connect=CONNECT_SECONDS, pool=None),
            limits=httpx2.Limits(max_connections=TOGETHER),
            # The proxy is chosen by us (and told to the user); .netrc and the like are nobody's business.
            proxy=proxy_for(endpoint),
            trust_env=False,
            verify=httpx2.create_ssl_context() if endpoint.encrypted else True,
            follow_redirects=False,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="medchat-remote", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ from other threads

    def start(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run `work` in the connection's thread. Cancelling the future closes what it has open."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run `work` and return its outcome. An interrupt breaks it off. Raises MedchatError."""
        future = self.start(work)
        try:
            return future.result()
        except RequestError as failure:
            raise failure.error from None
        finally:
            future.cancel()

    def close(self) -> None:
        """Close every connection and end the thread."""
        if self._loop.is_closed():
            return
        with suppress(Exception):
            self.start(self._client.aclose()).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()

    # ------------------------------------------------------------ in the connection's thread

    async def pieces(self, call: str, body: dict[str, Any]) -> AsyncGenerator[StreamChunk, None]:
        """Yield an answer's pieces. Tries again as long as no text has come. Raises RequestError."""
        failures, said = 0, False
        while True:
            try:
                async for piece in self._try(call, body):
                    said = said or bool(piece.text)
                    yield piece
                return
            except RequestError as failure:
                failures += 1
                await self._wait_or_raise(failure, failures, hopeless=said)

    async def fetch(
        self, method: str, url: str, body: dict[str, Any] | None = None, *, patient: bool = True
    ) -> Any:
        """Return the JSON at `url`; `patient` tries again like `pieces`. Raises RequestError."""
        failures = 0
        while True:
            try:
                async with self._answer(method, url, body) as response:
                    text = await _whole(response)
                try:
                    return json.loads(text)
                except (ValueError, RecursionError):
                    raise self.errors.nonsense(text[:200]) from None
            except RequestError as failure:
                failures += 1
                await self._wait_or_raise(failure, failures, hopeless=not patient)

    async def _wait_or_raise(self, failure: RequestError, failures: int, *, hopeless: bool = False) -> None:
        pause = self._backoff.pause(failures, failure.retry_after) if failure.again and not hopeless else None
        if pause is None:
            raise failure
        await asyncio.sleep(pause)

    async def _try(self, call: str, body: dict[str, Any]) -> AsyncGenerator[StreamChunk, None]:
        async with self._answer("POST", self.endpoint.base + call, body) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "text/html":
                raise self.errors.nonsense(kind)
            if kind == "application/json":
                piece = read_chunk(await _whole(response))
                yield StreamChunk(piece.text, usage=piece.usage)
                yield StreamChunk(finish=piece.finish)
                return
            payloads = _payloads(response)
            async for payload in payloads:
                if payload == "[DONE]":
                    return
                piece = read_chunk(payload)
                yield piece
                if piece.finish is not None:
                    break
            else:
                raise self.errors.cut()
            for piece in await _afterwards(payloads):
                yield piece

    @asynccontextmanager
    async def _answer(
        self, method: str, url: str, body: dict[str, Any] | None
    ) -> AsyncIterator[httpx2.Response]:
        """Open a response of status 200; whatever fails while it is open is told as a RequestError."""
        try:
            async with self._client.stream(method, url, json=body) as response:
                if response.status_code != httpx2.codes.OK:
                    raise self.errors.refused(response, await _whole(response, longest=1 << 16))
                yield response
        except httpx2.HTTPError as error:
            raise self.errors.transport(error) from error
        except (MalformedPayloadError, EventTooLongError) as error:
            raise self.errors.nonsense(str(error)) from error
        except ServerError as error:
            raise self.errors.server(error.message, error.code) from error


async def _payloads(response: httpx2.Response) -> AsyncIterator[str]:
    reader = EventReader()
    async for chunk in response.aiter_bytes():
        for payload in reader.feed(chunk):
            yield payload


async def _afterwards(payloads: AsyncIterator[str]) -> list[StreamChunk]:
    """Return the counts that may follow the end of an answer; one that fails here has ended all the same."""
    pieces = []
    with suppress(TimeoutError, httpx2.HTTPError, MalformedPayloadError, EventTooLongError, ServerError):
        async with asyncio.timeout(AFTERWARDS_SECONDS):
            async for payload in payloads:
                if payload == "[DONE]":
                    break
                pieces.append(StreamChunk(usage=read_chunk(payload).usage))
    return pieces


async def _whole(response: httpx2.Response, longest: int = LONGEST_BODY) -> str:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > longest:
            break
    return bytes(body[:longest]).decode("utf-8", "replace")
