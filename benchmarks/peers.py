"""What the comparisons of the native engine with other programs share: the engine, the other program, their turns.

The other program computes in a process of its own that runs nothing between its turns. A ratio is the median of those
of the rounds, in which the two take turns; both answer greedily.
"""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from native_decoder import block_to_read, in_engine, packed_bytes_of, read_bandwidth
from numpy.typing import NDArray
from transformers import PreTrainedModel

#: Tokens before the answer, and of it.
CONTEXT, ANSWER = 32, 16
NEVER = threading.Event()

#: Answers ids with the seconds of the prompt, of a token, and the processor's for a token: (ids, tokens, kept). Where
#: the prompt is `kept` but for its last token, an answer is as many passes of one token.
Ask = Callable[[Sequence[int], int, bool], tuple[float, float, float]]


def random_blocks(random: np.random.Generator, rows: int, columns: int, bits: int) -> NDArray[np.uint8]:
    """Return the rows of a matrix of random integers in Q8_0 or Q4_0: blocks of a float16 scale and 32 integers."""
    blocks = random.integers(0, 256, (rows * columns // 32, 2 + 32 * bits // 8), np.uint8)
    blocks[:, :2] = np.array([0.02 / 2 ** (bits - 2)], np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


class Peer:
    """Another program in a process of its own, where `start` opens it with `given` and returns how it is asked."""

    def __init__(self, start: Callable[..., Ask], *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, start, given), daemon=True)
        self._process.start()

    def ask(self, ids: Sequence[int], answer: int, kept: bool) -> tuple[float, float, float]:
        """Return the seconds of the prompt, of a token, and the processor's for a token."""
        self._connection.send((list(ids), answer, kept))
        found: tuple[float, float, float] = self._connection.recv()
        return found

    def close(self) -> None:
        """End the process."""
        self._connection.send(None)
        self._process.join()


def serve(connection: Connection, start: Callable[..., Ask], given: Sequence[Any]) -> None:
    """Answer what comes over the connection until that is None."""
    ask = start(*given)
    while (asked := connection.recv()) is not None:
        connection.send(ask(*asked))


class Engine:
    """The native engine in this process."""

    def __init__(self, model: PreTrainedModel, threads: int) -> None:
        """`model` has no values yet (native_decoder.py)."""
        torch.set_num_threads(threads)
        self._model, self._stepper = model, in_engine(model)[1]
        self.weight_bytes = packed_bytes_of(model)

    def prompt_seconds(self, ids: Sequence[int]) -> float:
        """Read a prompt with nothing kept."""
        self._stepper.forget()
        start = time.perf_counter()
        int(self._stepper.prefill(ids, NEVER).argmax())
        return time.perf_counter() - start

    def token_seconds(self) -> tuple[float, float]:
        """Return what a token takes behind the prompt that was read last, and of the processor."""
        token, start, before = 9, time.perf_counter(), time.process_time()
        for _ in range(ANSWER):
            token = int(self._stepper.advance(token).argmax())
        return (time.perf_counter() - start) / ANSWER, (time.process_time() - before) / ANSWER


def take_turns(engine: Engine, peer: Peer, prompts: Sequence[Sequence[int]], rounds: int) -> dict[str, Any]:
    """Return the figures of a token behind the first of the prompts, and of each of the others."""
    context = prompts[0]
    peer.ask(context, 1, kept=False)
    block = block_to_read()
    decode, processor, bandwidths = [], [], []
    for _ in range(rounds):
        bandwidths.append(read_bandwidth(block, time.perf_counter))
        engine.prompt_seconds(context)
        ours, ours_processor = engine.token_seconds()
        _, theirs, theirs_processor = peer.ask(context, ANSWER, kept=True)
        decode.append((ours, theirs))
        processor.append((ours_processor, theirs_processor))
    figures: dict[str, Any] = {"token": paired(decode), "token, processor time": paired(processor)}
    for ids in prompts[1:]:
        some = [(engine.prompt_seconds(ids), peer.ask(ids, 1, kept=False)[0]) for _ in range(rounds)]
        figures[f"{len(ids)} tokens"] = paired(some)
    seconds, bandwidth = statistics.median(ours for ours, _ in decode), statistics.median(bandwidths)
    figures["read_gigabytes_a_second"] = round(bandwidth / 1e9, 1)
    figures["share_of_bandwidth"] = round(engine.weight_bytes / seconds / bandwidth, 2)
    return figures


def paired(taken: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return the medians of both in milliseconds, and that of our speed over theirs."""
    ours, theirs = zip(*taken, strict=True)
    return {
        "engine_ms": round(statistics.median(ours) * 1000, 1),
        "other_ms": round(statistics.median(theirs) * 1000, 1),
        "speed": round(statistics.median(them / us for us, them in taken), 2),
    }
