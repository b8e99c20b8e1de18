"""Questions that come together are answered together, each as it would be alone; one at a time where that is not so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from medchat_bloom.backbone import BloomBackbone
from medchat_serve.limits import ServerLimits
from served_model import SECONDS, Served, answers_of_those_who_stay, question, serving, texts_of
from torch import Tensor

from medchat.api import Delta, Finish, GenerationConfig, Segment
from medchat.inference.joint_answers import JointAnswer
from medchat.plugin_kit import AnswerPiece, OpenedModel, open_model

pytest_plugins = ("served_model",)
pytestmark = pytest.mark.torch

CORPUS = ["头痛怎么办？", "多喝水，多休息。", "突然剧烈胸痛，喘不上气，大汗"] * 4
URGENT = "我爸突然剧烈胸痛，喘不上气，大汗"
TOGETHER = 3
#: Requests as different as clients make them.
REQUESTS: list[dict[str, Any]] = [
    question("头痛", temperature=0, max_tokens=20, stream=True),
    question(URGENT, temperature=1.5, seed=3, max_tokens=12, stream=True),
    question("发热", temperature=0.8, top_p=0.9, seed=4, max_tokens=15),
    question("头痛", temperature=0, max_tokens=20, stop=["多休"], stream=True, user="另一位"),
    {"prompt": "多喝", "temperature": 0, "max_tokens": 8},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("batched") / "bloom"
    BloomBackbone().tiny(made, corpus=CORPUS)
    return made


@pytest.fixture(scope="module")
def opened(folder: Path) -> Iterator[OpenedModel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCHAT_HOME", str(folder.parent / "home"))
        with open_model(model=str(folder), device="cpu", dtype="float32", template="bare") as opened:
            yield opened


def wait_for(done: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


class Held:
    """Holds the answering back until so many questions are under way, and notes how many the model has at a time."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.enough = threading.Event()
        self.most = self.going = 0
        self.pieces: dict[str, int] = {}
        model, count = served.opened.model, served.opened.model.count
        self._stream: Any = model.stream_in_batch  # type: ignore[attr-defined]

        def waiting_count(segments: Sequence[Segment]) -> int:
            assert self.enough.wait(SECONDS)
            return count(segments)

        monkeypatch.setattr(model, "count", waiting_count)
        monkeypatch.setattr(model, "stream_in_batch", self.watched)

    def watched(
        self, prompt: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        self.going += 1
        self.most = max(self.most, self.going)
        try:
            yield from self._stream(prompt, config, cancel)
        finally:
            self.going -= 1


def answer_of(served: Served, body: dict[str, Any]) -> tuple[str, str]:
    """Return the text of an answer and why it ended."""
    if "prompt" in body:
        choice = served.post(body, "/v1/completions").json()["choices"][0]
        return choice["text"], choice["finish_reason"]
    response = served.post(body)
    if body.get("stream"):
        return "".join(texts_of(response.text)), response.text.split('"finish_reason": "')[1].split('"')[0]
    choice = response.json()["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


def test_each_of_several_clients_gets_what_it_would_get_alone(
    opened: OpenedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(opened) as served:
        assert served.service.dispatcher.batch == 1
        expected = [answer_of(served, body) for body in REQUESTS]
    assert len(set(expected)) == len(REQUESTS) and {"stop", "length"} == {reason for _, reason in expected}
    with (
        serving(opened, batch=TOGETHER) as served,
        ThreadPoolExecutor(len(REQUESTS)) as pool,
        pytest.MonkeyPatch.context() as patch,
    ):
        held = Held(served, patch)
        answers = [pool.submit(answer_of, served, body) for body in REQUESTS]
        wait_for(lambda: served.service.dispatcher.under_way == len(REQUESTS))
        held.enough.set()
        assert [answer.result(SECONDS) for answer in answers] == expected
        assert held.most == TOGETHER
    notice = opened.ask(URGENT).notices[0].text
    assert expected[1][0].startswith(notice) and notice not in expected[0][0]


def test_one_that_goes_away_leaves_its_neighbour_and_its_place(
    opened: OpenedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(opened, batch=2) as served:
        expected = answer_of(served, REQUESTS[0])
        held = Held(served, monkeypatch)
        endless = question("发热", temperature=1.5, seed=5, max_tokens=3000)

        def leave() -> None:
            with served.streaming(endless) as stream:
                next(stream)

        with ThreadPoolExecutor(2) as pool:
            leaving, stays = pool.submit(leave), pool.submit(answer_of, served, REQUESTS[0])
            wait_for(lambda: served.service.dispatcher.under_way == 2)
            held.enough.set()
            leaving.result(SECONDS)
            assert stays.result(SECONDS) == expected
        served.wait_until_idle()
        assert held.most == 2 and held.going == 0


def greedy_answer(opened: OpenedModel, asked: str, tokens: int) -> str:
    """Return what `ask --greedy` gives."""
    session = opened.chat()
    session.config = session.config.with_settings(greedy=True, max_new_tokens=tokens)
    events = session.ask(asked, threading.Event())
    return "".join(event.text for event in events if isinstance(event, AnswerPiece))


@pytest.mark.slow
def test_fifty_clients_of_whom_ten_vanish_get_what_ask_gives_four_at_a_time(
    opened: OpenedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[JointAnswer[Any], int] = {}
    take = JointAnswer.take

    def counted(answer: JointAnswer[Any], logits: Tensor, stop_ids: Collection[int]) -> None:
        """Count the tokens that an answer took since the server learned that nobody reads it."""
        taken[answer] = taken.get(answer, 0) + answer.cancel.is_set()
        take(answer, logits, stop_ids)

    monkeypatch.setattr(JointAnswer, "take", counted)
    wanted = greedy_answer(opened, "头痛", 12)
    endless = question("发热", temperature=1.5, seed=5, max_tokens=3000)
    with serving(opened, batch=4, limits=ServerLimits(waiting=60)) as served:
        asked = question("头痛", temperature=0, max_tokens=12)
        assert answers_of_those_who_stay(served, asked, endless) == [wanted] * 40
    gone = [answer for answer in taken if answer.finish is Finish.CANCELLED]
    assert (len(taken), len(gone)) == (50, 10) and len(wanted) > 8
    assert max(taken[answer] for answer in gone) <= 2


def test_a_model_that_is_not_exact_in_a_batch_answers_one_at_a_time(
    opened: OpenedModel, scripted_model: OpenedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(scripted_model, batch=4) as served:
        assert served.service.dispatcher.batch == 1
    monkeypatch.setattr(type(opened.model), "exact_in_batch", False)
    with serving(opened, batch=4) as served:
        assert served.service.dispatcher.batch == 1
