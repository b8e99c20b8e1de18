"""The native engine beside llama.cpp: a token, the processor time of one thread, prompts.

    python benchmarks/peer_llama_cpp.py --json FILE [--rounds 7] [--prompts 64 512 1500] [--bits 8 4]

Two layers and the head of LLaMA-7B with random weights, llama.cpp's as a GGUF file in Q8_0 and Q4_0 (32 weights share
a scale, as the engine has them; the embedding too), from its wheel `xllamacpp`. Bars: a token at 1.10 times llama.cpp's
speed on two threads, at 1.6 times in processor time on one thread, prompts in 0.85 (int8) and 0.90 (int4) of its time
on two threads.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from native_decoder import llama
from peers import CONTEXT, Ask, Engine, Peer, random_blocks, take_turns
from reporting import parser_of, report

ROWS, WIDTH, INNER, HEADS, LAYERS = 32000, 4096, 11008, 32, 2
TYPES = {8: gguf.GGMLQuantizationType.Q8_0, 4: gguf.GGMLQuantizationType.Q4_0}
DECODE_BAR, PROCESSOR_BAR = 1.10, 1.6
PROMPT_BARS = {8: 0.85, 4: 0.90}


def write_model(file: Path, bits: int) -> None:
    """Write the model as GGUF."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("llama")
    control, plain = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_list([f"t{number}" for number in range(ROWS)])
    writer.add_token_scores([0.0] * ROWS)
    writer.add_token_types([control] * 3 + [plain] * (ROWS - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    add_tensors(writer, bits)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tensors(writer: gguf.GGUFWriter, bits: int) -> None:
    """Give all tensors to the writer."""
    ones, random = np.ones(WIDTH, np.float32), np.random.default_rng(0)

    def add_matrix(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(name, random_blocks(random, rows, columns, bits), raw_dtype=TYPES[bits])

    add_matrix("token_embd.weight", ROWS, WIDTH)
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", ones)
        for linear in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add_matrix(f"blk.{layer}.{linear}.weight", WIDTH, WIDTH)
        for linear in ("ffn_gate", "ffn_up"):
            add_matrix(f"blk.{layer}.{linear}.weight", INNER, WIDTH)
        add_matrix(f"blk.{layer}.ffn_down.weight", WIDTH, INNER)
    writer.add_tensor("output_norm.weight", ones)
    add_matrix("output.weight", ROWS, WIDTH)


def open_llama_cpp(file: Path, threads: int) -> Ask:
    """Open a model in this process; return how it is asked."""
    import xllamacpp

    chosen = xllamacpp.CommonParams()
    chosen.model.path, chosen.n_ctx, chosen.n_parallel, chosen.verbosity = str(file), 2048, 1, -1
    chosen.cpuparams.n_threads = chosen.cpuparams_batch.n_threads = threads
    chosen.n_gpu_layers = chosen.cache_ram_mib = 0
    server: Any = xllamacpp.Server(chosen)

    def ask(ids: Sequence[int], tokens: int, kept: bool) -> tuple[float, float, float]:
        request = {
            "prompt": list(ids),
            "n_predict": tokens,
            "cache_prompt": kept,
            "temperature": 0,
            "ignore_eos": True,
        }
        before = time.process_time()
        timings = server.handle_completions(request)["timings"]
        processor = (time.process_time() - before) / tokens
        return timings["prompt_ms"] / 1000, timings["predicted_per_token_ms"] / 1000, processor

    return ask


def compare(bits: int, threads: int, prompts: Sequence[int], rounds: int) -> dict[str, Any]:
    """Return the figures of one width."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        write_model(file, bits)
        peer = Peer(open_llama_cpp, file, threads)
        engine = Engine(llama(bits, ROWS), threads)
        figures = take_turns(engine, peer, [ids_of(tokens) for tokens in (CONTEXT, *prompts)], rounds)
        peer.close()
    return figures


def ids_of(tokens: int) -> list[int]:
    """Return a prompt."""
    return [10 + number % 500 for number in range(tokens)]


def missed(found: dict[str, Any], bits: int, threads: int, prompts: Sequence[int]) -> list[str]:
    """Return the bars that figures miss."""
    bars = {"token": DECODE_BAR, **{f"{tokens} tokens": 1 / PROMPT_BARS[bits] for tokens in prompts}}
    if threads == 1:
        bars = {"token, processor time": PROCESSOR_BAR}
    speeds = {name: found[name]["speed"] for name in bars}
    return [f"int{bits}, {name}: {speed}" for name, speed in speeds.items() if speed < bars[name]]


def main() -> int:
    """Compare both widths on two threads and on one, and report."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 4], choices=[8, 4])
    parser.add_argument("--threads", type=int, nargs="*", default=[2, 1])
    parser.add_argument("--prompts", type=int, nargs="*", default=[64, 512, 1500], help="read on two threads")
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    failures: list[str] = []
    for bits in given.bits:
        for threads in given.threads:
            prompts = given.prompts if threads > 1 else []
            found = compare(bits, threads, prompts, given.rounds)
            figures[f"int{bits}, threads: {threads}"] = found
            failures += missed(found, bits, threads, prompts)
    bars = {"token": DECODE_BAR, "processor time": PROCESSOR_BAR, "time of a prompt": PROMPT_BARS}
    return report("peer_llama_cpp", bars, figures, failures, given.json)


if __name__ == "__main__":
    sys.exit(main())
