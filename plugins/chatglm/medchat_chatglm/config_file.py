"""The keys of a config.json of ChatGLM-6B v1, both generations of it, and what follows from them. No torch here.

docs/specs/models.md, "ChatGLM-6B configuration".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from medchat.plugin_kit import CheckpointError, say

#: Rows of the embedding in the March 2023 files ("v0") and in the slim re-releases up to v1.1.0, and the image ids that
#: precede the text ids of the first (docs/specs/models.md, "ChatGLM-6B revisions and files").
V0_ROWS, V11_ROWS, V0_IMAGE_TOKENS = 150528, 130528, 20000
#: `<sop>` and `<pad>` of each generation; [MASK], [gMASK] and `<eop>` are at fixed distances from `<sop>`.
_V0_SOP, _V0_PAD = 150004, 0
_V11_SOP, _V11_PAD = 130004, 3
_MASK_BEFORE_SOP, _GMASK_BEFORE_SOP = 4, 3
#: The residual factor. 28 is the depth of the 6B model.
ALPHA = math.sqrt(2 * 28)
#: `rotary_precision` values; "auto" takes float16 for float16 models and float32 for all others.
_ROTARY_PRECISIONS = ("auto", "float32", "float16")


def generation_of(config: Mapping[str, Any]) -> str:
    """Return "v0" (icetk-era ids, the Med weights) or "v11" for the object in a config.json.

    150528 rows are v0 and 130528 are v1.1; any other size (miniatures with re-numbered ids) is v1.1 exactly if it names
    a pad id that is a text id of that generation (1 to 19999), since v0 files name none there.
    """
    rows = config.get("vocab_size", V0_ROWS)
    if rows in (V0_ROWS, V11_ROWS):
        return "v0" if rows == V0_ROWS else "v11"
    pad = config.get("pad_token_id")
    return "v11" if type(pad) is int and 0 < pad < V0_IMAGE_TOKENS else "v0"


class PositionRule(StrEnum):
    """How positions and masks are computed from a prompt (docs/specs/models.md, "Position rules").

    `MED`: what ChatGLM-6B-Med was trained with. `MED_DEMO`: what its demo did at prefill.
    `UPSTREAM_V0`: the original code of March 2023. `V11`: the corrected rule of every later release.
    """

    MED = "med"
    MED_DEMO = "med_demo"
    UPSTREAM_V0 = "upstream_v0"
    V11 = "v11"


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """The ids that positions depend on."""

    mask: int
    gmask: int
    sop: int


@dataclass(kw_only=True)
class ChatGLMValues:
    """The values of a config.json. Keys that it lacks get the values of its generation (`generation_of`).

    `medchat_position_rule` chooses the rule ("med", "med_demo", "upstream_v0", "v11"); by default v0 follows
    "med" and v1.1 follows "v11". Raises CheckpointError for values that no ChatGLM-6B v1 has.
    """

    vocab_size: int = V0_ROWS
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    inner_hidden_size: int = 16384
    layernorm_epsilon: float = 1e-5
    max_sequence_length: int = 2048
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    mask_token_id: int | None = None
    gmask_token_id: int | None = None
    position_encoding_2d: bool = True
    tie_word_embeddings: bool = True
    quantization_bit: int = 0
    quantization_embeddings: bool = False
    pre_seq_len: int | None = None
    prefix_projection: bool = False
    rotary_precision: str = "auto"
    medchat_position_rule: str | None = None

    def __post_init__(self) -> None:
        self.fill_special_ids()
        self.refuse_what_never_was_released()

    def fill_special_ids(self) -> None:
        """Give the ids and the rule that are not stated those of the generation."""
        is_v0 = self.generation == "v0"
        if self.medchat_position_rule is None:
            self.medchat_position_rule = str(PositionRule.MED if is_v0 else PositionRule.V11)
        if self.bos_token_id is None:
            self.bos_token_id = _V0_SOP if is_v0 else _V11_SOP
        if self.eos_token_id is None:
            self.eos_token_id = self.bos_token_id + 1
        if self.mask_token_id is None:
            self.mask_token_id = self.bos_token_id - _MASK_BEFORE_SOP
        if self.gmask_token_id is None:
            self.gmask_token_id = self.bos_token_id - _GMASK_BEFORE_SOP
        if self.pad_token_id is None:
            self.pad_token_id = _V0_PAD if is_v0 else _V11_PAD

    def refuse_what_never_was_released(self) -> None:
        """Raise CheckpointError for values that no ChatGLM-6B v1 has."""
        wrong = [
            name
            for name, valid in (
                ("position_encoding_2d", self.position_encoding_2d),
                ("quantization_bit", self.quantization_bit in (0, 4, 8)),
                ("pre_seq_len", self.pre_seq_len is None or self.pre_seq_len >= 0),
                ("rotary_precision", self.rotary_precision in _ROTARY_PRECISIONS),
                ("medchat_position_rule", self.medchat_position_rule in tuple(PositionRule)),
                ("num_attention_heads", self.hidden_size % (4 * self.num_attention_heads) == 0),
            )
            if not valid
        ]
        if wrong:
            shown = "、".join(f"{name} = {getattr(self, name)!r}" for name in wrong)
            raise CheckpointError(
                say(f"config.json 中的 {shown} 不是第一代 ChatGLM-6B 的取值",
                    f"config.json holds {shown}, which no first-generation ChatGLM-6B has"),
                say("请核对 config.json，或换用 THUDM/chatglm-6b 系列的权重",
                    "check config.json, or use weights of the THUDM/chatglm-6b family"),
            )  # fmt: skip

    @property
    def generation(self) -> str:
        """Return "v0" (March 2023 ids and code) or "v11"."""
        return generation_of({"vocab_size": self.vocab_size, "pad_token_id": self.pad_token_id})

    @property
    def rule(self) -> PositionRule:
        """Return the position and mask rule this checkpoint follows."""
        return PositionRule(str(self.medchat_position_rule))

    @property
    def special_ids(self) -> SpecialIds:
        """Return the ids that positions depend on."""
        assert self.mask_token_id is not None and self.gmask_token_id is not None
        assert self.bos_token_id is not None
        return SpecialIds(self.mask_token_id, self.gmask_token_id, self.bos_token_id)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Return the ids that end an answer: Med checkpoints have the old tokenizer's `</s>`, plain ones `<eop>`."""
        stated: Any = self.eos_token_id  # some files have a list
        return frozenset((stated,) if isinstance(stated, int) else stated or ())

    @property
    def head_dim(self) -> int:
        """Return the width of one attention head."""
        return int(self.hidden_size // self.num_attention_heads)
