"""The model that the properties are tried on: written, loaded, asked, and given back at the end."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

from medchat.api import (
    Backbone,
    BatchStreamingModel,
    ChatModel,
    Control,
    Delta,
    Finish,
    GenerationConfig,
    LoadOptions,
    PromptIds,
    Segment,
    Text,
    Turn,
)
from medchat.api.option import declared_options, default_values
from medchat.errors import UsageError
from medchat.hashing import sha256_of

#: What a miniature's vocabulary is made from, and what it is asked: Chinese, English and a character of four bytes.
CORPUS = ("头痛怎么办？", "多休息，多喝水。", "How long does a cold last?", "About a week.", "体温 38.5 🙂")
QUESTIONS = (CORPUS[0], CORPUS[2], f"{CORPUS[4]}，{CORPUS[0]}")
TALK = (Turn(CORPUS[0], CORPUS[1]), Turn(CORPUS[2], CORPUS[3]))
GREEDY = GenerationConfig(greedy=True, max_new_tokens=12)


class NotMetError(AssertionError):
    """A property does not hold; the text says what was expected and what came."""


def expect(holds: bool, text: str) -> None:
    """Raise NotMetError with `text` unless the condition holds."""
    if not holds:
        raise NotMetError(text)


def skip_unless(holds: bool, reason: str) -> None:
    """Raise SkipTest with the reason, for a test that has nothing to try, unless the condition holds."""
    if not holds:
        raise SkipTest(reason)


class Subject:
    """What a subclass of `BackboneTests` states, and the model that follows from it."""

    #: The backbone under test.
    backbone: ClassVar[Backbone]
    #: A checkpoint folder (or an address) to test on; None: the miniature that `tiny` writes.
    model: ClassVar[Path | str | None] = None
    #: Keys that `tiny` is given beside the corpus.
    shape: ClassVar[Mapping[str, int]] = {}
    #: Precisions in which batches are compared, and how far two scores of one token may lie apart in each.
    tolerances: ClassVar[Mapping[str, float]] = {"float32": 1e-3}
    #: Properties that cannot hold here, by the test's name, each with the reason, beside those that the backbone names.
    not_applicable: ClassVar[Mapping[str, str]] = {}
    #: The module of the entry point; "": that of the backbone's class.
    module: ClassVar[str] = ""
    #: What fine-tuning is tried with, beside the method; enough to learn one short answer by heart.
    training: ClassVar[Mapping[str, Any]] = {"learning_rate": 0.03, "num_epochs": 40}

    _folder: ClassVar[tempfile.TemporaryDirectory[str] | None] = None
    _loaded: ClassVar[dict[str, ChatModel]] = {}

    @classmethod
    def setup_class(cls) -> None:
        """Make room for what the tests write."""
        cls._folder = tempfile.TemporaryDirectory(prefix="medchat-kit-")
        cls._loaded = {}

    @classmethod
    def teardown_class(cls) -> None:
        """Give the models back, and remove what was written."""
        for model in cls._loaded.values():
            model.close()
        cls._loaded = {}
        if cls._folder is not None:
            cls._folder.cleanup()
            cls._folder = None

    @classmethod
    def declared(cls) -> dict[str, str]:
        """Return the properties that do not apply, each with the reason."""
        backbone: Backbone | None = getattr(cls, "backbone", None)
        return {**(backbone.not_applicable if backbone else {}), **cls.not_applicable}

    # ------------------------------------------------------------ the model

    def room(self, name: str) -> Path:
        """Return a path in the tests' own folder where nothing is yet."""
        assert self._folder is not None
        taken, path = 0, Path(self._folder.name) / name
        while path.exists():
            taken += 1
            path = path.with_name(f"{name}-{taken}")
        return path

    def checkpoint(self) -> Path:
        """Return the folder of the model under test."""
        if isinstance(self.model, Path):
            return self.model
        assert self._folder is not None
        path = Path(self._folder.name) / "tiny"
        if not path.exists():
            self.backbone.tiny(path, corpus=CORPUS, **self.shape)
        return path

    def options(self, **changes: Any) -> LoadOptions:
        """Return the options to load the model with: on the CPU, in float32 unless `changes` say otherwise.

        Its own keys have their defaults, as they have in the program; an `extra` of `changes` goes over them.
        """
        extra = {**self.own_defaults(), **changes.pop("extra", {})}
        chosen: dict[str, Any] = {"device": "cpu", "dtype": "float32", "extra": extra, **changes}
        if isinstance(self.model, str):
            return LoadOptions(Path(), address=self.model, **chosen)
        return LoadOptions(self.checkpoint(), **chosen)

    def own_defaults(self) -> dict[str, Any]:
        """Return the default of each of the backbone's own keys that has one."""
        return default_values(declared_options(self.backbone.load_keys))

    def loaded(self, dtype: str = "float32") -> ChatModel:
        """Return the model that the tests share."""
        if dtype not in self._loaded:
            self._loaded[dtype] = self.backbone.load(self.options(dtype=dtype))
        return self._loaded[dtype]

    def fresh(self) -> ChatModel:
        """Return the model loaded again, with empty caches; the caller closes it."""
        return self.backbone.load(self.options())

    # ------------------------------------------------------------ asking

    def prompt(self, question: str, turns: Sequence[Turn] = (), system: str = "") -> tuple[Segment, ...]:
        """Return the prompt for a question in the template that the weights were made for."""
        return tuple(self.backbone.template(self.options()).render(turns, question, system))

    def takes_system(self) -> bool:
        """Say whether that template takes a system text: those of some published chat models refuse one."""
        try:
            self.prompt("?", system="a")
        except UsageError:
            return False
        return True

    def prompt_ids(self, segments: Sequence[Segment]) -> list[int]:
        """Return the ids of a prompt. Raises SkipTest for a model that tells none."""
        model = self.loaded()
        if not isinstance(model, PromptIds):
            raise SkipTest("the model has no prompt_ids")
        return list(model.prompt_ids(segments))

    def special_ids(self) -> dict[str, int]:
        """Return the ids of the special tokens, each found by one more of it in a prompt; -1 for what is not one id.

        A token that is refused where it stands (UsageError) is left out.
        """
        found: dict[str, int] = {}
        for token in self.backbone.special_tokens(self.options()).tokens:
            once: list[Segment] = [Text("a"), Control(token), Text("b")]
            try:
                more = Counter(self.prompt_ids([*once, Control(token)])) - Counter(self.prompt_ids(once))
            except UsageError:
                continue
            found[token] = next(iter(more)) if more.total() == 1 else -1
        return found


