"""`medchat data dedup`, `contamination` and `redact`: what stands twice, what gives a test away, and whose it is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from medchat.plugin_kit import (
    LocalizedCommand,
    find_personal,
    in_language,
    read_questions,
    redact,
    sanitize_line,
    say,
    user_path,
    write_out,
)
from medchat_data.contaminating import LeakedQuestion, contaminated, nearest_left
from medchat_data.deduplicating import (
    BY_QUESTION,
    BY_RECORD,
    KEEP_FIRST,
    KEEP_LONGEST,
    Duplicates,
    duplicates,
    question_of,
)
from medchat_data.flags import JSON, OUTPUT, OVERWRITE, REQUIRED_OUTPUT
from medchat_data.near_duplicates import THRESHOLD, Likeness
from medchat_data.record_files import read_records, require_free, write_records

#: So many characters of a question are shown.
_SHOWN_CHARACTERS = 80
#: So many of the questions found are named; `--json` has all of them.
_NAMED = 20
#: Fields that say where a record is from, and no person's words.
_NO_WORDS = ("provenance", "id", "index")


@click.command(
    "dedup",
    cls=LocalizedCommand,
    help=say(
        "找出重复和近乎重复的记录，逐组列出；数字、否定、左右、年龄、所问内容不同的不算。",
        "Find records that repeat others, or nearly; every group is listed. What differs in a number, a negation,"
        " a side, an age or what is asked for is no duplicate.",
    ),
)
@click.argument("data", metavar="FILE")
@click.option(
    "--by",
    type=click.Choice([BY_QUESTION, BY_RECORD]),
    default=BY_QUESTION,
    show_default=True,
    help=say("比较问题，或问题和回答", "compare the question, or question and answer"),
)
@click.option(
    "--keep",
    type=click.Choice([KEEP_FIRST, KEEP_LONGEST]),
    default=KEEP_FIRST,
    show_default=True,
    help=say("每组留下哪一条", "which record of a group stays"),
)
@click.option(
    "--threshold",
    type=click.FloatRange(0.5, 1),
    metavar="X",
    default=THRESHOLD,
    show_default=True,
    help=say("字二元组的 Jaccard 相似度", "Jaccard index over pairs of characters"),
)
@OUTPUT
@OVERWRITE
@JSON
def dedup(
    data: str, by: str, keep: str, threshold: float, output: str | None, overwrite: bool, as_json: bool
) -> int:
    """List the groups; with --output write the records that stay."""
    path = user_path(data)
    target = _free_target(output, path, overwrite)
    records = read_records(path)
    found = duplicates([asked for _, asked in records], by, keep, threshold)
    if as_json:
        write_out(json.dumps(_as_json(found), ensure_ascii=False, indent=2) + "\n")
    else:
        write_out(
            "".join(f"{line}\n" for line in _group_lines(found, [question_of(one) for _, one in records]))
        )
    if target:
        kept = [value for number, (value, _) in enumerate(records) if number not in found.removed]
        write_records(target, kept)
        _say_written(target, len(kept), len(records))
    return 0


def _as_json(found: Duplicates) -> dict[str, Any]:
    groups = [{"kept": kept + 1, "removed": [one + 1 for one in gone]} for kept, gone in found.groups.items()]
    counts = {"candidates": found.candidates, "alike": found.alike, "kept_apart": found.kept_apart}
    return {"groups": groups, "removed": len(found.removed), **counts}


def _group_lines(found: Duplicates, questions: list[str]) -> Iterator[str]:
    for kept, gone in found.groups.items():
        yield say(f"第 {kept + 1} 条保留：", f"record {kept + 1} stays: ") + _shown(questions[kept])
        for number in gone:
            yield say(f"  第 {number + 1} 条去掉：", f"  record {number + 1} goes: ") + _shown(
                questions[number]
            )
    apart = say("、", ", ").join(f"{kind} {count}" for kind, count in found.kept_apart.items())
    yield say(
        f"{len(found.groups)} 组，去掉 {len(found.removed)} 条；候选 {found.candidates} 对，"
        f"相似 {found.alike} 对，其中内容不同而保留的：{apart or '无'}",
        f"{len(found.groups)} groups, {len(found.removed)} go; {found.candidates} candidate pairs, {found.alike} alike;"
        f" kept because they differ: {apart or 'none'}",
    )


@click.command(
    "contamination",
    cls=LocalizedCommand,
    help=say(
        "查训练数据里有没有评测的题目：原样的、改了一个字的、相似的，或在对话里的。",
        "Find the questions of a test in training data: as they are, with one character changed, alike, or in a"
        " dialogue.",
    ),
)
@click.argument("data", metavar="FILE")
@click.option(
    "--against",
    metavar="FILE",
    multiple=True,
    required=True,
    help=say("评测数据，可重复", "the test's data, repeatable"),
)
@OUTPUT
@OVERWRITE
@JSON
def contamination(
    data: str, against: tuple[str, ...], output: str | None, overwrite: bool, as_json: bool
) -> int:
    """Count and name what is found; with --output write the records that have none of it."""
    path, tests = user_path(data), [user_path(name) for name in against]
    target = _free_target(output, path, overwrite, *tests)
    records = read_records(path)
    training = [asked for _, asked in records]
    gone: set[int] = set()
    listed: list[dict[str, Any]] = []
    for test in tests:
        questions = [question_of(question.asked) for question in read_questions(test).questions]
        found = contaminated(training, questions)
        gone.update(one.record for one in found)
        near = nearest_left(training, questions, found)
        listed.append(_contamination_json(test, questions, found, near))
        if not as_json:
            write_out("".join(f"{line}\n" for line in _found_lines(test, questions, found, near)))
    if as_json:
        write_out(json.dumps(listed, ensure_ascii=False, indent=2) + "\n")
    if target:
        kept = _without_the_tests(records, tests, gone)
        write_records(target, kept)
        _say_written(target, len(kept), len(records))
    return 0


def _without_the_tests(
    records: list[tuple[Mapping[str, Any], Any]], tests: list[Path], gone: set[int]
) -> list[Mapping[str, Any]]:
    """Return the records that hold no question of the tests: a question may stand in several."""
    left = [number for number in range(len(records)) if number not in gone]
    questions = [question_of(one.asked) for test in tests for one in read_questions(test).questions]
    while found := {one.record for one in contaminated([records[number][1] for number in left], questions)}:
        left = [number for place, number in enumerate(left) if place not in found]
    return [records[number][0] for number in left]


def _contamination_json(
    test: Path, questions: list[str], found: list[LeakedQuestion], near: Likeness | None
) -> dict[str, Any]:
    counts = Counter(one.kind for one in found)
    places = [{"question": one.question + 1, "record": one.record + 1, "kind": one.kind} for one in found]
    nearest = near and {
        "question": near.first + 1,
        "record": near.second + 1,
        "jaccard": round(near.jaccard, 4),
    }
    return {
        "file": str(test),
        "questions": len(questions),
        "found": len(found),
        **counts,
        "places": places,
        "nearest_not_found": nearest,
    }


def _found_lines(
    test: Path, questions: list[str], found: list[LeakedQuestion], near: Likeness | None
) -> Iterator[str]:
    kinds = say("、", ", ").join(
        f"{kind} {count}" for kind, count in Counter(one.kind for one in found).items()
    )
    shown = sanitize_line(str(test))
    yield say(
        f"{shown}：{len(questions)} 题中有 {len(found)} 题在训练数据里" + (f"（{kinds}）" if kinds else ""),
        f"{shown}: {len(found)} of {len(questions)} questions stand in the data"
        + (f" ({kinds})" if kinds else ""),
    )
    for one in found[:_NAMED]:
        text = _shown(questions[one.question])
        yield say(
            f"  第 {one.question + 1} 题，第 {one.record + 1} 条，{one.kind}：{text}",
            f"  question {one.question + 1}, record {one.record + 1}, {one.kind}: {text}",
        )
    if len(found) > _NAMED:
        more = len(found) - _NAMED
        yield say(f"  还有 {more} 题（--json 列出全部）", f"  {more} more (--json lists all)")
    if near:
        text = _shown(questions[near.first])
        place = near.first + 1, near.second + 1
        yield say(
            f"  其余的题里最接近的：第 {place[0]} 题，第 {place[1]} 条，Jaccard {near.jaccard:.2f}：{text}",
            f"  nearest of the others: question {place[0]}, record {place[1]}, Jaccard {near.jaccard:.2f}: {text}",
        )


@click.command(
    "redact",
    cls=LocalizedCommand,
    help=say(
        "把证件号、卡号、电话、邮箱和自报的姓名换成 [姓名] 这样的标记。"
        "故事里的人名、地址等没有规律可循的找不到，请再通读一遍。",
        "Put labels in the place of ID, card and phone numbers, mail addresses and names that somebody gives."
        " What has no form (a name in a story, an address) is not found: read the data as well.",
    ),
)
@click.argument("data", metavar="FILE")
@REQUIRED_OUTPUT
@OVERWRITE
def redact_data(data: str, output: str, overwrite: bool) -> int:
    """Write the records with labels in Chinese, whatever the interface language: it is Chinese data."""
    path = user_path(data)
    target = user_path(output)
    require_free(target, inputs=[path], overwrite=overwrite)
    counts: Counter[str] = Counter()
    with in_language("zh"):
        redacted = [_redacted(value, counts) for value, _ in read_records(path)]
    write_records(target, redacted)
    listed = say("、", ", ").join(f"{kind} {count}" for kind, count in sorted(counts.items()))
    shown = sanitize_line(str(target))
    click.echo(
        say(
            f"{len(redacted)} 条，换掉 {counts.total()} 处（{listed or '无'}）：{shown}",
            f"{len(redacted)} records, {counts.total()} places ({listed or 'none'}): {shown}",
        ),
        err=True,
    )
    return 0


def _redacted(value: Any, counts: Counter[str]) -> Any:
    """Return a JSON value with every text in it redacted."""
    if isinstance(value, str):
        counts.update(str(span.kind) for span in find_personal(value))
        return redact(value)
    if isinstance(value, list):
        return [_redacted(one, counts) for one in value]
    if isinstance(value, dict):
        return {name: one if name in _NO_WORDS else _redacted(one, counts) for name, one in value.items()}
    return value


def _free_target(output: str | None, path: Path, overwrite: bool, *others: Path) -> Path | None:
    """Return where the data goes, None for nowhere. Raises UsageError where it may not go there."""
    if output is None:
        return None
    target = user_path(output)
    require_free(target, inputs=[path, *others], overwrite=overwrite)
    return target


def _say_written(target: Path, kept: int, of: int) -> None:
    shown = sanitize_line(str(target))
    click.echo(say(f"{of} 条中留下 {kept} 条：{shown}", f"{kept} of {of} records stay: {shown}"), err=True)


def _shown(text: str) -> str:
    return sanitize_line(text, _SHOWN_CHARACTERS)
