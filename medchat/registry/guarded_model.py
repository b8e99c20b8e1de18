"""A loaded model of a plugin behind the guard: every call and every piece of an answer is looked at."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from medchat.api import (
    AnswerIds,
    BatchScoringModel,
    BatchStreamingModel,
    ChatModel,
    Completion,
    Control,
    Delta,
    Finish,
    GenerationConfig,
    PromptParts,
    Segment,
)
from medchat.language import say
from medchat.registry.answer_check import AnswerCheck, refuse_ending
from medchat.registry.contract import ContractError, mismatch, require
from medchat.registry.metadata import PluginEntry
from medchat.registry.plugin import ON_PURPOSE, asked, guarded
from medchat.registry.under_way import under_way

Answer = TypeVar("Answer")
#: What a model must have besides `context_length`.
_METHODS = ("stream", "generate_batch", "score", "count", "describe", "close")
#: What `describe` tells at least.
_DESCRIBED = ("backbone", "model", "dtype", "device")
#: An answer that continues for so many seconds after it was cancelled is ended here.
PATIENCE = 1.0
#: A probability may come out above 1 by so much (its logarithm above 0): rounding in float16.
_ROUNDING = 0.01


class GuardedModel:
    """The model `inner` of the plugin behind `entry`. Raises BrokenPluginError for what is against `ChatModel`.

    A MedchatError that the plugin raises on purpose passes unchanged. A second `close` does nothing.
    """

    def __init__(self, inner: ChatModel, entry: PluginEntry) -> None:
        self.inner, self._entry = inner, entry
        self._closed = False

    @property
    def context_length(self) -> int:
        """See `ChatModel`, as all that follows. Raises BrokenPluginError for what is no positive number."""
        length = self._asked("context_length", lambda: self.inner.context_length, int)
        with guarded(self._entry, "context_length"):
            if length < 1:
                raise ContractError(say(f"{length} 不是正数", f"{length} is not positive"))
        return length

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        return self._answer("stream", lambda: self.inner.stream(segments, config, cancel), cancel)

    @property
    def exact_in_batch(self) -> bool:
        """See `BatchStreamingModel`; False for any other model."""
        inner = self.inner
        if not isinstance(inner, BatchStreamingModel):
            return False
        return self._asked("exact_in_batch", lambda: inner.exact_in_batch, bool)

    def stream_in_batch(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """See `BatchStreamingModel`; any other model streams the answer alone."""
        inner = self.inner
        if not isinstance(inner, BatchStreamingModel):
            return self.stream(segments, config, cancel)
        return self._answer(
            "stream_in_batch", lambda: inner.stream_in_batch(segments, config, cancel), cancel
        )

    def generate_batch(
        self, prompts: Sequence[Sequence[Segment]], config: GenerationConfig
    ) -> list[Completion]:
        completions = self._asked(
            "generate_batch", lambda: self.inner.generate_batch(prompts, config), list[Completion]
        )
        with guarded(self._entry, "generate_batch"):
            if len(completions) != len(prompts):
                given, wanted = len(completions), len(prompts)
                raise ContractError(
                    say(
                        f"对 {wanted} 个问题给出了 {given} 个回答",
                        f"gave {given} answers to {wanted} questions",
                    )
                )
            for completion in completions:
                refuse_ending(completion, said=bool(completion.text))
        return list(completions)

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        found = tuple(self._asked("score", lambda: self.inner.score(segments, answer), tuple[float, ...]))
        with guarded(self._entry, "score"):
            _require_scores(found)
        return found

    def score_batch(
        self, prompts: Sequence[Sequence[Segment]], answers: Sequence[Sequence[str]]
    ) -> list[list[tuple[float, ...]]]:
        """See `BatchScoringModel`; of any other model one answer after the other is scored.

        Raises BrokenPluginError for what are no log-probabilities, or not one result for each answer.
        """
        inner = self.inner
        if not isinstance(inner, BatchScoringModel):
            pairs = zip(prompts, answers, strict=True)
            return [[self.score(prompt, answer) for answer in options] for prompt, options in pairs]
        found = self._asked(
            "score_batch", lambda: inner.score_batch(prompts, answers), list[list[tuple[float, ...]]]
        )
        with guarded(self._entry, "score_batch"):
            if [len(scored) for scored in found] != [len(options) for options in answers]:
                raise ContractError(
                    say("结果与问题、答案的个数不符", "not one result for each answer of each prompt")
                )
            for scored in found:
                for values in scored:
                    _require_scores(values)
        return [[tuple(values) for values in scored] for scored in found]

    def count(self, segments: Sequence[Segment]) -> int:
        found = self._asked("count", lambda: self.inner.count(segments), int)
        with guarded(self._entry, "count"):
            least = any(isinstance(part, Control) or part.text for part in segments)
            if found < least:
                raise ContractError(
                    say(
                        f"提示词不为空，却得到 {found} 个词元",
                        f"{found} tokens for a prompt that is not empty",
                    )
                )
        return found

    def describe(self) -> Mapping[str, Any]:
        found = self._asked("describe", lambda: self.inner.describe(), Mapping[str, Any])
        with guarded(self._entry, "describe"):
            missing = [name for name in _DESCRIBED if name not in found]
            if missing:
                names = ", ".join(missing)
                raise ContractError(say(f"缺少 {names}", f"lacks {names}"))
        self._asked("describe: notes", lambda: found.get("notes", ()), Sequence[str])
        self._check_prices(found.get("prices"))
        return found

    def _check_prices(self, prices: Any) -> None:
        if prices is None:
            return
        with guarded(self._entry, "describe: prices"):
            require(prices, Mapping[str, float | str])
            kinds = {"prompt": float, "completion": float, "currency": str}
            for name, kind in kinds.items():
                require(prices.get(name), kind, name)
            if not all(0 <= prices[name] < math.inf for name in ("prompt", "completion")):
                raise ContractError(say("价格不是非负数", "a price that is no number from 0 up"))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._asked("close", self.inner.close, object)

    def _asked(self, where: str, question: Callable[[], Answer], hint: Any) -> Answer:
        return asked(self._entry, where, question, hint)

    def _answer(
        self, where: str, begin: Callable[[], Iterator[Delta]], cancel: threading.Event, begun: str = ""
    ) -> Iterator[Delta]:
        check, left_at = AnswerCheck(begun), 0.0
        with guarded(self._entry, where, ON_PURPOSE):
            deltas = begin()
            advance = iter(deltas).__next__
        with under_way(self._entry, where):
            try:
                while True:
                    # A plain `try`, entered at no cost: this runs for every token.
                    try:
                        delta = advance()
                        check.take(delta)
                    except StopIteration:
                        break
                    except BaseException:
                        with guarded(self._entry, where, ON_PURPOSE):
                            raise
                    yield delta
                    if cancel.is_set() and delta.finish is None:
                        left_at = left_at or time.monotonic()
                        if time.monotonic() - left_at > PATIENCE:
                            yield _cancelled(delta)
                            return
                with guarded(self._entry, where):
                    check.end(cancelled=cancel.is_set())
            finally:
                self._close_answer(where, deltas)

    def _close_answer(self, where: str, deltas: object) -> None:
        """End an answer that nobody asks to the end: the plugin may hold something for it."""
        close = getattr(deltas, "close", None)
        if close is not None:
            with guarded(self._entry, where, ON_PURPOSE):
                close()


class _Continuing(GuardedModel):
    def go_on(
        self, segments: Sequence[Segment], answer: str, config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        inner: Any = self.inner
        return self._answer("go_on", lambda: inner.go_on(segments, answer, config, cancel), cancel, answer)


class _WithIds(GuardedModel):
    def prompt_ids(self, segments: Sequence[Segment]) -> Sequence[int]:
        inner: Any = self.inner
        return self._asked("prompt_ids", lambda: inner.prompt_ids(segments), Sequence[int])

    def prompt_parts(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """Return the segments themselves for a model that tells no more of them."""
        inner = self.inner
        if not isinstance(inner, PromptParts):
            return segments
        return self._asked("prompt_parts", lambda: inner.prompt_parts(segments), Sequence[Segment])

    def answer_ids(self, answer: str) -> Sequence[int]:
        """Return none for a model that does not tell them."""
        inner = self.inner
        if not isinstance(inner, AnswerIds):
            return ()
        return self._asked("answer_ids", lambda: inner.answer_ids(answer), Sequence[int])


class _ContinuingWithIds(_Continuing, _WithIds):
    pass


#: By what it can do beyond `ChatModel`: continue with an answer, tell ids. Others ask by `isinstance`.
_KINDS: Mapping[tuple[bool, bool], type[GuardedModel]] = {
    (False, False): GuardedModel,
    (True, False): _Continuing,
    (False, True): _WithIds,
    (True, True): _ContinuingWithIds,
}


def guarded_model(model: ChatModel, entry: PluginEntry, where: str) -> ChatModel:
    """Return the model that the plugin gave in `where` behind its guard. Raises BrokenPluginError where it is none."""
    with guarded(entry, where):
        if isinstance(model, type):
            raise mismatch("ChatModel", model)
        lacking = [name for name in _METHODS if not callable(getattr(model, name, None))]
        if lacking:
            got, names = type(model).__name__, ", ".join(lacking)
            raise ContractError(
                say(
                    f"应当返回 ChatModel，却得到 {got}：没有 {names}",
                    f"expected ChatModel, got {got}: no {names}",
                )
            )
        goes_on = callable(getattr(model, "go_on", None))
        tells_ids = callable(getattr(model, "prompt_ids", None))
    return _KINDS[goes_on, tells_ids](model, entry)


def given_model(model: ChatModel) -> ChatModel:
    """Return the model as its plugin knows it."""
    return model.inner if isinstance(model, GuardedModel) else model


def _require_scores(values: Sequence[float]) -> None:
    if not values or not all(value <= _ROUNDING for value in values):
        raise ContractError(
            say(
                "应为每个词元的对数概率（不大于 0）",
                "expected a log-probability for each token, none above 0",
            )
        )


def _cancelled(last: Delta) -> Delta:
    return Delta("", last.completion_tokens, last.prompt_tokens, finish=Finish.CANCELLED)
