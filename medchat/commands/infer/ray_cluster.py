"""`medchat infer --ray`: Ray places the processes of a job and restarts them; the rest is theirs.

The only module that imports Ray (an extra), and only when it is asked for. Through Ray go paths, flags and what the
workers say, never questions or answers: those are in the files that all machines share.
"""

from __future__ import annotations

import glob
import io
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.cli.native_output import HeldNativeOutput
from medchat.cli.output import say_aside
from medchat.commands.infer.job import InferJob
from medchat.commands.infer.ray_workers import RayWorkers
from medchat.commands.infer.share import LOCAL, Share
from medchat.errors import MedchatError, UsageError
from medchat.extras import require_extra
from medchat.language import current_language, say
from medchat.launcher import Process
from medchat.paths import make_private
from medchat.sanitize import sanitize_line
from medchat.whole_file import PRIVATE_FILE_MODE

#: What of a node's CPUs a worker asks for at most: they need not be free, or a busy cluster would never start.
_MOST_CPUS = 0.5
#: How often a worker that was killed is started again.
RESTARTS = 3
#: Seconds to reach a cluster.
_CONNECT_SECONDS = 5.0
#: Variables that say how threads work, given to the workers too.
_THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@dataclass(frozen=True)
class RayPlacement:
    """How many workers there are, what each asks of Ray, and the threads that it computes with."""

    workers: int
    cpus: float
    gpus: int
    threads: int

    @classmethod
    def on(cls, nodes: Sequence[Mapping[str, Any]], workers: int | None, *, use_gpus: bool) -> RayPlacement:
        """Divide the cluster's `nodes` (as `ray.nodes()` lists them) among `workers`, or as many as fit it."""
        resources = [node["Resources"] for node in nodes if node["Alive"]]
        cores = [float(one["CPU"]) for one in resources if one.get("CPU")]
        gpus = int(sum(one.get("GPU", 0) for one in resources)) if use_gpus else 0
        count = workers or gpus or max(1, len(cores))
        on_one = -(-count // max(1, len(cores)))
        return cls(
            count,
            min(_MOST_CPUS, sum(cores) / (2 * count)) or _MOST_CPUS,
            int(gpus > 0),
            max(1, int(min(cores, default=1) // on_one)),
        )

    def options(self) -> dict[str, Any]:
        """Return the options of a worker's actor."""
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "max_restarts": RESTARTS,
            "scheduling_strategy": "SPREAD",
        }


def answer_on_cluster(job: InferJob, data: str, *, address: str, workers: int | None, debug: bool) -> int:
    """Answer `job`, whose questions are in `data`, by workers on a Ray cluster, and return the exit code.

    `address` is that of a running cluster or LOCAL. Raises UsageError without the extra or for an address that
    cannot be used, MedchatError where the cluster cannot be reached or has no room, and for workers that fail.
    """
    job.look_at_earlier()
    with _ray(address) as ray, _marked(job.target) as mark:
        use_gpus = job.setup.opening.settings.value("device") != "cpu"
        placement = RayPlacement.on(ray.nodes(), workers, use_gpus=use_gpus)
        say_aside(
            say(
                f"Ray：{placement.workers} 个进程，每个 {placement.threads} 线程",
                f"Ray: {placement.workers} workers; threads of each: {placement.threads}",
            )
        )
        shares = [
            Share(
                data,
                str(job.shown),
                job.flags,
                Process(rank, placement.workers),
                str(Path.cwd()),
                _environment(placement.threads),
                current_language(),
                debug,
                job.facts(),
                mark,
            )
            for rank in range(placement.workers)
        ]
        return RayWorkers(ray, shares, placement.options()).run()


def _environment(threads: int) -> dict[str, str]:
    given = {name: os.environ[name] for name in _THREADS if name in os.environ}
    settings = {name: value for name, value in os.environ.items() if name.startswith("MEDCHAT_")}
    return {"OMP_NUM_THREADS": str(threads), **given, **settings}


@contextmanager
def _marked(target: Path) -> Iterator[Path]:
    """Leave an empty file of a new name beside the result file while a run lasts; what killed runs left goes."""
    make_private(target.parent)
    for left in target.parent.glob(f".{glob.escape(target.name)}.ray-????????"):
        left.unlink(missing_ok=True)
    mark = target.with_name(f".{target.name}.ray-{secrets.token_hex(4)}")
    mark.touch(PRIVATE_FILE_MODE)
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


@contextmanager
def _ray(address: str) -> Iterator[Any]:
    """Yield the module `ray`, connected; Ray's own words on stdout are dropped meanwhile.

    A Ray that is started here listens on the loopback interface alone, takes nobody without a token that is made
    for it, and sends no usage statistics.
    """
    require_extra("ray", "ray")
    if "://" in address:
        raise UsageError(
            say(
                f"--ray {address}：须在集群的一台机器上运行，不支持远程客户端",
                f"--ray {address}: it runs on a machine of the cluster; Ray's remote client will not do",
            ),
            say("在那台机器上用 --ray auto", "on that machine, use --ray auto"),
        )
    own = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_NUM_REDIS_GET_RETRIES": "1"}
    if address == LOCAL:
        # RAY_ENABLE_…, made for macOS, is what keeps Ray's servers off the network's interfaces on Linux too.
        own |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
        own["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    else:
        _require_listener(address)
        say_aside(
            say(
                f"！Ray 默认不验证身份：凡能连到集群（{address}）的人，都能在各台机器上运行程序。只在可信的网络里使用",
                f"! by default Ray has no authentication: whoever reaches the cluster ({address}) can run programs on"
                " its machines. Use it in a trusted network only",
            )
        )
    with _variables(own), redirect_stdout(io.StringIO()), HeldNativeOutput():
        import ray

        with _connected(ray, address):
            yield ray


def _require_listener(address: str) -> None:
    """Raise MedchatError unless somebody listens at HOST:PORT: Ray itself would try for a quarter of an hour."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(
            say(
                f"--ray 的值“{address}”无效：应为 HOST:PORT 或 auto",
                f"invalid --ray {address!r}: HOST:PORT or auto",
            ),
            "--ray 192.0.2.7:6379",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unusable(address, error) from error


def _unusable(address: str, error: Exception) -> MedchatError:
    reason = sanitize_line(str(error).partition("\n")[0], 300)
    return MedchatError(
        say(f"无法连接 Ray（{address}）：{reason}", f"Ray ({address}) cannot be used: {reason}"),
        say(
            "在集群的一台机器上用 ray status 检查；不写地址则在本机启动",
            "see `ray status` on a machine of the cluster; without an address Ray is started here",
        ),
    )


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    own = Path(tempfile.mkdtemp(prefix="medchat-ray-", dir="/tmp")) if address == LOCAL else None
    here = {"include_dashboard": False, "_temp_dir": str(own)} if own else {}
    try:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and its own
            raise _unusable(address, error) from error
        yield
    finally:
        ray.shutdown()
        if own:
            shutil.rmtree(own, ignore_errors=True)


@contextmanager
def _variables(own: Mapping[str, str]) -> Iterator[None]:
    """Set variables while inside; Ray reads them when it is imported and when it starts its processes."""
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
