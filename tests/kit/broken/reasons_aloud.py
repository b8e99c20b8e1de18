"""What the model thinks before it answers stands in the answer."""

from __future__ import annotations

from abacus_backbone import LEARNED, SPECIAL, Abacus, AbacusModel

FAILS = "test_reasoning_is_no_part_of_an_answer"
TAG = b"<think>"


class Model(AbacusModel):
    def logits(self) -> dict[int, float]:
        found = super().logits()
        if LEARNED not in found.values() and SPECIAL["<bot>"] in self.ids:
            said = self.ids[len(self.ids) - self.ids[::-1].index(SPECIAL["<bot>"]) :]
            if len(said) < len(TAG) and bytes(said) == TAG[: len(said)]:
                found[TAG[len(said)]] = LEARNED / 2
        return found


class Broken(Abacus):
    model_class = Model
