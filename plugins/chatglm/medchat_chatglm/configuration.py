"""The config.json of ChatGLM-6B v1, both generations of it (docs/specs/models.md, "ChatGLM-6B configuration").

The keys, their defaults, and the position rule of a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from medchat.plugin_kit import CheckpointError, say

#: Rows of the embedding in the March 2023 files ("v0", ids offset by 20000 image tokens).
V0_VOCAB_SIZE = 150528
#: Rows of the embedding in the slim re-releases up to v1.1.0.
V11_VOCAB_SIZE = 130528
#: `<sop>` and `<pad>` of each generation; [MASK], [gMASK] and `<eop>` are at fixed distances from `<sop>`.
_V0_SOP, _V0_PAD = 150004, 0
_V11_SOP, _V11_PAD = 130004, 3
_MASK_BEFORE_SOP, _GMASK_BEFORE_SOP = 4, 3
#: Ids below this are image tokens in v0, so no v0 file names a text `<pad>` below it.
_V0_IMAGE_TOKENS = 20000


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


#: `rotary_precision` values; "auto" takes float16 for float16 models and float32 for all others.
ROTARY_PRECISIONS = ("auto", "float32", "float16")


@strict
class ChatGLMConfig(PreTrainedConfig):  # type: ignore[misc]
    """Configuration of the first ChatGLM-6B.

    Keys missing from the file get the values of the generation that the file belongs to:

    - `vocab_size` 150528 is v0, 130528 is v1.1;
    - any other size (miniatures with re-numbered ids) is v1.1 if it names a `pad_token_id` below
      20000, since v0 files name none there, and v0 otherwise.

    `medchat_position_rule` chooses the rule ("med", "med_demo", "upstream_v0", "v11"); by default v0 follows
    "med" and v1.1 follows "v11". Raises CheckpointError for values that no ChatGLM-6B v1 has.
    """

    model_type = "chatglm"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (the library's own attribute)
    attribute_map = {  # noqa: RUF012
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "max_position_embeddings": "max_sequence_length",
    }
    base_model_fsdp_plan = {  # noqa: RUF012
        "word_embeddings": "free_full_weight",
        "layers.*": "free_full_weight",
        "final_layernorm": "keep_full_weight",
    }

    vocab_size: int = V0_VOCAB_SIZE
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

    def __post_init__(self, **kwargs: Any) -> None:
        # References to the original remote code: never used here, and wrong in any folder that we save.
        kwargs.pop("auto_map", None)
        self._fill_special_ids()
        super().__post_init__(**kwargs)
        self._refuse_what_never_was_released()

    def _fill_special_ids(self) -> None:
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

    def _refuse_what_never_was_released(self) -> None:
        wrong = [
            name
            for name, valid in (
                ("position_encoding_2d", self.position_encoding_2d),
                ("quantization_bit", self.quantization_bit in (0, 4, 8)),
                ("pre_seq_len", self.pre_seq_len is None or self.pre_seq_len >= 0),
                ("rotary_precision", self.rotary_precision in ROTARY_PRECISIONS),
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
        """Return "v0" (March 2023 ids and code) or "v11"; see the class for how it is recognised."""
        if self.vocab_size in (V0_VOCAB_SIZE, V11_VOCAB_SIZE):
            return "v0" if self.vocab_size == V0_VOCAB_SIZE else "v11"
        names_text_pad = self.pad_token_id is not None and 0 < self.pad_token_id < _V0_IMAGE_TOKENS
        return "v11" if names_text_pad else "v0"

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
    def head_dim(self) -> int:
        """Return the width of one attention head."""
        return int(self.hidden_size // self.num_attention_heads)
