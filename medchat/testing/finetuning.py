"""Properties of fine-tuning: it learns the answers alone, goes on where it stopped, and leaves the base as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from medchat.api import (
    ChatModel,
    Example,
    Finish,
    LoadOptions,
    Segment,
    SFTData,
    SFTEvent,
    SFTOptions,
    SFTProgress,
    SFTRecipe,
    SFTReport,
)
from medchat.errors import MedchatError
from medchat.testing.properties import tested_property
from medchat.testing.subject import CORPUS, QUESTIONS, Subject, answer_of, expect, hashes_of, skip_unless

#: What is learned by heart.
LESSON = Example(CORPUS[0], CORPUS[1])
MORE = (LESSON, Example(CORPUS[2], CORPUS[3]))
#: How far the scores of merged weights may lie from those of base and adapter, in nats: float32 rounds otherwise.
_MERGED = 1e-4
#: Files of weights that can hold code.
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".pickle")
_WEIGHTS = (".safetensors", ".gguf", ".npz", ".npy", *_PICKLES)


class _Watcher:
    """Watches a run; `react` may stop it."""

    def __init__(self, react: Callable[[SFTEvent, threading.Event], None] | None = None) -> None:
        self.cancel = threading.Event()
        self._react = react

    def on_event(self, event: SFTEvent) -> None:
        if self._react:
            self._react(event, self.cancel)

    def finish(self, folder: Path, report: SFTReport) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What a run on one example came to: its report, what its result answers, which files of the base it touched."""

    report: SFTReport
    text: str
    finish: Finish | None
    changed: list[str]


