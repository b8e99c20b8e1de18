"""ModelScope as a source of weights: two calls of its public interface, through our own bounded client."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import urlencode

from medchat.errors import CheckpointError
from medchat.language import say
from medchat.weights.errors import no_listing, no_repository_name, within_entries
from medchat.weights.source import TIMEOUT, DownloadRequest, Listing, RemoteFile

OFFICIAL = "https://modelscope.cn"
#: The host in place of the official one, as ModelScope's own library reads it.
VARIABLE = "MODELSCOPE_DOMAIN"
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_NOT_FOUND = 404


class ModelScope:
    """modelscope.cn, or the host in `MODELSCOPE_DOMAIN`. Only what is public there: no login is sent."""

    name = "modelscope"
    default_revision = "master"

    def __init__(self) -> None:
        domain = os.environ.get(VARIABLE, "").strip().rstrip("/")
        with_scheme = domain.startswith(("http://", "https://"))
        self.address = (domain if with_scheme else f"https://{domain}") if domain else OFFICIAL

    def listing(self, repository: str, revision: str) -> Listing:
        """Return the files of the repository. Raises CheckpointError where it or the revision is missing.

        Raises MedchatError for an answer that is no list of files, and UsageError for what is no repository's name.
        """
        from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

        from medchat.weights.client import use_bounded_client

        if not _REPOSITORY.fullmatch(repository):
            raise no_repository_name(repository)
        use_bounded_client()
        where = f"{self.address}/models/{repository}"
        query = urlencode({"Revision": revision, "Recursive": "False"})
        response = get_session().get(f"{self._repo(repository)}/files?{query}", timeout=TIMEOUT)
        if response.status_code == _NOT_FOUND:
            raise _missing(f"{where}@{revision}")
        hf_raise_for_status(response)
        try:
            answer = response.json()
            if answer.get("Success") is False:  # it says so with 200 as well
                raise _missing(f"{where}@{revision}")
            files = [
                _file(entry)
                for entry in within_entries(answer["Data"]["Files"], where)
                if entry["Type"] != "tree"
            ]
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise no_listing(where, VARIABLE) from error
        return Listing(repository, revision, tuple(files))

    def request(self, listing: Listing, file: RemoteFile) -> DownloadRequest:
        """Return how to ask for `file`."""
        query = urlencode({"Revision": listing.revision, "FilePath": file.name})
        return DownloadRequest(f"{self._repo(listing.repository)}?{query}")

    def _repo(self, repository: str) -> str:
        return f"{self.address}/api/v1/models/{repository}/repo"


def _file(entry: Any) -> RemoteFile:
    """Return a file as an entry describes it. Raises KeyError, TypeError and ValueError for what is none."""
    path, size = entry["Path"], entry["Size"]
    if not isinstance(path, str) or type(size) is not int or size < 0:
        raise ValueError(path)
    return RemoteFile(path, size, str(entry.get("Sha256") or ""))


def _missing(where: str) -> CheckpointError:
    return CheckpointError(
        say("下载来源没有这个仓库或版本", "there is no such repository or revision"),
        say("用 --repo、--revision 指定", "name one with --repo and --revision"),
        where=where,
    )
