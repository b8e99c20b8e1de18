"""The table of a fine-tuning run's settings: each is a flag, and a key of `--config FILE.toml`.

The range and meaning of a setting are stated on the field of `SFTOptions`; here are the few that are not
fields of it, and the groups in which all are shown. Defaults are those of `SFTOptions`, overridden by a
recipe's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from medchat.api import Range, SFTOptions, option_facts
from medchat.api.option import option_flag
from medchat.language import say
from medchat.settings import Key
from medchat.settings.keys import Kind

#: The table of a backbone's own settings, `[extra]` in a file; its flag is `--option`.
EXTRA = "extra."


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


#: Settings of the command that are not passed to a recipe.
_COMMAND_KEYS = (
    Key(
        "backbone",
        Kind.TEXT,
        None,
        "模型家族（插件名），见 medchat plugins list",
        "model family, see medchat plugins list",
    ),
    Key("data", Kind.LIST, None, "训练数据文件（可重复）", "training data (repeatable)", is_path=True),
    Key(
        "template",
        Kind.TEXT,
        None,
        "提示模板：名称或文件（默认用权重自己的）",
        "template: a name or a file (default: the weights' own)",
        is_path=True,
    ),
    *(
        Key(
            f"{use}_field",
            Kind.TEXT,
            None,
            f"作为{zh}的字段（默认按字段名识别）",
            f"the field that is the {use} (default: recognised by its name)",
        )
        for use, zh in (("question", "问题"), ("answer", "答案"), ("context", "背景"))
    ),
    Key("skip_bad", Kind.FLAG, None, "跳过格式有误的记录", "skip malformed records"),
    Key(
        "gradient_accumulation",
        Kind.WHOLE,
        None,
        "梯度累积步数（可由前两项推出）",
        "forward passes an update (follows from the two above)",
        allowed=Range(1, 1 << 20),
    ),
)
_KINDS = {str: Kind.TEXT, Path: Kind.TEXT, bool: Kind.FLAG, int: Kind.WHOLE, float: Kind.NUMBER}


def _keys() -> dict[str, Key]:
    types = get_type_hints(SFTOptions)
    stated = {
        name: Key(
            name,
            _KINDS.get(types[name], Kind.LIST),
            None,
            facts.zh,
            facts.en,
            choices=facts.choices,
            allowed=facts.allowed,
            pattern=facts.pattern,
            is_path=facts.is_path,
        )
        for name, facts in option_facts().items()
    }
    return stated | {key.name: key for key in _COMMAND_KEYS}


#: The groups and the order in which settings are shown.
_GROUPS = (
    (
        "模型、数据与输出",
        "Model, data and output",
        "backbone model adapters data question_field answer_field context_field output template val_size "
        "max_length allow_truncation skip_bad",
    ),
    (
        "方法",
        "Method",
        "method collator lora_r lora_alpha lora_dropout lora_targets adapter_size pre_seq_len "
        "prefix_projection",
    ),
    (
        "优化",
        "Optimisation",
        "learning_rate num_epochs max_steps batch_size micro_batch_size gradient_accumulation "
        "scheduler warmup_ratio optimizer weight_decay adam_beta1 adam_beta2 adam_epsilon "
        "max_grad_norm fused_backward group_by_length seed",
    ),
    (
        "内存与设备",
        "Memory and device",
        "precision gradient_checkpointing device threads workers",
    ),
    (
        "记录与保存",
        "Logging and saving",
        "logging_steps eval_steps save_steps save_total early_stopping samples report_to",
    ),
)


def _grouped(keys: Mapping[str, Key]) -> tuple[KeyGroup, ...]:
    """Return the groups; settings that none of them names are added to the last."""
    named = {name for _, _, names in _GROUPS for name in names.split()}
    rest = tuple(name for name in keys if name not in named)
    last = len(_GROUPS) - 1
    return tuple(
        KeyGroup(zh, en, tuple(keys[name] for name in (*names.split(), *(rest if at == last else ()))))
        for at, (zh, en, names) in enumerate(_GROUPS)
    )


GROUPS = _grouped(_keys())

#: Every setting by name, in the order they are shown.
KEYS: Mapping[str, Key] = {key.name: key for group in GROUPS for key in group.keys}


def flag_of(name: str) -> str:
    """Return the flag that sets the key of that name."""
    if name.startswith(EXTRA):
        return f"--option {name.removeprefix(EXTRA)}=…"
    return option_flag(name)
