"""The scripted backbone with published weights of a test's own, read from the file that a variable names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import scripted_backbone

from medchat import api
from medchat.hookspecs import hookimpl

medchat_api_version = 1
VARIABLE = "TEST_PUBLISHED_WEIGHTS"


def read_published(file: Path) -> tuple[api.KnownWeights, ...]:
    """Return the weights that a JSON file states."""
    return tuple(
        api.KnownWeights(
            **{
                **stated,
                "files": tuple(api.KnownFile(**one) for one in stated.get("files", ())),
                "fits": tuple(stated.get("fits", ())),
                "by_hand": tuple(stated.get("by_hand", ())),
            }
        )
        for stated in json.loads(file.read_text(encoding="utf-8"))
    )


class Published(scripted_backbone.Scripted):
    """Fulfils `medchat.api.Backbone`."""

    name = "published"

    def __init__(self) -> None:
        self.known_weights = read_published(Path(os.environ[VARIABLE]))


@hookimpl
def medchat_backbones() -> list[api.Backbone]:
    return [Published()]
