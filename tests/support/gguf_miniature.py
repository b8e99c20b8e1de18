"""A GGUF file of a tiny LLaMA with random weights: what llama.cpp loads in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

HIDDEN, LAYERS, CONTEXT = 64, 2, 512
SPECIAL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
#: What `tokenizer.ggml.token_type` calls them.
_UNKNOWN, _NORMAL, _CONTROL, _BYTE = 2, 1, 3, 6
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_gguf(path: Path, corpus: Sequence[str], seed: int = 0) -> None:
    """Write the file; its vocabulary is in SentencePiece's manner: the characters of `corpus`, ASCII, and bytes."""
    characters = sorted({*"".join(corpus), *map(chr, range(33, 127)), "▁"})
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * HIDDEN)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // 4)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types([_UNKNOWN, *[_CONTROL] * 4, *[_BYTE] * 256, *[_NORMAL] * len(characters)])
    writer.add_token_scores([*[0.0] * 5, *[-1e4] * 256, *(-float(at) for at in range(len(characters)))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(4)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    for name, weight in _weights(len(tokens), seed).items():
        writer.add_tensor(f"{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _weights(rows: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)

    def drawn(*shape: int, scale: float) -> np.ndarray:
        return (generator.standard_normal(shape) * scale).astype(np.float32)

    flat = np.ones(HIDDEN, np.float32)
    found = {
        "token_embd": drawn(rows, HIDDEN, scale=1.0),
        "output": drawn(rows, HIDDEN, scale=1.0),
        "output_norm": flat,
    }
    for block in (f"blk.{layer}" for layer in range(LAYERS)):
        found |= {f"{block}.attn_norm": flat, f"{block}.ffn_norm": flat}
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found[f"{block}.{name}"] = drawn(HIDDEN, HIDDEN, scale=0.3)
        for name in ("ffn_gate", "ffn_up"):
            found[f"{block}.{name}"] = drawn(2 * HIDDEN, HIDDEN, scale=0.3)
        found[f"{block}.ffn_down"] = drawn(HIDDEN, 2 * HIDDEN, scale=0.3)
    return found
