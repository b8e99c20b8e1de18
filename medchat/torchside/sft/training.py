"""Training on features with transformers' Trainer: length-grouped batches, logits on label positions only.

Knows no model family and writes no files but the log of steps it is handed.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import SchedulerType

from medchat.api import SFTNote, SFTOptions, SFTWatch
from medchat.errors import MedchatError, UsageError
from medchat.language import say
from medchat.torchside.sft.features import Feature
from medchat.torchside.sft.label_loss import NO_LABEL, label_head, label_loss
from medchat.torchside.sft.length_order import LengthOrder
from medchat.torchside.sft.progress import StepLog
from medchat.torchside.sft.run_folder import RunFolder
from medchat.torchside.shortage import memory_shortage_told

#: Makes the model's inputs of some features: tensors by argument name, `labels` [B, T] among them, not
#: shifted, `NO_LABEL` where there is none. The rows may come in another order than the features.
Collator = Callable[[Sequence[Feature]], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Trained:
    """What training did, by the names of `SFTReport`: `SFTReport(**asdict(trained), ...)`.

    Losses are means per label token, of the first and last logged steps. `tokens` counts all that was
    learned from, padding left out.
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
        ("--batch-size", options.batch_size >= 1, ">= 1"),
        ("--micro-batch-size", options.micro_batch_size >= 1, ">= 1"),
        ("--max-length", options.max_length >= 8, ">= 8"),
        ("--warmup-ratio", 0 <= options.warmup_ratio < 1, "0 <= x < 1"),
        ("--weight-decay", options.weight_decay >= 0, ">= 0"),
        ("--adam-epsilon", options.adam_epsilon > 0, "> 0"),
        ("--logging-steps", options.logging_steps >= 1, ">= 1"),
        ("--threads", options.threads >= 0, ">= 0"),
        ("--scheduler", options.scheduler in set(SchedulerType), " | ".join(SchedulerType)),
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
    """Train the parameters of `model` that require gradients; log each reported step in `folder`.

    The same seed, data and machine give the same weights. Raises MedchatError when the loss is no
    longer finite (naming the records of the batch) or `cancel` was set, MemoryShortageError.
    """
    check_options(options)
    accumulation = options.batch_size // min(options.micro_batch_size, options.batch_size)
    batches = math.ceil(len(features) / min(options.micro_batch_size, options.batch_size))
    steps = math.ceil(options.num_epochs * max(1, math.ceil(batches / accumulation)))
    started = time.perf_counter()
    for text in folder.notes:
        watch.told(SFTNote(text))
    with StepLog(folder.path, watch.told, watch.cancel) as log, _training_mode(model):
        trainer = _LabelTrainer(
            model=model,
            args=_arguments(model, options, folder, steps),
            train_dataset=_Rows(features),
            data_collator=_Batches(collate),
            callbacks=[log],
        )
        trainer.order = LengthOrder(
            [feature.length for feature in features],
            options.batch_size,
            options.seed,
            group=options.group_by_length,
        )
        trainer.label_head = label_head(model, _example(collate, features))
        # It prints to stdout, which is the answer's.
        trainer.remove_callback(PrinterCallback)
        trainer.log_of_steps = log
        with memory_shortage_told(
            say("请调小 --micro-batch-size 或 --max-length", "lower --micro-batch-size or --max-length")
        ):
            trainer.train()
    if watch.cancel.is_set():
        raise MedchatError(
            say("训练已取消，没有写入模型", "training was cancelled; no model was written"),
            say("重新运行同一命令即可从头开始", "run the same command to start again"),
        )
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return Trained(
        log.step,
        log.first_loss,
        log.last_loss,
        time.perf_counter() - started,
        trainable_parameters=sum(size for size, trained in sizes if trained),
        parameters=sum(size for size, _ in sizes),
    )


