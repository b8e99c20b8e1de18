"""`run.json`: the options of a run, and whether the present ones would give the same result.

Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from medchat import __version__
from medchat.api import SFTOptions
from medchat.api.option import as_typed, option_flag
from medchat.checkpoints.stated_base import RUN_RECORD, fingerprint_of_models
from medchat.errors import UsageError
from medchat.language import say
from medchat.regular_files import read_json
from medchat.whole_file import write_whole_file

FILE_NAME = RUN_RECORD
FORMAT = "medchat-run-1"

#: Options that may differ when a run is resumed: they change where and how it computes and what it reports,
#: but not the result. `micro_batch_size` and `gradient_checkpointing` are changed when memory ran out; sums
#: then round differently.
FREE_OPTIONS = frozenset(
    (
        *("output", "resume", "device", "threads", "workers", "micro_batch_size", "gradient_checkpointing"),
        *("logging_steps", "save_steps", "save_total", "report_to", "samples", "allow_truncation"),
    )
)
#: Those of them after which the result is no longer bitwise equal.
ROUNDING_OPTIONS = ("device", "threads", "micro_batch_size", "gradient_checkpointing")
#: The limit of `run.json` in bytes; it names every data file and setting.
_LARGEST = 64 * 2**20
#: Compared by the content of the folders, not by their paths.
_BY_CONTENT = ("model", "adapters")


def write_run_record(
    folder: Path, options: SFTOptions, data: str, unused_fields: Mapping[str, int] | None = None
) -> None:
    """Write the record of a run. `data` is the fingerprint of its training data (`fingerprint_of`).

    `unused_fields` counts the records that have each field of the data's files that is not used.
    """
    record = {
        "format": FORMAT,
        "medchat": __version__,
        "options": _plain(options),
        "model": fingerprint_of_models((options.model, *options.adapters)),
        "data": data,
        "unused_fields": dict(unused_fields or {}),
    }
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    write_whole_file(folder / FILE_NAME, text)


def compare_options(folder: Path, options: SFTOptions) -> None:
    """Raise UsageError, naming the options, if any that change the result differ from the recorded ones."""
    run = read_run_record(folder)
    now = _plain(options)
    fixed = [item.name for item in fields(SFTOptions) if item.name not in {*FREE_OPTIONS, *_BY_CONTENT}]
    changed = {name: run["options"].get(name) for name in fixed if run["options"].get(name) != now[name]}
    if fingerprint_of_models((options.model, *options.adapters)) != run["model"]:
        changed |= {name: run["options"][name] for name in _BY_CONTENT if run["options"][name]}
    if not changed:
        return
    recorded = ", ".join(
        say(f"不带 {option_flag(name)}", f"without {option_flag(name)}")
        if value in ([], {})
        else as_typed({name: value})
        for name, value in changed.items()
    )
    raise UsageError(
        say(
            f"这些设置与开始时不同，会改变结果：{'、'.join(map(option_flag, changed))}",
            f"settings that change the result differ from the run's: {', '.join(map(option_flag, changed))}",
        ),
        say(
            f"请用原来的设置（{recorded}），或换一个 --output",
            f"give them as they were ({recorded}), or another --output",
        ),
        where=str(folder / FILE_NAME),
    )


def compare_data(folder: Path, options: SFTOptions, data: str) -> tuple[str, ...]:
    """Raise UsageError if the fingerprint `data` is not the recorded one.

    Returns notes on changed options after which the result is not bitwise equal, in the interface language.
    """
    run = read_run_record(folder)
    if run["data"] != data:
        raise UsageError(
            say(
                f"训练数据（或模板、分词器）与 {folder} 里那次训练所用的不同，不能继续训练",
                f"the data (or the template, or the tokenizer) is not what the run in {folder} began with",
            ),
            say("请用原来的 --data，或换一个 --output", "give the --data of that run, or another --output"),
            where=str(folder / FILE_NAME),
        )
    now = _plain(options)
    changed = [option_flag(name) for name in ROUNDING_OPTIONS if run["options"].get(name) != now[name]]
    if not changed:
        return ()
    flags = ", ".join(changed)
    return (
        say(
            f"{flags} 与开始时不同：可以继续，但结果不会与不中断的训练逐位相同",
            f"{flags} changed: the run goes on, but its result will not be bit for bit that of an uninterrupted run",
        ),
    )


def read_run_record(folder: Path) -> dict[str, Any]:
    """Return `run.json`. Raises UsageError if it is damaged."""
    path = folder / FILE_NAME
    try:
        run: dict[str, Any] = read_json(path, _LARGEST)
        if run["format"] == FORMAT and isinstance(run["options"], dict) and {"model", "data"} <= set(run):
            return run
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UsageError(
        say("训练记录损坏或来自其他版本", "the run's record is damaged or from another version"),
        say("请换一个 --output 重新训练", "train again with another --output"),
        where=str(path),
    )


def _plain(options: SFTOptions) -> dict[str, Any]:
    """The options as JSON types: paths as text, tuples as lists."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(options), default=str, ensure_ascii=False))
    return plain
