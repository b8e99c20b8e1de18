"""A backbone of a plugin behind a guard: what it raises or returns against its contract is the plugin's failure.

Whoever asks a backbone through this need not know that it is somebody else's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from medchat.api import (
    AdapterCard,
    Backbone,
    Capabilities,
    ChatModel,
    GenerationConfig,
    KnownWeights,
    LoadOptions,
    ModelCard,
    Option,
    PromptTemplate,
    SFTRecipe,
    SpecialTokens,
)
from medchat.language import say
from medchat.registry.contract import ContractError, hints_of, result_of
from medchat.registry.guarded_model import given_model, guarded_model
from medchat.registry.guarded_recipe import GuardedRecipe
from medchat.registry.guarded_template import guarded_template
from medchat.registry.metadata import PluginEntry
from medchat.registry.plugin import ON_PURPOSE, asked, guarded

Answer = TypeVar("Answer")
#: Loading asks the system for most of what it can refuse.
_OF_LOADING = (*ON_PURPOSE, OSError)

#: What a description counts.
_COUNTS = ("parameters", "weight_bytes", "vocab_size", "context_length")


class GuardedBackbone(Backbone):
    """The backbone `inner` of the plugin behind `entry`; its models, templates and recipes are guarded as well.

    A MedchatError that the plugin raises on purpose (CheckpointError, say) passes unchanged; anything else,
    SystemExit and a result of the wrong kind too, is raised as BrokenPluginError naming its distribution.
    """

    def __init__(self, inner: Backbone, entry: PluginEntry) -> None:
        self._inner, self._entry = inner, entry
        # Read once and unguarded: `Registry.backbone` has just compared it.
        self.name = inner.name

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Guard what is made of the values that this backbone gave."""
        with guarded(self._entry, passing=ON_PURPOSE):
            yield

    # ------------------------------------------------------------ what it is

    @property
    def summary(self) -> Mapping[str, str]:  # type: ignore[override]
        """See `Backbone`, as all that follows."""
        return self._attribute("summary", lambda: self._inner.summary)

    @property
    def known_weights(self) -> tuple[KnownWeights, ...]:  # type: ignore[override]
        return tuple(self._attribute("known_weights", lambda: self._inner.known_weights))

    @property
    def generation(self) -> GenerationConfig:  # type: ignore[override]
        return self._attribute("generation", lambda: self._inner.generation)

    @property
    def load_keys(self) -> Mapping[str, Option | tuple[str, ...]]:  # type: ignore[override]
        return self._attribute("load_keys", lambda: self._inner.load_keys)

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        return self._attribute("capabilities", lambda: self._inner.capabilities)

    @property
    def recipes(self) -> Mapping[str, SFTRecipe]:
        found = asked(self._entry, "recipes", lambda: self._inner.recipes, Mapping[str, SFTRecipe])
        return {name: GuardedRecipe(recipe, self._entry) for name, recipe in found.items()}

    @property
    def file_suffix(self) -> str:  # type: ignore[override]
        return self._attribute("file_suffix", lambda: self._inner.file_suffix)

    @property
    def not_applicable(self) -> Mapping[str, str]:  # type: ignore[override]
        return self._attribute("not_applicable", lambda: self._inner.not_applicable)

    @property
    def given(self) -> Backbone:
        """The backbone as its plugin knows it: for whoever tests it."""
        return self._inner

    @property
    def module(self) -> str:
        """The module that the plugin's entry point names."""
        return str(self._entry.value).partition("[")[0].partition(":")[0].strip()

    # ------------------------------------------------------------ what it does

    def load(self, options: LoadOptions) -> ChatModel:
        """Loading is the call that asks the system for most: what that refuses (OSError) passes too."""
        with guarded(self._entry, "load", _OF_LOADING):
            model = self._inner.load(options)
        return guarded_model(model, self._entry, "load")

    def exchange_adapters(self, model: ChatModel, options: LoadOptions) -> ChatModel | None:
        where, given = "exchange_adapters", given_model(model)
        with guarded(self._entry, where, _OF_LOADING):
            found = self._inner.exchange_adapters(given, options)
        if found is None:
            return None
        return model if found is given else guarded_model(found, self._entry, where)

    def save_merged(self, options: LoadOptions, folder: Path, dtype: str) -> None:
        with guarded(self._entry, "save_merged", _OF_LOADING):
            self._inner.save_merged(options, folder, dtype)

    def save_quantized(self, options: LoadOptions, folder: Path) -> None:
        with guarded(self._entry, "save_quantized", _OF_LOADING):
            self._inner.save_quantized(options, folder)

    def check(self, options: LoadOptions) -> None:
        with guarded(self._entry, "check", ON_PURPOSE):
            self._inner.check(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        with guarded(self._entry, "template", ON_PURPOSE):
            template = self._inner.template(options)
        return guarded_template(template, self._entry, "template")

    def trained_templates(self, options: LoadOptions) -> tuple[str, ...]:
        return tuple(self._asked(Backbone.trained_templates, lambda: self._inner.trained_templates(options)))

    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        return self._asked(Backbone.special_tokens, lambda: self._inner.special_tokens(options))

    def inspect(self, path: Path) -> ModelCard | None:
        card = self._asked(Backbone.inspect, lambda: self._inner.inspect(path))
        with guarded(self._entry, "inspect"):
            for name in _COUNTS if card else ():
                if getattr(card, name) < 0:
                    raise ContractError(say(f"{name} 是负数", f"{name} is negative"))
        return card

    def inspect_adapter(self, path: Path) -> AdapterCard | None:
        return self._asked(Backbone.inspect_adapter, lambda: self._inner.inspect_adapter(path))

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        with guarded(self._entry, "tiny", ON_PURPOSE):
            self._inner.tiny(path, corpus=corpus, seed=seed, **shape)

    def models_in(self, path: Path) -> tuple[Path, ...]:
        _ = self.file_suffix  # looked at before it is used: else a wrong one would find no model
        return tuple(self._asked(Backbone.models_in, lambda: self._inner.models_in(path)))

    def address(self, value: str) -> str | None:
        return self._asked(Backbone.address, lambda: self._inner.address(value))

    def notices(self, options: LoadOptions) -> tuple[str, ...]:
        return tuple(self._asked(Backbone.notices, lambda: self._inner.notices(options)))

    def _attribute(self, name: str, question: Callable[[], Answer]) -> Answer:
        return asked(self._entry, name, question, hints_of(Backbone)[name])

    def _asked(self, method: Callable[..., Answer], question: Callable[[], Answer]) -> Answer:
        return asked(self._entry, method.__name__, question, result_of(method))