class FineTuningProperties(Subject):
    """What holds of the first recipe of a backbone; all are skipped for a backbone that has none."""

    @tested_property
    def test_only_the_answer_is_learned(self) -> None:
        """The loss is taken over the answer and its end, and over nothing of the question or the template.

        When it fails: labels begin where the prompt's ids end, found by counting ids and never by splitting a text.
        """
        survey = self._recipe().survey(SFTData([LESSON]), self._sft("survey"))
        skip_unless(survey is not None and bool(survey.preview), "the recipe gives no preview")
        assert survey is not None
        learned = "".join(piece.text for piece in survey.preview if piece.learned and not piece.special)
        expect(learned.strip() == LESSON.answer, f"learned is {learned!r}, the answer {LESSON.answer!r}")
        expect(survey.records == 1 and survey.label_tokens > 0, "the survey counts no label")

    @tested_property
    def test_one_example_is_learned_by_heart(self) -> None:
        """After some steps on one example, the result answers its question with its answer, and ends.

        When it fails: prompts of training and of chat differ, the end is not learned, or nothing reaches the weights.
        `training` may state another learning rate.
        """
        lesson = self._lesson()
        expect(lesson.report.examples == 1, f"the report counts {lesson.report.examples} examples")
        expect(
            (lesson.text, lesson.finish) == (LESSON.answer, Finish.STOP),
            f"the result says {lesson.text!r} and ends by {lesson.finish}",
        )

    @tested_property
    def test_a_run_that_goes_on_ends_as_one_that_never_stopped(self) -> None:
        """A run that is stopped and resumed writes the bytes that one straight run writes.

        When it fails: save the optimizer, the schedule, the order of the data and every generator with the weights.
        """
        options: dict[str, Any] = {"max_steps": 2, "logging_steps": 1, "samples": 0}
        straight = self._run(MORE, "straight", **options)

        def stop(event: SFTEvent, cancel: threading.Event) -> None:
            if isinstance(event, SFTProgress) and event.step == 1:
                cancel.set()

        output = self.room("resumed")
        try:
            self._run(MORE, "resumed", _Watcher(stop), output=output, **options)
        except MedchatError:
            pass
        else:
            expect(False, "a run whose `cancel` was set after step 1 of 2 must save and raise MedchatError")
        resumed = self._run(MORE, "resumed", output=output, resume=True, **options)
        expect(resumed.steps == straight.steps == 2, f"{resumed.steps} and {straight.steps} steps, not 2")
        one, other = (_weights(report.output) for report in (straight, resumed))
        expect(bool(one) and one == other, f"the weights differ: {sorted(one)} and {sorted(other)}")

    @tested_property
    def test_fine_tuning_leaves_the_base_alone(self) -> None:
        """Not a byte of the folder that was trained changes, and no file is added.

        When it fails: write to `options.output` and nowhere else.
        """
        changed = self._lesson().changed
        expect(not changed, f"of the base's files these were changed, added or removed: {', '.join(changed)}")

    @tested_property
    def test_a_result_holds_safetensors_alone(self) -> None:
        """A result has weights in safetensors, and no pickle: loading one would run code.

        When it fails: write with `safetensors`; of a library that pickles, take the tensors and write them yourself.
        """
        files = [path for path in self._lesson().report.output.rglob("*") if path.is_file()]
        pickles = sorted(path.name for path in files if path.suffix in _PICKLES)
        expect(not pickles, f"the result holds {', '.join(pickles)}")
        expect(any(path.suffix == ".safetensors" for path in files), "the result holds no safetensors")

    @tested_property
    def test_the_result_answers_as_the_model_that_was_trained(self) -> None:
        """What a run writes, loaded as chat loads it, says what the trained model said before it was written.

        When it fails: something that was trained is not saved, is saved in another precision, or is loaded otherwise.
        """
        lesson = self._lesson()
        skip_unless(bool(lesson.report.samples), "the report holds no samples")
        after = lesson.report.samples[0].after
        expect(lesson.text == after, f"the result says {lesson.text!r}, the trained model said {after!r}")

    @tested_property
    def test_a_merge_agrees_with_its_adapter(self) -> None:
        """What `save_merged` writes scores, loaded alone, as base and LoRA adapter do, in float32 within 1e-4.

        When it fails: add the adapter's product, times its scale, to the very weights that it is attached to, in
        float32, and write all other weights as they are. A family that cannot merge declares it in `not_applicable`.
        """
        skip_unless(self.backbone.capabilities.score, "the backbone declares no scores")
        adapted = self.options(adapters=(self._adapter(),))
        folder = self.room("merged")
        folder.mkdir()
        self.backbone.save_merged(adapted, folder, "float32")
        template = self.backbone.template(adapted)
        prompts = [template.render((), question) for question in QUESTIONS]
        alone = _scores(self.loaded(), prompts)
        with closing(self.backbone.load(adapted)) as both:
            together = _scores(both, prompts)
        with closing(self.backbone.load(replace(self.options(), model=folder))) as merged:
            whole = _scores(merged, prompts)
        skip_unless(_apart(together, alone) > _MERGED, "the adapter changes no score: nothing to compare")
        apart = _apart(whole, together)
        expect(apart <= _MERGED, f"a token's log-probability is {apart:.2g} apart, more than {_MERGED}")

    # ------------------------------------------------------------ runs

    def _adapter(self) -> Path:
        """Return what one step of `lora` writes, else of the first recipe, if that is an adapter."""
        recipe = self.backbone.recipes.get("lora", self._recipe())
        report = self._run(MORE, "adapter", recipe=recipe, max_steps=1, samples=0)
        skip_unless(report.kind == "adapter", "the backbone has no method that writes adapters to merge")
        return report.output

    _lessons: ClassVar[dict[type, _Lesson]] = {}
    #: The hashes of the base's files before the first run of any test of the class.
    _untouched: ClassVar[dict[type, dict[str, str]]] = {}

    def _lesson(self) -> _Lesson:
        """Train on one example, once for all tests of the class."""
        if type(self) not in self._lessons:
            report = self._run([LESSON], "lesson", samples=1)
            before, after = self._untouched[type(self)], hashes_of(self.checkpoint())
            options = self._result(report)
            with closing(self.backbone.load(options)) as model:
                prompt = self.backbone.template(options).render((), LESSON.question)
                text, finish = answer_of(model, prompt, max_new_tokens=128)
            changed = sorted(name for name in before | after if before.get(name) != after.get(name))
            self._lessons[type(self)] = _Lesson(report, text, finish, changed)
        return self._lessons[type(self)]

    def _recipe(self) -> SFTRecipe:
        recipes = self.backbone.recipes
        skip_unless(bool(recipes) and not isinstance(self.model, str), "the backbone has no recipes")
        return next(iter(recipes.values()))

    def _sft(self, name: str, recipe: SFTRecipe | None = None, **changes: Any) -> SFTOptions:
        recipe = recipe or self._recipe()
        chosen: dict[str, Any] = {
            **recipe.defaults,
            "model": self.checkpoint(),
            "output": self.room(name),
            "method": recipe.method,
            "device": "cpu",
            "precision": "float32",
            "batch_size": 2,
            "micro_batch_size": 2,
            "max_length": 128,
            "val_size": 0,
            "eval_steps": -1,
            "extra": self.own_defaults(),
            **self.training,
            **changes,
        }
        return recipe.resolve_options(SFTOptions(**chosen))

    def _run(
        self,
        examples: Sequence[Example],
        name: str,
        watch: _Watcher | None = None,
        recipe: SFTRecipe | None = None,
        **changes: Any,
    ) -> SFTReport:
        recipe = recipe or self._recipe()  # skips where there is none
        if type(self) not in self._untouched:
            self._untouched[type(self)] = hashes_of(self.checkpoint())
        options = self._sft(name, recipe, **changes)
        return recipe.run(SFTData(examples), options, watch or _Watcher())

    def _result(self, report: SFTReport) -> LoadOptions:
        """Return the options that load what a run wrote."""
        if report.kind == "model":
            return replace(self.options(), model=report.output)
        return self.options(adapters=(report.output,))


def _weights(folder: Path) -> dict[str, str]:
    """Return the hashes of the weights of a result, its checkpoints left out."""
    return {
        name: digest
        for name, digest in hashes_of(folder).items()
        if "/" not in name and name.endswith(_WEIGHTS)
    }


def _scores(model: ChatModel, prompts: Sequence[Sequence[Segment]]) -> list[float]:
    """Return the log-probabilities of one answer's tokens after each of the prompts."""
    return [value for prompt in prompts for value in model.score(prompt, LESSON.answer)]


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how far two scores of the same tokens lie apart at most, in nats."""
    return max(abs(left - right) for left, right in zip(one, other, strict=True))
