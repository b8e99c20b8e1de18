"""The training run on features; it can be stopped at any moment and resumed with the same result.

    with open_run_folder(options, fingerprint_of(features, held_out)) as folder:
        trained = train(model, features, held_out, collate, options, folder, watch)

Independent of the model family; writes only the run's log and its checkpoints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from medchat.api import SFTNote, SFTOptions, SFTWatcher
from medchat.checkpoints.manifest import verify_manifest
from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.inference.device import device_of
from medchat.inference.memory_shortage import raise_on_oom
from medchat.language import say
from medchat.training import checkpoint as checkpoints
from medchat.training.checkpoint import (
    TrainingCheckpoint,
    load_counters,
    load_trained_weights,
    load_trainer_state,
)
from medchat.training.data_loader import BatchSampler, Collator
from medchat.training.features import Feature
from medchat.training.malloc_tuning import limit_onednn_cache, trim_malloc
from medchat.training.metrics_log import StepLog
from medchat.training.optimizers import build_optimizer, check_optimizer
from medchat.training.options import check_options, micro_batch_of
from medchat.training.process_group import process_group
from medchat.training.run_folder import RunFolder
from medchat.training.schedule import make_schedule
from medchat.training.single_process import ProcessGroup
from medchat.training.train_result import TrainResult, train_result
from medchat.training.trainer import LabelTrainer
from medchat.training.training_arguments import trackers, training_arguments
from medchat.training.training_run import TrainingRun


def fingerprint_of(features: Sequence[Feature], held_out: Sequence[Feature] = ()) -> str:
    """Return the fingerprint of a run's data: of the ids that the model sees, in their order."""
    digest = hashlib.sha256()
    for part in (features, held_out):
        digest.update(f"{len(part)}\n".encode())
        for feature in part:
            digest.update(f"{feature.prompt_ids} {feature.answer_ids}\n".encode())
    return digest.hexdigest()


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Within this block torch computes on `count` CPU threads (0: as before)."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(
    model: nn.Module,
    features: Sequence[Feature],
    held_out: Sequence[Feature],
    collate: Collator,
    options: SFTOptions,
    folder: RunFolder,
    watch: SFTWatcher,
) -> TrainResult:
    """Train the parameters of `model` that require gradients, from the newest checkpoint in `folder`.

    With held-out data they end as those of the best held-out loss. The same seed, data, settings and machine
    give the same weights, however often the run was killed and resumed. Raises UsageError,
    MemoryShortageError, and MedchatError when the loss or a gradient is no longer finite (naming the records)
    or once `watch.cancel` is set, after a checkpoint.
    """
    check_options(options)
    device = device_of(model)
    check_optimizer(options, device)
    if device.type == "cpu":
        limit_onednn_cache()
        trim_malloc()
    run = _run(features, held_out, collate, options, folder, watch, process_group(device))
    for text in (*folder.notes, *run.schedule.notes):
        run.log.tell(SFTNote(text))
    start = _newest_checkpoint(run)
    run.log.begin(start.step if start else 0, load_counters(start.folder) if start else None)
    with run.log, _training_mode(model, options), ExitStack() as stack:
        stack.enter_context(
            raise_on_oom(
                say("请调低 --micro-batch-size 或 --max-length", "lower --micro-batch-size or --max-length")
            )
        )
        run.processes.prepare(model)
        steps, best_step, best_loss = _train_steps(model, run, start)
        _use_best(model, run, steps, best_step)
        _tell_if_nothing_was_gained(run, best_loss)
        run.processes.unshard(model)
    return train_result(model, run, steps, best_step, best_loss, start)


def _run(
    features: Sequence[Feature],
    held_out: Sequence[Feature],
    collate: Collator,
    options: SFTOptions,
    folder: RunFolder,
    watch: SFTWatcher,
    processes: ProcessGroup,
) -> TrainingRun:
    order = BatchSampler(
        [feature.length for feature in features],
        options.batch_size,
        micro_batch_of(options, processes.count),
        processes.count,
        options.seed,
        options.group_by_length,
    )
    schedule = make_schedule(options, order.steps, evaluates=bool(held_out))
    log = StepLog(folder.metrics, watch.on_event if processes.is_main else None)
    return TrainingRun(features, held_out, collate, options, folder, watch, order, schedule, processes, log)


