"""ChatGLM-6B v1 as a transformers model: the original parameter names, current attention and caches.

Parameter names equal the published files (docs/specs/models.md, "ChatGLM-6B tensors"). `forward` takes masks
with True = visible (see `position_rules`). To decode token by token use `stepper`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel, initialization
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.generic import can_return_tuple

from medchat.inference.quantization import QuantizedEmbedding, QuantizedLinear
from medchat.plugin_kit import UsageError, say
from medchat_chatglm import position_rules
from medchat_chatglm.blocks import ChatGLMBlock, NormInOwnPrecision, Turns
from medchat_chatglm.config_file import SpecialIds
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.prefix import PrefixEncoder
from medchat_chatglm.quantised import make_embedding, make_head
from medchat_chatglm.rotary import table_precision, turn_table


class ChatGLMPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What the library needs to know: where the model may be split, what is tied, what to ignore."""

    config: ChatGLMConfig
    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["ChatGLMBlock"]  # noqa: RUF012 (the library's own attribute)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    # Always recomputed: the files have float16 copies of it.
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, NormInOwnPrecision):
            initialization.ones_(module.weight)
            initialization.zeros_(module.bias)
        elif not isinstance(module, (QuantizedLinear, QuantizedEmbedding)):
            super()._init_weights(module)

    @property
    def special_ids(self) -> SpecialIds:
        """Return the ids that positions depend on."""
        return self.config.special_ids


