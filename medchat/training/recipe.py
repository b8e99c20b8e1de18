"""The recipe of all families and methods: from examples to a result that was reloaded and checked.

    class MyFamily(Family): ...
    recipes = recipes_of(MyFamily())          # what a backbone's `recipes` returns

template -> features -> model with its trainable part -> training -> files -> reloaded and compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property

from medchat.api import (
    DiskEstimate,
    LoadOptions,
    MemoryEstimate,
    PromptTemplate,
    SFTData,
    SFTNote,
    SFTOptions,
    SFTRecipe,
    SFTReport,
    SFTStatus,
    SFTSurvey,
    SFTWatcher,
)
from medchat.inference.device import pick_device
from medchat.language import say
from medchat.training.disk_estimate import estimate_disk
from medchat.training.family import Family, FamilyEncoder, base_options
from medchat.training.features import (
    EncodedData,
    FeatureSet,
    encode_examples,
    refuse_left_out,
    refuse_past_positions,
)
from medchat.training.malloc_tuning import limit_onednn_cache
from medchat.training.memory_estimate import estimate
from medchat.training.method_run import MethodRun
from medchat.training.methods import (
    BottleneckMethod,
    FullMethod,
    LoraMethod,
    Method,
    PrefixMethod,
    QLoraMethod,
)
from medchat.training.methods.method import precision
from medchat.training.optimizers import check_optimizer
from medchat.training.options import check_collator, check_early_stopping, check_options, micro_batch_of
from medchat.training.previous_run import check_output, close_finished
from medchat.training.process_group import launcher_note, process_group
from medchat.training.run_folder import run_folder
from medchat.training.single_process import ProcessGroup
from medchat.training.survey import survey
from medchat.training.train import cpu_threads, fingerprint_of
from medchat.training.training_arguments import check_trackers

METHODS: tuple[type[Method], ...] = (FullMethod, LoraMethod, QLoraMethod, BottleneckMethod, PrefixMethod)


def recipes_of(family: Family, own: Sequence[Method] = (), first: str = "") -> Mapping[str, SFTRecipe]:
    """Return a family's recipes by name: the shared methods, or in place of one the family's `own`.

    `first` is the default method.
    """
    methods = {method.name: method for method in (*(kind() for kind in METHODS), *own)}
    ordered = sorted(methods, key=lambda name: name != first)
    return {name: FamilyRecipe(family, methods[name]) for name in ordered if name not in family.without}


class FamilyRecipe(SFTRecipe):
    """One method on one family."""

    def __init__(self, family: Family, method: Method) -> None:
        self.family, self.tuning_method = family, method
        self.method = method.name
        self._checked: SFTOptions | None = None
        self._encoded: tuple[tuple[object, ...], list[FeatureSet]] | None = None

    @cached_property
    def defaults(self) -> Mapping[str, object]:  # type: ignore[override]
        """The method's defaults, with the family's values."""
        return self.tuning_method.defaults_for(self.family)

    @property
    def collators(self) -> tuple[str, ...]:  # type: ignore[override]
        """The family's collators."""
        return self.family.collators

    def resolve_options(self, options: SFTOptions) -> SFTOptions:
        """Return the options with precision and the family's own settings resolved for this model and machine.

        Raises CheckpointError where the model could not be loaded, as far as that shows without reading weights.
        """
        self._check(options)
        self.family.check(base_options(options))
        own = {**options.extra, **self.family.resolved(options)}
        return replace(options, precision=precision(options).name, extra=own)

    def template(self, options: SFTOptions) -> PromptTemplate:
        """Return the family's template for these weights and this method's kind of result."""
        return self.family.training_template(base_options(options), self.tuning_method.kind)

    def survey(self, data: SFTData, options: SFTOptions) -> SFTSurvey:
        """Tokenise the data as `run` would, and return statistics of it. Needs the small files, no weights.

        Raises what `run` raises for bad options, data and folders; weights that are missing it does not miss.
        """
        if options.resume:
            check_options(options)
            check_output(options)
        self._check(options)
        encoded, base = self._encode(data, options), base_options(options)
        return survey(
            encoded.train,
            self.family.tokenizer(base),
            template=encoded.template.name,
            max_length=options.max_length,
            collate=self.family.preview_collator(options.collator, base),
        )

    def estimate(self, options: SFTOptions, survey: SFTSurvey | None) -> MemoryEstimate | None:
        """Return an estimate of the run's memory. Reads small files and headers only. None: unknown."""
        shape = self.family.shape(options)
        return estimate(shape, options, survey, pick_device(options.device)) if shape else None

    def disk(self, options: SFTOptions, survey: SFTSurvey | None) -> DiskEstimate | None:
        """Return an estimate of the run's disk space. Reads small files and headers only. None: unknown."""
        shape = self.family.shape(options)
        return estimate_disk(shape, options, survey, pick_device(options.device)) if shape else None

    def run(self, data: SFTData, options: SFTOptions, watch: SFTWatcher) -> SFTReport:
        """Train, write `options.output`, and reload it to check the result.

        Raises UsageError for bad options or an output that exists, DataError, CheckpointError,
        MemoryShortageError, and MedchatError if training diverged or was interrupted.
        """
        limit_onednn_cache()
        processes = process_group(
            pick_device(options.device), lambda text: watch.on_event(SFTNote(text, everywhere=True))
        )
        with processes.single_reporter():
            return self._run(data, options, watch, processes)

    def _run(
        self, data: SFTData, options: SFTOptions, watch: SFTWatcher, processes: ProcessGroup
    ) -> SFTReport:
        self._check(options, processes.count)
        if done := processes.from_main(lambda: check_output(options)):
            if processes.is_main:
                watch.on_event(close_finished(options.output))
            return done
        self.family.check(base_options(options))
        encoded = self._encode(data, options)
        fingerprint = fingerprint_of(encoded.train.features, encoded.held_out)
        with (
            cpu_threads(options.threads),
            run_folder(options, fingerprint, processes, data.unused_fields) as folder,
        ):
            if processes.is_main:
                # Reported before the slow part, because the watcher writes the settings into the folder.
                watch.on_event(SFTStatus(say("加载权重", "loading the weights")))
                if note := launcher_note():
                    watch.on_event(SFTNote(note))
            work = MethodRun(self.family, self.tuning_method, data, encoded, options, folder, watch)
            trained, samples = work.train_and_write() if processes.is_main else (work.train_beside_main(), ())
            report = SFTReport(
                output=options.output,
                kind=self.tuning_method.kind,
                template=encoded.template.name,
                examples=len(encoded.train.features),
                label_tokens=encoded.train.label_tokens,
                held_out=len(encoded.held_out),
                samples=samples,
                **asdict(trained),
            )
            if not processes.is_main:
                return report
            watch.finish(folder.path, report)
            facts = {"backbone": self.family.name, "method": self.method, "seed": options.seed}
            folder.finish(report, facts)
        return report

    def _check(self, options: SFTOptions, processes: int = 1) -> None:
        """Raise UsageError for options that no run can have."""
        if options != self._checked:
            check_options(options)
        micro_batch_of(options, processes)
        if options != self._checked:
            self._refuse(options)
        self._checked = options

    def _refuse(self, options: SFTOptions) -> None:
        check_collator(options, self.family.collators)
        self.tuning_method.refuse(self.family, options)
        check_optimizer(options, pick_device(options.device))
        check_trackers(options)

    # ------------------------------------------------------------ text to ids

    def _encode(self, data: SFTData, options: SFTOptions) -> EncodedData:
        check_early_stopping(options, held_out=bool(data.held_out))
        base = base_options(options)
        template = data.template or self.template(options)
        encoder = self._encoder(base, template)
        # `run` follows `survey` of the same data: its encoded data is reused if all inputs are the same. A
        # tokenizer is the same object while its files are unchanged.
        made_from = (tuple(data.train), tuple(data.held_out), template, encoder, options.max_length)
        if self._encoded is None or self._encoded[0] != made_from:
            parts = [
                encode_examples(part, template, encoder, options.max_length)
                for part in (data.train, data.held_out)
            ]
            self._encoded = made_from, parts
        train, held_out = self._encoded[1]
        refuse_left_out((train, held_out), options.max_length, allow=options.allow_truncation)
        self._refuse_past_positions((train, held_out), options)
        return EncodedData(template, train, held_out.features)

    def _refuse_past_positions(self, sets: Sequence[FeatureSet], options: SFTOptions) -> None:
        positions = self.family.most_positions(options)
        if positions is not None:
            refuse_past_positions(sets, positions, self.tuning_method.positions_taken(options))

    def _encoder(self, base: LoadOptions, template: PromptTemplate) -> FamilyEncoder:
        tokenizer = self.family.tokenizer(base)
        return FamilyEncoder(tokenizer, self.family.end_id(tokenizer, template))
