"""A model opened and asked by a plugin's command: from the common flags to answers, notices and marks as in `ask`."""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from medchat import medical_safety
from medchat.api import (
    Backbone,
    BatchScoringModel,
    BatchStreamingModel,
    ChatModel,
    Conversation,
    GenerationConfig,
    LoadOptions,
    PromptTemplate,
    Turn,
)
from medchat.batch.answering import BatchHalved
from medchat.batch.questions import Question
from medchat.batch.resuming import require_same
from medchat.batch.setup import BatchSetup
from medchat.batch.work import WorkPlan
from medchat.chat.conversation import begin_session
from medchat.chat.demo_mode import as_demo
from medchat.chat.saved_conversations import SavedConversations, open_saved_conversations
from medchat.chat.session import ChatSession
from medchat.chat.session_choice import model_notes, opening_lines
from medchat.chat.setup import read_settings, resolve_setup
from medchat.cli.output import say_aside
from medchat.errors import UsageError
from medchat.language import language_is_chosen, say, set_language
from medchat.repl.messages import load_with_line
from medchat.settings import configured_language
from medchat.templates import Fitted
from medchat.whole_answer import Answer, TokenCount, whole_answer

#: Prompts that go through a model together.
_BATCH = 8


class OpenedModel:
    """A loaded model with its template, adapters and settings. Made by `open_model`.

    Used in one thread, but for `ask` of a model that can take several questions at a time (`is_concurrent`).
    """

    def __init__(self, setup: BatchSetup, model: ChatModel) -> None:
        self._setup = setup
        #: The model itself, for `score`, `count`, `describe` and what else `ChatModel` has.
        self.model: ChatModel = model
        #: What all answers so far took.
        self.spent: TokenCount = TokenCount(_prices=model.describe().get("prices") or {})

    @property
    def backbone(self) -> str:
        """The name of its backbone."""
        return self._setup.opening.backbone.name

    @property
    def is_concurrent(self) -> bool:
        """Whether `ask` may be called from several threads at a time (`Capabilities.concurrent`)."""
        return self._setup.opening.backbone.capabilities.concurrent

    @property
    def exact_in_batch(self) -> bool:
        """Whether several of its chats may be asked in turn, in one thread, each answered as if it were alone.

        For `ChatSession.ask` with `in_batch`: see `BatchStreamingModel`.
        """
        return isinstance(self.model, BatchStreamingModel) and self.model.exact_in_batch

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What answers, as each line of `medchat infer` states it: model, backbone, adapter, template, decoding."""
        return self._setup.provenance.as_fields()

    def require_same(self, row: Mapping[str, Any], where: str) -> None:
        """Raise UsageError, naming `where`, for a line of a result file that another model or other settings made."""
        require_same(row, self._setup.provenance, where)

    @property
    def mark(self) -> str:
        """The AI mark that belongs to every answer that is shown or written, in the interface language."""
        return medical_safety.ai_mark()

    def chat(self, conversation: Conversation = Conversation()) -> ChatSession:
        """Return the chat engine, continuing `conversation`; nothing is saved.

        `chat().ask(question, cancel)` yields events as the answer comes, `AnswerPiece` and `AnswerFinished` among
        them; those that a command does not know it leaves alone. What was said is in its `conversation`. The public
        members of `ChatSession` are in the reference under that name.
        """
        system = conversation.system or str(self._setup.opening.settings.value("system") or "")
        conversation = Conversation(conversation.turns, system)
        return begin_session(self._setup.opening, self._setup.demo, self.model, conversation)

    @contextmanager
    def saving(self) -> Iterator[SavedConversations]:
        """Open the file of saved sessions: `chat` of what this gives continues a conversation and saves it."""
        opening, demo = self._setup.opening, self._setup.demo
        with open_saved_conversations(opening, demo, self.model, say_aside) as saved:
            yield saved

    def ask(
        self,
        question: str,
        *,
        history: Sequence[Turn] = (),
        system: str = "",
        seed: int | None = None,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """Return the answer to `question` after `history`, with one pass through the chat engine.

        `seed` is for this answer alone; None leaves it to the flags. Setting `cancel` from another thread ends it
        with what had come. Raises UsageError for a question that cannot be sent or a seed out of range, and what the
        model raises.
        """
        answering = self.answering(question, history=history, system=system, seed=seed, cancel=cancel)
        while True:
            try:
                next(answering)
            except StopIteration as end:
                answer: Answer = end.value
                return answer

    def answering(
        self,
        question: str,
        *,
        history: Sequence[Turn] = (),
        system: str = "",
        seed: int | None = None,
        cancel: threading.Event | None = None,
        in_batch: bool = False,
    ) -> Generator[None, None, Answer]:
        """As `ask`, yielding after each piece and returning the answer at the end (`yield from` gives it).

        `in_batch`: others are answered meanwhile, in the same thread, where `exact_in_batch` is true.
        """
        session = self.chat(Conversation(tuple(history), system))
        if seed is not None:
            session.config = session.config.with_settings(seed=seed)
        events = session.ask(question, cancel or threading.Event(), in_batch=in_batch)
        answer = yield from whole_answer(events)
        self.spent.add(answer.prompt_tokens, answer.completion_tokens, estimated=answer.estimated)
        return answer

    def score(
        self, question: str, answer: str, *, history: Sequence[Turn] = (), system: str = ""
    ) -> tuple[float, ...]:
        """Return the natural log-probability of each token of `answer` to `question`, and of the end token.

        Raises UsageError if the backbone cannot say (`Capabilities.score`).
        """
        self._require_scores()
        return self.model.score(self.prompt(question, history=history, system=system).segments, answer)

    def prompt(self, question: str, *, history: Sequence[Turn] = (), system: str = "") -> Fitted:
        """Return the prompt for `question` after `history` as it would be sent: see `Fitted`.

        Raises UsageError for a question that does not fit the context by itself.
        """
        return self.chat(Conversation(tuple(history), system)).fitted(question)

    def score_batch(
        self, prompts: Sequence[Fitted], answers: Sequence[Sequence[str]]
    ) -> list[list[tuple[float, ...]]]:
        """Return for each prompt what `score` gives for each of its `answers`, each prompt read once.

        A backbone that cannot do several at once (`BatchScoringModel`) scores one after the other. Raises as `score`.
        """
        self._require_scores()
        model = cast(BatchScoringModel, self.model)  # behind the guard every model is one
        return model.score_batch([prompt.segments for prompt in prompts], answers)

    def _require_scores(self) -> None:
        if not self._setup.opening.backbone.capabilities.score:
            name = self.backbone
            raise UsageError(
                say(f"{name} 不能给出回答的概率", f"{name} cannot tell the probability of an answer"),
                say("换一个模型家族：medchat plugins list", "take another backbone: medchat plugins list"),
            )

    def answer_rows(
        self, questions: Sequence[Question], *, done: Collection[int] = (), batch_size: int = _BATCH
    ) -> Iterator[dict[str, Any]]:
        """Answer the questions of a file in batches; yield a row for each, as `medchat infer` writes it.

        A row has index, question, answer, finish, counts, notices, what answered, disclaimer and the AIGC label:
        `Results.append` takes it. A question that cannot be answered has `finish` "error", `error`
        and `error_code`. `done` are indexes to leave out. Raises what the model raises if it keeps failing.
        """
        together = batch_size if self._setup.opening.backbone.capabilities.batch else 1
        plan = WorkPlan(tuple(questions), together)
        for event in self._setup.answering(self.model, plan, done=frozenset(done)).run():
            for row in () if isinstance(event, BatchHalved) else event.rows:
                estimated = bool(row.get("tokens_estimated"))
                self.spent.add(row["prompt_tokens"], row["tokens"], estimated=estimated)
                yield dict(row)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What a command's flags name, checked as far as that takes no weights; nothing is loaded."""

    #: Its backbone.
    backbone: Backbone
    #: What that backbone loads.
    options: LoadOptions
    #: The template that it is asked in.
    template: PromptTemplate
    #: How its answers would be decoded.
    generation: GenerationConfig


