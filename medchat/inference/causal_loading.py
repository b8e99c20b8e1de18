"""From a checkpoint folder and its adapters to a causal model of transformers: LLaMA, Bloom, Huozi and their kin.

A family subclasses `CausalLoading` and says what its configuration, names and vocabulary are. What can be
known without the weights (configuration, vocabulary, names and shapes, adapters, memory) is checked before
the first weight is read. Not for ChatGLM v1, whose model is our own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from transformers import PretrainedConfig, PreTrainedModel

from medchat.api import ChatModel, LoadOptions
from medchat.checkpoints.adapter_folder import Adapter, files_passed_over, positions_taken
from medchat.checkpoints.config_json import DecoderShape
from medchat.checkpoints.headers import TensorHeader, read_headers
from medchat.checkpoints.layout import has_weights, open_checkpoint
from medchat.checkpoints.weight_files import Checkpoint
from medchat.errors import CheckpointError
from medchat.inference.adapters.structure import Structure, kept_on_failure
from medchat.inference.answer_deltas import TextFilter
from medchat.inference.causal_chat_model import CausalChatModel
from medchat.inference.computed import fill_computed
from medchat.inference.decode import ChatTokenizer
from medchat.inference.device import ensure_memory, pick_device, pick_dtype
from medchat.inference.engine import give_to_engine, prepare_for_engine, quantization_of
from medchat.inference.fused_decoder import DecoderParts
from medchat.inference.kept_weights import with_kept_weights
from medchat.inference.load_weights import Placement, assign, loaded_weight_bytes, require_match
from medchat.inference.native_model import NativeModel
from medchat.inference.native_sequence import CausalSequence
from medchat.inference.postprocess import StrippedAnswer
from medchat.inference.quantization import bits_of, conversions, pack_linears
from medchat.inference.quantized_head import with_own_head
from medchat.inference.quick_start import wanted_engine
from medchat.inference.stored_linear import expect_stored, refuse_other_width
from medchat.inference.token_answers import ModelFacts
from medchat.language import say


class CausalTokenizer(ChatTokenizer, Protocol):
    """A `ChatTokenizer` whose ids are counted. `size` is the highest id and one."""

    size: int


Shape = TypeVar("Shape", bound=DecoderShape)
Tokenizer = TypeVar("Tokenizer", bound=CausalTokenizer)


@dataclass(frozen=True, slots=True)
class Vocabulary(Generic[Tokenizer]):
    """The vocabulary that the weights have once their adapters are attached, and those adapters in order.

    `rows` are the embedding's then. `base` is the published base that answers, a key of `BASES`, or words
    for another. `saved` are tensors that an adapter brings whole: the weights' own are not read.
    """

    tokenizer: Tokenizer
    rows: int
    base: str
    adapters: tuple[Adapter, ...]
    notes: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CausalModel(Generic[Shape, Tokenizer]):
    """A model in evaluation mode, and what it is made from. Until `load` filled it, it has no values.

    `base` is as in `Vocabulary`; `notes` are for the user, in the interface language. `bare` is the filled
    model before its adapters, None where one of them changed its weights for good.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    shape: Shape
    base: str
    adapters: tuple[Adapter, ...]
    notes: tuple[str, ...]
    checkpoint: Checkpoint
    headers: Mapping[str, TensorHeader]
    placement: Placement
    bare: Structure | None = None


class LoadedChatModel(CausalChatModel):
    """A chat model that knows what it was loaded from, so that its adapters can be exchanged."""

    loaded: CausalModel[Any, Any] | None = None

    def close(self) -> None:
        """Give the memory back. The model must not be used afterwards."""
        self.loaded = None
        super().close()


