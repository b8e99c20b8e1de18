"""What training data is under the vocabulary of a model: lengths in tokens, and what training would cut.

Asked of the backbone's own recipe, so that prompts and truncation are those of `medchat sft`. Needs no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medchat.plugin_kit import (
    DataError,
    FieldChoice,
    ResolvedModel,
    SFTData,
    SFTOptions,
    SFTRecipe,
    UsageError,
    read_training_data,
    resolve_model,
    say,
)
from medchat_data.measuring import Lengths


@dataclass(frozen=True, slots=True)
class TokenLengths:
    """Lengths of whole examples (prompt, answer and end token) in tokens, and how many lose what to `max_length`.

    A conversation gives an example for each of its answers. `too_long` counts those that are cut, by what they lose:
    `lost_turns`, `cut_questions`, `cut_answers`; those left `without_answer` are not learned at all.
    """

    backbone: str
    model: str
    template: str
    max_length: int
    lengths: Lengths
    too_long: int
    lost_turns: int
    cut_questions: int
    cut_answers: int
    without_answer: int

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON holds them."""
        return {
            "backbone": self.backbone,
            "model": self.model,
            "template": self.template,
            "max_length": self.max_length,
            "examples": len(self.lengths.sizes),
            "lengths": self.lengths.as_json(),
            "too_long": self.too_long,
            "lost_turns": self.lost_turns,
            "cut_questions": self.cut_questions,
            "cut_answers": self.cut_answers,
            "without_answer": self.without_answer,
        }


@dataclass(frozen=True, slots=True)
class TrainableVocabulary:
    """The vocabulary and template of a model that could be trained, opened by `named_vocabulary`."""

    resolved: ResolvedModel
    recipe: SFTRecipe
    options: SFTOptions
    takes_template: bool

    def measure(self, path: Path, choice: FieldChoice) -> TokenLengths:
        """Return the lengths of the examples that a file teaches; bad records are passed over.

        Raises DataError where it teaches nothing, CheckpointError for a vocabulary that cannot be read.
        """
        file = read_training_data(path, skip_bad=True, choice=choice)
        template = self.resolved.template if self.takes_template else None
        try:
            found = self.recipe.survey(SFTData(file.examples, template=template), self.options)
        except DataError as error:  # no example keeps an answer
            larger = say("用更大的 --max-length", "use a larger --max-length")
            raise DataError(error.what, larger, where=error.where or str(path)) from None
        if found is None:
            raise _cannot_tell(self.resolved.backbone.name)
        return TokenLengths(
            backbone=self.resolved.backbone.name,
            model=str(self.resolved.options.model),
            template=found.template,
            max_length=found.max_length,
            lengths=Lengths.of(found.lengths),
            too_long=sum(length > found.max_length for length in found.lengths),
            lost_turns=found.lost_turns,
            cut_questions=found.cut_questions,
            cut_answers=found.cut_answers,
            without_answer=len(found.unlabelled),
        )


def named_vocabulary(flags: Mapping[str, Any], max_length: int | None) -> TrainableVocabulary | None:
    """Return the vocabulary that a command's flags name, None where they name none.

    Raises UsageError where nothing is known of training with it, and what `resolve_model` raises.
    """
    if (
        not any(flags.get(name) for name in ("backbone", "model", "template", "profile"))
        and max_length is None
    ):
        return None
    resolved = resolve_model(flags)
    recipe = next(iter(resolved.backbone.recipes.values()), None)
    if recipe is None:
        raise _cannot_tell(resolved.backbone.name)
    options = SFTOptions(
        model=resolved.options.model,
        output=Path("unused"),  # a survey writes nothing
        method=recipe.method,
        adapters=resolved.options.adapters,
        extra=dict(resolved.options.extra),
        allow_truncation=True,
    )
    longest = recipe.defaults.get("max_length", options.max_length) if max_length is None else max_length
    options = replace(options, max_length=longest)
    return TrainableVocabulary(resolved, recipe, options, takes_template=bool(flags.get("template")))


def _cannot_tell(backbone: str) -> UsageError:
    return UsageError(
        say(
            f"模型家族 {backbone} 不能微调，不知道训练时会截断多少",
            f"the family {backbone} cannot be fine-tuned: what training would cut is not known",
        ),
        say("medchat plugins list 列出可以微调的家族", "medchat plugins list shows those that can be"),
    )
