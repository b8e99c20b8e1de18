"""What a backbone has once its family is described for fine-tuning (`medchat.training.family`).

Cheap to import: torch is imported when a recipe or a merge is asked for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from medchat.api import Backbone, LoadOptions, SFTRecipe

if TYPE_CHECKING:
    from medchat.training.family import Family
    from medchat.training.methods import Method


class TrainedFamily(Backbone):
    """All methods of fine-tuning, and whole checkpoints with adapters merged or weights quantised."""

    #: The method to take where none is named.
    first_method: ClassVar[str] = "full"

    @abstractmethod
    def family(self) -> Family:
        """Return what the recipes must know of the family. Imports torch: in here, and not with the module."""

    def own_methods(self) -> Sequence[Method]:
        """Return the family's own methods, which go over the shared ones of the same name."""
        return ()

    @property
    def recipes(self) -> Mapping[str, SFTRecipe]:
        """All methods of fine-tuning."""
        from medchat.training.recipe import recipes_of

        return recipes_of(self.family(), self.own_methods(), first=self.first_method)

    def save_merged(self, options: LoadOptions, folder: Path, dtype: str) -> None:
        """Load the weights, merge LoRA adapters in float32 and write the whole."""
        from medchat.training.merging import save_merged

        save_merged(self.family(), options, folder, dtype)

    def save_quantized(self, options: LoadOptions, folder: Path) -> None:
        """Quantise the weights and write the whole, one matrix at a time."""
        from medchat.training.quantising import save_quantized

        save_quantized(self.family(), options, folder)
