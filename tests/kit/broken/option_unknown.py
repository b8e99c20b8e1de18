"""One of the choices that it declares for an option of its own is unknown to it."""

from __future__ import annotations

from collections.abc import Mapping

from abacus_backbone import Abacus

from medchat.api import ChatModel, LoadOptions, Option

FAILS = "test_every_option_of_its_own_can_be_set"


class Broken(Abacus):
    load_keys: Mapping[str, Option | tuple[str, ...]] = {
        **Abacus.load_keys,
        "order": Option(choices=("little", "big")),
        "size": Option(kind=int, low=1, high=4, default=2),
    }

    def load(self, options: LoadOptions) -> ChatModel:
        {"little": "<"}[options.extra.get("order", "little")]
        return super().load(options)
