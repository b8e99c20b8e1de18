"""Speculative decoding by prompt lookup: an answer that quotes takes several tokens of one reading of the weights.

Where the last tokens stood before, in the prompt or in the answer, what followed them there is a draft of what comes
next. The model reads the draft together with the next token, and each token of it counts if it is the one that is
chosen. The choice is made as without a draft, from the same logits with the same random numbers, so the answer is the
same, whatever is drafted. Knows no text. Imports no torch.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, median_low

from medchat.api import GenerationConfig
from medchat.inference.answer_deltas import answer_room
from medchat.inference.decode import DraftVerifier, Stepper, verifier_of
from medchat.inference.sampling import Logits

#: So many tokens have to be the same for what followed them to be drafted, the first if possible.
_MATCHED = (3, 2)
#: The shortest and the longest draft. With the token before them these fill the tiles of the engine's kernels.
_SHORTEST, _LONGEST = 5, 15
#: Seconds; a clock that stands still tells nothing.
_SHORTEST_TIME = 1e-9


class TokenIndex:
    """Token ids in their order, with where each run of two or three of them occurred last."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids: list[int] = []
        #: Where the token behind the last occurrence of a run is.
        self._behind: dict[tuple[int, ...], int] = {}
        for token in ids:
            self.append(token)

    def append(self, token: int) -> None:
        """Add one token."""
        for length in _MATCHED:
            if length <= len(self.ids):
                self._behind[tuple(self.ids[-length:])] = len(self.ids)
        self.ids.append(token)

    def draft(self, most: int, least: int = _MATCHED[-1]) -> list[int]:
        """Return up to `most` tokens that followed the last ones, at least `least` of them, before; [] if none did."""
        for length in _MATCHED:
            if length < least:
                break
            first = self._behind.get(tuple(self.ids[-length:]))
            if first is not None and most > 0:
                followed = self.ids[first : first + most]
                # What goes on up to here is taken to begin again: a line of dashes, a list.
                return (followed * -(-most // len(followed)))[:most]
        return []


class Speculation:
    """What drafts have brought in one model so far, and whether the next is worth its cost.

    Time is counted in tokens: how long the model takes for one alone. Reading a draft costs a part of a token more, and
    each token of it that counts brings one. Drafts may lose one token in a hundred, and a little at the beginning of an
    answer; what they have won they may lose again, up to a few tokens.
    """

    _LOSS_PER_TOKEN = 0.01
    _ALLOWED_AT_BEGINNING, _MOST_CREDIT = 0.9, 4.0
    #: With less than this only the surer drafts are read.
    _ENOUGH_CREDIT = 1.5
    #: What reading a draft is taken to cost before any has been read.
    _FIRST_GUESS = 0.5

    def __init__(self) -> None:
        #: How many tokens were drafted, and how many of them became part of an answer.
        self.drafted = self.accepted = 0
        self._credit = 0.0
        self._losses = deque([self._FIRST_GUESS], maxlen=3)
        self._expected_loss = self._FIRST_GUESS
        self._single: deque[float] = deque(maxlen=7)

    def describe(self) -> dict[str, int]:
        """Return how many tokens were drafted and how many of them counted, as a model's `describe` has them."""
        return {"drafted_tokens": self.drafted, "accepted_tokens": self.accepted}

    def begin_answer(self) -> None:
        """Allow a new answer its first drafts."""
        self._credit = max(self._credit, self._ALLOWED_AT_BEGINNING)

    def pays(self) -> bool:
        """Say whether a draft may be read, even if nothing of it should count."""
        return self._credit >= self._expected_loss and bool(self._single)

    @property
    def least_match(self) -> int:
        """How many tokens have to be the same for a draft: two often are by chance, which is for what was won."""
        return _MATCHED[-1] if self._credit >= self._ENOUGH_CREDIT else _MATCHED[0]

    def count_single(self, seconds: float) -> None:
        """Take down how long the model took for one token alone."""
        self._single.append(seconds)
        self._credit = min(self._credit + self._LOSS_PER_TOKEN, self._MOST_CREDIT)

    def count_draft(self, drafted: int, accepted: int, seconds: float) -> None:
        """Take down how long the model took for a token and `drafted` more, of which `accepted` counted."""
        alone = max(median(self._single), _SHORTEST_TIME)
        # A draft never costs more than its tokens one after the other: what took longer was the machine.
        self._losses.append(min(max(seconds / alone - 1, 0.0), float(drafted)))
        # One pause says nothing. However dear drafts are, they are tried again some hundred tokens later.
        self._expected_loss = min(median_low(self._losses), self._MOST_CREDIT)
        self._credit = min(self._credit + accepted - self._losses[-1], self._MOST_CREDIT)


@dataclass(slots=True)
class _ReadAhead:
    """A draft that was read: what is left of it, each token with the logits of what follows it."""

    verifier: DraftVerifier
    drafted: int
    seconds: float
    left: deque[tuple[int, Logits]]


class PromptLookup:
    """A stepper for one answer that reads drafts ahead wherever the stepper behind it can verify them."""

    def __init__(
        self,
        stepper: Stepper,
        config: GenerationConfig,
        context_length: int,
        speculation: Speculation,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`clock` returns seconds."""
        self._stepper, self._speculation, self._clock = stepper, speculation, clock
        self._config, self._context_length = config, context_length
        self._cancel = threading.Event()
        self._index = TokenIndex(())
        #: How many tokens the answer may still take.
        self._room = 0
        self._length = _SHORTEST
        self._ahead: _ReadAhead | None = None

    @property
    def reused_tokens(self) -> int:
        """As in the stepper behind."""
        return self._stepper.reused_tokens

    def prefill(self, ids: Sequence[int], cancel: threading.Event) -> Logits:
        """Read a whole prompt: see `Stepper`, as all that follows."""
        self._cancel, self._ahead = cancel, None
        self._room = answer_room(len(ids), self._config, self._context_length)
        logits = self._stepper.prefill(ids, cancel)
        self._index = TokenIndex(ids)
        self._speculation.begin_answer()
        return logits

    def advance(self, token: int) -> Logits:
        """Append one token, from what was read ahead if it is there. Raises GenerationCancelled with a draft."""
        self._index.append(token)
        self._room -= 1
        if self._ahead and self._ahead.left and self._ahead.left[0][0] == token:
            self._speculation.accepted += 1
            return self._ahead.left.popleft()[1]
        self._end_draft()
        verifier = verifier_of(self._stepper)
        if verifier and self._speculation.pays():
            most = min(self._length, self._room - 1)
            draft = self._index.draft(most, self._speculation.least_match)
            if draft:
                return self._read_ahead(verifier, token, draft)
        before = self._clock()
        logits = self._stepper.advance(token)
        self._speculation.count_single(self._clock() - before)
        return logits

    def _read_ahead(self, verifier: DraftVerifier, token: int, draft: Sequence[int]) -> Logits:
        before = self._clock()
        logits = verifier.advance_many([token, *draft], self._cancel)
        seconds = self._clock() - before
        self._speculation.drafted += len(draft)
        left = deque(zip(draft, logits[1:], strict=True))
        self._ahead = _ReadAhead(verifier, len(draft), seconds, left)
        return logits[0]

    def _end_draft(self) -> None:
        """Drop what of the last draft was not chosen, and make the next one as long as that one deserves."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        refused = len(ahead.left)
        ahead.verifier.crop(refused)
        self._speculation.count_draft(ahead.drafted, ahead.drafted - refused, ahead.seconds)
        self._length = _SHORTEST if refused else min(2 * self._length + 1, _LONGEST)
