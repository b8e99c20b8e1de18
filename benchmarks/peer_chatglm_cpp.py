"""The native engine beside chatglm.cpp: a token of ChatGLM-6B, prompts.

    CMAKE_POLICY_VERSION_MINIMUM=3.5 python -m pip install --target DIR chatglm-cpp==0.4.2
    python benchmarks/peer_chatglm_cpp.py --library DIR --json FILE [--rounds 7] [--prompts 64 512] [--bits 8 4]

Two layers and the head, all 130528 rows, random weights, chatglm.cpp's in q8_0 and q4_0 (32 weights share a scale; the
embedding, which is its head, too). It takes as many threads as there are cores, and so does the engine. Bars: a token
at 1.3 (int8) and 1.5 (int4) times its speed; prompts are reported without one.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from medchat_chatglm.vocabulary import train_chatglm_vocabulary
from native_decoder import LAYERS, chatglm, prompt
from numpy.typing import NDArray
from peers import CONTEXT, Ask, Engine, Peer, random_blocks, take_turns
from reporting import parser_of, report

ROWS, WIDTH, INNER, HEADS = 130528, 4096, 16384, 32
LINEARS = (
    ("attention.query_key_value", 3 * WIDTH, WIDTH),
    ("attention.dense", WIDTH, WIDTH),
    ("mlp.dense_h_to_4h", INNER, WIDTH),
    ("mlp.dense_4h_to_h", WIDTH, INNER),
)
BARS = {8: 1.3, 4: 1.5}
#: ggml's numbers of its types; chatglm.cpp's of this kind of model, and of this form of its files.
FLOATS, BLOCKS, CHATGLM, FORM = 0, {8: 8, 4: 2}, 1, 2
#: Values of a tensor begin in such a file at a multiple of so many bytes.
ALIGNMENT = 16


def write_model(file: Path, bits: int) -> None:
    """Write the model as chatglm.cpp reads it."""
    random, vocabulary = np.random.default_rng(0), train_chatglm_vocabulary(["你好，我头疼"], 20)
    with file.open("wb") as out:
        sizes = (BLOCKS[bits], ROWS, WIDTH, HEADS, HEADS, LAYERS, INNER)
        out.write(b"ggml" + struct.pack("9i", CHATGLM, FORM, *sizes))
        out.write(struct.pack("fifiii", 1e-5, 0, 10000.0, 2048, ROWS - 1, 3))
        out.write(struct.pack("i", len(vocabulary)) + vocabulary)

        def matrix(name: str, rows: int, columns: int) -> None:
            values = random_blocks(random, rows, columns, bits)
            write_tensor(out, f"{name}.weight", (rows, columns), BLOCKS[bits], values)

        def floats(name: str, count: int, value: float) -> None:
            write_tensor(out, name, (count,), FLOATS, np.full(count, value, np.float32))

        matrix("transformer.word_embeddings", ROWS, WIDTH)
        for layer in range(LAYERS):
            prefix = f"transformer.layers.{layer}."
            for norm in ("input_layernorm", "post_attention_layernorm"):
                floats(f"{prefix}{norm}.weight", WIDTH, 1)
                floats(f"{prefix}{norm}.bias", WIDTH, 0)
            for name, rows, columns in LINEARS:
                matrix(prefix + name, rows, columns)
                floats(f"{prefix}{name}.bias", rows, 0)
        floats("transformer.final_layernorm.weight", WIDTH, 1)
        floats("transformer.final_layernorm.bias", WIDTH, 0)


def write_tensor(out: BinaryIO, name: str, shape: Sequence[int], kind: int, values: NDArray[Any]) -> None:
    """Write one tensor, its name and shape before it."""
    out.write(struct.pack("i", len(name)) + name.encode())
    out.write(struct.pack(f"{len(shape) + 2}i", len(shape), *shape, kind))
    out.write(bytes(-out.tell() % ALIGNMENT))
    out.write(values.tobytes())


def open_chatglm_cpp(library: Path, file: Path) -> Ask:
    """Open a model in this process; return how it is asked."""
    sys.path.append(str(library))
    import chatglm_cpp

    settings = chatglm_cpp._C.GenerationConfig(do_sample=False)
    pipeline = chatglm_cpp.Pipeline(str(file))

    def ask(ids: Sequence[int], tokens: int, kept: bool) -> tuple[float, float, float]:
        read, past, first = list(ids), len(ids) - 1 if kept else 0, 0.0
        start, before = time.perf_counter(), time.process_time()
        for _ in range(tokens):
            read.append(pipeline.model.generate_next_token(read, None, settings, past, len(ids)))
            past = len(read) - 1
            first = first or time.perf_counter() - start
        return first, (time.perf_counter() - start) / tokens, (time.process_time() - before) / tokens

    return ask


def compare(library: Path, bits: int, prompts: Sequence[int], rounds: int) -> dict[str, Any]:
    """Return the figures of one width."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.bin"
        write_model(file, bits)
        peer, model = Peer(open_chatglm_cpp, library, file), chatglm(bits, ROWS)
        engine = Engine(model, os.cpu_count() or 1)
        figures = take_turns(engine, peer, [prompt(model, tokens) for tokens in (CONTEXT, *prompts)], rounds)
        peer.close()
    return figures


def main() -> int:
    """Compare both widths and report."""
    parser = parser_of(__doc__)
    parser.add_argument("--library", type=Path, required=True, help="where chatglm_cpp is installed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 4], choices=[8, 4])
    parser.add_argument("--prompts", type=int, nargs="*", default=[64, 512])
    given = parser.parse_args()
    figures: dict[str, Any] = {"threads": os.cpu_count()}
    failures: list[str] = []
    for bits in given.bits:
        found = compare(given.library, bits, given.prompts, given.rounds)
        figures[f"int{bits}"] = found
        if (speed := found["token"]["speed"]) < BARS[bits]:
            failures.append(f"int{bits}, a token: {speed}")
    return report("peer_chatglm_cpp", {"speed over chatglm.cpp": BARS}, figures, failures, given.json)


if __name__ == "__main__":
    sys.exit(main())