def _newest_checkpoint(run: TrainingRun) -> TrainingCheckpoint | None:
    """Return the checkpoint to resume from, and report it; None is the beginning."""

    def look() -> TrainingCheckpoint | None:
        damaged: list[CheckpointError] = []
        newest = checkpoints.newest(run.folder.checkpoints, damaged)
        for error in damaged:
            place = error.where
            run.log.tell(
                SFTNote(
                    say(
                        f"跳过损坏的检查点：{place}：{error.what}",
                        f"skipped a damaged checkpoint: {place}: {error.what}",
                    )
                )
            )
        return newest

    # One process verifies it: reading every byte once is enough.
    found = run.processes.from_main(look)
    if found:
        run.log.tell(
            SFTNote(
                say(
                    f"从 {found.folder} 继续（第 {found.step} 步，共 {run.schedule.steps} 步）",
                    f"going on from {found.folder} (step {found.step} of {run.schedule.steps})",
                )
            )
        )
    elif run.folder.resumed:
        run.log.tell(
            SFTNote(say("没有完整的检查点，从头开始", "there is no complete checkpoint; starting over"))
        )
    return found


def _train_steps(
    model: nn.Module, run: TrainingRun, start: TrainingCheckpoint | None
) -> tuple[int, int, float | None]:
    """Train to the end. Returns the last step, the best one (0: none) and its held-out loss."""
    if start and (start.step >= run.schedule.steps or run.log.counters.stopped_early):
        # The run finished training, but was killed before the result was written.
        load_trained_weights(model, start.folder, run.processes)
        state = load_trainer_state(start.folder)
        return start.step, state.best_global_step or 0, state.best_metric
    trainer = LabelTrainer(
        run=run,
        model=model,
        args=training_arguments(model, run),
        optimizers=(build_optimizer(model, run.options), None),
        trackers=trackers(run),
    )
    try:
        trainer.train(resume_from_checkpoint=str(start.folder) if start else None)
    finally:
        # Restore the model's own forward, without autocast around it.
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    state = trainer.state
    if run.processes.any(run.watch.cancel.is_set()):
        raise MedchatError(
            say(
                f"训练在第 {state.global_step} 步后停止，进度已保存",
                f"stopped after step {state.global_step}; saved",
            ),
            run.folder.way_on(),
        )
    return state.global_step, state.best_global_step or 0, state.best_metric


def _use_best(model: nn.Module, run: TrainingRun, steps: int, best_step: int) -> None:
    if not best_step or best_step == steps:
        return
    folder = run.folder.checkpoints / f"step-{best_step:08d}"

    def damage() -> str:
        try:
            verify_manifest(folder)
        except CheckpointError as error:
            return error.what
        return ""

    if reason := run.processes.from_main(damage):
        run.log.tell(
            SFTNote(
                say(
                    f"评估损失最低的第 {best_step} 步的检查点已损坏（{reason}），采用最后的权重",
                    f"the checkpoint of the best step {best_step} is damaged ({reason}); the last weights are used",
                )
            )
        )
        return
    load_trained_weights(model, folder, run.processes)
    run.log.tell(
        SFTNote(
            say(
                f"采用评估损失最低的第 {best_step} 步的权重",
                f"the weights are those of step {best_step}, with the best held-out loss",
            )
        )
    )


def _tell_if_nothing_was_gained(run: TrainingRun, best_loss: float | None) -> None:
    before = run.log.counters.loss_before
    if before is None or best_loss is None or not best_loss >= before:
        return
    run.log.tell(
        SFTNote(
            say(
                f"评估损失始终没有低于训练前的 {before:.4f}（最好 {best_loss:.4f}）："
                "可换一个 --learning-rate 或 --num-epochs 再试",
                f"the held-out loss never fell below the {before:.4f} before training (best {best_loss:.4f}): "
                "try another --learning-rate or --num-epochs",
            )
        )
    )


@contextmanager
def _training_mode(model: Any, options: SFTOptions) -> Iterator[None]:
    config = getattr(model, "config", None)  # a module other than transformers' has none
    use_cache = getattr(config, "use_cache", None)
    if options.gradient_checkpointing:
        if not getattr(model, "supports_gradient_checkpointing", False):
            raise UsageError(
                say("这个模型不支持 --gradient-checkpointing", "this model has no gradient checkpointing"),
                say("请去掉 --gradient-checkpointing", "drop --gradient-checkpointing"),
            )
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    try:
        yield
    finally:
        model.eval()
        if config is not None:
            config.use_cache = use_cache
        if options.gradient_checkpointing:
            model.activation_checkpointing_disable()
