"""The vocabulary of a checkpoint folder as GGUF metadata: SentencePiece for LLaMA, byte-level BPE for Bloom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFWriter, TokenType
from sentencepiece import sentencepiece_model_pb2 as protocol

from medchat.plugin_kit import CheckpointError, read_json, read_regular, say

_MOST_BYTES = 64 << 20
#: Chinese-Alpaca's padding, an ordinary piece in its file: as one, text could become it.
_PAD = "[PAD]"


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The ids that config.json states."""

    bos: int
    eos: int
    pad: int


def write_sentencepiece(writer: GGUFWriter, folder: Path, rows: int, ids: TokenIds) -> None:
    """Add `tokenizer.model`, padded to `rows` tokens; ids 0, 1 and 2 are `<unk>`, `<s>` and `</s>`.

    Raises CheckpointError if the file is missing or has more pieces than rows.
    """
    proto = protocol.ModelProto.FromString(_content(folder / "tokenizer.model"))
    tokens, scores, kinds = [], [], []
    for piece in proto.pieces:
        tokens.append(piece.piece.encode("utf-8"))
        scores.append(piece.score)
        kinds.append(int(TokenType.CONTROL) if piece.piece == _PAD else int(piece.type))
    _pad(folder, tokens, kinds, rows)
    scores += [0.0] * (rows - len(scores))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(proto.normalizer_spec.add_dummy_prefix)
    _write_ids(writer, ids, add_bos=True)


def write_byte_level(writer: GGUFWriter, folder: Path, rows: int, ids: TokenIds) -> None:
    """Add Bloom's `tokenizer.json`, padded to `rows` tokens.

    Raises CheckpointError if the file is missing, damaged or has more tokens than rows.
    """
    file = folder / "tokenizer.json"
    try:
        stated = read_json(file, _MOST_BYTES)
        model, added = stated["model"], stated.get("added_tokens") or []
        by_id = {number: token for token, number in model["vocab"].items()}
        by_id |= {entry["id"]: entry["content"] for entry in added}
        control = {entry["id"] for entry in added if entry.get("special")}
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        tokens = [by_id[number].encode("utf-8") for number in range(len(by_id))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged_file(say("词表文件", "the vocabulary file"), file, error) from error
    kinds = [
        int(TokenType.CONTROL if number in control else TokenType.NORMAL) for number in range(len(tokens))
    ]
    _pad(folder, tokens, kinds, rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("bloom")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    _write_ids(writer, ids, add_bos=False)


def _write_ids(writer: GGUFWriter, ids: TokenIds, *, add_bos: bool) -> None:
    writer.add_bos_token_id(ids.bos)
    writer.add_eos_token_id(ids.eos)
    writer.add_pad_token_id(ids.pad)
    writer.add_add_bos_token(add_bos)
    writer.add_add_eos_token(False)


def _pad(folder: Path, tokens: list[bytes], kinds: list[int], rows: int) -> None:
    if len(tokens) > rows:
        raise CheckpointError(
            say(
                f"词表有 {len(tokens)} 个词元，权重只有 {rows} 行",
                f"the vocabulary has {len(tokens)} tokens, the weights {rows} rows",
            ),
            say("请确认二者来自同一模型", "check that both belong together"),
            where=str(folder),
        )
    for number in range(len(tokens), rows):
        tokens.append(f"[PAD{number}]".encode())
        kinds.append(int(TokenType.UNUSED))


def _content(file: Path) -> bytes:
    try:
        return read_regular(file, _MOST_BYTES)
    except OSError as error:
        raise damaged_file(say("词表文件", "the vocabulary file"), file, error) from error


def damaged_file(name: str, file: Path, error: Exception) -> CheckpointError:
    """Return the error for a file of a checkpoint, called `name`, that cannot be used for the reason in `error`."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
    return CheckpointError(
        say(f"{name}无法使用：{reason}", f"{name} cannot be used: {reason}"),
        say("请确认检查点完整", "check that the checkpoint is complete"),
        where=str(file),
    )
