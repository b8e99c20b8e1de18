"""The original projects' names of settings, mapped to the names here.

From BenTsao's `finetune.py`, Med-ChatGLM's `run_clm.py` and ChatGLM-6B's `ptuning/main.py` (the last two
take transformers' own training arguments).
"""

from __future__ import annotations

from collections.abc import Mapping

from medchat.language import say
from medchat.sft_job.keys import KEYS, flag_of

_SAME_WORDS = {
    # BenTsao
    "base_model": "model", "data_path": "data", "output_dir": "output", "cutoff_len": "max_length",
    "val_set_size": "val_size", "lora_target_modules": "lora_targets", "prompt_template_name": "template",
    # transformers' arguments
    "model_name_or_path": "model", "train_file": "data", "num_train_epochs": "num_epochs",
    "max_seq_length": "max_length", "block_size": "max_length", "lr_scheduler_type": "scheduler",
    "gradient_accumulation_steps": "gradient_accumulation", "per_device_train_batch_size": "micro_batch_size",
    "save_total_limit": "save_total", "optim": "optimizer", "dataloader_num_workers": "workers",
    "early_stopping_patience": "early_stopping", "model_max_length": "max_length",
    # peft's
    "target_modules": "lora_targets", "lora_rank": "lora_r", "r": "lora_r", "bottleneck_size": "adapter_size",
    "ptuning_checkpoint": "adapters", "adapter": "adapters",
}  # fmt: skip

#: Theirs -> our key.
RENAMED: Mapping[str, str] = _SAME_WORDS

_NOT_NEEDED = ("", "")
_ROOM_FOR_BOTH = ("用 --max-length（问题加回答）", "use --max-length (question and answer together)")
_FOUND_IN_DATA = ("不需要，数据的格式会自动识别", "not needed: the form of the data is recognised")
_TRACKER = (
    "用 --report-to wandb，其余由 wandb 的环境变量设置",
    "use --report-to wandb; its variables set the rest",
)

#: Theirs -> what to do instead, in each language; empty: nothing is needed.
REPLACED: Mapping[str, tuple[str, str]] = {
    "resume_from_checkpoint": ("用 --resume（从 --output 里最新的检查点继续）",
                               "use --resume (goes on from the newest checkpoint in --output)"),
    "overwrite_output_dir": ("换一个 --output：已有的结果不会被覆盖", "choose another --output: results are kept"),
    "fp16": ("用 --precision mixed", "use --precision mixed"),
    "bf16": ("用 --precision mixed", "use --precision mixed"),
    "torch_dtype": ("用 --precision", "use --precision"),
    "load_in_8bit": ("用 --method qlora", "use --method qlora"),
    "quantization_bit": ("用 --method qlora", "use --method qlora"),
    "max_source_length": _ROOM_FOR_BOTH,
    "max_target_length": _ROOM_FOR_BOTH,
    "prompt_column": _FOUND_IN_DATA,
    "response_column": _FOUND_IN_DATA,
    "history_column": _FOUND_IN_DATA,
    "train_on_inputs": ("不支持：只在回答上学习", "not offered: only answers are learned"),
    "validation_file": ("用 --val-size 从数据中留出", "use --val-size to hold out part of the data"),
    "save_strategy": ("用 --save-steps（0：每轮一次）", "use --save-steps (0: once an epoch)"),
    "evaluation_strategy": ("用 --eval-steps（0：每轮一次）", "use --eval-steps (0: once an epoch)"),
    "eval_strategy": ("用 --eval-steps（0：每轮一次）", "use --eval-steps (0: once an epoch)"),
    "warmup_steps": ("用 --warmup-ratio", "use --warmup-ratio"),
    "deepspeed": ("用 torchrun：全参数微调会自动用 FSDP2", "use torchrun: full fine-tuning then takes FSDP2"),
    "wandb_project": _TRACKER, "wandb_run_name": _TRACKER, "wandb_watch": _TRACKER, "wandb_log_model": _TRACKER,
    "run_name": _TRACKER,
    "log_file": ("不需要，记录在 --output 的 metrics.jsonl", "not needed: see metrics.jsonl in --output"),
    "logging_dir": ("不需要，记录在 --output 的 metrics.jsonl", "not needed: see metrics.jsonl in --output"),
    "per_device_eval_batch_size": _NOT_NEEDED, "do_train": _NOT_NEEDED, "do_eval": _NOT_NEEDED,
    "remove_unused_columns": _NOT_NEEDED, "overwrite_cache": _NOT_NEEDED, "predict_with_generate": _NOT_NEEDED,
    "preprocessing_num_workers": _NOT_NEEDED, "local_rank": _NOT_NEEDED, "ddp_find_unused_parameters": _NOT_NEEDED,
}  # fmt: skip


def key_for(original: str) -> str | None:
    """Return our key for one of their names (`-` equals `_`), None if there is none of the same meaning."""
    name = _plain(original)
    return RENAMED.get(name) or (name if name in KEYS else None)


def instead_of(original: str, *, in_file: bool = False) -> str | None:
    """Return what to write instead of one of their flags, in the interface language; None for an unknown name.

    `in_file`: as keys of a configuration file rather than flags.
    """
    name = _plain(original)
    shown = original.partition("=")[0] if in_file else "--" + original.partition("=")[0].lstrip("-")
    if key := key_for(name):
        return f"{shown} → {key if in_file else flag_of(key)}"
    if name not in REPLACED:
        return None
    zh, en = REPLACED[name]
    return f"{shown} → " + say(zh or "不需要，去掉即可", en or "not needed, leave it out")


def _plain(name: str) -> str:
    return name.lstrip("-").partition("=")[0].replace("-", "_").lower()
