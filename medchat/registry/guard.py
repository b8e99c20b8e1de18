"""A backbone of a plugin behind a guard: what it raises or returns against its contract is the plugin's failure.

Whoever asks a backbone through this need not know that it is somebody else's code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medchat.api import (
    AdapterCard,
    Backbone,
    ChatModel,
    GenerationConfig,
    KnownWeights,
    LoadOptions,
    ModelCard,
    PromptTemplate,
    SFTRecipe,
    SpecialTokens,
)
from medchat.errors import MedchatError
from medchat.registry.metadata import PluginEntry
from medchat.registry.plugin import ContractError, guarded


class GuardedBackbone(Backbone):
    """The backbone `inner` of the plugin behind `entry`.

    A MedchatError that the plugin raises on purpose (CheckpointError, say) passes unchanged; anything else,
    SystemExit and a result of the wrong kind too, is raised as BrokenPluginError naming its distribution.
    """

    def __init__(self, inner: Backbone, entry: PluginEntry) -> None:
        self._inner, self._entry = inner, entry
        # Read once and unguarded: `Registry.backbone` has just compared it.
        self.name = inner.name

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Guard calls of other objects that this backbone gave: its recipes, templates and models."""
        with guarded(self._entry, passing=(MedchatError,)):
            yield

    # ------------------------------------------------------------ what it is

    @property
    def summary(self) -> Mapping[str, str]:  # type: ignore[override]
        """See `Backbone`, as all that follows."""
        with self.guard():
            return self._inner.summary

    @property
    def known_weights(self) -> tuple[KnownWeights, ...]:  # type: ignore[override]
        """Each of them is a KnownWeights."""
        with self.guard():
            found = tuple(self._inner.known_weights)
            for known in found:
                _require(known, KnownWeights, "known_weights")
            return found

    @property
    def generation(self) -> GenerationConfig:  # type: ignore[override]
        with self.guard():
            return self._inner.generation

    @property
    def load_keys(self) -> Mapping[str, tuple[str, ...]]:  # type: ignore[override]
        with self.guard():
            return self._inner.load_keys

    @property
    def recipes(self) -> Mapping[str, SFTRecipe]:
        with self.guard():
            return dict(self._inner.recipes)

    # ------------------------------------------------------------ what it does

    def load(self, options: LoadOptions) -> ChatModel:
        """Loading is the call that asks the system for most: what that refuses (OSError) passes too."""
        with guarded(self._entry, "load", passing=(MedchatError, OSError)):
            return self._inner.load(options)

    def exchange_adapters(self, model: ChatModel, options: LoadOptions) -> ChatModel | None:
        with guarded(self._entry, "exchange_adapters", passing=(MedchatError, OSError)):
            return self._inner.exchange_adapters(model, options)

    def check(self, options: LoadOptions) -> None:
        with self.guard():
            self._inner.check(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        with self.guard():
            return self._inner.template(options)

    def trained_templates(self, options: LoadOptions) -> tuple[str, ...]:
        with self.guard():
            return self._inner.trained_templates(options)

    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        with self.guard():
            return self._inner.special_tokens(options)

    def inspect(self, path: Path) -> ModelCard | None:
        """The card is a ModelCard."""
        with self.guard():
            card = self._inner.inspect(path)
            return card if card is None else _require(card, ModelCard, "inspect")

    def inspect_adapter(self, path: Path) -> AdapterCard | None:
        """The card is an AdapterCard."""
        with self.guard():
            card = self._inner.inspect_adapter(path)
            return card if card is None else _require(card, AdapterCard, "inspect_adapter")

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        with self.guard():
            self._inner.tiny(path, corpus=corpus, seed=seed, **shape)

    def address(self, value: str) -> str | None:
        with self.guard():
            return self._inner.address(value)

    def notices(self, options: LoadOptions) -> tuple[str, ...]:
        with self.guard():
            return tuple(self._inner.notices(options))


def _require(value: Any, kind: type[Any], where: str) -> Any:
    if not isinstance(value, kind):
        raise ContractError(f"{where}: {type(value).__name__} != {kind.__name__}")
    return value