class ChatGLMModel(ChatGLMPreTrainedModel):
    """Embedding, blocks and final norm."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.word_embeddings = make_embedding(config)
        self.layers = nn.ModuleList(ChatGLMBlock(config, layer) for layer in range(config.num_layers))
        self.final_layernorm = NormInOwnPrecision(config.hidden_size, eps=config.layernorm_epsilon)
        self.prefix_encoder = PrefixEncoder(config) if config.pre_seq_len else None
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of the vocabulary."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the embedding of the vocabulary."""
        self.word_embeddings = value

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Run the blocks; see `ChatGLMForConditionalGeneration.forward` for the arguments.

        `hidden_states`: the embedding output, the outputs of all blocks but the last, the final norm's.
        """
        states = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if isinstance(self.word_embeddings, QuantizedEmbedding):
            # Packed rows have no compute dtype; the biases of the linear layers have it.
            states = states.to(self.layers[0].mlp.dense_4h_to_h.bias.dtype)  # type: ignore[union-attr, arg-type]
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        fresh = isinstance(past, int) and past == 0
        position_ids, visible = self._place(input_ids, attention_mask, position_ids, states, fresh)
        prefixes = self._prefixes(states) if fresh else None
        queries, prefix_length = states.shape[1], self._prefix_length if fresh else 0
        added = queries + prefix_length
        keys = past_key_values.get_mask_sizes(added, 0)[0] if past_key_values is not None else added
        visible = position_rules.fit_to_keys(visible, queries, int(past) + added, keys, states.device)
        turns = self._turns(position_ids, states.dtype)

        every: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            if output_hidden_states:
                every.append(states)
            prefix = prefixes[number] if prefixes is not None else None
            states = layer(states, visible, turns, prefix, past_key_values=past_key_values)
        states = self.final_layernorm(states)
        return BaseModelOutputWithPast(
            last_hidden_state=states,
            past_key_values=past_key_values,
            hidden_states=(*every, states) if output_hidden_states else None,
        )

    def _place(
        self,
        ids: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        states: Tensor,
        fresh: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return positions [B, 2, T] and a mask (2-D, 4-D, or None: all cached, then causal)."""
        has_mask = attention_mask is not None and attention_mask.dim() == 4
        if position_ids is not None and (has_mask or not fresh):
            return position_ids, attention_mask
        if not fresh or ids is None:
            raise UsageError(
                say("向带缓存的 ChatGLM 模型（或以 inputs_embeds）输入时必须给出 position_ids",
                    "ChatGLM needs position_ids with a filled cache or with inputs_embeds"),
                say("请使用 prefill 与 advance，或 generate", "use prefill and advance, or generate"),
            )  # fmt: skip
        padding = None if has_mask else attention_mask
        marks = position_rules.find_landmarks(ids, self.config.special_ids, self.config.rule, padding)
        length = ids.shape[1]
        if not has_mask:
            attention_mask = position_rules.prompt_visible(
                marks, self.config.rule, length, padding, direct=True
            )
        if position_ids is None:
            position_ids = position_rules.prompt_positions(marks, self.config.rule, length)
        return position_ids, attention_mask

    @property
    def _prefix_length(self) -> int:
        return self.prefix_encoder.length if self.prefix_encoder is not None else 0

    def _prefixes(self, states: Tensor) -> list[tuple[Tensor, Tensor]] | None:
        return None if self.prefix_encoder is None else self.prefix_encoder(states.shape[0], states.dtype)

    def _turns(self, position_ids: Tensor, compute: torch.dtype) -> Turns:
        precision = table_precision(self.config.rotary_precision, compute)
        cosine, sine = turn_table(position_ids, self.config.head_dim // 2, precision)
        # [B, 2, T, d/4] -> [B, T, heads=1, (q, k)=1, 2, d/4]
        return Turns(*(table.transpose(1, 2)[:, :, None, None] for table in (cosine, sine)))


class ChatGLMForConditionalGeneration(ChatGLMPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """ChatGLM-6B v1 with its output head, tied to the embedding unless the configuration says otherwise."""

    _tied_weights_keys = {"lm_head.weight": "transformer.word_embeddings.weight"}  # noqa: RUF012
    _fsdp_plan = {"lm_head": "keep_full_weight"}  # noqa: RUF012

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.lm_head = make_head(config)
        if config.quantization_embeddings:
            # The head of these checkpoints is the packed embedding.
            self._tied_weights_keys = {
                f"lm_head.{name}": f"transformer.word_embeddings.{name}"
                for name in ("weight", "weight_scale")
            }
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Compute logits, and with `labels` the loss.

        `input_ids` int64 [B, T]. `attention_mask`: None (every id is text), [B, T] with 1 for tokens and 0
        for padding, or bool [B, 1, T, keys] with True = visible. `position_ids` int64 [B, 2, T]. Missing
        masks and positions are computed from the ids by the configured rule; with a filled cache positions
        are required, and no mask means that everything cached is visible. `labels` [B, T] with -100 ignored
        are shifted here, unless `shift_labels` are passed; the loss is float32. `logits_to_keep` is as in the
        library: a count, positions, or a bool mask [B, T].

        Raises DataError for a prompt without mask token and `<sop>`, UsageError for missing positions.
        """
        outputs = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None or kwargs.get("shift_labels") is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
        )

    def _prepare_position_ids_for_generation(self, *_: Any, **__: Any) -> None:
        """Do nothing: positions depend on the prompt's special tokens, see `prepare_inputs_for_generation`."""

    def _prepare_attention_mask_for_generation(
        self, inputs_tensor: Tensor, generation_config: Any, model_kwargs: dict[str, Any]
    ) -> Tensor:
        """Treat only leading `<pad>` as padding: an id inside the text is text."""
        if inputs_tensor.dim() != 2 or generation_config._pad_token_tensor is None:
            return torch.ones(inputs_tensor.shape[:2], dtype=torch.long, device=inputs_tensor.device)
        is_text: Tensor = inputs_tensor != generation_config._pad_token_tensor
        return is_text.long().cummax(-1).values

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the inputs of `generate` with positions and masks of the configured rule.

        `input_ids` and `attention_mask` are int64 [B, T]; positions and mask as `forward` takes them.
        """
        rule, length = self.config.rule, input_ids.shape[1]
        kept = {
            key: kwargs[key]
            for key in ("use_cache", "logits_to_keep", "output_hidden_states")
            if key in kwargs
        }
        cached = past_key_values is not None and not is_first_iteration
        marks = position_rules.find_landmarks(
            input_ids, self.config.special_ids, rule, attention_mask, checked=bool(is_first_iteration)
        )
        if cached:
            return kept | {
                "input_ids": input_ids[:, -1:],
                "position_ids": position_rules.step_positions(marks, length),
                "attention_mask": attention_mask,
                "past_key_values": past_key_values,
            }
        if past_key_values is None:
            # Without a cache the end of the prompt is unknown: assumed to be `<sop>`, as in all chats.
            marks = replace(marks, end=marks.sop + 1)
        return kept | {
            "input_ids": input_ids,
            "position_ids": position_rules.prompt_positions(marks, rule, length),
            "attention_mask": position_rules.prompt_visible(marks, rule, length, attention_mask),
            "past_key_values": past_key_values,
        }
