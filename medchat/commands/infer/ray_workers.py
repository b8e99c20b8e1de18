"""The workers of a job on a Ray cluster: started where Ray finds room, heard, started again, and ended together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medchat import launcher
from medchat.cli.output import say_aside
from medchat.commands.infer.share import News, Share, ShareWorker
from medchat.errors import MedchatError
from medchat.language import say
from medchat.sanitize import sanitize_line

#: Seconds between two looks, and how long the others have to end once the first has put the results together.
_POLL, _LEAVE = 0.5, 10.0


@dataclass
class _Worker:
    """One actor. `absent` is since when nothing was heard from it, None while it answers."""

    share: Share
    actor: Any
    news: Any = None
    node: str = ""
    absent: float | None = field(default_factory=lambda: time.monotonic())
    exit_code: int | None = None

    @property
    def rank(self) -> int:
        return self.share.process.rank


class RayWorkers:
    """Runs `shares`, each in an actor with `options`, on a connected `ray`."""

    def __init__(self, ray: Any, shares: Sequence[Share], options: Mapping[str, Any]) -> None:
        self._ray = ray
        self._told = False
        actor = ray.remote(ShareWorker).options(**options)
        self._workers = [_Worker(share, actor.remote()) for share in shares]

    def run(self) -> int:
        """Wait until all shares are answered, and return the exit code: the first one's, or that of one that failed.

        Raises MedchatError where there is no room for a worker, or where it has died too often. Whatever happens, no
        actor is left, and each answer that was written is kept.
        """
        try:
            while (code := self._ended()) is None:
                self._listen()
                self._look_for_absent()
            self._let_leave()
        except BaseException:
            say_aside(self._how_to_go_on())
            raise
        finally:
            for worker in self._workers:
                self._ray.kill(worker.actor)
        if code and self._workers[0].exit_code is None:
            say_aside(self._how_to_go_on())
        return code

    def _ended(self) -> int | None:
        failed = [worker.exit_code for worker in self._workers[1:] if worker.exit_code]
        return failed[0] if failed else self._workers[0].exit_code

    def _listen(self) -> None:
        asked = {}
        for worker in self._workers:
            if worker.exit_code is None:
                worker.news = worker.news or worker.actor.news.remote()
                asked[worker.news] = worker
        heard, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=_POLL)
        for reference in heard:
            worker = asked[reference]
            worker.news = None
            try:
                news = self._ray.get(reference)
            except self._ray.exceptions.ActorDiedError as error:
                raise self._lost(worker, error) from error
            except self._ray.exceptions.RayActorError:  # being started again
                worker.absent = worker.absent or time.monotonic()
                time.sleep(_POLL)
            else:
                self._hear(worker, news)

    def _hear(self, worker: _Worker, news: News) -> None:
        if not news.started:
            if worker.node:
                say_aside(
                    say(
                        f"进程 {worker.rank}（{worker.node}）中断，在 {news.node} 上重新启动",
                        f"worker {worker.rank} ({worker.node}) was lost; started again on {news.node}",
                    )
                )
            worker.actor.start.remote(self._share_of(worker))
        worker.node, worker.absent = news.node, None
        before = "" if worker.rank == 0 else say(f"进程 {worker.rank}：", f"worker {worker.rank}: ")
        for line in news.lines:
            say_aside(before + line)
        worker.exit_code = news.exit_code

    def _share_of(self, worker: _Worker) -> Share:
        """Return what the actor is to do. One that was lost continues; where it overwrites, it begins again."""
        share = worker.share
        if not worker.node or share.flags["overwrite"]:
            return share
        return replace(share, flags={**share.flags, "resume": True})

    def _look_for_absent(self) -> None:
        now = time.monotonic()
        absent = [worker for worker in self._workers if worker.absent and worker.exit_code is None]
        waited = max((now - (worker.absent or now) for worker in absent), default=0.0)
        ranks = ", ".join(str(worker.rank) for worker in absent)
        if waited > launcher.patience():
            raise MedchatError(
                say(
                    f"Ray 集群里 {launcher.patience()} 秒没有地方运行进程 {ranks}（{self._room()}）",
                    f"the Ray cluster had no room for worker {ranks} in {launcher.patience()} seconds ({self._room()})",
                ),
                say(
                    "用 --workers 减少进程，或加入机器（ray start --address …）后用 --resume 继续",
                    "ask for fewer --workers, or add machines (ray start --address …) and continue with --resume",
                ),
            )
        if waited > launcher.SILENCE and not self._told:
            self._told = True
            say_aside(
                say(
                    f"正在等待 Ray 为进程 {ranks} 找到地方（{self._room()}），共等 {launcher.patience()} 秒"
                    f"（{launcher.PATIENCE_VARIABLE}）；新加入的机器会用上",
                    f"waiting for Ray to find room for worker {ranks} ({self._room()}),"
                    f" for {launcher.patience()} seconds in all ({launcher.PATIENCE_VARIABLE});"
                    " a machine that joins is used",
                )
            )

    def _room(self) -> str:
        free, whole = self._ray.available_resources(), self._ray.cluster_resources()
        return say("空闲：", "free: ") + ", ".join(
            f"{name} {free.get(name, 0):g}/{whole.get(name, 0):g}" for name in ("CPU", "GPU")
        )

    def _lost(self, worker: _Worker, error: Exception) -> MedchatError:
        where = worker.node or "?"
        reason = sanitize_line(str(error).strip().partition("\n")[0], 200)
        return MedchatError(
            say(
                f"进程 {worker.rank}（{where}）多次中断：{reason}",
                f"worker {worker.rank} ({where}) died again and again: {reason}",
            ),
            say(
                "看看那台机器的内存是否够用（--batch-size、--workers），再用 --resume 继续",
                "see whether that machine has enough memory (--batch-size, --workers), then continue with --resume",
            ),
        )

    def _let_leave(self) -> None:
        """Wait for those that only have to see that the results are together."""
        until = time.monotonic() + _LEAVE
        while self._workers[0].exit_code == 0 and time.monotonic() < until:
            if all(worker.exit_code is not None for worker in self._workers):
                return
            self._listen()

    def _how_to_go_on(self) -> str:
        share = self._workers[0].share
        output = sanitize_line(share.output)
        if share.flags["overwrite"]:
            return say(
                f"已停止，写入的回答都在 {output} 旁边。继续：同一条命令，把 --overwrite 换成 --resume",
                f"stopped; every answer that was written is kept beside {output}; continue with the same command,"
                " --resume in place of --overwrite",
            )
        return say(
            f"已停止，写入的回答都在 {output} 旁边。继续：同一条命令加上 --resume",
            f"stopped; every answer that was written is kept beside {output}; continue with the same command"
            " with --resume",
        )
