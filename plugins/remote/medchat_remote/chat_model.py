"""A remote model as the chat engine sees it (`medchat.api.ChatModel`)."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from medchat.inference.answer_deltas import completion_of
from medchat.plugin_kit import Completion, Delta, Finish, GenerationConfig, Segment, UsageError, say
from medchat_remote.answer_stream import AnswerStream
from medchat_remote.chunks import StreamChunk
from medchat_remote.connection import Connection
from medchat_remote.counting import Counter
from medchat_remote.errors import RequestError
from medchat_remote.request import ChatRequest, Dialect
from medchat_remote.scoring import answer_scores

#: Seconds between two checks of `cancel` while the endpoint sends nothing.
_POLL_SECONDS = 0.05
#: How long a cancelled request may take to close its connection.
_RELEASE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """The facts about a remote model. `context_length` in tokens; `notes` are for the user.

    `prices` are those of `ChatModel.describe`, empty if the endpoint states none. `fields` go into the body of
    each request, whatever it asks.
    """

    model: str
    context_length: int
    notes: tuple[str, ...] = ()
    prices: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)


class RemoteModel:
    """One model of one endpoint, for any number of concurrent callers."""

    def __init__(self, connection: Connection, facts: RemoteFacts, counter: Counter) -> None:
        """The model owns the connection and closes it."""
        self._connection = connection
        self._facts = facts
        self._counter = counter
        self._dialect = Dialect()

    @property
    def context_length(self) -> int:
        """The largest number of tokens of prompt and answer together, as far as known."""
        return self._facts.context_length

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Answer one prompt as the chunks come. Cancelling closes the connection at once.

        Raises MedchatError if the endpoint fails, after yielding what had come.
        """
        request = ChatRequest.build(segments, config)
        answer = self._answer(segments, config)
        arrivals: queue.SimpleQueue[StreamChunk | None] = queue.SimpleQueue()
        released = threading.Event()

        if cancel.is_set():
            yield answer.end(Finish.CANCELLED)
            return
        future = self._connection.start(self._pump(request, arrivals, released))
        try:
            while not answer.ended:
                if cancel.is_set():
                    yield answer.end(Finish.CANCELLED)
                    return
                try:
                    chunk = arrivals.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    continue
                if chunk is None:
                    future.result()
                    break
                yield answer.take(chunk)
            yield answer.end()
        except RequestError as error:
            raise error.reported from None
        finally:
            future.cancel()
            released.wait(_RELEASE_SECONDS)

    def generate_batch(
        self, prompts: Sequence[Sequence[Segment]], config: GenerationConfig
    ) -> list[Completion]:
        """Answer several prompts concurrently, results in order. The first failure cancels all."""
        requests = [ChatRequest.build(segments, config) for segments in prompts]

        async def complete(segments: Sequence[Segment], request: ChatRequest) -> Completion:
            answer, deltas = self._answer(segments, config), []
            async with aclosing(self._chunks(request)) as chunks:
                async for chunk in chunks:
                    deltas.append(answer.take(chunk))
                    if answer.ended:
                        break
            return completion_of([*deltas, answer.end()])

        async def complete_all() -> list[Completion]:
            tasks = [
                asyncio.ensure_future(complete(segments, request))
                for segments, request in zip(prompts, requests, strict=True)
            ]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

        return self._connection.call(complete_all())

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        """Return the natural log-probability of each token of `answer`, without the end token's.

        Only for a named template (the API scores plain text) and servers that echo a prompt with its
        log-probabilities (vLLM, SGLang). No API returns the end token's. Raises UsageError otherwise.
        """
        request = ChatRequest.build(segments, GenerationConfig())
        prompt = dict(request.prompt).get("prompt")
        if not isinstance(prompt, str):
            raise UsageError(
                say(
                    "对话接口不给出已有回答的概率",
                    "the chat call does not return probabilities for a given answer",
                ),
                say("用 --template 指定模板，改走文本接口", "name a --template: that uses the text call"),
            )
        return self._connection.call(answer_scores(self._connection, self._facts.model, prompt, answer))

    def count(self, segments: Sequence[Segment]) -> int:
        """Return the length of the prompt in tokens: the endpoint's count if it has a call for it."""
        return self._counter.count(segments)

    def describe(self) -> Mapping[str, Any]:
        """Return the facts about the model, in plain values, without the key."""
        endpoint = self._connection.endpoint
        return {
            "backbone": "remote",
            "model": replace(endpoint, model=self._facts.model).address,
            "dtype": "remote",
            "device": endpoint.authority,
            "served_model": self._facts.model,
            "context_length": self.context_length,
            "exact_counts": self._counter.exact,
            "notes": self._facts.notes,
            **({"prices": self._facts.prices} if self._facts.prices else {}),
        }

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _answer(self, segments: Sequence[Segment], config: GenerationConfig) -> AnswerStream:
        return AnswerStream(
            self._counter.known(segments),
            config.max_new_tokens,
            config.stop,
            model=self._facts.model,
            key=self._connection.key,
        )

    async def _pump(
        self,
        request: ChatRequest,
        arrivals: queue.SimpleQueue[StreamChunk | None],
        released: threading.Event,
    ) -> None:
        """Put an answer's chunks, and None after the last, into another thread's queue."""
        try:
            async with aclosing(self._chunks(request)) as chunks:
                async for chunk in chunks:
                    arrivals.put(chunk)
        finally:
            arrivals.put(None)
            released.set()

    async def _chunks(self, request: ChatRequest) -> AsyncGenerator[StreamChunk, None]:
        """Yield an answer's chunks, adapting the request to what the endpoint accepts."""
        while True:
            dialect, began = self._dialect, False
            body, rejected = request.body(self._facts.model, dialect)
            body |= self._facts.fields
            try:
                chunks = self._connection.stream(request.call, body, request.budget, request.tokens)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        yield replace(chunk, rejected=rejected)
                        began = True
                return
            except RequestError as error:
                # Concurrent requests may have learned something meanwhile: keep what they found.
                learned = self._dialect.after(error.server_message, body)
                if began or (learned == self._dialect and learned == dialect):
                    raise
                self._dialect = learned
