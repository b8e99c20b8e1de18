"""The calls of the server, from a request to its response."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from medchat.plugin_kit import GenerationConfig, OpenedModel, SavedConversations, say, urgent_notices
from medchat_serve.answer_response import AnswerResponse
from medchat_serve.api_error import ApiError, as_api_error
from medchat_serve.asked_question import AskedQuestion, read_chat, read_completion
from medchat_serve.body import read_body
from medchat_serve.dispatcher import Dispatcher
from medchat_serve.guard import Guard, check_json
from medchat_serve.job import AnswerJob
from medchat_serve.limits import ServerLimits
from medchat_serve.own_notices import OwnNotices
from medchat_serve.page import page
from medchat_serve.replies import About, Reply

Log = Callable[[str], None]


@dataclass
class Service:
    """One model as it is served under `model_id`.

    Up to `batch` questions are answered at a time where the model can do so exactly. `log` takes a line for each
    request, which holds no word of it; `saved`, if given, keeps the conversations.
    """

    opened: OpenedModel
    model_id: str
    guard: Guard = field(default_factory=Guard)
    limits: ServerLimits = field(default_factory=ServerLimits)
    log: Log = lambda line: None
    saved: SavedConversations | None = None
    batch: int = 1
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(self.opened, self.limits.waiting, self.saved, batch=self.batch)
        self.own_notices = OwnNotices()

    def app(self) -> ASGIApp:
        """Return the application."""
        routes = [Route("/", self.page, methods=["GET"])]
        for prefix in ("/v1", ""):  # a base address without /v1 is the commonest trouble of clients
            routes += [
                Route(f"{prefix}/models", self.models, methods=["GET"]),
                Route(f"{prefix}/models/{{name:path}}", self.model, methods=["GET"]),
                Route(f"{prefix}/chat/completions", self.chat, methods=["POST"]),
                Route(f"{prefix}/completions", self.completions, methods=["POST"]),
                Route(f"{prefix}/health", self.health, methods=["GET"]),
            ]
        return GuardedApp(Starlette(routes=routes, exception_handlers=_HANDLERS), self)

    async def page(self, request: Request) -> Response:
        """Show the page."""
        return page(self.model_id, self.opened.mark)

    async def models(self, request: Request) -> Response:
        """List the one model."""
        return JSONResponse({"object": "list", "data": [self.model_fields()]})

    async def model(self, request: Request) -> Response:
        """Describe the model of that name. Raises ApiError if there is no such."""
        self._require(request.path_params["name"])
        return JSONResponse(self.model_fields())

    async def health(self, request: Request) -> Response:
        """Say whether questions are taken, and how many are under way."""
        status = "stopping" if self.dispatcher.stopping else "ok"
        code = 503 if self.dispatcher.stopping else 200
        return JSONResponse({"status": status, "under_way": self.dispatcher.under_way}, code)

    async def chat(self, request: Request) -> Response:
        """Answer a question after a conversation."""
        body = await self._body(request)
        return await self._answer(read_chat(body, self.limits), request)

    async def completions(self, request: Request) -> Response:
        """Continue with a text."""
        return await self._answer(read_completion(await self._body(request)), request)

    async def _body(self, request: Request) -> object:
        check_json(request.headers)
        body = await read_body(request, self.limits)
        name = body.get("model") if isinstance(body, dict) else None
        if isinstance(name, str):
            self._require(name)
        return body

    async def _answer(self, asked: AskedQuestion, request: Request) -> Response:
        asked.config_over(GenerationConfig())  # refuses what is out of range before it waits for its turn
        conversation = self.own_notices.taken_out_of(asked.conversation)
        # Off the event loop: a long question takes the rules a moment.
        said = await asyncio.to_thread(urgent_notices, conversation, asked.question)
        job = AnswerJob(asked, conversation, said)
        client = request.client.host if request.client else ""
        self.dispatcher.submit(job, f"{client} {asked.user}")
        reply = Reply(self.model_id, asked.plain, About(self.opened.mark, asked.ignored))
        response = AnswerResponse(job, reply, self.dispatcher, self.own_notices, self.limits.answer_seconds)
        request.scope["medchat.answer"] = response
        return response

    def _require(self, name: str) -> None:
        if name != self.model_id:
            raise ApiError(
                404,
                say(
                    f"没有这个模型；这里的是 {self.model_id}",
                    f"there is no such model; this one is {self.model_id}",
                ),
                "model_not_found",
                "model",
            )

    def model_fields(self) -> Mapping[str, Any]:
        """Return what a list of models says of this one."""
        return {
            "id": self.model_id,
            "object": "model",
            "created": self.created,
            "owned_by": "medchat",
            "max_model_len": self.opened.model.context_length,
        }


async def _unknown(request: Request, error: Exception) -> Response:
    """Answer an address or a method that there is not in OpenAI's form."""
    status = getattr(error, "status_code", 404)
    message = say("没有这个接口", "there is no such call")
    return JSONResponse(ApiError(status, message, "unknown_url").body(), status)


async def _failed(request: Request, error: Exception) -> Response:
    """Answer a failure in OpenAI's form."""
    return _refused(as_api_error(error))


_HANDLERS: Mapping[Any, Any] = {404: _unknown, 405: _unknown, ApiError: _failed, Exception: _failed}


class GuardedApp:
    """The application behind its guard: what is refused is refused before anything of the request is read."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it; log one line."""
        if scope["type"] != "http":
            return
        request, began, status = Request(scope), time.monotonic(), 0
        cross = self._service.guard.cross_origin_headers(request.headers)

        async def send_with_headers(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = {"X-Content-Type-Options": "nosniff", **cross}
                message["headers"] = [
                    *message.get("headers", ()),
                    *((name.lower().encode(), value.encode()) for name, value in extra.items()),
                ]
            await send(message)

        self._under_way += 1
        try:
            await self._checked(request, scope, receive, send_with_headers)
        except Exception as error:
            failure = as_api_error(error)
            if failure.status >= 500 and not isinstance(error, ApiError):
                self._service.log(f"{type(error).__module__}.{type(error).__name__}")
            if not status:
                await _refused(failure)(scope, receive, send_with_headers)
        finally:
            self._under_way -= 1
            self._service.log(_line(scope, status, time.monotonic() - began))

    async def _checked(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        guard, path = self._service.guard, scope["path"]
        preflight = request.method == "OPTIONS"
        guard.check(request.headers, open_to_all=preflight or path in ("/", "/health", "/v1/health"))
        if self._under_way > self._service.limits.requests:
            raise ApiError(503, say("同时的请求太多", "too many requests at once"), "overloaded")
        if preflight:
            await Response(status_code=204)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _refused(error: ApiError) -> Response:
    return JSONResponse(error.body(), error.status, dict(error.headers))


def _line(scope: Scope, status: int, seconds: float) -> str:
    """Return what is logged of a request: no word of a question, an answer, an address or a header."""
    parts = [time.strftime("%H:%M:%S"), scope["method"][:10], f"{status or 'gone'}", f"{seconds:.2f}s"]
    response: AnswerResponse | None = scope.get("medchat.answer")
    if response is not None:
        finished = response.finished
        counts = finished.stats if finished else None
        parts += [response.reply.id, f"in={counts.prompt_tokens if counts else '-'}"]
        parts += [f"out={counts.completion_tokens if counts else '-'}"]
        parts += [response.failed] if response.failed else []
    return " ".join(parts)


def log_to_stderr(line: str) -> None:
    """Write a line of the log."""
    print(line, file=sys.stderr, flush=True)
