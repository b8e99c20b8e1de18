"""The report of a run: `report.md` and `report.html`, with the loss curves as images."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from medchat import medical_safety
from medchat.api import SFTReport
from medchat.document import Block, Document, Paragraph, Picture, Quotation, Section, Table
from medchat.language import say
from medchat.sft_job.curves import loss_picture, rate_picture
from medchat.sft_job.facts import LengthFacts, RunFacts
from medchat.sft_job.metrics import Metrics
from medchat.sft_job.shell_words import joined
from medchat.units import clock, gib, share

_PARTS = {
    "weights": ("权重", "weights"),
    "gradients": ("梯度", "gradients"),
    "optimizer": ("优化器状态", "optimizer states"),
    "activations": ("激活值", "activations"),
    "logits": ("输出层", "logits"),
    "runtime": ("程序本身", "the program itself"),
}


def run_document(facts: RunFacts, report: SFTReport | None, metrics: Metrics) -> Document:
    """Return the report; `report` is None for an unfinished run."""
    title = say(
        f"微调报告：{facts.backbone} · {facts.method}",
        f"Fine-tuning report: {facts.backbone} · {facts.method}",
    )
    sections = [
        Section(
            say("结果", "Result"), [Paragraph(medical_safety.ai_mark()), *_result(facts, report, metrics)]
        ),
        Section(say("曲线", "Curves"), list(_curves(metrics))),
        Section(say("数据", "Data"), list(_data(facts))),
        Section(say("速度与内存", "Speed and memory"), list(_cost(facts, report))),
    ]
    if report and report.samples:
        sections.append(Section(say("训练前后的回答", "Answers before and after"), list(_samples(report))))
    sections.append(Section(say("设置", "Settings"), [_settings(facts)]))
    said = "\n".join(sample.before + sample.after for sample in report.samples) if report else ""
    return Document(title, sections, {"AIGC": medical_safety.aigc_metadata(said)})


def part_name(name: str) -> str:
    """Return the label of a part of a memory estimate."""
    return say(*_PARTS.get(name, (name, name)))


def result_rows(facts: RunFacts, report: SFTReport) -> list[tuple[str, str]]:
    """Return the results, for the report, the model card and the screen."""
    rows = [
        (say("步数", "steps"), f"{report.steps}"),
        (say("训练损失", "training loss"), f"{report.first_loss:.4f} → {report.last_loss:.4f}"),
    ]
    if report.best_loss is not None:
        before = f"{report.loss_before:.4f} → " if report.loss_before is not None else ""
        losses, perplexity = f"{before}{report.best_loss:.4f}", _perplexity(report.best_loss)
        rows.append(
            (
                say("评估损失（最好）", "held-out loss (best)"),
                say(
                    f"{losses}（第 {report.best_step} 步），困惑度 {perplexity}",
                    f"{losses} (step {report.best_step}), perplexity {perplexity}",
                ),
            )
        )
    if report.trainable_parameters:
        part = share(report.trainable_parameters, report.parameters)
        rows.append(
            (
                say("可训练参数", "trained parameters"),
                say(
                    f"{report.trainable_parameters:,}，共 {report.parameters:,}（{part}）",
                    f"{report.trainable_parameters:,} of {report.parameters:,} ({part})",
                ),
            )
        )
    if report.stopped_early:
        rows.append((say("提前停止", "stopped early"), say("是", "yes")))
    if report.resumed_from:
        rows.append((say("从第几步继续", "resumed from step"), f"{report.resumed_from}"))
    return rows


def cost_rows(facts: RunFacts, report: SFTReport) -> list[tuple[str, str]]:
    """Return the cost of the run: time, tokens per second, memory."""
    rows = [(say("用时", "time"), clock(report.seconds))]
    if report.tokens and report.seconds:
        rows.append((say("词元/秒", "tokens/s"), f"{report.tokens / report.seconds:.0f}"))
    if report.peak_bytes:
        estimated = say(f"（估计 {gib(facts.estimated)}）", f" (estimated {gib(facts.estimated)})")
        rows.append(
            (
                say("内存峰值", "peak memory"),
                gib(report.peak_bytes) + (estimated if facts.estimated else ""),
            )
        )
    if report.processes > 1:
        rows.append((say("进程数", "processes"), f"{report.processes}"))
    return rows


def length_rows(lengths: LengthFacts) -> list[tuple[str, str, str]]:
    """Return what was truncated, in how many records, and their share."""
    counts = (
        (say("最早的几轮对话", "oldest turns"), lengths.lost_turns),
        (say("问题的开头", "beginning of the question"), lengths.cut_questions),
        (say("回答的结尾（结束标记保留）", "end of the answer (its end token stays)"), lengths.cut_answers),
        (say("全部回答，不参与训练", "the whole answer: left out"), lengths.unlabelled),
    )
    return [(what, str(count), share(count, lengths.records)) for what, count in counts]


def lengths_in_words(lengths: LengthFacts) -> list[tuple[str, str]]:
    """Return template, lengths and label tokens as rows of label and text."""
    over = share(lengths.over, lengths.records)
    rows = [
        (say("模板", "template"), lengths.template),
        (
            say("长度", "lengths"),
            say(
                f"中位数 {lengths.median} 词元，95% 不超过 {lengths.high}，最长 {lengths.longest}",
                f"median {lengths.median} tokens, 95% up to {lengths.high}, longest {lengths.longest}",
            ),
        ),
        (
            say("超长", "too long"),
            say(
                f"{lengths.over} 条超过 max_length {lengths.max_length}（{over}）",
                f"{lengths.over} over max_length {lengths.max_length} ({over})",
            ),
        ),
    ]
    if lengths.tokens:
        part = share(lengths.label_tokens, lengths.tokens)
        rows.append(
            (
                say("词元", "tokens"),
                say(
                    f"每轮 {lengths.tokens:,}，其中学习的 {lengths.label_tokens:,}（{part}）",
                    f"{lengths.tokens:,} a pass, {lengths.label_tokens:,} of them learned ({part})",
                ),
            )
        )
    return rows


def _result(facts: RunFacts, report: SFTReport | None, metrics: Metrics) -> Iterator[Block]:
    base = say(f"底座：{facts.base}；日期：{facts.created}", f"base: {facts.base}; date: {facts.created}")
    yield Paragraph(base)
    if report is None:
        again = joined(
            ["medchat", "sft", "--output", json.loads(facts.setting("output") or '""'), "--resume"]
        )
        yield Paragraph(say("这次训练还没有结束。", "This run has not come to its end."))
        yield item_table(_so_far(metrics))
        yield Paragraph(say(f"继续训练：{again}", f"To go on: {again}"))
    else:
        yield item_table(result_rows(facts, report))
    for note in facts.notes:
        yield Paragraph(note)


def _so_far(metrics: Metrics) -> list[tuple[str, str]]:
    """The log's figures of an unfinished run."""
    rows = []
    if metrics.loss:
        first, last = metrics.loss[0], metrics.loss[-1]
        rows += [
            (say("步数", "steps"), f"{last.step}"),
            (say("训练损失", "training loss"), f"{first.value:.4f} → {last.value:.4f}"),
        ]
    if metrics.held_out_loss:
        best = min(metrics.held_out_loss, key=lambda point: point.value)
        told = say(f"（第 {best.step} 步）", f" (step {best.step})")
        rows.append((say("评估损失（最好）", "held-out loss (best)"), f"{best.value:.4f}{told}"))
    return rows


