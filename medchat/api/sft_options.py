"""The options of a fine-tuning run: each field states its default, its range or choices, and its help.

Flags, configuration keys, checks and advice all follow from here. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from medchat.api.generation import DEVICES_HELP, Range

METHODS = ("full", "lora", "qlora", "adapter", "ptuning")
OPTIMIZERS = ("adamw", "adamw8bit", "adafactor")
#: Learning-rate schedules of transformers that need no setting of their own.
SCHEDULERS = ("linear", "cosine", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt")
#: Experiment trackers, by the names of the package extras that install them.
TRACKERS = ("tensorboard", "wandb", "swanlab")
#: `mixed`: float32 weights, bfloat16 arithmetic. `bfloat16`: bfloat16 weights, rounded stochastically
#: at each update. `auto`: `mixed` where the device computes bfloat16, else `float32`; the frozen base
#: of the methods that train beside it is then loaded in bfloat16.
PRECISIONS = ("auto", "float32", "mixed", "bfloat16")

_MANY = 10**9
_FACTS = "medchat"


@dataclass(frozen=True, slots=True)
class OptionFacts:
    """What a field of `SFTOptions` may hold, and what it means; `is_path` ones are a name or a path."""

    zh: str
    en: str
    allowed: Range | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    is_path: bool = False


def setting(default: Any, zh: str, en: str, **facts: Any) -> Any:
    """Return a dataclass field with the facts of `OptionFacts`."""
    return field(default=default, metadata={_FACTS: OptionFacts(zh, en, **facts)})


@dataclass(frozen=True, slots=True)
class SFTOptions:
    """A fine-tuning run. Each field is a flag and a configuration key of the same name.

    The defaults are those of Med-ChatGLM's full fine-tuning (docs/specs/training.md, "Methods and
    defaults"); a recipe's `defaults` go over them.
    """

    model: Path = field(
        metadata={_FACTS: OptionFacts("权重目录或名称", "folder with the weights, or a name", is_path=True)}
    )
    output: Path = field(
        metadata={
            _FACTS: OptionFacts(
                "输出目录（须为新目录或空目录）", "where the result goes: a new or empty folder", is_path=True
            )
        }
    )
    method: str = setting(
        "full", "full | lora | qlora | adapter | ptuning", "full | lora | qlora | adapter | ptuning"
    )
    adapters: tuple[Path, ...] = setting(
        (),
        "训练前先加载到底座上的适配器（可重复）",
        "adapters put on the base first (repeatable)",
        is_path=True,
    )
    learning_rate: float = setting(5e-5, "学习率", "learning rate", allowed=Range(0, 10, open_low=True))
    num_epochs: float = setting(
        3.0, "训练轮数（epoch）", "passes over the data", allowed=Range(0, 1000000.0, open_low=True)
    )
    max_steps: int = setting(
        0, "最大训练步数；0：由训练轮数决定", "steps at most; 0: by num-epochs", allowed=Range(0, _MANY)
    )
    batch_size: int = setting(
        16,
        "有效批大小（含梯度累积和所有进程）",
        "effective batch, over accumulation and all processes",
        allowed=Range(1, 1 << 20),
    )
    micro_batch_size: int = setting(
        8, "单次前向计算的数据条数", "records in one forward pass", allowed=Range(1, 1 << 20)
    )
    max_length: int = setting(
        256, "单条数据的最大词元数", "longest record in tokens", allowed=Range(8, 1 << 20)
    )
    warmup_ratio: float = setting(
        0.1, "预热占全部步数的比例", "share of the steps that warm up", allowed=Range(0, 0.99)
    )
    scheduler: str = setting("linear", "学习率调度方式", "how the learning rate changes", choices=SCHEDULERS)
    weight_decay: float = setting(0.0, "权重衰减", "weight decay", allowed=Range(0, 10))
    optimizer: str = setting("adamw", "优化器", "optimizer", choices=OPTIMIZERS)
    adam_beta1: float = setting(0.9, "Adam 的 beta1", "Adam's beta1", allowed=Range(0, 0.999999))
    adam_beta2: float = setting(0.999, "Adam 的 beta2", "Adam's beta2", allowed=Range(0, 0.999999))
    adam_epsilon: float = setting(
        1e-8, "Adam 的 epsilon", "Adam's epsilon", allowed=Range(0, 1, open_low=True)
    )
    max_grad_norm: float = setting(
        1.0, "梯度裁剪；0：不裁剪", "gradient clipping; 0: none", allowed=Range(0, 1000000000.0)
    )
    fused_backward: bool = setting(
        False,
        "在反向传播中直接更新参数，省去保存梯度的内存（不能与梯度累积、梯度裁剪同用）",
        "update inside the backward pass: no memory for gradients (no accumulation, no clipping)",
    )
    precision: str = setting("auto", "精度", "precision", choices=PRECISIONS)
    gradient_checkpointing: bool = setting(
        False, "梯度检查点：以计算时间换取激活值所占的内存", "trade time for the activations' memory"
    )
    group_by_length: bool = setting(True, "把长度相近的数据放进同一批", "records of like length together")
    collator: str = setting(
        "default",
        "批的组成方式（ChatGLM：default | med | official）",
        "how a batch is made (ChatGLM: default | med | official)",
    )
    lora_r: int = setting(8, "LoRA 的秩", "rank of LoRA", allowed=Range(1, 4096))
    lora_alpha: int = setting(16, "LoRA 的 alpha", "alpha of LoRA", allowed=Range(1, 1 << 16))
    lora_dropout: float = setting(0.05, "LoRA 的 dropout", "dropout of LoRA", allowed=Range(0, 0.99))
    lora_targets: tuple[str, ...] = setting(
        (),
        "添加 LoRA 的层（逗号分隔；all-linear：除输出层外的全部线性层）",
        "modules LoRA goes on (comma-separated; all-linear: every linear but the head)",
    )
    adapter_size: int = setting(
        64, "瓶颈层的宽度（adapter）", "width of an adapter's bottleneck", allowed=Range(1, 1 << 16)
    )
    pre_seq_len: int = setting(
        128, "P-tuning 前缀的长度", "length of P-tuning's prefix", allowed=Range(1, 4096)
    )
    prefix_projection: bool = setting(
        False, "用 MLP 对 P-tuning 前缀重参数化", "P-tuning's prefix goes through an MLP"
    )
    logging_steps: int = setting(10, "每隔多少步记录一次", "steps between log lines", allowed=Range(1, _MANY))
    eval_steps: int = setting(
        0,
        "每隔多少步评估一次；0：每轮一次，-1：不评估",
        "steps between evaluations; 0: once an epoch, -1: never",
        allowed=Range(-1, _MANY),
    )
    save_steps: int = setting(
        0,
        "每隔多少步保存一次；0：每轮一次，-1：只保存结果",
        "steps between checkpoints; 0: once an epoch, -1: never",
        allowed=Range(-1, _MANY),
    )
    save_total: int = setting(3, "保留的检查点个数", "checkpoints that are kept", allowed=Range(1, _MANY))
    val_size: int = setting(
        -1,
        "留作评估的条数；-1：取十分之一，最多 500 条，数据不足 20 条时不留",
        "records held out; -1: a tenth, at most 500, none below 20",
        allowed=Range(-1, _MANY),
    )
    early_stopping: int = setting(
        0,
        "连续多少次评估没有改善即停止；0：不提前停止",
        "stop after so many evaluations without a better one; 0: never",
        allowed=Range(0, _MANY),
    )
    samples: int = setting(
        3, "训练前后各回答多少题作对比", "questions answered before and after", allowed=Range(0, 100)
    )
    allow_truncation: bool = setting(
        False, "允许 1% 以上的数据截断后不剩回答", "go on although over 1% of the records keep no answer"
    )
    seed: int = setting(2023, "随机种子", "random seed", allowed=Range(0, (1 << 32) - 1))
    device: str = setting(
        "auto",
        f"计算设备：{DEVICES_HELP}",
        f"where to compute: {DEVICES_HELP}",
        pattern="auto|cpu|mps|cuda(:[0-9]+)?",
    )
    threads: int = setting(0, "CPU 线程数；0：自动", "CPU threads; 0: automatic", allowed=Range(0, 4096))
    workers: int = setting(0, "读取数据的进程数", "processes that prepare batches", allowed=Range(0, 256))
    #: Continue with the run in `output`, from its latest checkpoint.
    resume: bool = False
    report_to: tuple[str, ...] = setting(
        (),
        "同时上报到的实验跟踪工具（需另行安装）",
        "report to these too (to be installed)",
        choices=TRACKERS,
    )
    #: The backbone's own keys (`Backbone.load_keys`) that were chosen, or that `resolve_options` found.
    extra: Mapping[str, Any] = field(default_factory=dict)


@cache
def option_facts() -> Mapping[str, OptionFacts]:
    """Return the facts of each option that is a flag and a configuration key, by its name."""
    return {one.name: one.metadata[_FACTS] for one in fields(SFTOptions) if _FACTS in one.metadata}
