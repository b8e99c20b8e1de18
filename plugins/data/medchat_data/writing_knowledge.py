"""From a plan to its two files: by the prompt forms, row by row, or by a model, from its stored calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from medchat.plugin_kit import Finish, StoredCalls, UsageError, open_results, say
from medchat_data.building import BuildPlan
from medchat_data.drafts import Draft, read_draft
from medchat_data.model_writer import (
    BuildFiles,
    built_line,
    open_writer,
    rejected_line,
    say_estimate,
    say_what_is_left,
    written_by,
)
from medchat_data.prompt_forms import Sample
from medchat_data.sample_prompt import PROMPT_VERSION, prompt_for

#: So many rows go to the disk together. They cost nothing to make again, and waiting for the disk takes
#: longer.
_ROWS_AT_ONCE = 200

#: How many rows there are by form and by the code of their reason ("" for what was kept).
Counts = Counter[tuple[str, str]]


def write_by_forms(plan: BuildPlan, files: BuildFiles) -> Counts:
    """Write both files in the words of the forms, going on where an earlier run ended."""
    counts: Counts = Counter()
    with ExitStack() as stack:
        kept, rejected = (
            stack.enter_context(
                open_results(path, resume=files.resume, overwrite=files.overwrite, inputs=files.inputs)
            )
            for path in (files.target, files.rejects)
        )
        earlier = {**kept.rows, **rejected.rows}
        plan = _as_begun(plan, earlier, files.target)
        all_rows = chain.from_iterable(plan.rows())
        while built := list(islice(all_rows, _ROWS_AT_ONCE)):
            counts.update((one.form, one.reason) for one in built)
            new = [one for one in built if one.row["index"] not in earlier]
            kept.extend([one.row for one in new if not one.reason])
            rejected.extend([one.row for one in new if one.reason])
    return counts


def write_by_model(
    plan: BuildPlan, writer: str, flags: Mapping[str, Any], files: BuildFiles
) -> tuple[Counts, bool]:
    """Let a model write the samples; return the counts, and whether every sample was answered.

    Whatever ends the asking, both files are made of the answers that are there.
    """
    prompts = [prompt_for(sample) for sample in chain.from_iterable(plan.samples())]
    counts: Counts = Counter()
    with open_writer(writer, flags, files) as (opened, calls):
        say_estimate(calls, prompts)
        origin = written_by(writer, opened)
        try:
            calls.answer(prompts)
        finally:
            written = replace(plan, draft=lambda sample: _drafted(sample, calls, origin))
            built = list(chain.from_iterable(written.rows()))
            counts.update((one.form, one.reason) for one in built)
            files.write(
                (one.row for one in built if not one.reason), (one.row for one in built if one.reason)
            )
        left = len(set(prompts)) - len(calls.stored(prompts))
        say_what_is_left(calls, left)
    return counts, not left


def _drafted(sample: Sample, calls: StoredCalls, origin: Mapping[str, Any]) -> Draft | None:
    """Return what the model wrote of a sample, None where it was not asked."""
    prompt = prompt_for(sample)
    answer = calls.stored([prompt]).get(prompt)
    if answer is None:
        error = calls.failures.get(prompt)
        return Draft(code="call-failed", written=error.what, origin=origin) if error else None
    draft = read_draft(answer.text, sample)
    if answer.finish is Finish.LENGTH:
        draft = Draft(code="cut-off", written=answer.text)
    made = {"prompt_version": PROMPT_VERSION, "prompt_sha256": answer.sha256, "date": answer.day}
    return replace(draft, origin={**origin, **made})


def _as_begun(plan: BuildPlan, earlier: Mapping[int, Mapping[str, Any]], target: Path) -> BuildPlan:
    """Return the plan with the date of the run that it continues. Raises UsageError where that was another plan."""
    if not earlier:
        return plan
    begun = (
        row["provenance"].get("date") for row in earlier.values() if isinstance(row.get("provenance"), dict)
    )
    plan = replace(plan, date=str(next(begun, plan.date)))
    expected = {one.row["index"]: _comparable(one.row) for built in plan.rows() for one in built}
    for index, row in earlier.items():
        if expected.get(index) != _comparable(row):
            raise UsageError(
                say(
                    f"已有的记录（index {index}）不是用这份知识和这些选项写的",
                    f"the record with index {index} there was not built from this knowledge with these options",
                ),
                say(
                    "用原来的知识文件、--forms 和 --seed 继续；或换一个 --output；或用 --overwrite 重新开始",
                    "continue with the same knowledge, --forms and --seed; use another --output; or start over with"
                    " --overwrite",
                ),
                where=str(target),
            )
    return plan


def _comparable(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what of a row is the same in either interface language."""
    return {name: value for name, value in row.items() if name != "reason"}


def summary(counts: Counts, files: BuildFiles) -> str:
    """Return how many rows went into which file, as lines."""

    forms: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    for (form, code), count in counts.items():
        if code:
            codes[code] += count
        else:
            forms[form] += count
    lines = [built_line(forms, files)]
    if codes:
        lines.append(rejected_line(codes, files))
    return "\n".join(lines)
