"""One file through HTTP into a partial file that outlives the program: what has come is never asked for again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from medchat.retry import Backoff, DownloadCancelled
from medchat.weights.source import TIMEOUT, DownloadRequest

_PARTIAL_CONTENT = 206


def fetch(
    request: DownloadRequest,
    size: int,
    partial: Path,
    cancel: threading.Event,
    backoff: Backoff,
    on_bytes: Callable[[int], None],
) -> None:
    """Bring `partial` to `size` bytes, continuing where it ends.

    `on_bytes` gets the bytes gained, or lost where the server cannot continue and begins again. Raises
    Interrupted soon after `cancel` is set, what the network raises once `backoff` ends, and OSError.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    while (have := _length(partial)) != size:
        if have > size:  # not a beginning of this file
            partial.unlink()
            on_bytes(-have)
            continue
        try:
            _receive(request, have, size, partial, cancel, backoff, on_bytes)
            if _length(partial) < size:
                raise httpx2.RemoteProtocolError("the answer ended early")
        except (httpx2.TransportError, HfHubHTTPError) as error:
            backoff.wait(error)
    if size == 0:
        partial.touch()


def _receive(
    request: DownloadRequest,
    have: int,
    size: int,
    partial: Path,
    cancel: threading.Event,
    backoff: Backoff,
    on_bytes: Callable[[int], None],
) -> None:
    from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

    from medchat.weights.client import READ_TO_ITS_SIZE, use_bounded_client

    # Compressed on the way, a file has another length and cannot be continued.
    headers = {**request.headers, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    use_bounded_client()
    with get_session().stream(
        "GET", request.url, headers=headers, timeout=TIMEOUT, extensions={READ_TO_ITS_SIZE: True}
    ) as response:
        if response.is_error:
            response.read()
        hf_raise_for_status(response)
        if have and response.status_code != _PARTIAL_CONTENT:
            on_bytes(-have)
            have = 0
        with partial.open("r+b" if have else "wb") as file:
            file.seek(have)
            for piece in response.iter_raw():
                if cancel.is_set():
                    raise DownloadCancelled
                wanted = piece[: size - have]
                have += file.write(wanted)
                on_bytes(len(wanted))
                backoff.reset()
                if len(wanted) < len(piece):  # more than was announced: the checksum will tell
                    return


def _length(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
