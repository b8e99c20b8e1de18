"""A remote model loaded from a test's own server, and ways of asking it.

A test module states `pytest_plugins = ("remote_models",)` to use the fixtures. (PYTEST_DONT_REWRITE:
imported by name as well as as a plugin.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from medchat_remote.chat_model import RemoteModel
from medchat_remote.loading import load_remote_model
from medchat_remote.messages import MessagesTemplate
from openai_server import OpenAIServer, serving

from medchat.api import Delta, GenerationConfig, LoadOptions
from medchat.errors import MedchatError
from medchat.retry import RetrySchedule

#: Short delays for tests.
QUICK = RetrySchedule(delays=(0.01, 0.02, 0.03))
PROMPT = MessagesTemplate().render((), "头痛怎么办？")
ANSWER = "多喝水，多休息。"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

Load = Callable[..., RemoteModel]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with serving() as server:
        yield server


@pytest.fixture
def load(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load a model from the test's server, or from another address."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)
    loaded = []

    def loader(address: str = "", **options: object) -> RemoteModel:
        address = address or server.url
        model = load_remote_model(LoadOptions(Path(address), address=address, **options), QUICK)  # type: ignore[arg-type]
        loaded.append(model)
        return model

    yield loader
    for model in loaded:
        model.close()


def ask(model: RemoteModel, config: GenerationConfig | None = None, prompt: object = PROMPT) -> list[Delta]:
    return list(model.stream(prompt, config or GenerationConfig(), threading.Event()))  # type: ignore[arg-type]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def failure(model: RemoteModel) -> tuple[str, MedchatError]:
    """Return the text before the failure, and the failure."""
    got: list[str] = []
    with pytest.raises(MedchatError) as caught:
        got.extend(delta.text for delta in model.stream(PROMPT, GenerationConfig(), threading.Event()))
    assert caught.value.what and caught.value.remedy, "an error without a remedy"
    assert "\n" not in caught.value.what
    return "".join(got), caught.value
