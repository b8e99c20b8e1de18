"""It quantises to eight bits alone, and does not say so in `capabilities`."""

from __future__ import annotations

from abacus_backbone import Abacus

from medchat.api import ChatModel, LoadOptions
from medchat.errors import UsageError

FAILS = "test_what_is_declared_can_be_done"


class Broken(Abacus):
    def load(self, options: LoadOptions) -> ChatModel:
        if options.quantize == "int4":
            raise UsageError("no int4 here")
        return super().load(options)
