"""Reads the config.json of a ChatGLM v1, and the position rule that options or an adapter choose. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medchat.checkpoints.config_json import LARGEST, MOST, ConfigValues
from medchat.checkpoints.layout import read_config
from medchat.checkpoints.stated_template import stated_facts
from medchat.plugin_kit import CheckpointError, LoadOptions, UsageError, say
from medchat_chatglm.config_file import ChatGLMValues, PositionRule
from medchat_chatglm.inspection import refuse_other_models
from medchat_chatglm.prompts import RULE_KEY

_SWITCHES = (
    "position_encoding_2d",
    "tie_word_embeddings",
    "quantization_embeddings",
    "prefix_projection",
    "use_cache",
)
#: Far beyond the length of any prefix.
_LONGEST_PREFIX = 2**16
#: The keys of config.json that are passed to the configuration. Others could choose code to run, such as the
#: library's attention implementations, which it may download.
_CONFIG_KEYS = (*ChatGLMValues.__annotations__, "architectures", "medchat_template")


def with_stated_rule(options: LoadOptions) -> Mapping[str, str]:
    """Return `options.extra` with the rule that the last adapter was trained with, unless it has one."""
    for folder in reversed(options.adapters):
        rule = stated_facts(folder).get(RULE_KEY)
        if rule:
            return {"rule": str(rule), **options.extra}
    return options.extra


def read_values(folder: Path, extra: Mapping[str, str] | None = None) -> ChatGLMValues:
    """Read config.json of a ChatGLM v1; `extra["rule"]` overrides its position rule.

    Raises CheckpointError for another model or impossible values, UsageError for an unknown rule.
    """
    values, stated = stated_values(folder, extra)
    with impossible_at(values):
        return ChatGLMValues(**{key: stated[key] for key in stated if key in ChatGLMValues.__annotations__})


def stated_values(
    folder: Path, extra: Mapping[str, str] | None = None
) -> tuple[ConfigValues, dict[str, Any]]:
    """Return the object in config.json, and of it what a configuration is made of, each of its key's type.

    Raises as `read_values`.
    """
    stated = read_config(folder)
    refuse_other_models(stated, folder)
    known: dict[str, Any] = {key: stated[key] for key in _CONFIG_KEYS if stated.get(key) is not None}
    if rule := (extra or {}).get("rule"):
        if rule not in tuple(PositionRule):
            valid = ", ".join(PositionRule)
            raise UsageError(
                say(f"没有名为“{rule}”的位置规则", f"there is no position rule {rule!r}"),
                say(f"可用的值：{valid}", f"valid values: {valid}"),
            )
        known["medchat_position_rule"] = rule
    values = ConfigValues(stated, folder / "config.json")
    wrong = [key for key, value in known.items() if not _is_possible(key, value)]
    if wrong:
        raise values.impossible(f"{wrong[0]} = {known[wrong[0]]!r}")
    return values, known


@contextmanager
def impossible_at(values: ConfigValues) -> Iterator[None]:
    """Let what is refused within this block name the file of `values`, as a CheckpointError."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(error.what, error.remedy, where=str(values.file)) from None
    except (TypeError, ValueError) as error:
        raise values.impossible(" ".join(str(error).split())) from None


def _is_possible(key: str, value: object) -> bool:
    """Return whether a value of config.json has its key's type; the configuration checks ranges."""
    if key in _SWITCHES:
        return isinstance(value, bool)
    if key == "layernorm_epsilon":
        return isinstance(value, float | int) and 0 < value < 1
    if key.endswith("_id"):
        ids = value if key == "eos_token_id" and isinstance(value, list) else [value]
        return bool(ids) and all(type(number) is int and 0 <= number < MOST for number in ids)
    if key == "pre_seq_len":
        return type(value) is int and 0 <= value < _LONGEST_PREFIX
    return key not in LARGEST or (type(value) is int and 0 < value <= LARGEST[key])
