"""What a machine says of its processor, its threads and its memory; where torch says the same, it is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medchat.inference import machine
from medchat.inference.device import available_memory
from medchat.inference.machine import control_group_room, has_bfloat16, memory_room, thread_count

pytestmark = pytest.mark.torch

X86 = "processor\t: 0\nmodel name\t: A\nflags\t\t: fpu sse2 {}\nbugs\t\t: bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("description", "known"),
    [
        (X86.format("avx512_bf16"), True),
        (X86.format("amx_tile amx_bf16"), True),
        (X86.format("avx512f avx512_vnni"), False),
        (ARM.format("bf16"), True),
        (ARM.format("svebf16"), False),
        ("processor\t: 0\nuarch\t: sifive\n", None),
    ],
)
def test_instructions_for_bfloat16_are_read_from_what_the_system_tells(
    tmp_path: Path, description: str, known: bool | None
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(description)
    assert has_bfloat16(file) is known
    assert has_bfloat16(tmp_path / "none") is None


def test_this_processor_has_what_torch_says_that_it_has() -> None:
    told = torch.cpu.get_capabilities()
    has = any(told.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    assert has_bfloat16() in (has, None)


@pytest.mark.parametrize(
    ("stated", "count"),
    [({"OMP_NUM_THREADS": "3"}, 3), ({"OMP_NUM_THREADS": "4,2"}, 4), ({"MKL_NUM_THREADS": "5"}, 5)],
)
def test_the_environment_says_how_many_threads_compute(
    monkeypatch: pytest.MonkeyPatch, stated: dict[str, str], count: int
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in stated.items():
        monkeypatch.setenv(name, value)
    assert thread_count() == count


def test_without_a_word_of_it_there_are_as_many_threads_as_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda logical: 10_000)
    usable = thread_count()
    assert 0 < usable < 10_000  # never more than this process may use
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda logical: None)
    assert thread_count() == usable


def test_a_container_limit_bounds_the_available_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "cgroup/app/inner"
    group.mkdir(parents=True)
    limits = {group: "max", group.parent: str(3 * 2**20)}
    for folder, limit in limits.items():
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text(str(2 * 2**20))
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {2**19}\n")
    own = tmp_path / "own"
    own.write_text("0::/app/inner\n")
    room = control_group_room(tmp_path / "cgroup", own)
    assert room == [2**20 + 2**19]
    monkeypatch.setattr(machine, "control_group_room", lambda: room)
    assert memory_room() == available_memory(torch.device("cpu")) == room[0]
