"""The overview before training: settings, data, truncation, the first example with its labels, memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medchat.api import DiskEstimate, MemoryEstimate, PreviewPiece, SFTSurvey
from medchat.api.option import as_typed
from medchat.cli.output import aligned
from medchat.language import say
from medchat.sanitize import sanitize, sanitize_line
from medchat.sft_job.facts import LengthFacts
from medchat.sft_job.keys import EXTRA, GROUPS
from medchat.sft_job.report import length_rows, lengths_in_words, part_name
from medchat.sft_job.run_file import toml_value
from medchat.sft_job.settings import RunSettings, Setting
from medchat.units import amount, gib, share

#: Settings that do not apply to the other methods.
_OF_METHODS: Mapping[str, tuple[str, ...]] = {
    "lora_": ("lora", "qlora"),
    "adapter_size": ("adapter",),
    "pre_seq_len": ("ptuning",),
    "prefix_projection": ("ptuning",),
}
#: Of a longer stretch of the first example only the two ends are shown.
_LONGEST_PIECE = 800
#: The marks around learned text if there is no colour.
_MARKS = ("⟦", "⟧")
#: A remark is made above this share of truncated answers.
MANY_CUT = 0.1
#: The number of records without a label that are named.
_NAMED = 5


def settings_lines(settings: RunSettings) -> Iterator[str]:
    """Yield the settings in their groups, each with its origin; those of other methods are left out."""
    method = str(settings.value("method"))
    for group in GROUPS:
        rows = [settings.settings[key.name] for key in group.keys]
        if group is GROUPS[0]:
            rows += [row for name, row in settings.settings.items() if name.startswith(EXTRA)]
        yield group.title
        yield from aligned([_setting(row) for row in rows if _concerns(row, method)])


def _setting(row: Setting) -> tuple[str, str, str]:
    return row.name, sanitize_line(toml_value(row.value), 300), sanitize_line(row.origin, 200)


def _concerns(row: Setting, method: str) -> bool:
    if row.value is None or row.value == ():
        return False
    return all(method in methods for prefix, methods in _OF_METHODS.items() if row.name.startswith(prefix))


def survey_lines(survey: SFTSurvey) -> Iterator[str]:
    """Yield template, lengths, and what was truncated."""
    lengths = LengthFacts.of(survey)
    yield from aligned([(name, sanitize_line(text, 300)) for name, text in lengths_in_words(lengths)])
    yield say("截断（超长的数据被截去的部分）", "Truncation (what records over the limit lost)")
    yield from aligned(length_rows(lengths), right=(1, 2))
    for where in survey.unlabelled[:_NAMED]:
        yield "    " + sanitize_line(where)
    if survey.cut_answers > MANY_CUT * survey.records:
        part, length = share(survey.cut_answers, survey.records), max(survey.lengths)
        yield "  " + say(
            f"注意：{part} 的回答会失去结尾；用 --max-length {length} 则不截断任何数据",
            f"note: {part} of the answers lose their end; --max-length {length} cuts nothing",
        )


def preview_text(pieces: Sequence[PreviewPiece]) -> list[tuple[str, str]]:
    """Return the first example as (text, style): "learned", "special" (given, no text) or "" (given)."""
    shown = []
    for piece in pieces:
        text = sanitize(piece.text)
        if len(text) > _LONGEST_PIECE:
            half, left_out = _LONGEST_PIECE // 2, len(text) - _LONGEST_PIECE
            text = text[:half] + say(f" …（略 {left_out} 字）… ", f" … ({left_out} more) … ") + text[-half:]
        shown.append((text, "learned" if piece.learned else "special" if piece.special else ""))
    return shown


def preview_legend(*, colour: bool) -> str:
    """Return the heading of the first example, which explains the marks."""
    if colour:
        return say(
            "模型看到的第一条数据（绿色：学习的部分；灰色：特殊标记）",
            "The first record as the model sees it (green: learned; grey: control tokens)",
        )
    left, right = _MARKS
    return say(
        f"模型看到的第一条数据（{left}{right} 内：学习的部分）",
        f"The first record as the model sees it (inside {left}{right}: learned)",
    )


def marked_preview(pieces: Sequence[PreviewPiece]) -> str:
    """Return the first example with marks around the learned text."""
    left, right = _MARKS
    text, inside = "", False
    for piece, style in preview_text(pieces):
        learned = style == "learned"
        if learned != inside:
            text += left if learned else right
        text, inside = text + piece, learned
    return text + (right if inside else "")


def memory_lines(memory: MemoryEstimate) -> Iterator[str]:
    """Yield the estimate by part, the verdict, other settings, and the nearest one that fits."""
    yield say(
        f"内存估计（{memory.device}，可用 {gib(memory.available)}）",
        f"Memory estimate ({memory.device}, {gib(memory.available)} free)",
    )
    rows = [(part_name(name), gib(size)) for name, size in memory.parts.items()]
    verdict = say("放得下", "fits") if memory.fits else say("放不下", "does not fit")
    yield from aligned([*rows, (say("合计峰值", "peak"), gib(memory.total), verdict)], right=(1,))
    if memory.trainable:
        yield "  " + say(
            f"可训练参数 {memory.trainable:,}，共 {memory.parameters:,}"
            f"（{share(memory.trainable, memory.parameters)}）",
            f"{memory.trainable:,} of {memory.parameters:,} parameters are trained"
            f" ({share(memory.trainable, memory.parameters)})",
        )
    if memory.alternatives:
        yield say("换一种设置", "Under other settings")
        others = [
            (sanitize_line(name, 100), gib(size), say("放得下", "fits") if size <= memory.available else "")
            for name, size in memory.alternatives.items()
        ]
        yield from aligned(others, right=(1,))
    if memory.cards:
        yield say("放在一块显卡上", "On one graphics card")
        yield from aligned([(f"{size} GB", _changes(changes)) for size, changes in memory.cards.items()])
    for note in memory.notes:
        yield "  " + sanitize_line(note, 300)
    if not memory.fits:
        yield nearest_line(memory)


def disk_lines(disk: DiskEstimate) -> Iterator[str]:
    """Yield the disk space of the run by part, and the verdict."""
    yield say(
        f"磁盘（{sanitize_line(disk.place, 200)}，可用 {amount(disk.available)}）",
        f"Disk ({sanitize_line(disk.place, 200)}, {amount(disk.available)} free)",
    )
    names = {
        "checkpoints": say("保留的检查点", "checkpoints that are kept"),
        "best": say("最好的检查点", "the best checkpoint"),
        "result": say("结果", "the result"),
        "writing": say("正在写的检查点", "a checkpoint being written"),
    }
    verdict = say("放得下", "fits") if disk.fits else say("放不下", "does not fit")
    rows = [(names.get(name, name), amount(size)) for name, size in disk.parts.items()]
    yield from aligned([*rows, (say("合计最多", "at most in all"), amount(disk.total), verdict)], right=(1,))


def _changes(changes: Mapping[str, Any] | None) -> str:
    if changes is None:
        return say("放不下", "does not fit")
    if not changes:
        return say("放得下", "fits")
    return say(f"加上 {as_typed(changes)}", f"add {as_typed(changes)}")


def nearest_line(memory: MemoryEstimate) -> str:
    """Return the message with the flags that would make it fit."""
    if memory.nearest:
        flags = as_typed(memory.nearest)
        return say(f"最接近的可行设置：加上 {flags}", f"the nearest setting that fits: add {flags}")
    return say("在这里没有放得下的设置", "nothing fits here")
