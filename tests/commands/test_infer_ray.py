"""`medchat infer --ray` without Ray: how work is placed, what a worker does with its share, what becomes of losses.

On a real Ray: `test_infer_ray_cluster.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from batch_program import Parrot, rows, without_seconds, write_questions
from launched import launch

from medchat import launcher
from medchat.cli.program import run
from medchat.cli.signals import CtrlC
from medchat.commands.infer import ray_workers
from medchat.commands.infer.ray_cluster import RayPlacement
from medchat.commands.infer.ray_workers import RayWorkers
from medchat.commands.infer.share import News, Share, ShareWorker
from medchat.errors import MedchatError
from medchat.launcher import Process

# ---------------------------------------------------------------- a Ray that is not there


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


def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    resources = {name: value for name, value in (("CPU", cpus), ("GPU", gpus)) if value}
    return {"Alive": alive, "Resources": {"memory": 1e9, **resources}}


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


# ---------------------------------------------------------------- the share of one worker


@pytest.fixture(scope="module")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Parrot:
    return Parrot(tmp_path_factory.mktemp("parrot"))


@pytest.fixture(autouse=True)
def _in_this_process(parrot: Parrot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(parrot.model.parent / "site"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a worker sets it for its process
    monkeypatch.setattr("medchat.commands.infer.share.NEWS_SECONDS", 0.05)


class InThisProcess:
    """An actor whose share is answered by a real ShareWorker here, to its end, before anybody hears of it."""

    def __init__(self) -> None:
        self._worker = ShareWorker()
        self._last: News | None = None
        self.news = SimpleNamespace(remote=lambda: self._news)
        self.start = SimpleNamespace(remote=self._answer)

    def _news(self) -> News:
        return self._last or self._worker.news()

    def _answer(self, given: Share) -> None:
        streams, lines = (sys.stdout, sys.stderr), []
        self._worker.start(given)
        while (news := self._worker.news()).exit_code is None:
            lines += news.lines
        sys.stdout, sys.stderr = streams
        self._last = replace(news, lines=(*lines, *news.lines))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module `ray` with one node, which notes how it was connected."""
    module: Any = ModuleType("ray")
    module.__spec__ = SimpleNamespace()
    module.exceptions = StandIn.exceptions
    module.nodes = lambda: [node(2)]
    module.init = lambda **given: setattr(module, "connected", {**given, "environment": dict(os.environ)})
    module.shutdown = lambda: None
    module.remote = lambda worker: SimpleNamespace(
        options=lambda **asked: SimpleNamespace(remote=InThisProcess)
    )
    module.wait = lambda references, num_returns, timeout: (references, [])
    module.get = lambda call: call()
    module.kill = lambda actor: None
    monkeypatch.setitem(sys.modules, "ray", module)
    return module


def infer(parrot: Parrot, *more: str) -> int:
    write_questions(Path("q.jsonl"), 9)
    return run(parrot.arguments(Path("q.jsonl"), Path("a.jsonl"), *more), language="zh", debug=False)