def hashes_of(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_of(path) for path in files}


def deltas_of(
    model: ChatModel,
    prompt: Sequence[Segment],
    config: GenerationConfig = GREEDY,
    cancel: threading.Event | None = None,
) -> Iterator[Delta]:
    """Ask the model and yield what comes."""
    yield from model.stream(prompt, config, cancel or threading.Event())


def answer_of(
    model: ChatModel, prompt: Sequence[Segment], config: GenerationConfig = GREEDY, **changes: Any
) -> tuple[str, Finish | None]:
    """Return the text of an answer and why it ended; `changes` are settings in place of those of `config`."""
    return _outcome(deltas_of(model, prompt, replace(config, **changes)))


def answers_together(
    model: ChatModel, prompts: Sequence[Sequence[Segment]], config: GenerationConfig = GREEDY
) -> list[tuple[str, Finish | None]]:
    """Return the answers of `stream_in_batch`, a piece of each at a time; none of a model that is not exact so."""
    if not isinstance(model, BatchStreamingModel) or not model.exact_in_batch:
        return []
    streams = [model.stream_in_batch(prompt, config, threading.Event()) for prompt in prompts]
    pieces = zip_longest(*streams, fillvalue=None)
    return [_outcome(filter(None, answer)) for answer in zip(*pieces, strict=True)]


def _outcome(deltas: Iterable[Delta]) -> tuple[str, Finish | None]:
    text, finish = "", None
    for delta in deltas:
        text = delta.text if delta.restarts else text + delta.text
        finish = delta.finish
    return text, finish
