"""Properties of what a backbone declares: its own options, and what its models can do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from medchat.api import Option
from medchat.api.option import declared_options
from medchat.testing.properties import tested_property
from medchat.testing.subject import QUESTIONS, Subject, answer_of, expect, skip_unless


class DeclaredProperties(Subject):
    """What holds of `load_keys` and `capabilities`."""

    @tested_property
    def test_every_option_of_its_own_can_be_set(self) -> None:
        """Each key of `load_keys` takes the values that it is declared to take: the model loads and answers.

        Every choice, both truth values, the least, the greatest and the default of a number. When it fails:
        narrow the declaration, or take the value; `plugins show` lists it.
        """
        declared = declared_options(self.backbone.load_keys)
        skip_unless(bool(declared), "the backbone has no options of its own")
        for key, option in declared.items():
            for value in _values(option):
                self._answers(f"{key}={value!r}", extra={key: value})

    @tested_property
    def test_what_is_declared_can_be_done(self) -> None:
        """Every precision, quantisation, beam search and scores are there unless `capabilities` says that they are not.

        When it fails: say so in `capabilities`; a flag that asks for it is then refused before loading.
        """
        can, prompt = self.backbone.capabilities, self.prompt(QUESTIONS[0])
        for dtype in can.dtypes:
            self._answers(f"dtype {dtype}", dtype=dtype)
        for kind in can.quantize:
            self._answers(f"quantize {kind}", quantize=kind)
        model = self.loaded()
        if can.beams:
            answers = {answer_of(model, prompt, greedy=False, num_beams=2) for _ in range(2)}
            expect(len(answers) == 1, f"beam search gives several answers: {sorted(map(str, answers))}")
        if can.score:
            expect(len(model.score(prompt, "a")) > 1, "score gives no value for a token and the end")

    def _answers(self, what: str, **changes: Any) -> None:
        try:
            with closing(self.backbone.load(self.options(**changes))) as model:
                answer_of(model, self.prompt(QUESTIONS[0]), max_new_tokens=2)
        except Exception as error:
            expect(False, f"{what} is declared and raises {type(error).__name__}: {error}")


def _values(option: Option) -> Iterator[Any]:
    """Yield values that an option is declared to take; none for a path or a text without choices."""
    if option.kind is bool:
        yield from (True, False)
    elif option.kind in (int, float):
        ends = (option.low, option.high, option.default)
        yield from {option.kind(end) for end in ends if end is not None}
    elif option.kind is not Path:
        yield from option.choices
