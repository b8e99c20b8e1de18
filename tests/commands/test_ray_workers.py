"""How the workers of `medchat infer --ray` are placed, watched, started again and ended, without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stand_in_ray import Died, Lost, StandIn, node

from medchat import launcher
from medchat.cli.signals import CtrlC
from medchat.commands.infer import ray_workers
from medchat.commands.infer.ray_cluster import RayPlacement
from medchat.commands.infer.ray_workers import RayWorkers
from medchat.commands.infer.share import News, Share
from medchat.errors import MedchatError
from medchat.launcher import Process

NEW, WORKS, DONE = News("node", False), News("node", True, ("works",)), News("node", True, (), 0)


def share(rank: int = 0, count: int = 2, **flags: Any) -> Share:
    given = {"resume": False, "overwrite": False} | flags
    return Share("q", "a.jsonl", given, Process(rank, count), "/", {}, "zh", False, {}, Path("/nowhere"))


def run_workers(ray: StandIn, **flags: Any) -> int:
    shares = [share(rank, len(ray.actors), **flags) for rank in range(len(ray.actors))]
    try:
        return RayWorkers(ray, shares, {"num_cpus": 0.5}).run()
    finally:
        assert all(actor.killed for actor in ray.actors)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "time", SimpleNamespace(monotonic=Clock(), sleep=lambda seconds: None))


class Clock:
    """A second passes whenever somebody looks."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_what_workers_say_is_shown_and_all_end_with_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    ray = StandIn([NEW, WORKS, DONE], [NEW, WORKS, DONE])
    assert run_workers(ray) == 0
    assert capsys.readouterr().err.splitlines() == ["works", "进程 1：works"]
    assert [len(actor.started) for actor in ray.actors] == [1, 1]


@pytest.mark.parametrize("code", [1, 2, 6])
def test_a_worker_that_fails_ends_the_others(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_workers(StandIn([NEW, WORKS, None], [NEW, replace(DONE, exit_code=code)])) == code
    assert "--resume" in capsys.readouterr().err.splitlines()[-1]


def test_the_first_ones_code_is_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_workers(StandIn([NEW, replace(DONE, exit_code=6)], [NEW, DONE])) == 6
    assert "--resume" not in capsys.readouterr().err  # the first one has said all there is to say


@pytest.mark.parametrize(
    ("flags", "resumes"), [({}, True), ({"resume": True}, True), ({"overwrite": True}, False)]
)
def test_a_worker_that_was_lost_continues_unless_it_overwrites(
    flags: dict[str, bool], resumes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it had written may be mixed with what is to be overwritten: then it begins its share again."""
    elsewhere = replace(NEW, node="other")
    ray = StandIn([NEW, WORKS, DONE], [NEW, WORKS, Lost("x"), Lost("y"), elsewhere, DONE])
    assert run_workers(ray, **flags) == 0
    first, again = ray.actors[1].started
    assert first.flags == share(**flags).flags
    assert again.flags["resume"] == resumes and again.flags["overwrite"] == bool(flags.get("overwrite"))
    assert "进程 1（node）中断，在 other 上重新启动" in capsys.readouterr().err


def test_a_worker_that_dies_for_good_ends_the_run_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MedchatError, match="进程 1（node）多次中断：out of memory"):
        run_workers(StandIn([NEW, None], [NEW, WORKS, Died("out of memory\nand much more")]))
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said", [[None], [NEW, WORKS, *[Lost("no machine")] * 200]], ids=["never placed", "its machine is gone"]
)
def test_no_room_is_said_soon_and_ends_the_run_in_the_time_that_is_stated(
    said: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(launcher.PATIENCE_VARIABLE, "60")
    with pytest.raises(MedchatError, match=r"60 秒没有地方运行进程 1（空闲：CPU 0\.5/2, GPU 0/0）") as caught:
        run_workers(StandIn([NEW, *[WORKS] * 500], said))
    assert "--workers" in caught.value.remedy and "--resume" in caught.value.remedy
    assert capsys.readouterr().err.count("正在等待 Ray 为进程 1 找到地方") == 1


def test_a_worker_placed_late_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_workers(StandIn([NEW, *[WORKS] * 40, DONE], [*[Lost("-")] * 30, NEW, DONE])) == 0
    assert "正在等待 Ray" in capsys.readouterr().err


def test_ctrl_c_leaves_no_worker_behind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CtrlC):
        run_workers(StandIn([NEW, WORKS, CtrlC()], [NEW, WORKS]), overwrite=True)
    assert "把 --overwrite 换成 --resume" in capsys.readouterr().err.splitlines()[-1]


# ---------------------------------------------------------------- placement


@pytest.mark.parametrize(
    ("nodes", "workers", "use_gpus", "expected"),
    [
        ([node(16)], None, True, (1, 0, 16)),
        ([node(16), node(8)], None, True, (2, 0, 8)),
        ([node(16), node(8), node(64, alive=False)], None, True, (2, 0, 8)),
        ([node(0), node(8), node(8)], None, True, (2, 0, 8)),
        ([node(8), node(8)], 4, True, (4, 0, 4)),
        ([node(8), node(8)], 3, True, (3, 0, 4)),
        ([node(1)], 4, True, (4, 0, 1)),
        ([node(32, 4), node(32, 4)], None, True, (8, 1, 8)),
        ([node(32, 4)], 2, True, (2, 1, 16)),
        ([node(32, 4)], None, False, (1, 0, 32)),
        ([node(0)], None, True, (1, 0, 1)),
    ],
)
def test_threads_are_the_cores_divided_by_the_workers(
    nodes: list[dict[str, Any]], workers: int | None, use_gpus: bool, expected: tuple[int, int, int]
) -> None:
    found = RayPlacement.on(nodes, workers, use_gpus=use_gpus)
    assert (found.workers, found.gpus, found.threads) == expected


@pytest.mark.parametrize("cores", [1, 2, 7, 64])
@pytest.mark.parametrize("workers", [1, 2, 5, 64])
def test_workers_ask_for_half_of_the_cores_at_most_so_that_a_busy_cluster_starts_them(
    cores: int, workers: int
) -> None:
    options = RayPlacement.on([node(cores)], workers, use_gpus=False).options()
    assert 0 < options["num_cpus"] * workers <= cores / 2
    assert options["max_restarts"] > 0
