"""A net of one's own as a backbone: it reads and writes character by character, and can be fine-tuned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchat import plugin_kit as kit
from medchat.hf import NetBackbone, NetTokenizer

if TYPE_CHECKING:
    from torch import nn

medchat_api_version = 1
VOCABULARY = "characters.txt"
LARGEST = 1 << 20  # bytes that are read of it
END, UNKNOWN = "<end>", "□"


class CharTokenizer(NetTokenizer):
    """One id a character, behind the id of the end; what the vocabulary lacks is □."""

    special_ids: Mapping[str, int] = {END: 0}
    eos_token_id = 0

    def __init__(self, characters: str) -> None:
        self._characters = ["", UNKNOWN, *characters]
        self.size = len(self._characters)
        self._ids = {character: at for at, character in enumerate(self._characters) if character}

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(character, self._ids[UNKNOWN]) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._characters[token] for token in ids)


class CharLM(NetBackbone):
    name = "charlm"
    summary: Mapping[str, str] = {
        "zh": "示例：自己的逐字网络",
        "en": "example: a character-level net of one's own",
    }
    small_files = (VOCABULARY,)
    capabilities = kit.Capabilities(beams=False, batch=False, dtypes=("float32", "bfloat16"), quantize=())

    def net(self, config: Mapping[str, Any]) -> "nn.Module":
        from medchat_charlm_net import CharNet  # torch is imported here, not above

        return CharNet(config["vocab_size"], config["hidden_size"])

    def tokenizer(self, folder: Path) -> CharTokenizer:
        file = folder / VOCABULARY
        try:
            if not file.is_file() or file.stat().st_size > LARGEST:
                raise ValueError(file)
            return CharTokenizer(file.read_bytes().decode("utf-8"))
        except (OSError, ValueError) as error:
            what = kit.say(f"没有可用的 {VOCABULARY}", f"there is no {VOCABULARY} that can be used")
            raise kit.CheckpointError(what, where=str(file)) from error

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        known = {*map(chr, range(32, 127)), *"".join(corpus)} - {UNKNOWN}
        sizes = {"hidden_size": 64, "max_position_embeddings": 1024, **shape}
        self.write_random(path, {**sizes, "vocab_size": len(known) + 2}, seed)
        (path / VOCABULARY).write_bytes("".join(sorted(known)).encode("utf-8", "ignore"))


@kit.hookimpl
def medchat_backbones() -> list[kit.Backbone]:
    return [CharLM()]
