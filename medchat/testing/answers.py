"""Properties of answers: the same however they are asked for, whole, bounded, and ended when that is wished."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice

from medchat.api import ChatModel, Delta, Finish, GenerationConfig, PromptIds, Segment, Text, Turn
from medchat.errors import UsageError
from medchat.registry.answer_check import AnswerCheck
from medchat.registry.contract import ContractError
from medchat.testing.properties import tested_property
from medchat.testing.subject import GREEDY, QUESTIONS, Subject, answer_of, answers_together, deltas_of, expect

#: So many tokens at the end of a prompt are read in one piece, behind what was kept of it.
PIECES = (1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 64)
#: Answers are cut at every length up to this.
CUTS = 16
#: What most models write around their reasoning.
REASONING_TAGS = ("<think>", "</think>")


class AnswerProperties(Subject):
    """What holds of every answer."""

    @tested_property
    def test_a_prompt_reads_the_same_in_pieces(self) -> None:
        """A prompt whose end is read behind what is kept of its beginning, in pieces of any size, is the same prompt.

        When it fails: positions, masks or the size of a chunk go wrong where a prompt is read behind a cache.
        The message names the piece; compare the logits behind it with those of the whole prompt. A library may be
        at fault: one of llama.cpp gave wrong logits from the seventeenth token of a piece on.
        """
        question = " ".join(QUESTIONS * 3)
        with closing(self.fresh()) as fresh:
            expected = answer_of(fresh, self.prompt(question))
        for size in PIECES:
            answer_of(self.loaded(), [Text(question[:-size])], max_new_tokens=1)
            answer_of(self.loaded(), self.prompt(question[:-size]), max_new_tokens=1)
            got = answer_of(self.loaded(), self.prompt(question))
            expect(
                got == expected, f"with the last {size} characters read apart: {got!r}, whole: {expected!r}"
            )

    @tested_property
    def test_a_kept_cache_answers_as_a_fresh_one(self) -> None:
        """What a model keeps from turn to turn changes no answer; and it keeps something.

        When it fails: the cache holds tokens of another conversation, or more than the new prompt has in common
        with the old one. Compare by token ids, and read the last token of the prompt again. A model that can keep
        nothing, such as one whose prompt attends in both directions, declares it.
        """
        turns: tuple[Turn, ...] = ()
        for question in QUESTIONS:
            *_, last = deltas_of(self.loaded(), prompt := self.prompt(question, turns))
            answer = answer_of(self.loaded(), prompt)
            self._same_as_fresh(prompt, answer)
            if turns:
                expect(last.reused_tokens > 0, "reused_tokens is 0 in a further turn: nothing was kept")
            expect(last.reused_tokens < last.prompt_tokens, "the last token of a prompt must be read again")
            turns = (*turns, Turn(question, answer[0]))
        for other in (QUESTIONS[1] + QUESTIONS[0], QUESTIONS[0] + QUESTIONS[1]):  # nothing of these was kept
            prompt = self.prompt(other)
            self._same_as_fresh(prompt, answer_of(self.loaded(), prompt))

    def _same_as_fresh(self, prompt: tuple[Segment, ...], answer: tuple[str, Finish | None]) -> None:
        with closing(self.fresh()) as fresh:
            expected = answer_of(fresh, prompt)
        expect(answer == expected, f"with the kept cache: {answer!r}, afresh: {expected!r}")

    @tested_property
    def test_a_batch_answers_as_each_prompt_alone(self) -> None:
        """`generate_batch`, and `stream_in_batch` where it is exact, give what `stream` gives, each in its place.

        In every precision of `tolerances`; there two answers may part where their next tokens are nearly as likely.
        When it fails: padding is seen (mask and positions of the shorter rows), the order is lost, or a setting
        reaches one of the two ways only.
        """
        prompts = [self.prompt(question) for question in QUESTIONS]
        for dtype, tolerance in self.tolerances.items():
            model = self.loaded(dtype)
            together = model.generate_batch(prompts, GREEDY)
            alone = [model.generate_batch([prompt], GREEDY)[0] for prompt in prompts]
            ways: list[list[tuple[str, Finish | None]]]
            ways = [[(one.text, one.finish) for one in answers] for answers in (together, alone)]
            ways += filter(None, [answers_together(model, prompts)])
            for prompt, *found in zip(prompts, *ways, strict=True):
                text, finish = answer_of(model, prompt)
                for one in found:
                    if one == (text, finish):
                        continue
                    apart = self._apart(dtype, prompt, text, one[0])
                    expect(
                        apart <= tolerance,
                        f"{dtype}: {one[0]!r} in a batch, {text!r} from stream ({apart:.2g} apart)",
                    )

    def _apart(self, dtype: str, prompt: tuple[Segment, ...], one: str, other: str) -> float:
        """Return how far the scores of two answers lie apart at the first token that differs."""
        model = self.loaded(dtype)
        same = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
        if same is None:
            same = min(len(one), len(other))
        at = len(model.score(prompt, one[:same])) - 1
        left, right = (model.score(prompt, text) for text in (one, other))
        return abs(left[at] - right[at]) if at < min(len(left), len(right)) else float("inf")

    @tested_property
    def test_every_cut_leaves_whole_characters(self) -> None:
        """At any `max_new_tokens` an answer is the beginning of the longer one, and does not end in U+FFFD.

        When it fails: bytes of a character that is not whole yet are shown. Hold them back until it is, and drop
        them at the end; the bytes of a character, not the tokens, decide.
        """
        for question in QUESTIONS[:2]:
            prompt = self.prompt(question)
            longest, _ = answer_of(self.loaded(), prompt, max_new_tokens=CUTS + 8)
            for length in range(1, CUTS + 1):
                text, _ = answer_of(self.loaded(), prompt, max_new_tokens=length)
                expect(not text.endswith("\ufffd"), f"cut after {length} tokens it ends in U+FFFD: {text!r}")
                expect(longest.startswith(text), f"cut after {length} tokens: {text!r}, not cut: {longest!r}")

    @tested_property
    def test_stop_texts_end_an_answer(self) -> None:
        """A text in `GenerationConfig.stop` ends the answer, and is no part of it, wherever tokens break it.

        When it fails: look for stop texts in the text, not among tokens, and hold back what may begin one.
        """
        for question in QUESTIONS:
            prompt = self.prompt(question)
            whole, _ = answer_of(self.loaded(), prompt)
            for begin in range(0, max(0, len(whole) - 2), 2):
                stop = whole[begin : begin + 3]
                if not stop.strip() or stop != stop.strip() or "\ufffd" in stop:
                    continue
                expected = whole[: whole.index(stop)].rstrip()
                text, finish = answer_of(self.loaded(), prompt, stop=(stop, "never said"))
                (batched,) = self.loaded().generate_batch(
                    [prompt], GenerationConfig(greedy=True, max_new_tokens=12, stop=(stop,))
                )
                for way, got in (("stream", text), ("generate_batch", batched.text)):
                    expect(
                        got.rstrip("\ufffd ") == expected.rstrip("\ufffd "),
                        f"{way}: {got!r} for the stop {stop!r} in {whole!r}",
                    )
                expect(
                    finish is Finish.STOP, f"an answer that a stop text ends has Finish.STOP, not {finish}"
                )

    @tested_property
    def test_a_prompt_that_is_too_long_is_a_usage_error(self) -> None:
        """A prompt that fills the context raises UsageError, from `stream` and from `generate_batch`.

        When it fails: compare `count(segments)` with `context_length` before anything is computed.
        """
        model = self.loaded()
        words = QUESTIONS[1] * (2 + 2 * model.context_length // max(1, model.count([Text(QUESTIONS[1])])))
        for prompt in (self.prompt(words), [Text(words)]):
            _refused("stream", partial(_whole, model, prompt))
            _refused("generate_batch", partial(model.generate_batch, [prompt], GREEDY))

    @tested_property
    def test_an_empty_prompt_is_answered_or_refused(self) -> None:
        """A prompt without a single token gets an answer or a UsageError, nothing else, and harms nothing.

        When it fails: the model is asked with no ids at all. Refuse it in words of your own.
        """
        model, prompt = self.loaded(), self.prompt(QUESTIONS[0])
        before = answer_of(model, prompt)
        for empty in ([], [Text("")]):
            expect(model.count(empty) >= 0, "count of an empty prompt is negative")
            try:
                list(deltas_of(model, empty))
                model.generate_batch([empty], GREEDY)
            except UsageError:
                continue
        expect(answer_of(model, prompt) == before, "after an empty prompt the model answers otherwise")

    @tested_property
    def test_a_cancel_ends_the_answer(self) -> None:
        """`cancel` set before, or midway, ends the answer with Finish.CANCELLED; so does leaving it alone.

        What had been said by then is a beginning of the whole answer, and the next answer is as ever.
        When it fails: look at `cancel` before every token, and leave the cache whole whenever a generator is closed.
        """
        model, prompt = self.loaded(), self.prompt(QUESTIONS[0])
        whole = answer_of(model, prompt)
        cancel = threading.Event()
        cancel.set()
        *_, last = deltas_of(model, prompt, cancel=cancel)
        expect(last.finish is Finish.CANCELLED, f"cancelled before it began, it ended with {last.finish}")
        cancel, text = threading.Event(), ""
        for delta in model.stream(prompt, GREEDY, cancel):
            text, last = text + delta.text, delta
            cancel.set()
        expect(last.finish in (Finish.CANCELLED, whole[1]), f"cancelled midway, it ended with {last.finish}")
        expect(last.finish is Finish.CANCELLED or text == whole[0], "it went on after it was cancelled")
        expect(
            whole[0].startswith(text), f"cancelled midway it said {text!r}, which does not begin {whole[0]!r}"
        )
        for _ in islice(deltas_of(model, prompt), 1):  # abandoned: the generator is closed where it stands
            pass
        expect(answer_of(model, prompt) == whole, "after a cancel the model answers otherwise")

    @tested_property
    def test_an_answer_keeps_to_the_interface(self) -> None:
        """Each piece is a Delta with new text, the last one alone has `finish`; counts never fall; batches likewise.

        When it fails: the message is what a user would see with exit code 5; see `ChatModel.stream`.
        """
        model, prompt = self.loaded(), self.prompt(QUESTIONS[0])
        check = AnswerCheck()
        try:
            for delta in deltas_of(model, prompt):
                check.take(delta)
            check.end(cancelled=False)
        except ContractError as error:
            expect(False, f"stream: {error}")
        if isinstance(model, PromptIds):  # an endpoint's own count is another than a guess beforehand
            counted = model.count(prompt)
            found = f"the last delta states {check.last.prompt_tokens} prompt_tokens, count says {counted}"
            expect(check.last.prompt_tokens == counted or check.last.estimated, found)
        expect(model.generate_batch([], GREEDY) == [], "generate_batch of no prompts must give no answers")

    @tested_property
    def test_reasoning_is_no_part_of_an_answer(self) -> None:
        """What a model thinks before it answers (`<think>…</think>`) comes as `reasoning`, streamed or in a batch.

        It would be taken for the answer, and for a turn of the conversation. When it fails: a model of `medchat.hf` and
        a `LibraryModel` find it themselves; any other gives it in `Delta.reasoning`, and sets `restarts` where that the
        text so far was reasoning shows only later.
        """
        prompts = [self.prompt(question) for question in QUESTIONS]
        model, config = self.loaded(), replace(GREEDY, max_new_tokens=24)
        batched = [completion.text for completion in model.generate_batch(prompts, config)]
        for text in (*(answer_of(model, prompt, config)[0] for prompt in prompts), *batched):
            found = [tag for tag in REASONING_TAGS if tag in text.lower()]
            expect(not found, f"reasoning stands in the answer {text!r}")

    @tested_property
    def test_greedy_answers_repeat(self) -> None:
        """Asked greedily again, the model says the same again, whatever `seed` is.

        When it fails: something is drawn at random, or is left over from the answer before.
        """
        for question in QUESTIONS:
            prompt = self.prompt(question)
            answers = {answer_of(self.loaded(), prompt, seed=seed) for seed in (None, 1, 2)}
            expect(len(answers) == 1, f"several greedy answers: {sorted(map(str, answers))}")

    @tested_property
    def test_a_seed_repeats_an_answer(self) -> None:
        """One `seed` is one answer, streamed or in a batch; other seeds give others.

        When it fails: each answer needs a generator of its own, made from the seed and from nothing else.
        """
        prompt = self.prompt(QUESTIONS[0])
        sampled = GenerationConfig(max_new_tokens=12, temperature=1.5, top_p=1.0)
        answers = []
        for seed in range(1, 7):
            first, again = (answer_of(self.loaded(), prompt, sampled, seed=seed) for _ in range(2))
            expect(first == again, f"seed {seed} gave {first!r}, then {again!r}")
            (batched,) = self.loaded().generate_batch([prompt], replace(sampled, seed=seed))
            expect(batched.text == first[0], f"seed {seed} gave {first[0]!r}, in a batch {batched.text!r}")
            answers.append(first)
        expect(len(set(answers)) > 1, "six seeds gave one answer: the seed reaches nothing")

    @tested_property
    def test_describe_says_what_is_loaded(self) -> None:
        """`describe` has `backbone`, `model`, `dtype` and `device`, and `backbone` is the backbone's name.

        When it fails: add what is missing; `/stats`, `--json` and the rows of `infer` show it.
        """
        said = self.loaded().describe()
        lacking = [key for key in ("backbone", "model", "dtype", "device") if not said.get(key)]
        expect(not lacking, f"describe lacks {', '.join(lacking)}")
        expect(said["backbone"] == self.backbone.name, f"describe: backbone is {said['backbone']!r}")

    @tested_property
    def test_close_may_be_called_twice(self) -> None:
        """A second `close` does nothing, also where the model never answered.

        When it fails: let `close` note that it was called.
        """
        model = self.fresh()
        model.close()
        model.close()


def _whole(model: ChatModel, prompt: Sequence[Segment]) -> list[Delta]:
    return list(deltas_of(model, prompt))


def _refused(where: str, ask: Callable[[], object]) -> None:
    try:
        ask()
    except UsageError as error:
        expect(bool(error.what), f"{where}: the UsageError for a prompt that is too long says nothing")
    except Exception as error:
        expect(False, f"{where}: a prompt over context_length raises {type(error).__name__}, not UsageError")
    else:
        expect(False, f"{where}: a prompt over context_length is answered; it must raise UsageError")
