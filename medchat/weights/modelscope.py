"""ModelScope as a source of weights: `pip install medchat[modelscope]`.

Its library says what there is and where each file is fetched; the bytes come through `fetching`.
"""

from __future__ import annotations

from typing import Any

from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.language import say
from medchat.weights.source import DownloadRequest, Listing, RemoteFile


class ModelScope:
    """modelscope.cn through its own library, which must be installed."""

    name = "modelscope"
    default_revision = "master"
    address = "https://modelscope.cn"

    def __init__(self) -> None:
        try:
            from modelscope.hub import file_download
            from modelscope.hub.api import HubApi
        except ImportError as error:
            raise UsageError(
                say("没有安装 modelscope 库", "the modelscope library is not installed"),
                "pip install 'medchat[modelscope]'",
            ) from error
        self._api: Any = HubApi()
        self._url: Any = file_download.get_file_download_url

    def listing(self, repository: str, revision: str) -> Listing:
        """Return the files of the repository. Raises CheckpointError where there is no such thing."""
        try:
            found = self._api.get_model_files(repository, revision=revision, recursive=False)
        except Exception as error:
            # The library raises its own errors, requests' and plain ones: all it can say is in the text.
            if _is_missing(error):
                raise CheckpointError(
                    say("来源处没有这个仓库或版本", "there is no such repository or revision"),
                    say("用 --repo、--revision 指定", "name one with --repo and --revision"),
                    where=f"{self.address}/models/{repository}@{revision}",
                ) from error
            raise MedchatError(
                say(f"ModelScope 没有应答：{error}", f"ModelScope did not answer: {error}"),
                say("检查网络后再试", "check the network and try again"),
                where=f"{self.address}/models/{repository}",
            ) from error
        files = [
            RemoteFile(str(file["Path"]), int(file["Size"]), str(file.get("Sha256") or ""))
            for file in found
            if file.get("Type") != "tree"
        ]
        return Listing(repository, revision, tuple(files))

    def request(self, listing: Listing, file: RemoteFile) -> DownloadRequest:
        """Return how to ask for `file`."""
        return DownloadRequest(str(self._url(listing.repository, file.name, listing.revision)))


def _is_missing(error: Exception) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status == 404 or type(error).__name__ == "NotExistError"