def test_one_worker_gives_what_a_run_without_ray_gives(parrot: Parrot, ray: Any, tmp_path: Path) -> None:
    assert infer(parrot) == 0
    alone = without_seconds(rows(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / ".a.jsonl.ray-00000000").touch()  # left by a run that was killed
    assert infer(parrot, "--ray") == 0
    assert without_seconds(rows(tmp_path / "a.jsonl")) == alone
    assert {path.name for path in tmp_path.iterdir()} <= {"a.jsonl", "q.jsonl", "medchat-home"}


def test_ray_here_has_a_secret_and_no_dashboard_and_sends_no_statistics(parrot: Parrot, ray: Any) -> None:
    tokens = set()
    for more in ([], ["--overwrite"]):
        assert infer(parrot, "--ray", *more) == 0
        assert ray.connected["address"] == "local" and ray.connected["include_dashboard"] is False
        variables = ray.connected["environment"]
        assert variables["RAY_USAGE_STATS_ENABLED"] == "0" and variables["RAY_AUTH_MODE"] == "token"
        tokens.add(variables["RAY_AUTH_TOKEN"])
        assert not Path(ray.connected["_temp_dir"]).exists()
    assert len(tokens) == 2 and all(len(token) == 64 for token in tokens)
    assert not any(name.startswith("RAY_") for name in os.environ)


def test_a_cluster_is_joined_with_a_warning_that_ray_trusts_everybody(
    parrot: Parrot, ray: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(parrot, "--ray", "auto") == 0
    assert ray.connected["address"] == "auto" and "_temp_dir" not in ray.connected
    assert ray.connected["environment"]["RAY_USAGE_STATS_ENABLED"] == "0"
    assert "Ray 默认不验证身份" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--ray", "127.0.0.1:1"], 1, "无法连接 Ray（127.0.0.1:1）"),
        (["--ray", "somewhere"], 2, "应为 HOST:PORT 或 auto"),
        (["--ray", "ray://127.0.0.1:10001"], 2, "--ray auto"),
        (["--workers", "2"], 2, "--workers 只和 --ray 一起用"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_at_once(
    flags: list[str], code: int, said: str, parrot: Parrot, ray: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(parrot, *flags) == code
    assert said in capsys.readouterr().err
    assert not hasattr(ray, "connected")


def test_what_ray_says_when_it_cannot_be_joined_is_passed_on(
    parrot: Parrot, ray: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**given: Any) -> None:
        raise RuntimeError("Version mismatch: 2.60 and 2.61\nand more")

    ray.init = refuse
    assert infer(parrot, "--ray", "auto") == 1
    assert "无法连接 Ray（auto）：Version mismatch: 2.60 and 2.61\n" in capsys.readouterr().err


def test_without_the_extra_its_name_is_said(
    parrot: Parrot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert infer(parrot, "--ray") == 2
    assert "pip install 'medchat[ray]'" in capsys.readouterr().err


def test_ray_and_torchrun_do_not_go_together(
    parrot: Parrot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(monkeypatch, 2)
    assert infer(parrot, "--ray") == 2
    assert "torchrun" in capsys.readouterr().err


def test_earlier_answers_are_not_touched_without_a_flag(parrot: Parrot, ray: Any, tmp_path: Path) -> None:
    assert infer(parrot) == 0
    before = (tmp_path / "a.jsonl").read_bytes()
    assert infer(parrot, "--ray") == 2
    assert (tmp_path / "a.jsonl").read_bytes() == before and not hasattr(ray, "connected")


def other_questions() -> None:
    write_questions(Path("q.jsonl"), 10)


def other_settings() -> None:
    Path("medchat.toml").write_text('system = "another"\n', encoding="utf-8")


def no_shared_folder() -> None:
    next(Path.cwd().glob(".a.jsonl.ray-*")).unlink()


def another_run_s_folder() -> None:
    mark = next(Path.cwd().glob(".a.jsonl.ray-*"))
    mark.rename(".a.jsonl.ray-00000000")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_questions, "数据或设置与启动处不同：--data: "),
        (other_settings, "数据或设置与启动处不同：system: 'another' ≠ None"),
        (no_shared_folder, "看不到同一个输出目录"),
        (another_run_s_folder, "看不到同一个输出目录"),
    ],
)
def test_a_machine_that_does_not_see_the_same_answers_nothing(
    change: Callable[[], None],
    said: str,
    parrot: Parrot,
    ray: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The change is made between the driver's look and the worker's, as if that one were another machine."""
    start = ShareWorker.start

    def elsewhere(worker: ShareWorker, given: Share) -> None:
        change()
        start(worker, given)

    monkeypatch.setattr(ShareWorker, "start", elsewhere)
    assert infer(parrot, "--ray") == 1
    assert said in capsys.readouterr().err
    assert not Path("a.jsonl").exists()
