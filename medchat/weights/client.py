"""The client through which all is read that the hub, a mirror or a file's store answers: bounded in bytes and time.

The hub's own library reads each answer whole, however long it is, and waits for it without end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache

import httpx2
from huggingface_hub import set_client_factory

from medchat.weights.source import TIMEOUT

#: Bytes and seconds of one list of files, or of what is said of a repository. (A thousand files take 0.4 MB.)
DOCUMENT_BYTES = 32 << 20
DOCUMENT_SECONDS = 300.0
#: Set in a request's extensions where whoever reads the answer knows its size and stops there.
READ_TO_ITS_SIZE = "medchat_read_to_its_size"


class _Bounded(httpx2.SyncByteStream):
    """A body that fails after `DOCUMENT_BYTES` or `DOCUMENT_SECONDS`."""

    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        left, until = DOCUMENT_BYTES, time.monotonic() + DOCUMENT_SECONDS
        for piece in self._stream:
            left -= len(piece)
            if left < 0 or time.monotonic() > until:
                raise httpx2.RemoteProtocolError("the answer is too long")
            yield piece

    def close(self) -> None:
        self._stream.close()


class _Unread(_Bounded):
    """A body that nobody needs: what an error is stands in its status and headers."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


@cache
def use_bounded_client() -> None:
    """Have the hub's library, and `get_session` of it, ask through such a client from here on."""
    set_client_factory(_bounded_client)


def _bounded_client() -> httpx2.Client:
    return httpx2.Client(
        follow_redirects=True,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_bound]},
    )


def _bound(response: httpx2.Response) -> None:
    """Bound the body, which nobody has read yet. Raises RemoteProtocolError for one that is packed."""
    assert isinstance(response.stream, httpx2.SyncByteStream)
    packed = response.headers.pop("Content-Encoding", "identity").strip().lower() not in ("", "identity")
    if not response.is_success:
        response.stream = _Unread(response.stream)
    elif packed:  # a few bytes could become any number
        raise httpx2.RemoteProtocolError("the answer is compressed, which nobody asked for")
    elif READ_TO_ITS_SIZE not in response.request.extensions:
        response.stream = _Bounded(response.stream)
