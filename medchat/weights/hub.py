"""The Hugging Face hub, or a mirror of it (`HF_ENDPOINT`), as a source of weights.

`huggingface_hub` is imported when a source is made, never before. It is used to ask what there is; the
bytes themselves come through `fetching`, because since 2.x its own downloader throws a broken-off file
away, and one of ours can have 14 GB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from medchat import __version__
from medchat.errors import CheckpointError
from medchat.language import say
from medchat.weights.errors import no_listing, no_repository_name, within_entries
from medchat.weights.source import TIMEOUT, DownloadRequest, Listing, RemoteFile

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OFFICIAL = "https://huggingface.co"
#: Either of these set to a true value means that the hub's own library stays off the network.
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = ("1", "ON", "YES", "TRUE")


def offline_variable() -> str:
    """Return the name of the variable that forbids the network, "" if none does."""
    return next((name for name in OFFLINE_VARIABLES if os.environ.get(name, "").upper() in _TRUE), "")


class Hub:
    """The hub at `HF_ENDPOINT`, by default the official one."""

    name = "huggingface"
    default_revision = "main"

    def __init__(self) -> None:
        # Read when the library is imported: no figures on who downloads, no look for who is calling.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import HfApi

        from medchat.weights.client import use_bounded_client

        use_bounded_client()
        self.address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or OFFICIAL
        if urlsplit(self.address).scheme not in ("http", "https"):
            raise CheckpointError(
                say("HF_ENDPOINT 不是网址", "HF_ENDPOINT is not a web address"),
                "HF_ENDPOINT=https://…",
                where=self.address,
            )
        # A login is for the official hub: a mirror is somebody else's machine.
        self._token = None if self.address == OFFICIAL else False
        self._api: HfApi = HfApi(
            endpoint=self.address, token=self._token, library_name="medchat", library_version=__version__
        )

    def listing(self, repository: str, revision: str) -> Listing:
        """Return the files of the repository. Raises CheckpointError where it or the revision is missing."""
        from huggingface_hub.hf_api import RepoFile

        where = f"{self.address}/{repository}"
        with _listing_errors(repository, revision, where):
            about = self._api.model_info(repository, revision=revision, timeout=TIMEOUT)
            commit = about.sha or revision
            entries = self._api.list_repo_tree(repository, recursive=False, revision=commit)
            files = [
                RemoteFile(
                    file.path,
                    file.lfs.size if file.lfs else file.size,
                    file.lfs.sha256 if file.lfs else "",
                    "" if file.lfs else file.blob_id,
                )
                for file in within_entries(entries, where)
                if isinstance(file, RepoFile)
            ]
        return Listing(repository, commit, tuple(files))

    def request(self, listing: Listing, file: RemoteFile) -> DownloadRequest:
        """Return how to ask for `file`. Redirects to another host are followed without the login."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(listing.repository, file.name, revision=listing.revision, endpoint=self.address)
        headers = build_hf_headers(token=self._token, library_name="medchat", library_version=__version__)
        return DownloadRequest(url, headers)


@contextmanager
def _listing_errors(repository: str, revision: str, where: str) -> Iterator[None]:
    """Turn what the library raises for the list of a repository's files into MedchatError or UsageError."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except HFValidationError as error:
        raise no_repository_name(repository) from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        # What the library meets in an answer that is no hub's, or no JSON.
        raise no_listing(where, "HF_ENDPOINT") from error
    except GatedRepoError as error:
        raise CheckpointError(
            say(
                "作者要求先同意条款才能下载",
                "its owners require that their terms be accepted before the download",
            ),
            say("在网页上同意后运行：hf auth login", "accept them on its web page, then run: hf auth login"),
            where=f"{OFFICIAL}/{repository}",
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            say(f"仓库里没有版本 {revision}", f"the repository has no revision {revision}"),
            say("去掉 --revision，或给出提交号", "leave --revision out, or give a commit"),
            where=where,
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            say("下载来源没有这个仓库", "there is no such repository"),
            say("换一个来源：--repo 用户/名称", "choose another source: --repo OWNER/NAME"),
            where=where,
        ) from error
