"""`close` deletes what it deletes."""

from __future__ import annotations

from abacus_backbone import Abacus, AbacusModel

FAILS = "test_close_may_be_called_twice"


class Model(AbacusModel):
    def close(self) -> None:
        del self.ids, self.sums


class Broken(Abacus):
    model_class = Model
