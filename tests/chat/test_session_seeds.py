"""The seed of an answer whose tokens are sampled: drawn where none was given, and kept with the turn."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from cli_program import Scripted, saved_turns
from scripted_session import Journal, ScriptedModel, ask, session_of

from medchat.api import GenerationConfig, Turn
from medchat.chat.events import AnswerContext, AnswerFinished, TurnStats
from medchat.chat.session import ChatSession

pytest_plugins = ("cli_program",)


@dataclass
class Contexts(Journal):
    """Keeps how each answer came about."""

    seeds: list[int | None] = field(default_factory=list)

    def save(self, turn: Turn, stats: TurnStats, context: object, *, instead_of: int = 0) -> None:
        assert isinstance(context, AnswerContext)
        self.seeds.append(context.config.seed)


def sampled(**changes: Any) -> tuple[ChatSession, ScriptedModel, Contexts]:
    model, journal = ScriptedModel(), Contexts()
    return session_of(model, recorder=journal, config=GenerationConfig(**changes)), model, journal


def sent(model: ScriptedModel) -> list[int | None]:
    return [config.seed for _, config in model.sent]


def test_a_seed_is_drawn_for_each_answer_and_kept_with_its_turn() -> None:
    session, model, journal = sampled()
    finished = [
        event for words in "甲乙丙" for event in ask(session, words) if isinstance(event, AnswerFinished)
    ]
    assert None not in sent(model) and len(set(sent(model))) == 3
    assert sent(model) == journal.seeds == [event.seed for event in finished]
    assert session.config.seed is None  # the next answer draws again


def test_an_answer_given_again_draws_another_seed() -> None:
    session, model, journal = sampled()
    ask(session, "甲")
    list(session.regenerate(threading.Event()))
    assert len(set(sent(model))) == 2 and sent(model) == journal.seeds


@pytest.mark.parametrize(
    ("changes", "seed"),
    [
        ({"seed": 7}, 7),
        ({"seed": 0}, 0),
        ({"greedy": True}, None),
        ({"num_beams": 4}, None),
        ({"unset": frozenset({"seed"})}, None),
    ],
)
def test_a_seed_that_is_given_or_of_no_use_or_a_servers_is_left_as_it_is(
    changes: dict[str, Any], seed: int | None
) -> None:
    session, model, journal = sampled(**changes)
    ask(session, "甲")
    assert sent(model) == journal.seeds == [seed]


def test_taking_back_the_seed_leaves_it_to_the_server_that_decided_before() -> None:
    servers = GenerationConfig(unset=frozenset({"seed", "top_p"}))
    session, model, _ = sampled()
    session.config = servers.with_settings(seed=None, top_p=0.5)
    ask(session, "甲")
    assert sent(model) == [None] and session.config.unset == {"seed"}


def test_ask_states_the_seed_that_is_kept_and_that_seed_is_kept_when_given_again(scripted: Scripted) -> None:
    stated = scripted.run("ask", "问", "--json").one()["seed"]
    (saved,) = saved_turns()
    assert isinstance(stated, int) and saved.origin.settings["seed"] == stated
    assert scripted.run("ask", "问", "--json", "--no-save", "--seed", str(stated)).one()["seed"] == stated
