"""The one table of a fine-tuning run's settings: each is a flag, and a key of `--config FILE.toml`.

Defaults are not here: they are those of `SFTOptions`, with a recipe's own over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medchat.api import DEVICES_HELP, OPTIMIZERS, PRECISIONS, SCHEDULERS, TRACKERS, Range
from medchat.api.flags import option_flag
from medchat.language import say
from medchat.settings import Key
from medchat.settings.keys import Kind

#: The table of a backbone's own keys, `[extra]` in a file; `--rule` is its shortest form.
EXTRA = "extra."

_MANY = 10**9


@dataclass(frozen=True, slots=True)
class KeyGroup:
    """Settings that are shown together."""

    zh: str
    en: str
    keys: tuple[Key, ...]

    @property
    def title(self) -> str:
        """The heading in the interface language."""
        return say(self.zh, self.en)


def _text(name: str, zh: str, en: str, choices: tuple[str, ...] = (), pattern: str = "") -> Key:
    return Key(name, Kind.TEXT, None, zh, en, choices=choices, pattern=pattern)


def _place(name: str, zh: str, en: str, kind: Kind = Kind.TEXT) -> Key:
    return Key(name, kind, None, zh, en, is_path=True)


def _flag(name: str, zh: str, en: str) -> Key:
    return Key(name, Kind.FLAG, None, zh, en)


def _list(name: str, zh: str, en: str, choices: tuple[str, ...] = ()) -> Key:
    return Key(name, Kind.LIST, None, zh, en, choices=choices)


def _whole(name: str, low: int, high: int, zh: str, en: str) -> Key:
    return Key(name, Kind.WHOLE, None, zh, en, allowed=Range(low, high))


def _number(name: str, low: float, high: float, zh: str, en: str, *, above: bool = False) -> Key:
    return Key(name, Kind.NUMBER, None, zh, en, allowed=Range(low, high, open_low=above))


GROUPS = (
    KeyGroup("模型、数据与输出", "Model, data and output", (
        _text("backbone", "模型家族（插件名），见 medchat plugins list", "model family, see medchat plugins list"),
        _place("model", "权重目录或名字", "folder with the weights, or a name"),
        _place("adapters", "先叠加在底座上的适配器（可重复）",
               "adapters put on the base first (repeatable)", Kind.LIST),
        _place("data", "训练数据文件（可重复）", "training data (repeatable)", Kind.LIST),
        _place("output", "输出目录：新的或空的", "where the result goes: a new or empty folder"),
        _place("template", "提示模板：名字或文件（默认用权重自己的）",
               "template: a name or a file (default: the weights' own)"),
        _whole("val_size", -1, _MANY, "留作评估的条数；-1：10%，最多 500，不足 20 条为 0",
               "records held out; -1: a tenth, at most 500, none below 20"),
        _whole("max_length", 8, 1 << 20, "一条数据的最大词元数", "longest record in tokens"),
        _flag("allow_truncation", "允许 1% 以上的数据没有回答可学",
              "go on although over 1% of the records keep no answer"),
        _flag("skip_bad", "跳过坏记录", "leave bad records out"),
    )),
    KeyGroup("方法", "Method", (
        _text("method", "full | lora | qlora | adapter | ptuning", "full | lora | qlora | adapter | ptuning"),
        _text("collator", "怎样组成一批（ChatGLM：default | med | official）",
              "how a batch is made (ChatGLM: default | med | official)"),
        _whole("lora_r", 1, 4096, "LoRA 的秩", "rank of LoRA"),
        _whole("lora_alpha", 1, 1 << 16, "LoRA 的 alpha", "alpha of LoRA"),
        _number("lora_dropout", 0, 0.99, "LoRA 的 dropout", "dropout of LoRA"),
        _list("lora_targets", "LoRA 加在哪些层（逗号分隔）", "modules LoRA goes on (comma-separated)"),
        _whole("adapter_size", 1, 1 << 16, "Adapter 瓶颈的宽度", "width of an adapter's bottleneck"),
        _whole("pre_seq_len", 1, 4096, "P-tuning 前缀的长度", "length of P-tuning's prefix"),
        _flag("prefix_projection", "P-tuning 前缀经过一个 MLP", "P-tuning's prefix goes through an MLP"),
    )),
    KeyGroup("优化", "Optimisation", (
        _number("learning_rate", 0, 10, "学习率", "learning rate", above=True),
        _number("num_epochs", 0, 1e6, "遍数", "passes over the data", above=True),
        _whole("max_steps", 0, _MANY, "最多几步；0：由遍数决定", "steps at most; 0: by num-epochs"),
        _whole("batch_size", 1, 1 << 20, "有效批大小（累积与所有进程合计）",
               "effective batch, over accumulation and all processes"),
        _whole("micro_batch_size", 1, 1 << 20, "一次前向的条数", "records in one forward pass"),
        _whole("gradient_accumulation", 1, 1 << 20, "累积几次前向再更新（可由前两项推出）",
               "forward passes an update (follows from the two above)"),
        _text("scheduler", "学习率怎样变化", "how the learning rate changes", SCHEDULERS),
        _number("warmup_ratio", 0, 0.99, "预热占全部步数的比例", "share of the steps that warm up"),
        _text("optimizer", "优化器", "optimizer", OPTIMIZERS),
        _number("weight_decay", 0, 10, "权重衰减", "weight decay"),
        _number("adam_beta1", 0, 0.999999, "Adam 的 beta1", "Adam's beta1"),
        _number("adam_beta2", 0, 0.999999, "Adam 的 beta2", "Adam's beta2"),
        _number("adam_epsilon", 0, 1, "Adam 的 epsilon", "Adam's epsilon", above=True),
        _number("max_grad_norm", 0, 1e9, "梯度裁剪；0：不裁剪", "gradient clipping; 0: none"),
        _flag("fused_backward", "反向时即更新，省去梯度的内存（不能累积和裁剪）",
              "update inside the backward pass: no memory for gradients (no accumulation, no clipping)"),
        _flag("group_by_length", "长度相近的放在一批", "records of like length together"),
        _whole("seed", 0, (1 << 32) - 1, "随机种子", "random seed"),
    )),
    KeyGroup("内存与设备", "Memory and device", (
        _text("precision", "精度", "precision", PRECISIONS),
        _flag("gradient_checkpointing", "用时间换激活值的内存", "trade time for the activations' memory"),
        _text("device", f"计算设备：{DEVICES_HELP}", f"where to compute: {DEVICES_HELP}",
              pattern=r"auto|cpu|mps|cuda(:[0-9]+)?"),
        _whole("threads", 0, 4096, "CPU 线程数；0：自动", "CPU threads; 0: automatic"),
        _whole("workers", 0, 256, "读数据的进程数", "processes that prepare batches"),
    )),
    KeyGroup("记录与保存", "Logging and saving", (
        _whole("logging_steps", 1, _MANY, "每几步记录一次", "steps between log lines"),
        _whole("eval_steps", -1, _MANY, "每几步评估一次；0：每遍，-1：不评估",
               "steps between evaluations; 0: once an epoch, -1: never"),
        _whole("save_steps", -1, _MANY, "每几步保存一次；0：每遍，-1：只存结果",
               "steps between checkpoints; 0: once an epoch, -1: never"),
        _whole("save_total", 1, _MANY, "保留几个检查点", "checkpoints that are kept"),
        _whole("early_stopping", 0, _MANY, "连续几次评估没有更好就停；0：不停",
               "stop after so many evaluations without a better one; 0: never"),
        _whole("samples", 0, 100, "训练前后各答几题作对比", "questions answered before and after"),
        _list("report_to", "另外报告给（需安装）", "report to these too (to be installed)", TRACKERS),
    )),
)  # fmt: skip

#: Every setting by name, in the order they are shown.
KEYS: Mapping[str, Key] = {key.name: key for group in GROUPS for key in group.keys}


def flag_of(name: str) -> str:
    """Return the flag that sets the key of that name."""
    if name.startswith(EXTRA):
        return f"--extra {name.removeprefix(EXTRA)}=…"
    return option_flag(name)
