"""An event of a server in which anything may stand is a chunk, or the server's failure."""

from __future__ import annotations

import pytest
from fuzzing import EXAMPLES, fuzz, json_files
from medchat_remote.chunks import MalformedPayloadError, read_chunk
from medchat_remote.server_errors import ServerError

KEYS = ("choices", "delta", "message", "content", "role", "index", "finish_reason", "usage", "error", "text")


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_event_is_a_chunk_or_a_failure(examples: int) -> None:
    def read(content: bytes) -> None:
        read_chunk(content.decode("utf-8", "replace"))

    fuzz(read, json_files(KEYS), examples, MalformedPayloadError, ServerError)