class CausalLoading(ABC, Generic[Shape, Tokenizer]):
    """How the folders of one family are loaded. Stateless: one instance serves all folders."""

    #: The backbone's name.
    name: str
    model_class: ClassVar[type[PreTrainedModel]]
    #: Patterns of stored names that are computed again.
    ignored: ClassVar[tuple[str, ...]] = ()

    # ------------------------------------------------------------ what a family supplies

    @abstractmethod
    def read_shape(self, folder: Path) -> Shape:
        """Read config.json. Raises CheckpointError: missing, damaged, another architecture, impossible values."""

    @abstractmethod
    def misfit(self, shape: Shape, headers: Mapping[str, TensorHeader]) -> str:
        """Return which size of config.json is not that of the stored tensors, "" where they agree."""

    @abstractmethod
    def open_vocabulary(
        self, options: LoadOptions, shape: Shape, headers: Mapping[str, TensorHeader]
    ) -> Vocabulary[Tokenizer]:
        """Open the vocabulary and the adapters. Raises CheckpointError where they do not belong to the weights."""

    @abstractmethod
    def library_config(self, shape: Shape, vocabulary: Vocabulary[Tokenizer]) -> PretrainedConfig:
        """Return the library's configuration; no other key of config.json reaches it."""

    def rename(self, stored: str) -> str:
        """Return the model's name of a stored tensor."""
        return stored

    def build(self, config: PretrainedConfig) -> PreTrainedModel:
        """Return the model that the configuration describes. Called on the meta device: it has no values yet."""
        return self.model_class(config)

    def never_read(self, model: PreTrainedModel, headers: Mapping[str, TensorHeader]) -> tuple[str, ...]:
        """Return patterns of stored names that `model` computes again."""
        return self.ignored

    def naming(self, model: PreTrainedModel, headers: Mapping[str, TensorHeader]) -> Callable[[str], str]:
        """Return what makes the model's name of a stored tensor's: `rename`, unless the tensors decide it."""
        return self.rename

    def stop_ids(self, loaded: CausalModel[Shape, Tokenizer]) -> Collection[int]:
        """Return the ids that end an answer beside the tokenizer's."""
        return ()

    def token_count(self, loaded: CausalModel[Shape, Tokenizer]) -> int | None:
        """Return from which id on the rows are no tokens, None if all are."""
        return None

    def cleanup(self, options: LoadOptions) -> Callable[[], TextFilter]:
        """Return what makes the filter of one answer."""
        return StrippedAnswer

    def details(self, loaded: CausalModel[Shape, Tokenizer], options: LoadOptions) -> dict[str, Any]:
        """Return what the loaded model says of itself."""
        return {
            "vocab_size": loaded.model.config.vocab_size,
            "adapters": tuple(str(adapter.folder) for adapter in loaded.adapters),
            "quantization": quantization_of(loaded.model),
        }

    def decoder_parts(self, model: PreTrainedModel) -> DecoderParts | None:
        """Return where the native engine finds the parts of `model`, None if torch is to run it."""
        return None

    # ------------------------------------------------------------ what all share

    def chat(self, options: LoadOptions) -> CausalChatModel:
        """Load `options.model` with its adapters, ready to chat. Raises what `load` raises."""
        return self._chat_model(self.load(options), options)

    def exchange_adapters(self, chat: ChatModel, options: LoadOptions) -> ChatModel | None:
        """Return a chat model with the weights of `chat` and the adapters of `options`; `chat` is then used up.

        None, with nothing changed, where an adapter brings a vocabulary, before or now: that takes loading
        again. Raises what `load` raises for an adapter; `chat` is then as it was.
        """
        before = chat.loaded if isinstance(chat, LoadedChatModel) else None
        if before is None or before.bare is None:
            return None
        vocabulary = self.open_vocabulary(options, before.shape, before.headers)
        if vocabulary.saved or vocabulary.rows != before.model.get_input_embeddings().weight.shape[0]:
            return None
        from medchat.inference.adapters.attach import attach_adapters, check_fit

        model, placement = before.model, before.placement
        with kept_on_failure(model):
            before.bare.restore()
            check_fit(model, vocabulary.adapters)
            attach_adapters(model, vocabulary.adapters, placement.device, placement.dtype)
            model.eval()
            return self._chat_model(_with_vocabulary(before, vocabulary), options)

    def _chat_model(self, loaded: CausalModel[Shape, Tokenizer], options: LoadOptions) -> CausalChatModel:
        room = loaded.shape.context_length - positions_taken(loaded.adapters)
        chat = LoadedChatModel(
            loaded.model,
            loaded.tokenizer,
            ModelFacts(self.name, options.model, room, self.details(loaded, options), loaded.notes),
            native=NativeModel(partial(self.decoder_parts, loaded.model), CausalSequence),
            stop_ids=self.stop_ids(loaded),
            token_count=self.token_count(loaded),
            cleanup=self.cleanup(options),
        )
        chat.loaded = loaded
        return chat

    def load(self, options: LoadOptions) -> CausalModel[Shape, Tokenizer]:
        """Load `options.model` and attach its adapters, those that bring a vocabulary first.

        Raises what `prepare` raises, CheckpointError for damaged weights, MemoryShortageError.
        """
        prepared, kept = with_kept_weights(self.prepare(options), options)
        model, placement = prepared.model, prepared.placement
        assign(model, prepared.checkpoint, prepared.headers, placement)
        fill_computed(model, placement.device)
        give_to_engine(wanted_engine(options), model, placement.device)
        bare = None if placement.optional else Structure(model)
        if prepared.adapters:
            from medchat.inference.adapters.attach import attach_adapters  # brings peft: slow to import

            attach_adapters(model, prepared.adapters, placement.device, placement.dtype)
        model.eval()
        return replace(prepared, bare=bare, notes=(*prepared.notes, *kept))

    def prepare(self, options: LoadOptions) -> CausalModel[Shape, Tokenizer]:
        """Check all that can be checked without reading weights.

        Raises CheckpointError (missing, damaged, another architecture, not matching), MemoryShortageError
        where it can be known, or UsageError (impossible device, dtype, quantisation or engine).
        """
        device = pick_device(options.device)
        dtype = pick_dtype(options.dtype, device)
        bits = bits_of(options.quantize)
        shape, checkpoint, headers = self._open(options.model)
        vocabulary = self.open_vocabulary(options, shape, headers)
        model = self._unfilled(shape, vocabulary)
        rename = self.naming(model, headers)
        mapped = expect_stored(model, headers, rename, vocabulary.saved)
        if mapped:
            refuse_other_width(model, options.quantize)
        elif bits:
            pack_linears(model, bits)
        more = prepare_for_engine(
            wanted_engine(options), model, device, quantising=bool(bits), replaced=vocabulary.saved
        )
        placement = Placement(
            dtype,
            device,
            ignore=(*self.never_read(model, headers), *vocabulary.saved),
            optional=vocabulary.saved,
            keep=("*.weight_scale",),
            tied=dict(model.all_tied_weights_keys),
            rename=rename,
            conversions=conversions(model),
            mapped=mapped,
            watch=options.watch,
        )
        placement = with_own_head(placement, model)
        ensure_memory(loaded_weight_bytes(model, placement) + more, device)
        if vocabulary.adapters:
            from medchat.inference.adapters.attach import check_fit  # brings peft: slow to import

            check_fit(model, vocabulary.adapters)
        require_match(model, checkpoint, headers, placement)
        return CausalModel(
            model,
            vocabulary.tokenizer,
            shape,
            vocabulary.base,
            vocabulary.adapters,
            _notes(vocabulary, checkpoint),
            checkpoint,
            headers,
            placement,
        )

    def tokenizer(self, options: LoadOptions) -> Tokenizer:
        """Return the vocabulary that `load` would use. Needs no weights in the folder. Raises CheckpointError."""
        if not has_weights(options.model):
            return self.open_vocabulary(options, self.read_shape(options.model), {}).tokenizer
        shape, _, headers = self._open(options.model)
        return self.open_vocabulary(options, shape, headers).tokenizer

    def unfilled(self, options: LoadOptions) -> PreTrainedModel:
        """Return the model of a folder, without its adapters, on the meta device. Reads no weights.

        Raises CheckpointError (missing, damaged, another architecture).
        """
        shape, _, headers = self._open(options.model)
        return self._unfilled(shape, self.open_vocabulary(replace(options, adapters=()), shape, headers))

    def _unfilled(self, shape: Shape, vocabulary: Vocabulary[Tokenizer]) -> PreTrainedModel:
        with torch.device("meta"):
            return self.build(self.library_config(shape, vocabulary)).eval()

    def _open(self, folder: Path) -> tuple[Shape, Checkpoint, Mapping[str, TensorHeader]]:
        shape = self.read_shape(folder)
        checkpoint = open_checkpoint(folder)
        headers = read_headers(checkpoint)
        # Before building what config.json describes, which may be huge.
        if found := self.misfit(shape, {self.rename(plain): header for plain, header in headers.items()}):
            raise CheckpointError(
                say(
                    f"config.json 与权重不匹配（{found}）", f"config.json does not fit the weights ({found})"
                ),
                say("请确认二者来自同一模型，且下载完整", "check that both belong together and are complete"),
                where=str(folder / "config.json"),
            )
        return shape, checkpoint, headers


def _notes(vocabulary: Vocabulary[Any], checkpoint: Checkpoint) -> tuple[str, ...]:
    return (*vocabulary.notes, *files_passed_over(checkpoint, vocabulary.adapters))


def _with_vocabulary(
    before: CausalModel[Shape, Tokenizer], vocabulary: Vocabulary[Tokenizer]
) -> CausalModel[Shape, Tokenizer]:
    return replace(
        before,
        tokenizer=vocabulary.tokenizer,
        base=vocabulary.base,
        adapters=vocabulary.adapters,
        notes=_notes(vocabulary, before.checkpoint),
    )
