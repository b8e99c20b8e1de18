"""Data that a model writes: the model opened, what it will take said first, and both files made of the stored calls.

The calls are what is kept while it runs, in a file beside the data. Data and rejects follow from them, so that an
interrupted run loses nothing, and its end is the same as without an interruption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from medchat.plugin_kit import (
    CallLimits,
    OpenedModel,
    StoredCalls,
    UsageError,
    guess_tokens,
    open_calls,
    open_model,
    sanitize_line,
    say,
    user_path,
)
from medchat_data.record_files import require_free, write_records

#: Who may write: the prompt forms, any endpoint, a model on this machine.
REMOTE_WRITER, BACKBONE_WRITER = "remote", "backbone"
#: The longest answer that is counted with where nobody says.
_ASSUMED_ANSWER = 1024
_MILLION = 1_000_000
#: What of a model's provenance each record states.
_STATED = ("backbone", "model", "adapter", "template", "decoding")


@dataclass(frozen=True, slots=True)
class BuildFiles:
    """Where a build goes: the data at `target`, rejects and stored calls beside it; `inputs` are what it reads."""

    target: Path
    inputs: Mapping[str, Path]
    resume: bool
    overwrite: bool

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any], inputs: Mapping[str, Path]) -> BuildFiles:
        """Return the files that the flags name. Raises UsageError where they name none."""
        if flags["output"] is None:
            raise UsageError(
                say("没有指定 --output", "--output is missing"),
                say(
                    "--output train.jsonl；先看看用 --dry-run",
                    "--output train.jsonl; --dry-run shows some first",
                ),
            )
        return cls(user_path(flags["output"]), inputs, flags["resume"], flags["overwrite"])

    @property
    def rejects(self) -> Path:
        """Where what is rejected goes."""
        return self.target.with_name(f"{self.target.stem}.rejects.jsonl")

    @property
    def calls(self) -> Path:
        """Where a model's answers go."""
        return self.target.with_name(f"{self.target.stem}.calls.jsonl")

    def require_free(self) -> None:
        """Raise UsageError where a file is there that may not be replaced: nothing is asked then."""
        if self.resume and not self.calls.exists() and self.target.exists():
            raise UsageError(
                say(
                    "这个文件不是由模型开始写的，旁边没有调用记录",
                    "no model began this file: it has no calls",
                ),
                say(
                    "换一个 --output，或用 --overwrite 重新开始",
                    "use another --output, or start over: --overwrite",
                ),
                where=str(self.target),
            )
        for path in (self.target, self.rejects, self.calls):
            require_free(path, inputs=self.inputs.values(), overwrite=self.resume or self.overwrite)

    def write(self, kept: Iterable[Mapping[str, Any]], rejected: Iterable[Mapping[str, Any]]) -> None:
        """Write both files whole."""
        write_records(self.rejects, rejected)
        write_records(self.target, kept)


@contextmanager
def open_writer(
    writer: str, flags: Mapping[str, Any], files: BuildFiles
) -> Iterator[tuple[OpenedModel, StoredCalls]]:
    """Open the model that is to write and its stored calls. Where the words go is said before anything is sent.

    Raises UsageError for flags that do not go together and for files that are there, and what `open_model` raises.
    """
    chosen: dict[str, Any] = {"system": flags.get("system") or ""}
    if writer == REMOTE_WRITER:
        if flags.get("backbone") not in (None, REMOTE_WRITER):
            raise UsageError(
                say(
                    "--writer remote 和 --backbone 不能一起用", "--writer remote does not go with --backbone"
                ),
                say("用本机的模型：--writer backbone", "for a model on this machine: --writer backbone"),
            )
        chosen["backbone"] = REMOTE_WRITER
    limits = CallLimits.from_flags(flags)
    files.require_free()
    options = (*(flags.get("option") or ()), *limits.options)
    with (
        open_model({**flags, "option": options}, **chosen) as opened,
        open_calls(
            files.calls,
            opened,
            limits,
            resume=files.resume,
            overwrite=files.overwrite,
            inputs=files.inputs,
        ) as calls,
    ):
        yield opened, calls


def written_by(writer: str, opened: OpenedModel) -> Mapping[str, Any]:
    """Return what provenance says of the model."""
    return {"writer": writer, "model": {name: opened.provenance[name] for name in _STATED}}


def say_estimate(calls: StoredCalls, prompts: Sequence[str]) -> None:
    """Say on stderr what asking the prompts will take at most."""
    found = calls.estimate(prompts)
    known = len(dict.fromkeys(prompts)) - found.calls
    text = say(f"将调用 {found.calls} 次", f"{found.calls} calls")
    if known:
        text += say(f"（另有 {known} 次已有回答）", f" ({known} more are answered already)")
    text += _tokens_text(found.prompt_tokens, found.answer_tokens)
    click.echo(text + ("" if found.cost is None else _cost_text(found.cost)), err=True)


def planned(prompts: Sequence[str], flags: Mapping[str, Any]) -> str:
    """Return what asking the prompts would take at most, as a line: no model is opened for it."""
    limits, longest = CallLimits.from_flags(flags), flags.get("max_new_tokens") or _ASSUMED_ANSWER
    different = list(dict.fromkeys(prompts))
    prompt_tokens, answer_tokens = guess_tokens(different), len(different) * longest
    text = say(f"共需调用 {len(different)} 次", f"{len(different)} calls in all")
    text += _tokens_text(prompt_tokens, answer_tokens)
    if limits.price_in is not None and limits.price_out is not None:
        text += _cost_text((prompt_tokens * limits.price_in + answer_tokens * limits.price_out) / _MILLION)
    return text + "\n"


def say_what_is_left(calls: StoredCalls, left: int) -> None:
    """Say on stderr why some records are not written, and what writes them."""
    if not left:
        return
    why = (
        say("预算不够", "the budget leaves no room")
        if calls.over_budget
        else say("调用失败", "their calls failed")
    )
    remedy = say("提高 --budget，", "raise --budget and ") if calls.over_budget else ""
    click.echo(
        say(
            f"还有 {left} 条没有写（{why}）；{remedy}加上 --resume 继续",
            f"{left} are not written yet ({why}); {remedy}go on with --resume",
        ),
        err=True,
    )


def built_line(forms: Counter[str], files: BuildFiles) -> str:
    """Return how many records of which forms were written where."""
    target = sanitize_line(str(files.target))
    return say(
        f"共 {forms.total()} 条训练数据（{_listed(forms)}）：{target}",
        f"{forms.total()} training records ({_listed(forms)}): {target}",
    )


def rejected_line(codes: Counter[str], files: BuildFiles) -> str:
    """Return how many were rejected, why, and where they are."""
    rejects = sanitize_line(str(files.rejects))
    return say(
        f"不收录 {codes.total()} 条（{_listed(codes)}）：{rejects}",
        f"{codes.total()} rejected ({_listed(codes)}): {rejects}",
    )


def _listed(counts: Counter[str]) -> str:
    return say("、", ", ").join(f"{name} {count}" for name, count in counts.items())


def _tokens_text(prompt_tokens: int, answer_tokens: int) -> str:
    return say(
        f"，提示约 {prompt_tokens} 词元，回答至多 {answer_tokens} 词元",
        f", about {prompt_tokens} tokens of prompts, at most {answer_tokens} of answers",
    )


def _cost_text(cost: float) -> str:
    return say(f"，费用至多约 {cost:.4g}", f", which may cost up to about {cost:.4g}")
