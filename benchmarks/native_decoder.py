"""Whole decoders of the native engine against the torch path: a token, sixteen sequences at once, prompts.

Two layers of the real width with that share of the vocabulary (2 of 28, 30 or 32), random weights, a bfloat16 model, by
turns in one process. "torch" is the same model with torch's quantised linears (one scale a row) and a head in bfloat16,
"layered" torch with the engine's linears, head included. Bars: a token of ChatGLM at 2 (int8) and 4 (int4) times
torch's speed, sixteen sequences together at 4 times the speed of one after the other, and in every family a token
takes its weights at 0.80 of the speed at which memory is read in the same rounds. Prompts are reported without a bar.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from medchat_bloom.fused import bloom_parts
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.fused import chatglm_parts, chatglm_sequence
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from medchat_chatglm.stepper import ChatGLMStepper
from medchat_llama.fused import llama_parts
from reporting import parser_of, report
from transformers import BloomConfig, BloomForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from medchat.inference.engine import NativeLinear, give_to_engine, make_grouped
from medchat.inference.kv_cache import CausalStepper
from medchat.inference.native_model import NativeModel, NativeStepper
from medchat.inference.native_sequence import CausalSequence
from medchat.inference.quantization import QuantizedLinear, insert_quantized_linears, quantisable_linears

LAYERS = 2
TOGETHER = 16
#: Tokens of the prompt before decoding, and of the prompts that are timed.
CONTEXT, PROMPTS = 32, [64, 512]
#: The rest of the configurations: that of the published models.
CHATGLM: dict[str, int] = {}
LLAMA: dict[str, int] = {}
BLOOM = {"hidden_size": 4096, "n_head": 32}
DECODE_BARS = {8: 2.0, 4: 4.0}
BATCH_BAR = 4.0
BANDWIDTH_BAR = 0.80
#: Bytes that are read to see the bandwidth: more than any cache holds.
READ_BYTES = 1 << 30
NEVER = threading.Event()

Stepper = Any


def chatglm(bits: int, rows: int = 130528 * LAYERS // 28) -> ChatGLMForConditionalGeneration:
    """Return two layers of ChatGLM-6B without values, with a vocabulary of `rows`, linears quantised."""
    special = {"bos_token_id": rows - 2, "eos_token_id": rows - 1, "pad_token_id": 3}
    config = ChatGLMConfig(vocab_size=rows, num_layers=LAYERS, quantization_bit=bits, **special, **CHATGLM)
    with torch.device("meta"):
        return ChatGLMForConditionalGeneration(config)


def llama(bits: int, rows: int = 32000 * LAYERS // 32) -> LlamaForCausalLM:
    """Return two layers of LLaMA-7B likewise, with a vocabulary of `rows`."""
    config = LlamaConfig(vocab_size=rows, num_hidden_layers=LAYERS, **LLAMA)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
        insert_quantized_linears(model, bits, quantisable_linears(model))
    return model


def bloom(bits: int) -> BloomForCausalLM:
    """Return two layers of BLOOM-7B1 likewise."""
    config = BloomConfig(vocab_size=250880 * LAYERS // 30, n_layer=LAYERS, **BLOOM)
    with torch.device("meta"):
        model = BloomForCausalLM(config)
        insert_quantized_linears(model, bits, quantisable_linears(model))
    return model


FAMILIES: dict[str, Callable[[int], PreTrainedModel]] = {"llama": llama, "chatglm": chatglm, "bloom": bloom}
#: What the engine takes of a model, by its class.
PARTS: dict[type[PreTrainedModel], Callable[..., Any]] = {
    LlamaForCausalLM: llama_parts,
    ChatGLMForConditionalGeneration: chatglm_parts,
    BloomForCausalLM: bloom_parts,
}


def filled(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Give a model random values, in bfloat16 where they are not quantised."""
    torch.manual_seed(seed)
    model = model.to_empty(device="cpu").to(torch.bfloat16).requires_grad_(False).eval()
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            module.weight.random_(-128, 128)
            module.weight_scale.fill_(0.02 / 2**module.bits)
            if module.bias is not None:
                module.bias.zero_()
        elif hasattr(module, "weight"):
            module.weight.normal_(0, 0.02)
            if "norm" in type(module).__name__.lower():
                module.weight.fill_(1)
                if getattr(module, "bias", None) is not None:
                    module.bias.zero_()
    if isinstance(model, LlamaForCausalLM):
        pairs = model.config.hidden_size // model.config.num_attention_heads // 2
        model.model.rotary_emb.inv_freq = 10000.0 ** -(torch.arange(pairs) / pairs)
    return model


def prompt(model: PreTrainedModel, tokens: int) -> list[int]:
    """Return some ids that the family takes for a prompt."""
    ids = [10 + number % 500 for number in range(tokens)]
    if isinstance(model, ChatGLMForConditionalGeneration):
        special = model.special_ids
        ids[-2:] = [special.gmask, special.sop]
    return ids


def steppers(family: str, bits: int) -> tuple[dict[str, Stepper], NativeModel, PreTrainedModel]:
    """Return a stepper for each way to compute the same kind of model, and the native one."""
    plain, laid_out = FAMILIES[family](bits), FAMILIES[family](bits)
    layered, stepper, native = in_engine(laid_out)
    found = {"torch": type(layered)(filled(plain, 0)), "layered": layered, "native": stepper}
    return found, native, laid_out


