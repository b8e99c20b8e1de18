"""A page of another origin asks the server where that was allowed, by itself and with openai-js."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
from browser import Browser, Tab
from medchat_serve.guard import Guard
from served_model import Served, serving

from medchat.plugin_kit import OpenedModel

pytest_plugins = ("served_page",)

TOKEN = "a-token-of-the-tests"
#: Where the npm package openai lies.
OPENAI_JS = os.environ.get("MEDCHAT_OPENAI_JS", "")


def test_a_page_of_another_origin_asks_where_that_was_allowed(
    browser: Browser, scripted_model: OpenedModel, served: Served
) -> None:
    """The headers are those of openai-js, which the browser asks leave for first."""
    script = """(async (url) => {
      const headers = { "Content-Type": "application/json", Authorization: "Bearer TOKEN", "X-Stainless-Lang": "js",
        "X-Stainless-OS": "Unknown", "X-Stainless-Retry-Count": "0", "X-Stainless-Runtime": "browser:chrome" };
      const body = JSON.stringify({ model: "served", messages: [{ role: "user", content: "头痛" }] });
      try {
        const response = await fetch(url + "/v1/chat/completions", { method: "POST", headers, body });
        return [response.status, (await response.json()).choices[0].message.content];
      } catch (error) { return String(error); }
    })""".replace("TOKEN", TOKEN)
    with http_page() as other:
        elsewhere = Tab(browser, other + "/")
        with serving(scripted_model, guard=Guard(origins=[other], token=TOKEN)) as allowing:
            assert elsewhere.run(f"{script}({allowing.url!r})") == [200, "你问的是头痛"]
        served.log.clear()
        assert "TypeError" in elsewhere.run(f"{script}({served.url!r})"), "by default no other page may ask"
        assert "cmpl" not in served.logged(1)


@pytest.mark.slow
def test_openai_js_works_on_a_page_of_another_origin(browser: Browser, scripted_model: OpenedModel) -> None:
    """The package itself: models, an answer whole and as a stream, counts, and errors of its own classes."""
    if not OPENAI_JS:
        pytest.skip("openai-js is not here: npm pack openai, unpack it, name the folder in MEDCHAT_OPENAI_JS")
    script = """(async (page, url, key) => {
      const { OpenAI, NotFoundError, AuthenticationError } = await import(page + "/index.mjs");
      const options = { baseURL: url + "/v1", dangerouslyAllowBrowser: true, maxRetries: 0 };
      const client = new OpenAI({ ...options, apiKey: key });
      const asked = { model: "served", messages: [{ role: "user", content: "头痛" }] };
      const models = (await client.models.list()).data.map((model) => model.id);
      const whole = (await client.chat.completions.create(asked)).choices[0].message.content;
      let streamed = "", tokens = 0;
      const stream = await client.chat.completions.create(
        { ...asked, stream: true, stream_options: { include_usage: true } });
      for await (const chunk of stream) {
        streamed += chunk.choices[0]?.delta?.content ?? "";
        tokens = chunk.usage?.completion_tokens ?? tokens;
      }
      const failing = async (made, wanted, body) => {
        try { await made.chat.completions.create(body); }
        catch (error) { return error instanceof wanted && error.code; }
      };
      const missing = await failing(client, NotFoundError, { ...asked, model: "other" });
      const stranger = new OpenAI({ ...options, apiKey: "another-key-than-it" });
      const refused = await failing(stranger, AuthenticationError, asked);
      return [models, whole, streamed, tokens, missing, refused];
    })"""
    with http_page(OPENAI_JS) as other:
        elsewhere = Tab(browser, other + "/")
        with serving(scripted_model, guard=Guard(origins=[other], token=TOKEN)) as served:
            assert elsewhere.run(f"{script}({other!r}, {served.url!r}, {TOKEN!r})") == [
                ["served"], "你问的是头痛", "你问的是头痛", 6, "model_not_found", "invalid_api_key",
            ]  # fmt: skip


@contextmanager
def http_page(folder: str = "") -> Iterator[str]:
    """Give the origin of an empty page that another server shows, and of the modules in `folder`."""

    class Empty(SimpleHTTPRequestHandler):
        extensions_map: ClassVar = {".mjs": "text/javascript"}

        def do_GET(self) -> None:
            if self.path.endswith(".mjs"):
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Empty, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
