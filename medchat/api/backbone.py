"""A model family: what a plugin subclasses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medchat.api.finetuning import SFTRecipe
from medchat.api.generation import DTYPES, QUANTIZE, GenerationConfig, LoadOptions
from medchat.api.models import AdapterCard, ChatModel, ModelCard
from medchat.api.option import Option
from medchat.api.prompts import PromptTemplate, SpecialTokens
from medchat.errors import UsageError
from medchat.language import say

HUB = "https://huggingface.co/"


@dataclass(frozen=True, slots=True)
class KnownFile:
    """One file of published weights. `size` in bytes and `sha256` are 0 and "" if nobody stated them."""

    name: str
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class KnownWeights:
    """Published weights that a backbone can load. `models list|show|pull|verify` work from this.

    `source` is a page for people; one on the hub is also where `pull` takes them from, at `revision`.
    `size` is the whole download in bytes, about; `files` are those whose facts were published, not
    necessarily all. An adapter's `fits` are the names of the bases it was trained on. `by_hand` are the
    links where a person must fetch the weights. `modelscope` is their OWNER/NAME there. `note` is a
    sentence in each language, e.g. {"zh": "…", "en": "…"}.
    """

    name: str
    title: str
    source: str
    licence: str
    template: str
    kind: Literal["base", "adapter"] = "base"
    revision: str = "main"
    size: int = 0
    files: tuple[KnownFile, ...] = ()
    fits: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()
    modelscope: str = ""
    note: Mapping[str, str] = field(default_factory=dict)

    @property
    def repository(self) -> str:
        """OWNER/NAME on the hub, "" for weights that are not there."""
        return self.source.removeprefix(HUB) if self.source.startswith(HUB) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a family's models can do; the default is everything. Raises ValueError for values that no flag takes.

    Which methods of fine-tuning there are `Backbone.recipes` says.
    """

    #: Beam search: `num_beams` above 1.
    beams: bool = True
    #: `ChatModel.score`.
    score: bool = True
    #: Adapters over the weights.
    adapters: bool = True
    #: Several prompts at once take less time than one after the other. False: `infer` asks one at a time.
    batch: bool = True
    #: `ChatModel.stream` may be called from several threads at a time, and their answers come at the same time.
    concurrent: bool = False
    #: What `--device` may be, a card's number left out; empty if the model does not run on this machine.
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")
    #: What `--dtype` may be besides "auto".
    dtypes: tuple[str, ...] = tuple(dtype for dtype in DTYPES if dtype != "auto")
    #: What `--quantize` may be besides "none".
    quantize: tuple[str, ...] = tuple(kind for kind in QUANTIZE if kind != "none")

    def __post_init__(self) -> None:
        for name, known in (("devices", ("cpu", "cuda", "mps")), ("dtypes", DTYPES), ("quantize", QUANTIZE)):
            if strangers := set(getattr(self, name)) - set(known):
                raise ValueError(
                    f"Capabilities.{name}: {sorted(strangers)[0]!r} is not one of {', '.join(known)}"
                )


