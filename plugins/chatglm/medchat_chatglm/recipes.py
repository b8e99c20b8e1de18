"""Fine-tuning of ChatGLM: the family for the shared recipes, and its own P-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from medchat.checkpoints.adapter_folder import CHATGLM_PREFIX
from medchat.checkpoints.layout import read_config
from medchat.checkpoints.lora_folder import CONFIG_FILE
from medchat.inference.chat_model import TokenChatModel
from medchat.inference.decode import ChatTokenizer
from medchat.inference.quantized_file import PreparedModel
from medchat.inference.write_checkpoint import write_json
from medchat.plugin_kit import LoadOptions, PromptTemplate, SFTOptions, UsageError, say
from medchat.training.activation_memory import ModelDims, model_dims
from medchat.training.data_loader import Collator
from medchat.training.family import Family, base_options, copy_files, refuse_quantised
from medchat.training.features import Feature
from medchat.training.methods import Method
from medchat.training.methods.lora import refuse_other_kinds
from medchat.training.methods.method import Metadata, check_finite_result
from medchat.training.methods.prefix_tuning import P_TUNING as P_TUNING_DEFAULTS
from medchat.training.methods.prefix_tuning import refuse_length
from medchat_chatglm.adapters import GENERATION_KEY, PREFIX_FILES, trial_prompt
from medchat_chatglm.chat_model import load_chatglm_chat
from medchat_chatglm.collators import AnswerCollator, Batch, MedCollator, OfficialCollator, TrainingSample
from medchat_chatglm.config_file import PositionRule
from medchat_chatglm.config_reading import with_stated_rule
from medchat_chatglm.configuration import ChatGLMConfig, read_configuration
from medchat_chatglm.inspection import PREFIX
from medchat_chatglm.loading import check_checkpoint, prepare_weights
from medchat_chatglm.prefix import PrefixEncoder, train_prefix_only
from medchat_chatglm.prompts import RULE_KEY, TEMPLATE_KEY, TEMPLATES, rule_template
from medchat_chatglm.tokenizer import ChatGLMTokenizer, chatglm_special_tokens

#: The files other than weights that a complete checkpoint folder needs.
_TOKENIZER_FILES = ("ice_text.model", "tokenizer_config.json", "generation_config.json")
#: Keys of the source's config.json that do not apply to what we write.
_STALE_KEYS = ("auto_map", "quantization_bit", "quantization_embeddings", "dtype", TEMPLATE_KEY)
#: [gMASK] and `<sop>`, which end every prompt.
_PROMPT_SPECIALS = 2


class ChatGLMFamily(Family):
    """Its collators: ours, which trains what chat does; the originals', whose batches were recorded."""

    name = "chatglm"
    lora_targets = ("query_key_value",)
    bottleneck_targets = ("dense", "dense_4h_to_h")
    collators = ("default", "med", "official")
    own_templates = tuple(TEMPLATES.values())

    def load(self, options: LoadOptions) -> TokenChatModel:
        """Load a checkpoint and its adapters."""
        return load_chatglm_chat(options)

    def prepare(self, options: LoadOptions) -> PreparedModel:
        """Return the model without values, and its files."""
        return prepare_weights(options)

    def check(self, options: LoadOptions) -> None:
        """Check everything that can be checked without reading weights."""
        check_checkpoint(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the template that chat uses."""
        return rule_template(options, lambda: chatglm_special_tokens(options.model))

    def tokenizer(self, options: LoadOptions) -> ChatTokenizer:
        """Return the weights' tokenizer."""
        return ChatGLMTokenizer.from_folder(options.model)

    def collator(
        self, name: str, model: PreTrainedModel, tokenizer: ChatTokenizer, options: SFTOptions
    ) -> Collator:
        """Return the collator; `med` has its own position rule, which is set in the model."""
        if name == "med":
            model.config.medchat_position_rule = str(PositionRule.MED)
        return _collator(name, model.config, tokenizer.eos_token_id)

    def preview_collator(self, name: str, options: LoadOptions) -> Collator | None:
        """Return an original's collator, which labels `<sop>` too, and Med's also a second end token."""
        if name == "default":
            return None
        config = read_configuration(options.model, options.extra)
        return _collator(name, config, ChatGLMTokenizer.from_folder(options.model).eos_token_id)

    def shape(self, options: SFTOptions) -> ModelDims:
        """Return the dimensions from config.json and the headers."""
        config = read_configuration(options.model, options.extra)
        hidden, inner = config.hidden_size, config.inner_hidden_size
        linears = {
            "query_key_value": (hidden, 3 * hidden),
            "dense": (hidden, hidden),
            "dense_h_to_4h": (hidden, inner),
            "dense_4h_to_h": (inner, hidden),
        }
        return model_dims(
            options,
            layers=config.num_layers,
            hidden=hidden,
            inner=inner,
            heads=config.num_attention_heads,
            vocabulary=config.vocab_size,
            block="plain",
            tied=config.tie_word_embeddings,
            targets=self.adapted_linears(options, linears),
        )

    def write_small_files(self, options: LoadOptions, model: PreTrainedModel, folder: Path) -> dict[str, Any]:
        """Copy the vocabulary and return the source's configuration without keys that no longer apply."""
        copy_files(options.model, folder, _TOKENIZER_FILES)
        config = read_config(options.model)
        kept = {key: value for key, value in config.items() if key not in _STALE_KEYS}
        return {**kept, "torch_dtype": str(model.dtype).removeprefix("torch.")}

    def trained_facts(self, model: PreTrainedModel) -> Mapping[str, str]:
        """Return the position rule, which chat then uses, and the generation, which must be the base's."""
        return {RULE_KEY: str(model.config.rule), GENERATION_KEY: model.config.generation}

    def trial_prompt(self, model: PreTrainedModel) -> Sequence[int]:
        """Return a few ids with the control tokens that positions need."""
        return trial_prompt(model)

    def resolved(self, options: SFTOptions) -> Mapping[str, str]:
        """Return the position rule: the collator's, the requested one, or that of weights and adapters."""
        if options.collator == "med":
            return {"rule": str(PositionRule.MED)}
        base = base_options(options)
        return {"rule": str(read_configuration(base.model, with_stated_rule(base)).rule)}

    def refuse(self, options: SFTOptions) -> None:
        """Refuse packed weights if they would be trained, or packed again."""
        rule = options.extra.get("rule", PositionRule.MED)
        if options.collator == "med" and rule != PositionRule.MED:
            raise UsageError(
                say(
                    f"--collator med 有自己的位置规则 med，不能与 --rule {rule} 同用",
                    f"--collator med has a position rule of its own, med, and cannot be used with --rule {rule}",
                ),
                say("请去掉其中一个", "drop one of the two"),
            )
        config = read_config(options.model)
        refuse_quantised(options, config.get("quantization_bit"))


class PTuningMethod(Method):
    """P-tuning v2 with the model's own prefix encoder, in the layout of the original's script."""

    name = "ptuning"
    defaults = P_TUNING_DEFAULTS

    def refuse(self, family: Family, options: SFTOptions) -> None:
        """Raise UsageError for an empty prefix, and for adapters to start from that are not LoRA."""
        super().refuse(family, options)
        refuse_length(options)
        refuse_other_kinds(options)

    def make_trainable(self, model: PreTrainedModel, family: Family, options: SFTOptions) -> None:
        """Add an untrained prefix, initialised like the original's; nothing else is trained."""
        model.config.pre_seq_len = options.pre_seq_len
        model.config.prefix_projection = options.prefix_projection
        model.transformer.prefix_encoder = PrefixEncoder(model.config).to(model.device)
        train_prefix_only(model)

    def save(
        self, model: PreTrainedModel, family: Family, options: SFTOptions, metadata: Metadata, folder: Path
    ) -> None:
        """Write only the prefix's tensors, with their names in the model, and their configuration."""
        tensors = _prefix_tensors(model)
        check_finite_result(tensors)
        save_file(tensors, folder / PREFIX_FILES[0][0], {"format": "pt"})
        stated = {
            "peft_type": CHATGLM_PREFIX,
            "pre_seq_len": options.pre_seq_len,
            "prefix_projection": options.prefix_projection,
        }
        write_json(folder / CONFIG_FILE, {**stated, **metadata})


def _prefix_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name.startswith(PREFIX)
    }


def _collator(name: str, config: ChatGLMConfig, end_id: int) -> Collator:
    if name == "official":
        return lambda features: _official(config, features)
    collate = MedCollator(end_id) if name == "med" else AnswerCollator(config)
    return lambda features: collate(_samples(features))


def _samples(features: Sequence[Feature]) -> list[TrainingSample]:
    return [
        TrainingSample((*feature.prompt_ids, *feature.answer_ids), len(feature.prompt_ids))
        for feature in features
    ]


def _official(config: ChatGLMConfig, features: Sequence[Feature]) -> Batch:
    """Return the official script's batch, padded to the longest prompt plus the longest answer.

    The script pads to two fixed lengths; padding is not labelled, and earlier tokens do not attend to it.
    """
    pairs = [(feature.prompt_ids[:-_PROMPT_SPECIALS], feature.answer_ids[:-1]) for feature in features]
    longest = [max(map(len, side)) for side in zip(*pairs, strict=True)]
    return OfficialCollator(config, longest[0] + 1, longest[1] + _PROMPT_SPECIALS)(pairs)
