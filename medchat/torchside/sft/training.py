"""Training on features, so that it can be stopped at any moment and goes on as if it had not been.

    with open_run_folder(options, fingerprint_of(features, held_out)) as folder:
        trained = train(model, features, held_out, collate, options, folder, watch)

Knows no model family, and writes nothing but the run's log and its checkpoints.
"""

from __future__ import annotations

import gc
import hashlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

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
from medchat.torchside.sft.manifest import verify_manifest
from medchat.torchside.sft.optimizers import build_optimizer, check_optimizer
from medchat.torchside.sft.processes import Processes, processes_here
from medchat.torchside.sft.progress import StepLog
from medchat.torchside.sft.run_folder import RunFolder
from medchat.torchside.sft.schedule import SCHEDULERS, make_schedule
from medchat.torchside.sft.trainer import (
    LabelTrainer,
    Run,
    load_counters,
    load_trainer_state,
    load_weights,
)
from medchat.torchside.sft.training_arguments import TRACKERS, trackers, training_arguments
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


@dataclass(frozen=True, slots=True)
class Trained:
    """What training did, by the names of `SFTReport`: `SFTReport(**asdict(trained), ...)`.

    Losses are means per label token, of the first and last logged steps. `tokens` counts all that was
    learned from, padding left out. The weights are those of `best_step` where something was held out.
    """

    steps: int
    first_loss: float
    last_loss: float
    seconds: float
    tokens: int = 0
    best_step: int = 0
    best_loss: float | None = None
    stopped_early: bool = False
    resumed_from: int = 0
    trainable_parameters: int = 0
    parameters: int = 0
    peak_bytes: int = 0
    processes: int = 1


def fingerprint_of(features: Sequence[Feature], held_out: Sequence[Feature] = ()) -> str:
    """Return what tells one run's data from another's: of the ids that the model sees, in their order."""
    digest = hashlib.sha256()
    for part in (features, held_out):
        digest.update(f"{len(part)}\n".encode())
        for feature in part:
            digest.update(f"{feature.prompt_ids} {feature.answer_ids}\n".encode())
    return digest.hexdigest()


def check_options(options: SFTOptions) -> None:
    """Raise UsageError for settings no run can have."""
    micro = min(options.micro_batch_size, options.batch_size)
    for flag, valid, meaning in (
        ("--learning-rate", options.learning_rate > 0, "> 0"),
        ("--num-epochs", options.num_epochs > 0, "> 0"),
        ("--max-steps", options.max_steps >= 0, ">= 0"),
        ("--batch-size", options.batch_size >= 1, ">= 1"),
        ("--micro-batch-size", options.micro_batch_size >= 1, ">= 1"),
        ("--max-length", options.max_length >= 8, ">= 8"),
        ("--warmup-ratio", 0 <= options.warmup_ratio < 1, "0 <= x < 1"),
        ("--weight-decay", options.weight_decay >= 0, ">= 0"),
        ("--adam-beta1", 0 <= options.adam_beta1 < 1, "0 <= x < 1"),
        ("--adam-beta2", 0 <= options.adam_beta2 < 1, "0 <= x < 1"),
        ("--adam-epsilon", options.adam_epsilon > 0, "> 0"),
        ("--max-grad-norm", options.max_grad_norm >= 0, ">= 0"),
        ("--logging-steps", options.logging_steps >= 1, ">= 1"),
        ("--eval-steps", options.eval_steps >= -1, ">= -1"),
        ("--save-steps", options.save_steps >= -1, ">= -1"),
        ("--save-total", options.save_total >= 1, ">= 1"),
        ("--early-stopping", options.early_stopping >= 0, ">= 0"),
        ("--threads", options.threads >= 0, ">= 0"),
        ("--workers", options.workers >= 0, ">= 0"),
        ("--scheduler", options.scheduler in SCHEDULERS, " | ".join(SCHEDULERS)),
        ("--report-to", set(options.report_to) <= set(TRACKERS), " | ".join(TRACKERS)),
    ):
        if not valid:
            value = getattr(options, flag[2:].replace("-", "_"))
            raise UsageError(
                say(f"{flag} 的值 {value} 无效", f"{flag} {value} is not valid"),
                say(f"应为 {meaning}", f"it must be {meaning}"),
            )
    if options.batch_size % micro:
        raise UsageError(
            say(
                f"--batch-size {options.batch_size} 不是 --micro-batch-size {micro} 的整数倍",
                f"--batch-size {options.batch_size} is not a multiple of --micro-batch-size {micro}",
            ),
            say(f"例如 --batch-size {micro}", f"for example --batch-size {micro}"),
        )


def micro_batch_of(options: SFTOptions, processes: int) -> int:
    """Return how many examples each process computes at once: what was asked for, or less where that is too many.

    Raises UsageError if the effective batch cannot be shared evenly.
    """
    share, rest = divmod(options.batch_size, processes)
    if rest:
        lower, upper = share * processes, (share + 1) * processes
        raise UsageError(
            say(
                f"--batch-size {options.batch_size} 无法由 {processes} 个进程平分",
                f"--batch-size {options.batch_size} cannot be shared evenly by {processes} processes",
            ),
            say(f"例如 --batch-size {lower or upper}", f"for example --batch-size {lower or upper}"),
        )
    return next(size for size in range(min(options.micro_batch_size, share), 0, -1) if share % size == 0)


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
        run.processes.release(model)
    return _trained(model, run, steps, best_step, best_loss, start)


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
    damaged: list[CheckpointError] = []
    found = checkpoints.newest(run.folder.checkpoints, damaged)
    for error in damaged:
        name = error.where
        run.log.tell(
            SFTNote(
                say(
                    f"跳过损坏的检查点：{name}：{error.what}",
                    f"passed over a damaged checkpoint: {name}: {error.what}",
                )
            )
        )
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
    try:
        verify_manifest(folder)
    except CheckpointError as error:
        run.log.tell(
            SFTNote(
                say(
                    f"验证损失最低的第 {best_step} 步的检查点已损坏（{error.what}），采用最后的权重",
                    f"the checkpoint of the best step {best_step} is damaged ({error.what}); the last weights are used",
                )
            )
        )
        return
    load_weights(model, folder, run.processes)
    run.log.tell(
        SFTNote(
            say(
                f"采用验证损失最低的第 {best_step} 步的权重",
                f"the weights are those of step {best_step}, with the best held-out loss",
            )
        )
    )


def _trained(
    model: PreTrainedModel,
    run: Run,
    steps: int,
    best_step: int,
    best_loss: float | None,
    start: Checkpoint | None,
) -> Trained:
    gc.collect()
    counters = run.log.counters
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return Trained(
        steps=steps,
        first_loss=math.nan if counters.first_loss is None else counters.first_loss,
        last_loss=math.nan if counters.last_loss is None else counters.last_loss,
        seconds=run.log.seconds,
        tokens=counters.tokens,
        best_step=best_step,
        best_loss=best_loss,
        stopped_early=counters.stopped_early,
        resumed_from=start.step if start else 0,
        trainable_parameters=sum(size for size, trained in sizes if trained),
        parameters=sum(size for size, _ in sizes),
        peak_bytes=_peak_bytes(model.device),
        processes=run.processes.count,
    )


def _peak_bytes(device: torch.device) -> int:
    """The most memory ever held at once: on a GPU by tensors, else by this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if os.name != "posix":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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