def _curves(metrics: Metrics) -> Iterator[Block]:
    loss, rate = loss_picture(metrics), rate_picture(metrics)
    if loss:
        yield Picture("loss.svg", say("训练损失与评估损失", "training and held-out loss"), loss)
    if rate:
        yield Picture("learning_rate.svg", say("学习率", "learning rate"), rate)
    if not loss:
        yield Paragraph(say("没有记录。", "Nothing was logged."))


def data_blocks(facts: RunFacts) -> Iterator[Block]:
    """Yield what a run was trained on, for the report and the model card: files, remarks, sizes, lengths."""
    heads = (say("文件", "file"), say("格式", "form"), say("条数", "records"), say("跳过", "left out"))
    rows = [(item.name, item.form, str(item.records), str(item.bad)) for item in facts.data]
    yield Table(heads, rows, (2, 3))
    for item in facts.data:
        for remark in item.remarks:
            yield Paragraph(say(f"{item.name}：{remark}", f"{item.name}: {remark}"))
    yield Paragraph(
        say(
            f"训练 {facts.train} 条，留作评估 {facts.held_out} 条。",
            f"{facts.train} to train on, {facts.held_out} held out.",
        )
    )
    if facts.lengths:
        yield item_table(lengths_in_words(facts.lengths))


def _data(facts: RunFacts) -> Iterator[Block]:
    yield from data_blocks(facts)
    if facts.lengths:
        cut = (say("截去了什么", "what was cut"), say("条数", "records"), say("占比", "share"))
        yield Table(cut, length_rows(facts.lengths), (1, 2))


def _cost(facts: RunFacts, report: SFTReport | None) -> Iterator[Block]:
    if report:
        yield item_table(cost_rows(facts, report))
    if facts.memory:
        heads = (say("内存估计", "memory estimate"), "")
        rows = [(part_name(name), gib(size)) for name, size in facts.memory.items()]
        yield Table(heads, [*rows, (say("合计", "total"), gib(facts.estimated))], (1,))


def _samples(report: SFTReport) -> Iterator[Block]:
    for sample in report.samples:
        yield Quotation(say("问题", "question"), sample.question)
        yield Quotation(say("参考答案", "reference"), sample.reference)
        yield Quotation(say("训练前", "before"), sample.before or "—")
        yield Quotation(say("训练后", "after"), sample.after or "—")


def _settings(facts: RunFacts) -> Table:
    return Table((say("配置项", "setting"), say("值", "value"), say("来源", "from")), facts.settings)


def item_table(rows: list[tuple[str, str]]) -> Table:
    """Return a table of labels and values."""
    return Table((say("项目", "item"), say("值", "value")), rows)


def _perplexity(loss: float) -> str:
    return f"{math.exp(min(loss, 700)):.2f}"