class Backbone(ABC):
    """A model family. Subclass it, return an instance from the `medchat_backbones` hook."""

    #: Equals the entry-point name; what `--backbone` takes.
    name: str
    #: One sentence in each language, e.g. {"zh": "…", "en": "…"}.
    summary: Mapping[str, str]
    #: Published weights that it loads: `models list` names them, `models pull` fetches them.
    known_weights: tuple[KnownWeights, ...] = ()
    #: Decoding defaults of the published demo; flags and configuration go over them.
    generation: GenerationConfig = GenerationConfig()
    #: Its own keys, which come to `load` in `LoadOptions.extra`; a bare tuple is a str of these choices.
    load_keys: Mapping[str, Option | tuple[str, ...]] = {}

    #: Properties of `medchat.testing` that this family cannot have, by the test's name, each with the reason.
    not_applicable: Mapping[str, str] = {}
    #: What its models can do; a flag that asks for anything else is refused before loading.
    capabilities: Capabilities = Capabilities()
    #: What the names of its models end in, where models are files (".gguf"); "": models are folders.
    file_suffix: str = ""

    @abstractmethod
    def load(self, options: LoadOptions) -> ChatModel:
        """Load a checkpoint. Raises CheckpointError (missing, damaged, not matching) or MemoryShortageError."""

    def exchange_adapters(self, model: ChatModel, options: LoadOptions) -> ChatModel | None:
        """Return a model with the weights of `model`, loaded by this backbone, and the adapters of `options`.

        None, the default, where that takes loading again. All else in `options` is as `model` was loaded.
        `model` is used up then: it is neither asked nor closed any more. Raises what `load` raises, and
        leaves `model` as it was.
        """
        return None

    def save_merged(self, options: LoadOptions, folder: Path, dtype: str) -> None:
        """Write a whole checkpoint into the empty `folder`, in `dtype`, with the adapters of `options` merged.

        It must load by its path alone: weights as safetensors, small files, the vocabulary, and the template
        that the adapters were trained in. `medchat export` makes the folder, and removes it if this raises.
        Raises UsageError if the family, an adapter's kind or quantised weights allow no such thing, which is
        the default, and what `load` raises.
        """
        raise UsageError(
            say(
                f"{self.name} 不能导出合并后的权重", f"{self.name} cannot export weights with adapters merged"
            ),
            say("改用 --adapter 加载适配器", "load the adapter with --adapter instead"),
        )

    def save_quantized(self, options: LoadOptions, folder: Path) -> None:
        """Write a whole checkpoint into the empty `folder`, quantised as `options.quantize` says.

        It must load by its path alone: weights as safetensors, small files, vocabulary and template. `medchat
        models quantize` makes the folder, and removes it if this raises. Raises UsageError if the family or the
        weights allow no such thing, which is the default, and what `load` raises.
        """
        raise UsageError(
            say(f"{self.name} 不能保存量化后的权重", f"{self.name} cannot save quantised weights"),
            say("改用 --quantize 加载", "load them with --quantize instead"),
        )

    def check(self, options: LoadOptions) -> None:
        """Raise what `load` would raise, as far as it shows without reading weights; by default nothing.

        `medchat infer --check` asks before a long run begins, so that a wrong adapter is not found hours later.
        """
        return

    @abstractmethod
    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the template the checkpoint was trained with. Reads small files only, never weights."""

    def trained_templates(self, options: LoadOptions) -> tuple[str, ...]:
        """Return the names of the templates that these very weights are known to have been trained on.

        Empty, the default, where that is not known: then `template` is a good guess and any other
        choice is as good. Where it is known the user is warned of a `--template` that is not among them.
        """
        return ()

    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        """Return the special tokens of the vocabulary that `load` would use. Asked for a Jinja template.

        What such a template writes is held against them: a special token becomes a `Control`, all else
        is text. Without any, the default, everything is text. Raises CheckpointError.
        """
        return SpecialTokens()

    @abstractmethod
    def inspect(self, path: Path) -> ModelCard | None:
        """Say what the folder is, or None if it is not of this family. Reads headers only, no torch."""

    def inspect_adapter(self, path: Path) -> AdapterCard | None:
        """Say what the adapter folder is, or None, the default, if that is for others to say.

        May read the adapter's weights, which are small; never a model's.
        """
        return None

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        """Write a miniature random checkpoint in the real layout, its vocabulary made from `corpus`.

        Optional: `medchat.testing` tries the family's properties on it where no model is given. Raises UsageError by
        default.
        """
        raise UsageError(
            say(
                f"模型家族“{self.name}”不会生成微型模型",
                f"the model family {self.name!r} writes no miniature",
            ),
            say("请用 --model 指定一个模型", "name a model with --model"),
        )

    def models_in(self, path: Path) -> tuple[Path, ...]:
        """Return the models at `path`, each as `load` takes it in `LoadOptions.model`.

        By default a folder is one model and a file is none. With `file_suffix` a file that ends in it is one, and so
        are those in a folder; where there are several the user is asked to name one. Looks at names only.
        """
        try:
            if not self.file_suffix:
                return (path,) if path.is_dir() else ()
            found = sorted(path.glob(f"*{self.file_suffix}")) if path.is_dir() else [path]
            return tuple(file for file in found if file.name.endswith(self.file_suffix) and file.is_file())
        except OSError:  # a name that is too long, a folder that may not be listed
            return ()

    def address(self, value: str) -> str | None:
        """Return what `--model` names where that is no folder (an endpoint), in its one proper form.

        None, the default, says that models are folders. `value` is "" if none was given. Touches no network.
        Raises UsageError for an address that cannot be used.
        """
        return None

    def notices(self, options: LoadOptions) -> tuple[str, ...]:
        """Return what the user must have read before the first question: shown at every start.

        Nothing is loaded yet and nothing may be; most backbones have nothing to say.
        """
        return ()

    @property
    def recipes(self) -> Mapping[str, SFTRecipe]:
        """The fine-tuning methods by name, first the one to take where none is named. Empty where there are none."""
        return {}
