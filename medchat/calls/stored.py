"""Calls whose answers are kept: a prompt that was answered once is never asked again, whenever the run was killed.

A call is known by its prompt. Answers are written in the order they come, by the thread that asked for them all.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medchat.api import Finish
from medchat.asking import OpenedModel
from medchat.batch.command_results import Results, open_results
from medchat.calls.callers import open_callers
from medchat.calls.limits import CallLimits
from medchat.cli.output import say_aside
from medchat.errors import DataError, MedchatError, UsageError
from medchat.language import say
from medchat.units import guess_tokens
from medchat.whole_answer import Answer, cost_of

#: A call that fails is asked again, so often in all; what is wrong with the usage, once.
_TRIES = 3
#: So many calls failing one after the other, and at least as many as go at a time, end the run.
_FAILURES_IN_A_ROW = 3
#: What a chat template adds to a prompt, in tokens.
_AROUND_PROMPT = 20
#: Seconds between two lines on how far it is.
_REPORT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer that is on disk. `day` is when it came (YYYY-MM-DD), `sha256` the digest of its prompt."""

    text: str
    finish: Finish
    day: str
    sha256: str


@dataclass(frozen=True, slots=True)
class CallEstimate:
    """What prompts would take at most: calls still to be made, their tokens, and the cost, None without prices."""

    calls: int
    prompt_tokens: int
    answer_tokens: int
    cost: float | None


