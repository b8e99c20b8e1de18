"""The HTTP response that an answer is: whole or as a stream, ended where the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from medchat.plugin_kit import (
    Advice,
    AnswerFinished,
    AnswerPiece,
    AnswerRestarted,
    AnswerReviewed,
    HistoryDropped,
    Notice,
    ReasoningPiece,
)
from medchat_serve.api_error import ApiError, as_api_error
from medchat_serve.dispatcher import Dispatcher
from medchat_serve.job import AnswerJob, JobEnded, JobEvent, Queued
from medchat_serve.own_notices import BETWEEN, OwnNotices
from medchat_serve.replies import DONE, Reply, as_event, finish_reason, notice_fields


class AnswerResponse(Response):
    """Sends what happens to `job`, and drops it where the client goes away or `seconds` are over.

    Nothing is sent before it is known that there is an answer: clients take an error only from the status. What is
    urgent goes at once all the same.
    """

    def __init__(
        self, job: AnswerJob, reply: Reply, dispatcher: Dispatcher, notices: OwnNotices, seconds: float
    ) -> None:
        super().__init__()
        self.job, self.reply = job, reply
        self.status_sent = 0
        #: The model's own text, the notices, and what else there is to know at the end.
        self.text, self.reasoning, self.notices = "", "", list[Notice]()
        self.dropped_turns = 0
        self.finished: AnswerFinished | None = None
        #: The kind of error that ended it, "" if none did.
        self.failed = ""
        self._dispatcher, self._own, self._seconds = dispatcher, notices, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; return where it is sent or nobody waits for it any more."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self._dispatcher.drop(self.job)
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        try:
            pieces = self._streamed() if self.job.request.stream else self._whole()
            async for piece in pieces:
                if not self.status_sent:
                    await self._start(send)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ApiError as error:
            self.status_sent = error.status
            refusal = JSONResponse(error.body(), error.status, {**self.reply.headers(), **error.headers})
            await send(
                {"type": "http.response.start", "status": error.status, "headers": refusal.raw_headers}
            )
            await send({"type": "http.response.body", "body": refusal.body, "more_body": False})

    async def _start(self, send: Send) -> None:
        self.status_sent = 200
        kind = "text/event-stream; charset=utf-8" if self.job.request.stream else "application/json"
        headers = {**self.reply.headers(), "Content-Type": kind, "X-Accel-Buffering": "no"}
        raw = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _whole(self) -> AsyncIterator[bytes]:
        before, behind = "", ""
        async for event in self._events():
            if isinstance(event, Advice):
                before += self._in_content(event.notice)
            elif isinstance(event, AnswerReviewed):
                behind += self._in_content(event.notice, behind=True)
        text = before + self.text + behind
        medchat = self.reply.medchat(text, self.notices, self.dropped_turns)
        body = self.reply.whole(text, self.finished, self.reasoning, medchat)
        yield bytes(JSONResponse(body).body)

    async def _streamed(self) -> AsyncIterator[bytes]:
        first, reply = True, self.reply
        try:
            async for event in self._events():
                if isinstance(event, Queued):
                    yield as_event({**reply.chunk(), "medchat": {"queue": event.before}})
                    continue
                if isinstance(event, AnswerRestarted):
                    yield as_event({**reply.chunk(), "medchat": {"restarted": True}})
                    continue
                text, reasoning, behind = "", "", isinstance(event, AnswerReviewed)
                if isinstance(event, Advice | AnswerReviewed):
                    text = self._in_content(event.notice, behind=behind)
                    if self.job.request.notices_apart:
                        chunk = reply.chunk()
                        yield as_event({**chunk, "medchat": {"notices": [notice_fields(event.notice)]}})
                elif isinstance(event, AnswerPiece):
                    text = event.text
                elif isinstance(event, ReasoningPiece):
                    reasoning = event.text
                if text or reasoning:
                    yield as_event(reply.chunk(text, reasoning=reasoning, first=first))
                    first = False
        except ApiError as error:
            if not self.status_sent:
                raise
            yield as_event(error.body())
            return
        last = reply.chunk(finish=finish_reason(self.finished), first=first)
        yield as_event({**last, "medchat": reply.medchat(self.text, self.notices, self.dropped_turns)})
        if self.job.request.include_usage:
            yield as_event(reply.usage_chunk(self.finished))
        yield DONE

    async def _events(self) -> AsyncIterator[JobEvent]:
        """Yield what happens, and note what of it belongs to the end. Raises ApiError for what went wrong."""
        for notice in self.job.said:
            self.notices.append(notice)
            yield Advice(notice, said=True)
        timer = None
        try:
            while not isinstance(event := await self.job.next_event(), JobEnded):
                if timer is None and not isinstance(event, Queued):
                    timer = asyncio.get_running_loop().call_later(self._seconds, self.job.cancel.set)
                self._note(event)
                if not (isinstance(event, Advice) and event.said):
                    yield event
        finally:
            if timer is not None:
                timer.cancel()
        if event.error is not None:
            failure, self.failed = as_api_error(event.error), type(event.error).__name__
            failure.notices = tuple(self.notices)
            raise failure from event.error

    def _note(self, event: JobEvent) -> None:
        if isinstance(event, AnswerPiece):
            self.text += event.text
        elif isinstance(event, ReasoningPiece):
            self.reasoning += event.text
        elif isinstance(event, AnswerRestarted):
            self.text, self.reasoning = "", self.reasoning + self.text
        elif isinstance(event, HistoryDropped):
            self.dropped_turns = event.turns
        elif isinstance(event, AnswerFinished):
            self.finished = event
        elif isinstance(event, AnswerReviewed) or (isinstance(event, Advice) and not event.said):
            self.notices.append(event.notice)

    def _in_content(self, notice: Notice, *, behind: bool = False) -> str:
        """Return what of a notice goes into the answer's text: it must reach a person in any client."""
        request = self.job.request
        if not notice.urgent or request.notices_apart or request.background:
            return ""
        self._own.remember(notice)
        return BETWEEN + notice.text if behind else notice.text + BETWEEN


async def _until_gone(receive: Receive) -> None:
    """Wait until the client has closed the connection."""
    with suppress(OSError):
        while (await receive())["type"] != "http.disconnect":
            pass
