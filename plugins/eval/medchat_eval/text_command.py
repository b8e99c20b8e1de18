"""`medchat eval text`: answers against reference answers, with what such metrics cannot see beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from medchat.plugin_kit import (
    DataError,
    LocalizedCommand,
    OpenedModel,
    generation_flags,
    model_flags,
    say,
)
from medchat_eval.choosing import ScoredAnswers
from medchat_eval.flags import limit_flag, output_flags
from medchat_eval.open_file import OpenFile, OpenItem, named_or_shipped, read_open_file
from medchat_eval.output_folder import OutputFolder
from medchat_eval.replies import ModelReply, refusal_warnings, replies_in
from medchat_eval.results import Evaluation, Metric, mean_metric
from medchat_eval.scorer import score_prompts
from medchat_eval.text_metrics import (
    OVERLAP,
    bleu,
    characters,
    contradicted,
    perplexity_per_character,
    require_text_libraries,
    rouge_l,
    word_cutter,
)

#: The metrics that a gate may name: of the others more is not better.
METRICS = ("rouge_l", "rouge_l_words", "bleu")
#: The open questions that are shipped, with reference answers and criteria.
OPEN_FILE = "data/open.jsonl"
#: So many reference answers are scored together.
_TOGETHER = 16


@click.command(
    "text",
    cls=LocalizedCommand,
    help=say(
        "问答题：回答与参考答案比较（ROUGE-L、BLEU、每字困惑度），并给出这些指标的盲区。",
        "Open questions: answers against reference answers (ROUGE-L, BLEU, perplexity per character), and what"
        " these metrics cannot see.",
    ),
)
@click.option(
    "--file",
    "name",
    metavar="FILE",
    help=say(
        "带参考答案的问题；不写则用附带的 20 题", "questions with answers; without it the 20 that are shipped"
    ),
)
@limit_flag
@output_flags(METRICS)
@model_flags
@generation_flags
def text(
    name: str | None,
    limit: int | None,
    output: OutputFolder,
    **flags: Any,
) -> int:
    """Evaluate; raise GateError (7) where a gate is not met."""
    require_text_libraries()
    with named_or_shipped(name, OPEN_FILE) as path:
        file = read_open_file(path, limit=limit)
        _require_references(file)
    with replies_in(output, flags, [item.prompt for item in file.items]) as (opened, replies):
        evaluation = _evaluated(file, replies, _perplexity(opened, file.items), opened)
    return output.finish(evaluation)


def _require_references(file: OpenFile) -> None:
    lacking = next((item for item in file.items if not item.reference.strip()), None)
    if lacking is not None:
        raise DataError(
            say("这个问题没有参考答案", "this question has no reference answer"),
            say("加上 output 或 answer 字段", "add a field output or answer"),
            where=f"{file.path}:{lacking.line}",
        )


def _evaluated(
    file: OpenFile, replies: Sequence[ModelReply], perplexity: Metric | None, opened: OpenedModel
) -> Evaluation:
    cut = word_cutter()
    answers = [reply.text for reply in replies]
    references = [item.reference for item in file.items]
    by_character = [
        rouge_l(characters(one), characters(other)) for one, other in zip(answers, references, strict=True)
    ]
    by_word = [rouge_l(cut(one), cut(other)) for one, other in zip(answers, references, strict=True)]
    metrics = {
        "rouge_l": mean_metric(by_character, OVERLAP),
        "rouge_l_words": mean_metric(by_word, OVERLAP),
        "bleu": bleu(answers, references),
    }
    if perplexity is not None:
        metrics["perplexity_per_character"] = perplexity
    probe, blindness = _contradictions(references)
    warnings = [*refusal_warnings(reply.refusal for reply in replies), *blindness]
    items = [
        {"id": item.id, "question": item.question, "reference": item.reference, "reply": reply.text}
        | {"score": round(score, 6)}
        | ({"refusal": reply.refusal} if reply.refusal else {})
        for item, reply, score in zip(file.items, replies, by_character, strict=True)
    ]
    counts = {
        "questions": len(items),
        "left_out": sum(file.left_out.values()),
        "empty_answers": sum(not answer.strip() for answer in answers),
        "refused": sum(bool(reply.refusal) for reply in replies),
        "truncated": sum(reply.dropped > 0 for reply in replies),
        "contradictions": probe["contradiction_rouge_l"].count if probe else 0,
    }
    found = metrics | probe
    return Evaluation(
        "text", opened.provenance, [file.facts], {}, found, {}, counts, items, warnings, opened.mark
    )


def _contradictions(references: Sequence[str]) -> tuple[dict[str, Metric], list[str]]:
    """Return what the metrics give the opposite of the references, and the warning about it."""
    pairs = [(opposite, one) for one in references if (opposite := contradicted(one))]
    if not pairs:
        return {}, []
    scores = [rouge_l(characters(opposite), characters(one)) for opposite, one in pairs]
    mean = mean_metric(scores)
    blind = bleu([one for one, _ in pairs], [other for _, other in pairs])
    warning = say(
        f"把参考答案改成相反的意思，ROUGE-L 仍有 {mean.value:.2f}：这些指标只比较用词，看不出对错",
        f"the opposite of the reference answers still has a ROUGE-L of {mean.value:.2f}: these metrics compare"
        " wording and cannot see what is true",
    )
    return {"contradiction_rouge_l": mean, "contradiction_bleu": blind}, [warning]


def _perplexity(opened: OpenedModel, items: Sequence[OpenItem]) -> Metric | None:
    """Return the perplexity of the reference answers that fit, None where the model cannot say or none fits."""
    scored = [
        found
        for start in range(0, len(items), _TOGETHER)
        for found in _references_scored(opened, items[start : start + _TOGETHER])
    ]
    refused = [found.refusal for found in scored if found.refusal]
    if refused:
        left_out = say(f"困惑度少了 {len(refused)} 题", f"{len(refused)} questions are not in the perplexity")
        what = say("没有困惑度", "no perplexity") if len(refused) == len(items) else left_out
        click.echo(what + say("：", ": ") + refused[0], err=True)
    pairs = [
        (found.values[0], item.reference) for found, item in zip(scored, items, strict=True) if found.values
    ]
    return (
        perplexity_per_character([one for one, _ in pairs], [other for _, other in pairs]) if pairs else None
    )


def _references_scored(opened: OpenedModel, items: Sequence[OpenItem]) -> list[ScoredAnswers]:
    return score_prompts(opened, [item.prompt for item in items], [[item.reference] for item in items])