class StoredCalls:
    """The calls of one command to one model. Made by `open_calls`; used in one thread."""

    def __init__(self, opened: OpenedModel, results: Results, limits: CallLimits) -> None:
        """Raises UsageError for a budget without prices."""
        self._opened, self._results, self._limits = opened, results, limits
        self._prices = limits.prices(opened.model.describe().get("prices"))
        self._longest_answer = int(opened.provenance["decoding"]["max_new_tokens"])
        self._answers = {row["prompt_sha256"]: _read(row) for row in results.rows.values()}
        self._next_index = max(results.rows, default=-1) + 1
        self._cancel = threading.Event()
        self._failed_in_a_row, self._unit = 0, 1.0
        #: What the calls have cost by the prices, those of earlier runs included; a failed one as much as it could.
        self.cost: float = sum(
            self._cost(row["prompt_tokens"], row["tokens"]) for row in results.rows.values()
        )
        #: Why prompts have no answer, by prompt: what their calls ended with.
        self.failures: dict[str, MedchatError] = {}
        #: Whether calls were left out because they could have passed the budget.
        self.over_budget: bool = False

    def estimate(self, prompts: Iterable[str]) -> CallEstimate:
        """Return what asking the prompts would take at most, as far as they have no answer yet."""
        new = self._without_answer(prompts)
        prompt_tokens = sum(map(self._prompt_tokens, new))
        answer_tokens = len(new) * self._longest_answer
        cost = self._cost(prompt_tokens, answer_tokens) if self._prices else None
        return CallEstimate(len(new), prompt_tokens, answer_tokens, cost)

    def answer(self, prompts: Iterable[str]) -> Mapping[str, StoredAnswer]:
        """Return the answers by prompt; those that are not on disk are asked for.

        A prompt whose call failed three times, or that the budget leaves no room for, is not in it: `failures` and
        `over_budget` say so. Raises what the model raises if it keeps failing; what had come is on disk.
        """
        wanted = dict.fromkeys(prompts)
        if waiting := deque(self._without_answer(wanted)):
            self._ask_all(waiting)
        return self.stored(wanted)

    def stored(self, prompts: Iterable[str]) -> Mapping[str, StoredAnswer]:
        """Return the answers that are on disk, by prompt; nothing is asked."""
        return {prompt: self._answers[key] for prompt in prompts if (key := _digest(prompt)) in self._answers}

    def _without_answer(self, prompts: Iterable[str]) -> list[str]:
        return [prompt for prompt in dict.fromkeys(prompts) if _digest(prompt) not in self._answers]

    def _ask_all(self, waiting: deque[str]) -> None:
        tries: Counter[str] = Counter()
        under_way: dict[Future[Answer], str] = {}
        total, reported = len(waiting), time.monotonic()
        with open_callers(self._opened, self._limits.concurrency, self._cancel) as callers:
            try:
                while waiting or under_way:
                    room = callers.width - len(under_way)
                    while waiting and room > 0 and self._fits(waiting[0], under_way.values()):
                        prompt, room = waiting.popleft(), room - 1
                        under_way[callers.submit(prompt)] = prompt
                    if not under_way:
                        self.over_budget = True
                        break
                    ended = [(under_way.pop(future), future) for future in callers.ended(under_way)]
                    again = self._store(ended, callers.width)
                    tries.update(again)
                    waiting.extend(prompt for prompt in again if tries[prompt] < _TRIES)
                    if time.monotonic() - reported > _REPORT_SECONDS:
                        reported, left = time.monotonic(), len(waiting) + len(under_way)
                        say_aside(
                            say(f"已完成 {total - left}/{total} 次调用", f"{total - left} of {total} calls")
                        )
            except BaseException:
                self._cancel.set()
                callers.end_all(under_way)
                self._store_what_came(under_way)
                raise

    def _store(self, ended: Sequence[tuple[str, Future[Answer]]], workers: int) -> list[str]:
        """Put the answers on disk; return the prompts to ask again. Raises the error of one failure too many."""
        again, rows = [], []
        last: MedchatError | None = None
        for prompt, future in ended:
            error = future.exception()
            if error is None:
                rows.append(self._row(prompt, future.result()))
                self.failures.pop(prompt, None)
                self._failed_in_a_row = 0
            elif isinstance(error, MedchatError):
                self.cost += self._worst_cost(prompt)
                self.failures[prompt] = last = error
                self._failed_in_a_row += 1
                if not isinstance(error, UsageError):
                    again.append(prompt)
            else:
                self._keep(rows)
                raise error
        self._keep(rows)
        if last is not None and self._failed_in_a_row >= max(_FAILURES_IN_A_ROW, workers):
            raise last
        return again

    def _store_what_came(self, under_way: Mapping[Future[Answer], str]) -> None:
        came = [(prompt, future) for future, prompt in under_way.items() if future.exception() is None]
        whole = [(prompt, future.result()) for prompt, future in came]
        self._keep([self._row(*one) for one in whole if one[1].finish is not Finish.CANCELLED])

    def _keep(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._results.extend(rows)
        self._answers.update({row["prompt_sha256"]: _read(row) for row in rows})

    def _row(self, prompt: str, answer: Answer) -> Mapping[str, Any]:
        """Return the line of an answer, and count it."""
        guessed = guess_tokens([prompt]) + _AROUND_PROMPT
        self._unit = max(self._unit, answer.prompt_tokens / guessed)
        self.cost += self._cost(answer.prompt_tokens, answer.completion_tokens)
        self._next_index += 1
        return {
            "index": self._next_index - 1,
            "prompt_sha256": _digest(prompt),
            "prompt": prompt,
            "answer": answer.text,
            "finish": str(answer.finish),
            "prompt_tokens": answer.prompt_tokens,
            "tokens": answer.completion_tokens,
            "tokens_estimated": answer.estimated,
            "date": date.today().isoformat(),
            **self._opened.provenance,
        }

    def _fits(self, prompt: str, under_way: Iterable[str]) -> bool:
        """Whether the call stays within the budget, whatever it and those under way take."""
        if self._limits.budget is None:
            return True
        kept = sum(map(self._worst_cost, under_way))
        return self.cost + kept + self._worst_cost(prompt) <= self._limits.budget

    def _worst_cost(self, prompt: str) -> float:
        return self._cost(self._prompt_tokens(prompt), self._longest_answer)

    def _prompt_tokens(self, prompt: str) -> int:
        """Return about the most tokens of a prompt; a server that counted more for earlier ones has its way."""
        return round((guess_tokens([prompt]) + _AROUND_PROMPT) * self._unit)

    def _cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        return cost_of(self._prices, prompt_tokens, answer_tokens) if self._prices else 0.0


@contextmanager
def open_calls(
    path: Path,
    opened: OpenedModel,
    limits: CallLimits,
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Mapping[str, Path] = MappingProxyType({}),
) -> Iterator[StoredCalls]:
    """Open the file of a command's calls (JSON lines, mode 0600): `with open_calls(…) as calls:`.

    It is held, repaired and continued as a file of `open_results`. Raises what that raises, DataError for
    lines that are no calls, UsageError where they were made by another model or with other settings, or for a
    budget without prices.
    """
    with open_results(path, resume=resume, overwrite=overwrite, inputs=inputs) as results:
        for index, row in results.rows.items():
            if not _is_call(row):
                raise DataError(
                    say(f"index {index} 不是调用的记录", f"the line with index {index} is no call"),
                    say("换一个 --output", "use another --output"),
                    where=str(path),
                )
            opened.require_same(row, str(path))
        yield StoredCalls(opened, results, limits)


def _is_call(row: Mapping[str, Any]) -> bool:
    texts = all(isinstance(row.get(name), str) for name in ("prompt_sha256", "answer", "finish", "date"))
    counts = all(type(row.get(name)) is int for name in ("prompt_tokens", "tokens"))
    return texts and counts and row["finish"] in set(Finish)


def _read(row: Mapping[str, Any]) -> StoredAnswer:
    return StoredAnswer(row["answer"], Finish(row["finish"]), row["date"], row["prompt_sha256"])


def _digest(prompt: str) -> str:
    return hashlib.sha256(prompt.encode(errors="backslashreplace")).hexdigest()
