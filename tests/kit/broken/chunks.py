"""Behind a long cache, pieces of some sizes are read wrongly, as by the wheel of llama.cpp that was."""

from __future__ import annotations

from collections.abc import Sequence

from abacus_backbone import Abacus, AbacusModel

FAILS = "test_a_prompt_reads_the_same_in_pieces"


class Model(AbacusModel):
    def read(self, ids: Sequence[int]) -> int:
        kept = super().read(ids)
        if kept > 180 and 16 < len(ids) - kept < 40:
            self.sums[-1] ^= 1
        return kept


class Broken(Abacus):
    model_class = Model
