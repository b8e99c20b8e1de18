"""Training on features, so that it can be stopped at any moment and goes on as if it had not been.

    with open_run_folder(options, fingerprint_of(features, held_out)) as folder:
        trained = train(model, features, held_out, collate, options, folder, watch)

Knows no model family, and writes nothing but the run's log and its checkpoints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from transformers import PreTrainedModel

from medchat.api import SFTNote, SFTOptions, SFTWatch
from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.language import say
from medchat.torchside.sft import checkpoints
from medchat.torchside.sft.batches import BatchOrder, Collator
from medchat.torchside.sft.checkpoints import Checkpoint
from medchat.torchside.sft.evaluation import label_losses
from medchat.torchside.sft.features import Feature
from medchat.torchside.sft.heap import hand_back_freed_memory, keep_few_kernels
from medchat.torchside.sft.manifest import verify_manifest
from medchat.torchside.sft.optimizers import build_optimizer, check_optimizer
from medchat.torchside.sft.processes import Processes, processes_here
from medchat.torchside.sft.progress import StepLog
from medchat.torchside.sft.run_folder import RunFolder
from medchat.torchside.sft.run_options import check_options, micro_batch_of
from medchat.torchside.sft.saved_state import load_counters, load_trainer_state, load_weights
from medchat.torchside.sft.schedule import make_schedule
from medchat.torchside.sft.trained import Trained, trained_of
from medchat.torchside.sft.trainer import LabelTrainer, Run
from medchat.torchside.sft.training_arguments import trackers, training_arguments
from medchat.torchside.shortage import memory_shortage_told

__all__ = [
    "Collator",
    "Trained",
    "check_options",
    "cpu_threads",
    "fingerprint_of",
    "label_losses",
    "micro_batch_of",
    "train",
]


def fingerprint_of(features: Sequence[Feature], held_out: Sequence[Feature] = ()) -> str:
    """Return what tells one run's data from another's: of the ids that the model sees, in their order."""
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
    model: PreTrainedModel,
    features: Sequence[Feature],
    held_out: Sequence[Feature],
    collate: Collator,
    options: SFTOptions,
    folder: RunFolder,
    watch: SFTWatch,
) -> Trained:
    """Train the parameters of `model` that require gradients, from the newest checkpoint in `folder`.

    They end as those of the best held-out loss where something is held out. The same seed, data, settings
    and machine give the same weights, however often the run was killed and resumed. Raises UsageError,
    MemoryShortageError, and MedchatError when the loss or a gradient is no longer finite (naming the
    records) or once `watch.cancel` is set, after a checkpoint.
    """
    check_options(options)
    check_optimizer(options, model.device)
    if model.device.type == "cpu":
        keep_few_kernels()
        hand_back_freed_memory()
    run = _run(features, held_out, collate, options, folder, watch, processes_here(model.device))
    for text in (*folder.notes, *run.schedule.notes):
        run.log.tell(SFTNote(text))
    start = _newest_checkpoint(run)
    run.log.begin(start.step if start else 0, load_counters(start.folder) if start else None)
    with run.log, _training_mode(model, options), ExitStack() as stack:
        stack.enter_context(
            memory_shortage_told(
                say("请调小 --micro-batch-size 或 --max-length", "lower --micro-batch-size or --max-length")
            )
        )
        run.processes.prepare(model)
        steps, best_step, best_loss = _go_on(model, run, start)
        _use_best(model, run, steps, best_step)
        _tell_if_nothing_was_gained(run, best_loss)
        run.processes.release(model)
    return trained_of(model, run, steps, best_step, best_loss, start)


def _run(
    features: Sequence[Feature],
    held_out: Sequence[Feature],
    collate: Collator,
    options: SFTOptions,
    folder: RunFolder,
    watch: SFTWatch,
    processes: Processes,
) -> Run:
    order = BatchOrder(
        [feature.length for feature in features],
        options.batch_size,
        micro_batch_of(options, processes.count),
        processes.count,
        options.seed,
        options.group_by_length,
    )
    schedule = make_schedule(options, order.steps, evaluates=bool(held_out))
    log = StepLog(folder.metrics, watch.told if processes.is_main else None)
    return Run(features, held_out, collate, options, folder, watch, order, schedule, processes, log)


def _newest_checkpoint(run: Run) -> Checkpoint | None:
    """Return where to go on, and say so; None is at the beginning."""

    def look() -> Checkpoint | None:
        damaged: list[CheckpointError] = []
        newest = checkpoints.newest(run.folder.checkpoints, damaged)
        for error in damaged:
            place = error.where
            run.log.tell(
                SFTNote(
                    say(
                        f"跳过损坏的检查点：{place}：{error.what}",
                        f"passed over a damaged checkpoint: {place}: {error.what}",
                    )
                )
            )
        return newest

    # Reading every byte of it once is enough.
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


def _go_on(model: PreTrainedModel, run: Run, start: Checkpoint | None) -> tuple[int, int, float | None]:
    """Train to the end. Returns the last step, the best one (0: none) and its held-out loss."""
    if start and (start.step >= run.schedule.steps or run.log.counters.stopped_early):
        # Trained to the end, but killed before the result was written.
        load_weights(model, start.folder, run.processes)
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
        # The model's own forward again, without autocast around it.
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    state = trainer.state
    if run.processes.any(run.watch.cancel.is_set()):
        raise MedchatError(
            say(
                f"训练在第 {state.global_step} 步后停下，进度已保存",
                f"stopped after step {state.global_step}; saved",
            ),
            run.folder.way_on(),
        )
    return state.global_step, state.best_global_step or 0, state.best_metric


def _use_best(model: PreTrainedModel, run: Run, steps: int, best_step: int) -> None:
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
    load_weights(model, folder, run.processes)
    run.log.tell(
        SFTNote(
            say(
                f"采用评估损失最低的第 {best_step} 步的权重",
                f"the weights are those of step {best_step}, with the best held-out loss",
            )
        )
    )


def _tell_if_nothing_was_gained(run: Run, best_loss: float | None) -> None:
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
def _training_mode(model: PreTrainedModel, options: SFTOptions) -> Iterator[None]:
    use_cache = model.config.use_cache
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
        model.config.use_cache = use_cache
        if options.gradient_checkpointing:
            model.activation_checkpointing_disable()