@torch.inference_mode()
def label_losses(model: PreTrainedModel, features: Sequence[Feature], collate: Collator) -> Tensor:
    """Return the loss of every label token of some features, float32 on the CPU, without training."""
    batch = {name: tensor.to(model.device) for name, tensor in collate(features).items()}
    shifted = _shifted(batch.pop("labels"))
    keep = shifted != NO_LABEL
    was_training = model.training
    model.eval()
    logits = model(**batch, use_cache=False, logits_to_keep=keep).logits
    model.train(was_training)
    return torch.nn.functional.cross_entropy(logits.float(), shifted[keep], reduction="none").cpu()


def _arguments(
    model: PreTrainedModel, options: SFTOptions, folder: RunFolder, steps: int
) -> TrainingArguments:
    micro = min(options.micro_batch_size, options.batch_size)
    return TrainingArguments(
        output_dir=str(folder.path),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=options.batch_size // micro,
        num_train_epochs=options.num_epochs,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.scheduler,
        warmup_steps=options.warmup_ratio,
        weight_decay=options.weight_decay,
        adam_epsilon=options.adam_epsilon,
        seed=options.seed,
        # A short run is still a curve: specs/sft.md, Small runs.
        logging_steps=max(1, min(options.logging_steps, steps // 10)),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=model.device.type == "cuda",
        use_cpu=model.device.type == "cpu",
        bf16=model.device.type == "cuda" and model.dtype is torch.float32 and torch.cuda.is_bf16_supported(),
    )


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Features as the Trainer's sampler wants them: `input_ids` for the length, and the feature itself."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, index: int) -> dict[str, Any]:
        feature = self._features[index]
        return {"input_ids": (*feature.prompt_ids, *feature.answer_ids), "feature": feature}


class _Batches:
    """A family's collator, and beside its tensors what the log needs to know of the batch."""

    def __init__(self, collate: Collator) -> None:
        self._collate = collate

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        features: list[Feature] = [row["feature"] for row in rows]
        batch = dict(self._collate(features))
        # The Trainer counts label tokens over an accumulated batch in these.
        batch["shift_labels"] = _shifted(batch["labels"])
        batch["records"] = torch.tensor([feature.record for feature in features])
        batch["tokens"] = torch.tensor(sum(feature.length for feature in features))
        return batch


class _LabelTrainer(Trainer):  # type: ignore[misc]
    """Takes records in our order and its loss from the labels alone; stops at a loss that is no number."""

    log_of_steps: StepLog
    order: LengthOrder
    label_head: nn.Linear | None = None

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss; raise MedchatError naming the batch if it is not finite."""
        records, tokens = inputs.pop("records"), inputs.pop("tokens")
        inputs.pop("labels")
        loss = label_loss(model, self.label_head, inputs, inputs.pop("shift_labels"), num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The items are those of all processes, and their gradients will be averaged.
            loss = loss * self.accelerator.num_processes
        if not math.isfinite(value := float(loss.detach())):
            raise _diverged(self.state.global_step + 1, records.tolist(), value)
        self.log_of_steps.count_tokens(int(tokens))
        return (loss, {"loss": loss}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthOrder:
        return self.order


def _shifted(labels: Tensor) -> Tensor:
    """Return labels [B, T] moved one to the left: each position's own next token."""
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=NO_LABEL)


def _example(collate: Collator, features: Sequence[Feature]) -> dict[str, Tensor]:
    batch = dict(collate(features[:1]))
    batch["shift_labels"] = _shifted(batch.pop("labels"))
    return batch


def _diverged(step: int, records: Sequence[int], loss: float) -> MedchatError:
    shown = ", ".join(map(str, records[:16])) + (" …" if len(records) > 16 else "")
    return MedchatError(
        say(
            f"第 {step} 步的损失变成了 {loss}，训练已停止；该批数据是第 {shown} 条",
            f"the loss became {loss} at step {step}, so training stopped; the batch was examples {shown}",
        ),
        say(
            "请调小 --learning-rate，或检查这些数据；没有写入模型",
            "lower --learning-rate, or look at those examples; no model was written",
        ),
    )


@contextmanager
def _training_mode(model: PreTrainedModel) -> Iterator[None]:
    model.train()
    try:
        yield
    finally:
        model.eval()
