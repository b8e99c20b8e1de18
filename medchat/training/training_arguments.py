"""A run's settings as transformers' TrainingArguments, and the trackers it reports to."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from medchat import launcher
from medchat.api import SFTOptions
from medchat.errors import UsageError
from medchat.inference.device import device_of
from medchat.language import say
from medchat.training.optimizers import precision_of
from medchat.training.run_folder import TRACKER_NAME
from medchat.training.training_run import TrainingRun


def training_arguments(model: nn.Module, run: TrainingRun) -> TrainingArguments:
    """Return the Trainer's settings. When to log, evaluate and save is decided in `trainer`."""
    options, device = run.options, device_of(model)
    # A float64 model is used to compare sums exactly: no autocast may round them.
    double = any(parameter.dtype is torch.float64 for parameter in model.parameters())
    if device.type == "cuda" and device.index and run.processes.count == 1:
        # The Trainer takes the first GPU by default.
        launcher.train_on(str(device))
    arguments = TrainingArguments(
        output_dir=str(run.folder.path),
        per_device_train_batch_size=run.order.micro_batch_size,
        gradient_accumulation_steps=run.order.accumulation,
        max_steps=run.schedule.steps,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.scheduler,
        warmup_steps=run.schedule.warmup,
        max_grad_norm=options.max_grad_norm,
        seed=options.seed,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=device.type == "cpu",
        # Every trained parameter takes part in every step, and searching for unused ones costs time.
        ddp_find_unused_parameters=False,
        bf16=precision_of(options, device).autocast and not double,
    )
    if device.type == "cuda" and run.processes.count == 1:
        # One process uses one GPU, its model's, even if there are more.
        arguments._setup_devices  # noqa: B018 (computed once, then kept in the attribute)
        arguments.__dict__["_setup_devices"] = torch.device("cuda", device.index or 0)
        arguments._n_gpu = 1
    return arguments


def check_trackers(options: SFTOptions) -> None:
    """Raise UsageError for a tracker that is not installed. Imports none."""
    for name in options.report_to:
        if find_spec(name) is None:
            raise UsageError(
                say(
                    f"--report-to {name} 需要 {name}，尚未安装",
                    f"--report-to {name} needs {name}, which is not installed",
                ),
                f"pip install 'medchat[{name}]'",
            )


def trackers(run: TrainingRun) -> list[Any]:
    """Return the callbacks of the requested trackers, importing no others.

    Raises UsageError if one is not installed.
    """
    wanted = run.options.report_to
    check_trackers(run.options)
    if not wanted or not run.processes.is_main:
        return []
    from transformers.integrations import get_reporting_integration_callbacks

    made = [kind() for kind in get_reporting_integration_callbacks(list(wanted))]
    for callback in made:
        if hasattr(callback, "logging_dir") and callback.logging_dir is None:
            callback.logging_dir = str(run.folder.path / TRACKER_NAME)
    return made
