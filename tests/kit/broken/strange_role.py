"""The role of a special token is stated by a file that is older than the vocabulary."""

from __future__ import annotations

from dataclasses import replace

from abacus_backbone import Abacus

from medchat.api import LoadOptions, SpecialTokens

FAILS = "test_special_tokens_are_those_of_the_vocabulary"


class Broken(Abacus):
    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        found = super().special_tokens(options)
        return replace(found, roles={**found.roles, "bos_token": "<|begin|>"})
