"""As much of Ray as the placing of workers uses, where there is none: actors that say what a test has written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from medchat.commands.infer.share import News, Share, ShareWorker


class Lost(Exception):
    """Stands for ray.exceptions.RayActorError: the actor is being started again."""


class Died(Lost):
    """Stands for ray.exceptions.ActorDiedError."""


class Actor:
    """An actor of which it is written what it says: News, an exception, or None for nothing at all."""

    def __init__(self, said: list[Any]) -> None:
        self.said = said
        self.killed = False
        self.started: list[Share] = []
        self.news = SimpleNamespace(remote=lambda: self)
        self.start = SimpleNamespace(remote=self.started.append)


class StandIn:
    """What RayWorkers needs of the module `ray`."""

    exceptions = SimpleNamespace(RayActorError=Lost, ActorDiedError=Died)

    def __init__(self, *said: list[Any]) -> None:
        self.actors = [Actor(one) for one in said]
        self._free = iter(self.actors)
        self.asked: dict[str, Any] = {}

    def remote(self, worker: type) -> Any:
        assert worker is ShareWorker
        return self

    def options(self, **asked: Any) -> Any:
        self.asked = asked
        return SimpleNamespace(remote=lambda: next(self._free))

    def wait(
        self, references: list[Actor], num_returns: int, timeout: float
    ) -> tuple[list[Actor], list[Actor]]:
        assert num_returns == len(references)
        return [one for one in references if one.said and one.said[0] is not None], []

    def get(self, reference: Actor) -> News:
        said = reference.said.pop(0)
        if isinstance(said, BaseException):
            raise said
        assert isinstance(said, News)
        return said

    def kill(self, actor: Actor) -> None:
        actor.killed = True

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 0.5}

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}


def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    resources = {name: value for name, value in (("CPU", cpus), ("GPU", gpus)) if value}
    return {"Alive": alive, "Resources": {"memory": 1e9, **resources}}
