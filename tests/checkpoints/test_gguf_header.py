"""What a GGUF file states of itself, read with a bound; damaged and hostile ones are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.checkpoints.gguf_header import HEADER_BYTES, read_gguf_header
from medchat.errors import CheckpointError


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def texts(*values: str) -> bytes:
    return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))


def numbers(*values: int) -> bytes:
    return struct.pack(f"<IIQ{len(values)}i", 9, 5, len(values), *values)


def number(value: int) -> bytes:
    return struct.pack("<II", 4, value)


STATED = {
    "general.architecture": struct.pack("<I", 8) + text("qwen2"),
    "qwen2.context_length": number(2048),
    "tokenizer.ggml.tokens": texts("<s>", "</s>", "头", "<turn>"),
    "tokenizer.ggml.token_type": numbers(3, 3, 1, 3),
    "tokenizer.ggml.bos_token_id": number(0),
    "tokenizer.ggml.eos_token_id": number(1),
    "tokenizer.ggml.eot_token_id": number(3),
    "tokenizer.chat_template": struct.pack("<I", 8) + text("{{ messages }}"),
}


def header(stated: dict[str, bytes], magic: bytes = b"GGUF", version: int = 3) -> bytes:
    pairs = b"".join(text(key) + value for key, value in stated.items())
    return magic + struct.pack("<IQQ", version, 0, len(stated)) + pairs


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def test_the_header_of_a_language_model_is_read(tmp_path: Path) -> None:
    found = read_gguf_header(written(tmp_path, header(STATED) + b"tensors" * 99))
    assert (found.architecture, found.context_length, found.tokens[2]) == ("qwen2", 2048, "头")
    assert dict(found.special_ids) == {"<s>": 0, "</s>": 1, "<turn>": 3}
    assert dict(found.roles) == {"bos_token": "<s>", "eos_token": "</s>"}
    assert found.end_ids == (3, 1)  # the end of a turn first
    assert found.chat_template == "{{ messages }}"


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path, header(STATED))
    assert read_gguf_header(path).context_length == 2048
    path = written(tmp_path, header({**STATED, "qwen2.context_length": number(65536)}) + b"more")
    assert read_gguf_header(path).context_length == 65536


WITHOUT = [key for key in STATED if key not in ("tokenizer.chat_template", "tokenizer.ggml.bos_token_id")]
#: Whatever is wrong with it, by what it is.
DAMAGED = {
    "empty": b"",
    "another format": b"PK\x03\x04" * 20,
    "another byte order": header(STATED, magic=b"FUGG"),
    "a version that nobody knows": header(STATED, version=99),
    "cut off": header(STATED)[:-30],
    "cut in a text": header(STATED)[:-3],
    "cut in a number": header(STATED)[:14],
    "a text of 2^60 bytes": header({"general.architecture": struct.pack("<IQ", 8, 2**60)}),
    "2^60 texts": header({"tokenizer.ggml.tokens": struct.pack("<IIQ", 9, 8, 2**60)}),
    "2^60 numbers": header({"tokenizer.ggml.scores": struct.pack("<IIQ", 9, 6, 2**60)}),
    "2^60 keys": b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
    "lists of lists": header({"deep": struct.pack("<IIQ", 9, 9, 1) * 500}),
    "a kind that nobody knows": header({"odd": struct.pack("<I", 77)}),
    "no context": header({**STATED, "qwen2.context_length": number(0)}),
    "a context beyond belief": header({**STATED, "qwen2.context_length": number(2**31)}),
    "an end that is no token": header({**STATED, "tokenizer.ggml.eot_token_id": number(99)}),
    "a beginning that is no token": header({**STATED, "tokenizer.ggml.bos_token_id": number(99)}),
    "more kinds than tokens": header({**STATED, "tokenizer.ggml.token_type": numbers(*[3] * 9)}),
    "words for a number": header({**STATED, "qwen2.context_length": STATED["general.architecture"]}),
    **{f"without {key}": header({k: v for k, v in STATED.items() if k != key}) for key in WITHOUT[:3]},
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_header_is_refused_and_the_file_named(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    with pytest.raises(CheckpointError) as refused:
        read_gguf_header(path)
    assert refused.value.where == str(path) and refused.value.remedy


@given(cut=st.integers(0, 200), garbage=st.binary(max_size=64))
def test_no_bytes_raise_anything_else(
    cut: int, garbage: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.mktemp("gguf"), header(STATED)[:cut] + garbage)
    with pytest.raises(CheckpointError):
        read_gguf_header(path)


def test_no_more_is_read_than_the_limit(tmp_path: Path) -> None:
    path = written(tmp_path, header({"filler": struct.pack("<IIQ", 9, 0, HEADER_BYTES), **STATED}))
    with path.open("r+b") as file:
        file.truncate(HEADER_BYTES * 2)  # a sparse file: the bytes are there
    with pytest.raises(CheckpointError):
        read_gguf_header(path)


def test_an_endless_file_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        read_gguf_header(Path("/dev/zero"))
    with pytest.raises(CheckpointError):
        read_gguf_header(tmp_path / "nothing.gguf")
