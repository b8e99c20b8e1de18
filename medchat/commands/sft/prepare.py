"""A planned run with its data read and encoded: everything known before any weight is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

from medchat.api import DiskEstimate, MemoryEstimate, SFTData, SFTSurvey
from medchat.commands.sft.overview import nearest_line
from medchat.commands.sft.plan import RunPlan
from medchat.datafiles.fields import FieldChoice
from medchat.datafiles.tally import unused_line
from medchat.errors import MedchatError, MemoryShortageError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.sft_job.data import TrainingFile, read_training_data, split
from medchat.sft_job.facts import DataFacts, LengthFacts, RunFacts, memory_facts, settings_rows
from medchat.templates import ignores_input
from medchat.units import amount, gib


@dataclass(frozen=True)
class PreparedRun:
    """A run before training. `survey` and `memory` are None if the recipe has none.

    `leaves_out_input`: the name of a template that does not use the `input` of records.
    """

    plan: RunPlan
    files: tuple[TrainingFile, ...]
    data: SFTData
    survey: SFTSurvey | None
    memory: MemoryEstimate | None
    disk: DiskEstimate | None = None
    template_name: str = ""
    leaves_out_input: bool = False

    def data_remarks(self, file: TrainingFile) -> tuple[str, ...]:
        """Return the remarks on a file: its fields, and what is not learned."""
        inputs = file.fields.by_use().get("input")
        if not (self.leaves_out_input and inputs):
            return tuple(file.remarks())
        name = sanitize_line(self.template_name)
        why = say(f"（模板 {name} 没有它的位置）", f" (template {name} has no place for it)")
        return (*file.remarks(), unused_line(inputs) + why)

    def facts(self, notes: tuple[str, ...] = ()) -> RunFacts:
        """Return the facts of the run for its reports."""
        plan = self.plan
        return RunFacts(
            backbone=plan.backbone.name,
            method=plan.recipe.method,
            base=str(plan.options.model),
            settings=settings_rows(plan.settings),
            data=tuple(
                DataFacts(
                    file.path.name, file.described, file.records, len(file.bad), self.data_remarks(file)
                )
                for file in self.files
            ),
            train=len(self.data.train),
            held_out=len(self.data.held_out),
            created=date.today().isoformat(),
            lengths=LengthFacts.of(self.survey) if self.survey else None,
            processes=plan.process.world_size,
            notes=notes,
            **memory_facts(self.memory),
        )

    def as_json(self) -> dict[str, Any]:
        """Return what `--dry-run --json` prints."""
        return {
            "backbone": self.plan.backbone.name,
            "method": self.plan.recipe.method,
            "settings": {
                name: {"value": row.value, "origin": row.origin}
                for name, row in self.plan.settings.settings.items()
            },
            "data": [self._file_json(file) for file in self.files],
            "train": len(self.data.train),
            "held_out": len(self.data.held_out),
            "survey": _survey_json(self.survey) if self.survey else None,
            "memory": _memory_json(self.memory) if self.memory else None,
            "disk": _disk_json(self.disk) if self.disk else None,
        }

    def _file_json(self, file: TrainingFile) -> dict[str, Any]:
        return {
            "path": str(file.path),
            "forms": dict(file.forms),
            "records": file.records,
            "bad": len(file.bad),
            "fields": file.fields.by_use(),
            "unused": unused_fields([file], leaves_out_input=self.leaves_out_input),
            "unanswered": file.unanswered,
            "unlearned": file.unlearned,
            "sha256": file.sha256,
        }

    def refuse_what_cannot_fit(self) -> None:
        """Raise MemoryShortageError if the estimates say that there is not enough memory, or MedchatError if
        there is not enough room on the disk."""
        memory = self.memory
        if memory is not None and not memory.fits:
            raise MemoryShortageError(
                say(
                    f"内存不够：估计峰值 {gib(memory.total)}，{memory.device} 可用 {gib(memory.available)}",
                    f"not enough memory: the peak would be {gib(memory.total)}, "
                    f"{memory.device} has {gib(memory.available)} free",
                ),
                nearest_line(memory),
            )
        disk = self.disk
        if disk is not None and not disk.fits:
            raise MedchatError(
                say(
                    f"磁盘空间不够：这次训练要写 {amount(disk.total)}，输出位置只剩 {amount(disk.available)}",
                    f"not enough room on the disk: the run would write {amount(disk.total)},"
                    f" {amount(disk.available)} are free there",
                ),
                say(
                    "腾出空间，换一个 --output，或用 --save-total 1 少留检查点",
                    "make room, use another --output, or keep fewer checkpoints with --save-total 1",
                ),
                where=disk.place,
            )


def _survey_json(survey: SFTSurvey) -> dict[str, Any]:
    return {**asdict(LengthFacts.of(survey)), "preview": [asdict(piece) for piece in survey.preview]}


def _memory_json(memory: MemoryEstimate) -> dict[str, Any]:
    return {
        "device": memory.device,
        "parts": dict(memory.parts),
        "total": memory.total,
        "available": memory.available,
        "fits": memory.fits,
        "alternatives": dict(memory.alternatives),
        "nearest": None if memory.nearest is None else dict(memory.nearest),
        "parameters": memory.parameters,
        "trainable": memory.trainable,
        "cards": {
            str(size): None if changes is None else dict(changes) for size, changes in memory.cards.items()
        },
        "notes": list(memory.notes),
    }


def _disk_json(disk: DiskEstimate) -> dict[str, Any]:
    return {
        "place": disk.place,
        "parts": dict(disk.parts),
        "total": disk.total,
        "available": disk.available,
        "fits": disk.fits,
    }


def prepare_run(plan: RunPlan) -> PreparedRun:
    """Read the data and ask the recipe for its survey and the estimates.

    Raises DataError (with file:line), CheckpointError for missing files, and what the recipe raises.
    """
    settings, recipe, options = plan.settings, plan.recipe, plan.options
    choice = FieldChoice(
        *(str(settings.value(f"{use}_field") or "") for use in ("question", "answer", "context"))
    )
    files = tuple(
        read_training_data(path, skip_bad=bool(settings.value("skip_bad")), choice=choice)
        for path in plan.data
    )
    examples = [example for file in files for example in file.examples]
    train, held_out = split(examples, plan.options.val_size, plan.options.seed)
    template = plan.template or recipe.template(options)
    leaves_out_input = template is not None and ignores_input(template)
    data = SFTData(
        train, held_out, plan.template, unused_fields=unused_fields(files, leaves_out_input=leaves_out_input)
    )
    survey = recipe.survey(data, options)
    memory = recipe.estimate(options, survey)
    # Without held-out data no step is the best one.
    disk = recipe.disk(options if held_out else replace(options, val_size=0), survey)
    name = template.name if template is not None else ""
    return PreparedRun(plan, files, data, survey, memory, disk, name, leaves_out_input)


def unused_fields(files: Sequence[TrainingFile], *, leaves_out_input: bool) -> dict[str, int]:
    """Return the unused fields, each with the number of records that have it."""
    unused: Counter[str] = Counter()
    for file in files:
        unused.update(file.fields.unused)
        if leaves_out_input:
            unused.update(file.fields.by_use().get("input", {}))
    return dict(unused)