def in_engine(model: PreTrainedModel) -> tuple[Stepper, NativeStepper, NativeModel]:
    """Give a model random values and to the engine; return its steppers by layers and whole, and what is whole."""
    make_grouped(model)
    give_to_engine("native", filled(model, 0), torch.device("cpu"))
    model.eval()
    is_chatglm = isinstance(model, ChatGLMForConditionalGeneration)
    layered: Callable[..., Stepper] = ChatGLMStepper if is_chatglm else CausalStepper
    native = NativeModel(
        partial(PARTS[type(model)], model), partial(chatglm_sequence, model) if is_chatglm else CausalSequence
    )
    # A fallback of its own: reading a prompt natively forgets what that one has read.
    return layered(model), NativeStepper(native, layered(model)), native


def packed_bytes_of(model: PreTrainedModel) -> int:
    """Return the bytes of all matrices that the engine has, which a token reads once."""
    return sum(module.packed.data.nbytes for module in model.modules() if isinstance(module, NativeLinear))


def read_bandwidth(block: torch.Tensor, clock: Callable[[], float]) -> float:
    """Return the bytes a second at which `block`, of floats, is read once, on the threads that torch has."""
    start = clock()
    block.amax()
    return block.nbytes / (clock() - start)


def block_to_read() -> torch.Tensor:
    """Return floats for `read_bandwidth`, on large pages where the system has them."""
    return torch.from_numpy(np.ones(READ_BYTES // 4, np.float32))


def medians(runs: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return the median seconds of each, run by turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            run()
            taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def compare(
    family: str, bits: int, prompts: Sequence[int], rounds: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """Return the figures of one family and width."""
    found, native, model = steppers(family, bits)
    for stepper in found.values():
        stepper.prefill(prompt(model, CONTEXT), NEVER)
    block, bandwidths = block_to_read(), []
    runs: dict[str, Callable[[], Any]] = {name: partial(one.advance, 9) for name, one in found.items()}
    runs["read"] = lambda: bandwidths.append(read_bandwidth(block, clock))
    taken = medians(runs, rounds, clock)
    del taken["read"]
    bandwidth = statistics.median(bandwidths)
    figures: dict[str, Any] = {
        "1 token": milliseconds(taken),
        "read_gigabytes_a_second": round(bandwidth / 1e9, 1),
        "share_of_bandwidth": round(packed_bytes_of(model) / taken["native"] / bandwidth, 2),
    }
    for tokens in prompts:
        runs = {name: partial(read_anew, one, prompt(model, tokens), NEVER) for name, one in found.items()}
        figures[f"{tokens} tokens"] = milliseconds(medians(runs, rounds, clock))
    figures[f"{TOGETHER} sequences"] = together(native, prompt(model, CONTEXT), rounds, clock)
    return figures


def read_anew(stepper: Stepper, ids: Sequence[int], cancel: threading.Event) -> None:
    """Read a prompt with nothing kept."""
    stepper.forget()
    stepper.prefill(ids, cancel)


def together(
    native: NativeModel, ids: Sequence[int], rounds: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """Return what a token of many sequences takes together and one after the other."""
    decoder = native.decoder()
    assert decoder is not None
    sequences = [native.begin(decoder) for _ in range(TOGETHER)]
    for sequence in sequences:
        decoder.read([sequence.prompt(ids)])
    runs = {
        "together": lambda: decoder.read([sequence.append(9) for sequence in sequences]),
        "one_by_one": lambda: [decoder.read([sequence.append(9)]) for sequence in sequences],
    }
    taken = medians(runs, rounds, clock)
    named = {f"{name}_ms": round(value * 1000, 1) for name, value in taken.items()}
    return {**named, "speed": round(taken["one_by_one"] / taken["together"], 2)}


def milliseconds(taken: dict[str, float]) -> dict[str, float]:
    """Return the times in milliseconds and the speed over torch's path."""
    named = {f"{name}_ms": round(value * 1000, 1) for name, value in taken.items()}
    return {**named, "speed_over_torch": round(taken["torch"] / taken["native"], 2)}


def main() -> int:
    """Compare families and widths, and report."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, nargs="*", default=PROMPTS, help="lengths of prompts to time")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    clock = time.process_time if given.threads == 1 else time.perf_counter
    figures: dict[str, Any] = {"threads": given.threads}
    failures = []
    for family in FAMILIES:
        for bits, bar in DECODE_BARS.items():
            found = compare(family, bits, given.prompts, given.rounds, clock)
            figures[f"{family} int{bits}"] = found
            ratio = found["1 token"]["speed_over_torch"]
            if family == "chatglm" and ratio < bar:
                failures.append(f"{family} int{bits}, a token: {ratio} times torch's speed")
            if (share := found["share_of_bandwidth"]) < BANDWIDTH_BAR:
                failures.append(f"{family} int{bits}, share of the bandwidth: {share}")
            if bits == 8 and (speed := found[f"{TOGETHER} sequences"]["speed"]) < BATCH_BAR:
                failures.append(f"{family} int{bits}, {TOGETHER} sequences: {speed} times one by one")
    bars = {"chatglm decode over torch": DECODE_BARS, "int8 batch over one by one": BATCH_BAR}
    bars["share of the bandwidth"] = BANDWIDTH_BAR
    return report("native_decoder", bars, figures, failures, given.json)


if __name__ == "__main__":
    sys.exit(main())