def resolve_model(flags: Mapping[str, Any] | None = None, **chosen: Any) -> ResolvedModel:
    """Return what `open_model` with the same arguments would load, without loading it.

    For a command that works on the files themselves. Raises what `open_model` raises before loading.
    """
    setup = resolve_setup(read_settings({**(flags or {}), **chosen}))
    return ResolvedModel(setup.backbone, setup.options, setup.template, setup.generation)


@contextmanager
def open_model(flags: Mapping[str, Any] | None = None, **chosen: Any) -> Iterator[OpenedModel]:
    """Open the model that a command's flags name: `with open_model(flags) as opened:`.

    `flags` are what `model_flags` and `generation_flags` added to the command, by the flag's name without its dashes
    and with `_` for `-` (`--max-new-tokens` is `max_new_tokens`); one that the user did not give is None, and those
    that can be repeated (`adapter`, `option`) are then an empty tuple. Either leaves the choice to variables and
    configuration, as for `medchat ask`, then to the backbone. `chosen` are single flags by the same names
    (`backbone="remote", model="http://…#NAME"`), which go over `flags`.

    Any backbone is opened so, `remote` too, which keeps to its own rules of retrying, waiting, proxies and keys.
    First everything is checked that needs no weights, then the disclaimer and the notices go to stderr, then the
    model is loaded; it is closed at the end. A script of
    your own speaks the language that commands would: that of the settings, else of the locale.

    Raises UsageError (unknown backbone, template, setting), CheckpointError (no such model, damaged),
    PluginError, and what loading raises.
    """
    if not language_is_chosen():
        set_language(configured_language())
    given = {**(flags or {}), **chosen}
    opening, demo = as_demo(resolve_setup(read_settings(given)))
    for line in opening_lines(opening, say_aside):
        say_aside(line)
    model = load_with_line(opening)
    try:
        for note in model_notes(model):
            say_aside(note)
        yield OpenedModel(BatchSetup(opening, demo), model)
    finally:
        model.close()
