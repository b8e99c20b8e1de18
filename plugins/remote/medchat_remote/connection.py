"""The HTTP connection to one endpoint: an event loop in its own thread, so that any wait can be cancelled.

Cancelling a task closes its connection at once, whether it is connecting, waiting for the first byte or
reading; a thread blocked in a socket could not be woken. Redirects are never followed, so text and key are
sent to the endpoint only. A request has one deadline and one budget of bytes; nothing is decompressed, so
that received bytes are counted.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeVar

import httpx2

from medchat.retry import RetrySchedule
from medchat_remote.address import Endpoint
from medchat_remote.body_errors import OverBudgetError, body_error, compressed
from medchat_remote.body_text import decoded
from medchat_remote.chunks import MalformedPayloadError, StreamChunk
from medchat_remote.errors import EndpointErrors, RequestError
from medchat_remote.key import ApiKey
from medchat_remote.limits import DOCUMENT_BYTES, ERROR_BYTES, Limits
from medchat_remote.pace import Pace
from medchat_remote.payloads import Payload, read_payloads
from medchat_remote.proxy import proxy_for
from medchat_remote.server_errors import FailureKind, ServerError
from medchat_remote.transport_errors import transport_error

Result = TypeVar("Result")

CONNECT_SECONDS = 10.0
#: How long to wait for the token counts that some servers send after the end of an answer.
AFTERWARDS_SECONDS = 5.0
#: The number of concurrent questions of a batch; the server batches them as it likes.
TOGETHER = 32
#: The bytes kept of a body that is not an answer, to be shown.
_EXCERPT = 200
#: What reading an answer can raise before it is translated to RequestError.
_FAILURES = (TimeoutError, httpx2.HTTPError, OverBudgetError, MalformedPayloadError, ServerError)


class Connection:
    """Sends requests to one endpoint. Its coroutines run in its own thread: use `start` and `call`."""

    def __init__(
        self, endpoint: Endpoint, key: ApiKey | None, limits: Limits, backoff: RetrySchedule | None = None
    ) -> None:
        """Does not connect yet. Raises UsageError for a proxy that cannot be used, OSError for certificates."""
        self.endpoint = endpoint
        #: The secret to send, "" for none.
        self.key = key.value if key else ""
        proxy = proxy_for(endpoint)
        self.errors = EndpointErrors(endpoint, key, proxy)
        self._limits = limits
        self._backoff = backoff or RetrySchedule()
        headers = {"User-Agent": "medchat", "Accept-Encoding": "identity"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key.value}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(limits.timeout, connect=CONNECT_SECONDS, pool=None),
            limits=httpx2.Limits(max_connections=TOGETHER),
            # The proxy is chosen here (and shown to the user); .netrc and the like must not be used.
            proxy=proxy.address if proxy else None,
            trust_env=False,
            # Reading the system's certificates takes longer than asking a server on this machine: where nothing is
            # encrypted no certificate is trusted.
            verify=httpx2.create_ssl_context()
            if endpoint.encrypted
            else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            follow_redirects=False,
        )
        #: Questions queue here, so that a deadline begins with the request.
        self._turns = asyncio.Semaphore(TOGETHER)
        self._loop = asyncio.new_event_loop()
        self._pace = Pace(limits.requests_per_minute, limits.tokens_per_minute, self._loop.time)
        self._thread = threading.Thread(target=self._loop.run_forever, name="medchat-remote", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ from other threads

    def start(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run `work` in the connection's thread. Cancelling the future closes its connection."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run `work` and return its result. An interrupt cancels it. Raises MedchatError."""
        future = self.start(work)
        try:
            return future.result()
        except RequestError as error:
            raise error.reported from None
        finally:
            future.cancel()

    def close(self) -> None:
        """Close every connection and end the thread."""
        if self._loop.is_closed():
            return
        with suppress(Exception):
            self.start(self._shut_down()).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()

    # ------------------------------------------------------------ in the connection's thread

    async def _shut_down(self) -> None:
        """Cancel everything in progress, and close every connection."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()
        await self._loop.shutdown_asyncgens()

    async def stream(
        self, call: str, body: Mapping[str, Any], budget: int, tokens: int
    ) -> AsyncGenerator[StreamChunk, None]:
        """Yield an answer's chunks. Retries as long as nothing has come. Raises RequestError.

        `budget` is the largest number of bytes of one attempt, `tokens` that of tokens of prompt and answer.
        """
        async with self._turns:
            await self._pace.wait(tokens)
            deadline = self._loop.time() + self._limits.deadline
            failures, began = 0, False
            while True:
                try:
                    tried = self._try(call, body, budget, deadline)
                    async with aclosing(tried), aclosing(self._pace.counted(tried, tokens)) as chunks:
                        async for chunk in chunks:
                            began = began or bool(chunk.text or chunk.reasoning)
                            yield chunk
                    return
                except RequestError as error:
                    failures += 1
                    await self._wait_or_raise(error, failures, deadline, final=began)
                    await self._pace.wait(tokens)

    async def fetch(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        *,
        retry: bool = True,
        seconds: float | None = None,
    ) -> Any:
        """Return the JSON at `url`, which may take `seconds` (less than any question). Raises RequestError."""
        deadline = self._loop.time() + min(seconds or self._limits.deadline, self._limits.deadline)
        failures = 0
        while True:
            try:
                async with self._response(method, url, body, deadline) as response:
                    text = await self._text(response, DOCUMENT_BYTES, deadline)
                    try:
                        return json.loads(text)
                    except (ValueError, RecursionError):
                        raise MalformedPayloadError(text[:_EXCERPT]) from None
            except RequestError as error:
                failures += 1
                await self._wait_or_raise(error, failures, deadline, final=not retry)

    async def _wait_or_raise(
        self, error: RequestError, failures: int, deadline: float, *, final: bool = False
    ) -> None:
        pause = None
        if error.retryable and not final:
            pause = self._backoff.pause(failures, error.retry_after)
        if pause is None or self._loop.time() + pause >= deadline:
            raise error
        await asyncio.sleep(pause)

    async def _try(
        self, call: str, body: Mapping[str, Any], budget: int, deadline: float
    ) -> AsyncGenerator[StreamChunk, None]:
        async with (
            self._response("POST", self.endpoint.base + call, body, deadline) as response,
            aclosing(self._bytes(response, budget, deadline)) as received,
            aclosing(read_payloads(received, _content_type(response))) as payloads,
        ):
            first, understood, said = "", False, False
            async for payload in payloads:
                first = first or payload.text
                if payload.is_done:
                    understood = True
                    break
                chunk = payload.read()
                if chunk is None:
                    continue
                understood, said = True, said or bool(chunk.text)
                if chunk.wants_tool and not said:
                    raise ServerError("", kind=FailureKind.TOOL_WANTED)
                yield chunk
                if chunk.finish is not None:
                    async with aclosing(_afterwards(payloads)) as rest:
                        async for chunk in rest:
                            yield chunk
                    return
            else:
                if not understood and first:
                    raise MalformedPayloadError(first[:_EXCERPT])
                if not understood or not _is_whole(response):
                    raise self.errors.cut_off(empty=not understood)

    @asynccontextmanager
    async def _response(
        self, method: str, url: str, body: Mapping[str, Any] | None, deadline: float
    ) -> AsyncIterator[httpx2.Response]:
        """Open a successful response; any failure while it is open is raised as RequestError."""
        errors = self.errors.for_request(body)
        try:
            request = self._client.build_request(method, url, json=body)
            async with asyncio.timeout_at(deadline):
                response = await self._client.send(request, stream=True)
            async with aclosing(response):
                if not response.is_success:
                    text = "" if _encoding(response) else await self._text(response, ERROR_BYTES, deadline)
                    raise errors.refused(response, text)
                if encoding := _encoding(response):
                    raise compressed(encoding, errors)
                yield response
        except TimeoutError:
            raise errors.deadline_passed(self._limits.deadline) from None
        except httpx2.HTTPError as error:
            raise transport_error(error, errors, self._limits.timeout) from error
        except (OverBudgetError, MalformedPayloadError) as error:
            raise body_error(error, errors) from error
        except ServerError as error:
            raise errors.server(error) from error

    async def _bytes(
        self, response: httpx2.Response, budget: int, deadline: float
    ) -> AsyncGenerator[bytes, None]:
        """Yield the raw body, never decompressed. Raises OverBudgetError and TimeoutError."""
        received = 0
        async with aclosing(response.aiter_raw()) as raw:
            while True:
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(raw, b"")
                if not chunk:
                    return
                received += len(chunk)
                if received > budget:
                    raise OverBudgetError(budget)
                yield chunk

    async def _text(self, response: httpx2.Response, budget: int, deadline: float) -> str:
        """Return a body as text; an error's body is cut at the budget, as its beginning is enough.

        Raises ForeignEncodingError for a successful one.
        """
        body = bytearray()
        with suppress(OverBudgetError) if not response.is_success else nullcontext():
            async with aclosing(self._bytes(response, budget, deadline)) as received:
                async for chunk in received:
                    body += chunk
        return decoded(bytes(body), _content_type(response), strict=response.is_success)


def _encoding(response: httpx2.Response) -> str:
    """Return the content encodings of the body, "" for none."""
    stated = response.headers.get("content-encoding", "").strip().lower()
    return "" if stated == "identity" else stated


def _content_type(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", ""))


def _is_whole(response: httpx2.Response) -> bool:
    """Whether the end of the body is marked, so that a body read to its end is known to be complete."""
    return "content-length" in response.headers or "transfer-encoding" in response.headers


async def _afterwards(payloads: AsyncIterator[Payload]) -> AsyncGenerator[StreamChunk, None]:
    """Yield what may follow the end of an answer: its counts, or more text from servers that mark every chunk
    as the end.

    A failure here does not matter: the answer has ended.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + AFTERWARDS_SECONDS
    while True:
        try:
            async with asyncio.timeout_at(until):
                payload = await anext(payloads)
            chunk = None if payload.is_done else payload.read()
        except (StopAsyncIteration, *_FAILURES):
            return
        if payload.is_done:
            return
        if chunk is not None:
            if chunk.text or chunk.reasoning:
                until = loop.time() + AFTERWARDS_SECONDS
            yield replace(chunk, finish=None)
