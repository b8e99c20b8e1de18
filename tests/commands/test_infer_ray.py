"""`medchat infer --ray` without Ray: what a worker does with its share, how Ray is joined, what is refused.

On a real Ray: `test_infer_ray_cluster.py`; the workers from outside: `test_ray_workers.py`.
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
from stand_in_ray import StandIn, node

from medchat.cli.program import run
from medchat.commands.infer.share import News, Share, ShareWorker


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
    def variables_of_ray() -> set[str]:
        return {name for name in os.environ if name.startswith("RAY_")}

    # Where Ray is installed, its import alone sets one.
    tokens, before = set(), variables_of_ray()
    for more in ([], ["--overwrite"]):
        assert infer(parrot, "--ray", *more) == 0
        assert ray.connected["address"] == "local" and ray.connected["include_dashboard"] is False
        variables = ray.connected["environment"]
        assert variables["RAY_USAGE_STATS_ENABLED"] == "0" and variables["RAY_AUTH_MODE"] == "token"
        tokens.add(variables["RAY_AUTH_TOKEN"])
        assert not Path(ray.connected["_temp_dir"]).exists()
    assert len(tokens) == 2 and all(len(token) == 64 for token in tokens)
    assert variables_of_ray() == before


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
