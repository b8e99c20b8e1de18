"""A hub on loopback with the APIs of Hugging Face and ModelScope, and scripted faults.

Large files are redirected to a second address, as the real one does. Faults are given per file and used
up one request at a time.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

#: Files with these suffixes are LFS files: they have a SHA-256 and are on another host.
LARGE = (".bin", ".safetensors", ".model")
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<revision>[^/]+)")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_MODELSCOPE = re.compile(r"/api/v1/models/(?P<repo>[^/]+/[^/]+)/repo(?P<files>/files)?")
_STORE = "/store/"


@dataclass(frozen=True, slots=True)
class Fault:
    """The fault of one request for a file.

    `status` answers with that code; `cut_after` closes the connection after so many bytes of the body;
    `whole` sends the whole file where a part was asked for; `spoil` changes a byte; `silent_after` so many
    bytes nothing more comes, and the connection stays open; `flood` is what follows without end, in a body
    that begins as JSON does; `body` is what is sent in place of a list.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    whole: bool = False
    spoil: bool = False
    silent_after: int | None = None
    flood: bytes = b""
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came, and how many bytes of a file were sent for it."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0


@dataclass
class Repository:
    """One repository: its files, the commit that `main` is, and what it claims of its large files."""

    files: dict[str, bytes]
    commit: str = "c" * 40
    revisions: tuple[str, ...] = ("main",)
    claimed: dict[str, str] = field(default_factory=dict)

    def sha256(self, name: str) -> str:
        """Return the stated checksum of a large file."""
        return self.claimed.get(name) or hashlib.sha256(self.files[name]).hexdigest()


class Hub:
    """The running server."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.asked: list[Asked] = []
        self.url = self.store = ""
        self.closing = threading.Event()
        self.flooded = 0  # bytes that were sent of bodies without end

    def downloads(self, name: str) -> list[Asked]:
        """Return the requests that reached the bytes of the file `name`."""
        return [one for one in self.asked if one.path.endswith(f"/{name}") and one.sent]

    def sent(self, name: str) -> int:
        """Return how many bytes of the file were sent in all."""
        return sum(one.sent for one in self.downloads(name))

    def fault(self, name: str) -> Fault:
        """Return the fault of the next request for the file."""
        waiting = self.faults.get(name, [])
        return waiting.pop(0) if waiting else Fault()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Start a hub on two free ports of loopback."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.url, hub.store = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.daemon_threads = True
        thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        for server in servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := _MODELSCOPE.fullmatch(path):
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            return self._modelscope(path, found["repo"], bool(found["files"]), query)
        if found := _API.fullmatch(path):
            self._note(path)
            return self._api(found["repo"], found["what"], found["revision"])
        if found := _RESOLVE.fullmatch(path):
            return self._resolve(path, found["repo"], found["revision"], found["file"])
        if path.startswith(_STORE):
            owner, name, file = path.removeprefix(_STORE).split("/", 2)
            return self._file(path, self.hub.repositories[f"{owner}/{name}"], file)
        self._note(path)
        return self._refuse(404)

    def _api(self, name: str, what: str, revision: str) -> None:
        repository = self.hub.repositories.get(name)
        if self._misbehaves(self.hub.fault("api")):
            return None
        if repository is None:
            return self._refuse(404, {"X-Error-Code": "RepoNotFound"})
        if revision not in (*repository.revisions, repository.commit):
            return self._refuse(404, {"X-Error-Code": "RevisionNotFound"})
        if what == "revision":
            return self._json({"id": name, "modelId": name, "sha": repository.commit, "tags": []})
        return self._json([self._entry(repository, file) for file in repository.files])

    def _modelscope(self, path: str, name: str, lists: bool, query: dict[str, str]) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None or query["Revision"] not in ("master", *repository.revisions):
            self._note(path)
            return self._refuse(404)
        if not lists:
            return self._file(f"{path}/{query['FilePath']}", repository, query["FilePath"])
        self._note(path)
        if self._misbehaves(self.hub.fault("api")):
            return None
        files = [
            {
                "Type": "blob",
                "Path": file,
                "Size": len(content),
                "Sha256": repository.sha256(file) if file.endswith(LARGE) else "",
            }
            for file, content in repository.files.items()
        ]
        tree = {"Type": "tree", "Path": "runs", "Size": 0}
        return self._json({"Code": 200, "Success": True, "Data": {"Files": [tree, *files]}})

    def _misbehaves(self, fault: Fault) -> bool:
        """Apply a fault to a list; return whether there was one."""
        if fault.flood:
            self._flood(fault)
        elif fault.body is not None:
            self._refuse(fault.status, fault.headers, fault.body)
        elif fault.status:
            self._refuse(fault.status, fault.headers)
        return bool(fault.flood or fault.body is not None or fault.status)

    def _entry(self, repository: Repository, file: str) -> dict[str, Any]:
        content = repository.files[file]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": blob}
        if file.endswith(LARGE):
            entry["lfs"] = {"oid": repository.sha256(file), "size": len(content), "pointerSize": 134}
        return entry

    def _resolve(self, path: str, name: str, revision: str, file: str) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None or revision != repository.commit or file not in repository.files:
            self._note(path)
            return self._refuse(404, {"X-Error-Code": "EntryNotFound"})
        if file.endswith(LARGE):
            self._note(path)
            self.send_response(302)
            self.send_header("Location", f"{self.hub.store}{_STORE}{name}/{file}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return self._file(path, repository, file)

    def _file(self, path: str, repository: Repository, file: str) -> None:
        fault = self.hub.fault(file)
        content = repository.files[file]
        if fault.spoil:
            content = bytes([content[0] ^ 1]) + content[1:]
        asked_from = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked_from[1]) if asked_from and not fault.whole else 0
        if fault.flood:
            return self._flood(fault)
        if fault.status or start >= len(content) > 0:
            self._note(path)
            return self._refuse(fault.status or 416, fault.headers)
        self.send_response(206 if asked_from and not fault.whole else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:][: fault.cut_after][: fault.silent_after]
        self._note(path, len(body))
        self._send(body, fault)
        return None

    def _send(self, body: bytes, fault: Fault) -> None:
        self.close_connection = fault.cut_after is not None or fault.silent_after is not None
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
        if fault.silent_after is not None:
            self.hub.closing.wait()

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _flood(self, fault: Fault) -> None:
        self.send_response(fault.status or 200)
        for name, value in ({"Content-Type": "application/json"} | fault.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            self.wfile.write(b"[")
            while not self.hub.closing.is_set():
                self.wfile.write(fault.flood)
                self.hub.flooded += len(fault.flood)

    def _note(self, path: str, sent: int = 0) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.asked.append(Asked(self.command, path, headers, sent))
