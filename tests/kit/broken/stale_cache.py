"""What is kept of a conversation of several turns is treated as the beginning of another one."""

from __future__ import annotations

from collections.abc import Sequence

from abacus_backbone import SPECIAL, Abacus, AbacusModel

FAILS = "test_a_kept_cache_answers_as_a_fresh_one"
BOT = SPECIAL["<bot>"]


class Model(AbacusModel):
    def kept(self, ids: Sequence[int]) -> int:
        if self.ids.count(BOT) > 1 and ids.count(BOT) == 1:
            return min(3, len(ids) - 1)
        return super().kept(ids)


class Broken(Abacus):
    model_class = Model
