"""transformers' Trainer, extended: logits on label positions only, exact checkpoints, an error for NaN.

Its loop, gradient accumulation, clipping and schedulers are used unchanged. When it logs, evaluates and saves
is decided here; nothing is written with pickle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback

from medchat.api import SFTSaved, SFTStatus
from medchat.errors import MedchatError
from medchat.language import say
from medchat.training import checkpoint as checkpoints
from medchat.training.checkpoint import (
    OPTIMIZER,
    STATE,
    TRAINER_STATE,
    WEIGHTS,
    load_pytree,
    load_trained_weights,
    rng_state,
    save_pytree,
    save_tensors,
    set_rng_state,
)
from medchat.training.data_loader import (
    BatchLoader,
    EpochBatches,
    LabelCollator,
)
from medchat.training.evaluation import mean_loss
from medchat.training.fused_loss import label_head, label_loss
from medchat.training.single_process import trained_parameters
from medchat.training.trainer_callbacks import InitialEvalCallback, ScheduleCallback
from medchat.training.training_run import TrainingRun

#: The number of records of a batch that an error names.
_NAMED = 16


class LabelTrainer(Trainer):  # type: ignore[misc]
    """The Trainer of one model for `run`."""

    def __init__(self, *, run: TrainingRun, trackers: Sequence[Any] = (), **arguments: Any) -> None:
        callbacks = [ScheduleCallback(run), InitialEvalCallback(self, run, self.evaluate_start), *trackers]
        super().__init__(train_dataset=run.features, callbacks=callbacks, **arguments)
        # It prints to stdout, which is for the program's results.
        self.remove_callback(PrinterCallback)
        self.run = run
        # Even if the model's forward does not take it: `compute_loss` divides by the label tokens of the full
        # step.
        self.model_accepts_loss_kwargs = True
        run.processes.wrap_accelerator(self.accelerator)
        #: Examples of the current step, and of the one before.
        self._step_rows: list[int] = []
        self._last_rows: list[int] = []
        example = LabelCollator(run.collate, run.features)([(0, run.features[0])])
        self._label_head = label_head(
            self.model, {name: example[name] for name in example if name not in ("labels", "rows", "tokens")}
        )

    # ------------------------------------------------------------ batches and losses

    def get_train_dataloader(self) -> BatchLoader:
        """Return the batches in the run's own order."""
        run = self.run
        return BatchLoader(
            run.features,
            EpochBatches(run.order, run.processes.rank),
            LabelCollator(run.collate, run.features),
            run.options.workers,
            pin=self.args.device.type == "cuda",
        )

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss; raise MedchatError naming the batch if it is not finite. A scalar."""
        rows, tokens = inputs.pop("rows").tolist(), int(inputs.pop("tokens"))
        inputs.pop("labels")
        # All-reduce and fused updates need the gradients that autograd returns.
        alone = self.run.processes.count == 1 and not self.run.options.fused_backward
        labels = inputs.pop("shift_labels")
        in_place = alone and self.model.training
        loss = label_loss(model, self._label_head, inputs, labels, num_items_in_batch, in_place=in_place)
        if num_items_in_batch is not None:
            # The items are those of all processes, whose gradients are averaged.
            loss = loss * self.run.processes.count
        if not math.isfinite(value := float(loss.detach())):
            if self.run.options.fused_backward:
                # The gradients of the last step were not checked: its batch may be the cause.
                self._refuse_infinite(trained_parameters(self.model))
            raise self._diverged(rows, say(f"损失变成了 {value}", f"the loss became {value}"))
        self._step_rows += rows
        self.run.log.pending_tokens += tokens
        return (loss, {"loss": loss}) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Stop before an update that would make the weights non-finite."""
        if self.run.options.fused_backward:
            self._end_step()
            return None
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not math.isfinite(value := float(norm)):
            raise self._diverged(
                self._step_rows, say(f"梯度的范数变成了 {value}", f"the gradient's norm became {value}")
            )
        self._end_step()
        return norm

    def _end_step(self) -> None:
        self._last_rows, self._step_rows = self._step_rows, []

    def _refuse_infinite(self, weights: Mapping[str, Tensor]) -> None:
        """Raise MedchatError before a checkpoint with non-finite weights replaces a good one."""
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                what = say(f"权重 {name} 变成了无效数值", f"the weight {name} became NaN or infinite")
                raise self._diverged(self._last_rows, what, self.state.global_step)

    def _diverged(self, rows: Sequence[int], what: str, step: int | None = None) -> MedchatError:
        features = [self.run.features[row] for row in rows]
        shown = ", ".join(feature.where or f"#{feature.record}" for feature in features[:_NAMED])
        shown += " …" if len(features) > _NAMED else ""
        step = step or self.state.global_step + 1
        kept = self.run.folder.last_step
        left = (
            say(f"第 {kept} 步的检查点已保留", f"the checkpoint of step {kept} is kept")
            if kept
            else say("没有写入模型", "no model was written")
        )
        return MedchatError(
            say(
                f"第 {step} 步{what}，训练已停止；该批数据是 {shown}",
                f"{what} at step {step}, so training stopped; the batch was {shown}",
            ),
            say(
                f"请换一个 --output、调低 --learning-rate 再试，或检查这些数据；{left}",
                f"lower --learning-rate with another --output, or look at those records; {left}",
            ),
        )

    # ------------------------------------------------------------ evaluation

    def evaluate_start(self) -> None:
        """Compute the held-out loss before training, once."""
        log, count = self.run.log, len(self.run.held_out)
        if self.run.schedule.evaluation and not self.state.global_step and log.counters.loss_before is None:
            log.tell(
                SFTStatus(say(f"训练前先评估 {count} 条", f"evaluating {count} records before training"))
            )
            log.log_initial_eval(loss := self._held_out_loss())
            self.log({"eval_loss": loss})

    def _held_out_loss(self) -> float:
        run, head = self.run, self._label_head
        return mean_loss(
            self.model, head, run.held_out, run.collate, run.order.micro_batch_size, run.processes
        )

    def _evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Compute the held-out loss; a new best one is saved, too many without one end the run."""
        run, state, counters = self.run, self.state, self.run.log.counters
        loss = self._held_out_loss()
        # Warm-up starts with a learning rate of 0: unchanged weights are no result, however good their loss.
        moved = loss != counters.loss_before
        best = moved and (state.best_metric is None or loss < state.best_metric)
        if best:
            state.best_metric, state.best_global_step = loss, state.global_step
        if moved:
            counters.evaluations_since_best = 0 if best else counters.evaluations_since_best + 1
        run.log.log_eval(state.global_step, loss, state.epoch, best=best)
        self.log({"eval_loss": loss})
        patience = run.options.early_stopping
        counters.stopped_early = bool(patience) and counters.evaluations_since_best >= patience
        # The best weights must be on disk, and so must the state of a run that ended.
        self.control.should_save |= best or counters.stopped_early
        self.control.should_training_stop |= counters.stopped_early
        self.control.should_evaluate = False
        return {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Call the trackers; the history is in metrics.jsonl and must not grow in memory."""
        super().log(logs, start_time)
        self.state.log_history.clear()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: nothing reads it, and counting would visit all parameters for each batch."""
        return 0

    # ------------------------------------------------------------ checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write everything that the run needs to resume exactly."""
        run, step = self.run, self.state.global_step
        counters = run.log.counters
        summed_losses = run.processes.all_gather(self._tr_loss.item())
        counters.summed_loss = sum(summed_losses) / len(summed_losses)
        counters.last_logged_step = self._globalstep_last_logged
        run.log.collect_tokens(run.processes)
        weights = run.processes.weights(self.model)
        optimizer_state = run.processes.optimizer_state(self.model, self._own_optimizer)
        state = {
            "scheduler": self.lr_scheduler.state_dict(),
            "random": run.processes.all_gather(rng_state()),
            "log": run.log.state(),
        }
        if run.processes.is_main:
            self._refuse_infinite(weights)
            with checkpoints.new_checkpoint(run.folder.checkpoints, step) as folder:
                save_tensors(weights, folder, WEIGHTS)
                save_pytree(optimizer_state, folder, OPTIMIZER)
                save_pytree(state, folder, STATE)
                self.state.save_to_json(str(folder / TRAINER_STATE))
            checkpoints.remove_old(
                run.folder.checkpoints, run.options.save_total, self.state.best_global_step, step
            )
            run.log.tell(SFTSaved(step, run.folder.checkpoints / f"step-{step:08d}"))
        run.processes.barrier()

    @property
    def _own_optimizer(self) -> Optimizer:
        """The optimizer without accelerate's wrapper."""
        wrapped: Any = self.optimizer
        own: Optimizer = getattr(wrapped, "optimizer", wrapped)
        return own

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained_weights(self.model, Path(resume_from_checkpoint), self.run.processes)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        tree = load_pytree(Path(checkpoint), OPTIMIZER)
        self.run.processes.load_optimizer_state(self.model, self._own_optimizer, tree)
        self.lr_scheduler.load_state_dict(load_pytree(Path(checkpoint), STATE)["scheduler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        states = load_pytree(Path(checkpoint), STATE)["random"]
        rank = self.run.processes.rank
        if rank < len(states):
            set_rng_state(states[rank])
        else:
            # The checkpoint had fewer processes: this one needs a seed that no other has.
            torch.manual_seed(self.args.seed + 1_000_003 * rank + self.state.global_step)
