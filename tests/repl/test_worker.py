"""The background thread and the signals: order, errors handed over, nothing raised in the middle of work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from pseudo_terminal import chat_environment

from medchat.repl.interrupts import Interrupted, Interrupts
from medchat.repl.stderr_capture import StderrCapture
from medchat.repl.worker import Job, Worker


def finish(job: Job[object]) -> list[object]:
    events = []
    while not job.finished:
        event = job.take(1.0)
        if event is not None:
            events.append(event)
    return events


def test_all_work_is_done_in_one_thread_in_the_order_asked() -> None:
    engine = Worker()
    order: list[tuple[int, int]] = []
    jobs = [engine.start(lambda _, n=n: order.append((n, threading.get_ident()))) for n in range(20)]
    assert engine.idle_within(5)
    assert [number for number, _ in order] == list(range(20))
    assert len({thread for _, thread in order}) == 1 and order[0][1] != threading.get_ident()
    assert all(job.finished for job in jobs)


def test_no_event_is_lost_between_the_last_one_and_the_end() -> None:
    engine = Worker()
    for _ in range(200):
        job = engine.start(lambda job: [job.emit(number) for number in range(5)])
        assert finish(job) == [0, 1, 2, 3, 4]


def test_what_the_work_raises_is_raised_by_its_result_and_the_next_work_is_done() -> None:
    engine = Worker()

    def leave(job: Job[object]) -> None:
        raise SystemExit(9)

    failed, next_one = engine.start(leave), engine.start(lambda _: "fine")
    finish(failed), finish(next_one)
    with pytest.raises(SystemExit):
        failed.result()
    assert next_one.result() == "fine"


def test_a_callback_comes_once_whether_the_work_ended_before_or_after_it_was_given() -> None:
    engine, gate, calls = Worker(), threading.Event(), []
    job = engine.start(lambda _: gate.wait(10))
    job.when_finished(lambda: calls.append("waited"))
    gate.set()
    assert engine.idle_within(5)
    job.when_finished(lambda: calls.append("at once"))
    assert calls == ["waited", "at once"]


def test_ctrl_c_stops_what_is_under_way_and_nothing_else() -> None:
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        with interrupts.stopping(threading.Event()) as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.is_set()
        assert interrupts.exit_code is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_request_to_end_stops_what_is_under_way_now_and_later(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        with interrupts.stopping(threading.Event()) as stop:
            os.kill(os.getpid(), number)
            assert stop.is_set()
        assert interrupts.exit_code == code
        with interrupts.stopping(threading.Event()) as later:
            assert later.is_set()
        with pytest.raises(Interrupted), interrupts.raising():
            raise AssertionError("a read after the request would block")
    assert signal.getsignal(number) == before


def test_a_blocked_read_is_left_at_a_signal() -> None:
    reading, writing = os.pipe()
    with Interrupts(end_on_ctrl_c=True) as interrupts:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(Interrupted), interrupts.raising():
            os.read(reading, 1)
        assert interrupts.exit_code == 130
    os.close(reading), os.close(writing)


def test_what_libraries_print_is_kept_as_whole_lines_in_their_last_state() -> None:
    with StderrCapture() as asides:
        print("载入", end="")
        print("中")
        for state in ("10%", "50%", "100%"):
            print(f"\r{state}", end="")
        print("\n\n  \nhalf", end="")
        assert asides.take() == ["载入中", "100%"]
        print(" done")
        assert asides.take() == ["half done"]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("medchat.repl", ("prompt_toolkit", "rich", "termios")),
        ("medchat.repl.lines", ("prompt_toolkit", "rich.console", "torch")),
        ("medchat.repl.terminal", ("rich.console", "rich.markdown", "pygments", "torch")),
    ],
)
def test_the_first_prompt_does_not_wait_for_imports_it_does_not_need(
    module: str, absent: tuple[str, ...]
) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=chat_environment({})
    )
    assert done.stdout.strip() == "[]", done.stderr
