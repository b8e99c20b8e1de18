"""The files for people next to a result: the model card, Chinese first, and the report with curves and facts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from medchat import medical_safety
from medchat.api import SFTReport
from medchat.document import (
    Block,
    CommandBlock,
    Document,
    Paragraph,
    Quotation,
    Section,
    as_html,
    as_markdown,
)
from medchat.language import in_language, say
from medchat.sft_job.facts import RunFacts, write_facts
from medchat.sft_job.keys import EXTRA
from medchat.sft_job.metrics import read_metrics
from medchat.sft_job.report import cost_rows, data_blocks, item_table, result_rows, run_document
from medchat.sft_job.shell_words import joined
from medchat.whole_file import write_whole_file

CARD, REPORT, PAGE = "README.md", "report.md", "report.html"

#: The most important settings of the training; the rest are in `sft.toml`.
_TOLD = (
    "method", "collator", "learning_rate", "num_epochs", "batch_size", "max_length", "scheduler",
    "warmup_ratio", "optimizer", "adam_epsilon", "weight_decay", "precision", "seed",
)  # fmt: skip
_TOLD_OF_LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_targets")
_SAMPLES = 2


def model_card(facts: RunFacts, report: SFTReport) -> str:
    """Return the card, with front matter that model hubs read."""
    pages = []
    for language in ("zh", "en"):
        with in_language(language):
            pages.append(as_markdown(_page(facts, report)))
    body = "\n".join(pages)
    said = "\n".join(sample.before + sample.after for sample in report.samples)
    metadata = {
        "language": ["zh"],
        "license": "other",
        "library_name": "medchat",
        "tags": ["medical", facts.backbone, facts.method],
        "AIGC": medical_safety.aigc_metadata(said),
    }
    head = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in metadata.items()]
    return "\n".join(["---", *head, "---", "", body])


def _page(facts: RunFacts, report: SFTReport) -> Document:
    name = report.output.name
    return Document(
        say(f"{name}（{facts.backbone}，{facts.method}）", f"{name} ({facts.backbone}, {facts.method})"),
        [
            Section(say("声明", "Please read"), _disclaimer()),
            Section(say("使用方法", "How to use it"), [_command(facts, report)]),
            Section(say("数据", "Data"), list(data_blocks(facts))),
            Section(say("训练过程", "How it was trained"), list(_training(facts, report))),
            Section(say("结果", "Results"), list(_results(facts, report))),
        ],
    )


def _disclaimer() -> list[Block]:
    # The numbered points as separate paragraphs: Markdown makes a list of them.
    points = [" ".join(point.split()) for point in re.split(r"\n(?=\d\.)", medical_safety.disclaimer())]
    licence = say(
        "许可：这份结果由底座权重和训练数据而来，二者的许可都适用于它；发布之前请逐一核对。",
        "Licence: this result was made from the base weights and the training data; the licences of both apply to it. "
        "Check each before you publish it.",
    )
    return [Paragraph(medical_safety.ai_mark()), *map(Paragraph, points), Paragraph(licence)]


def use_command(
    facts: RunFacts, report: SFTReport, output: str, base: str, adapters: Sequence[str] = ()
) -> str:
    """Return the command to chat with the result in `output`, trained from `base` with `adapters`."""
    words = ["medchat", "chat", "--backbone", facts.backbone]
    if report.kind == "adapter":
        # An adapter trained on top of others needs them.
        words += ["--model", base, *(word for name in (*adapters, output) for word in ("--adapter", name))]
    else:
        words += ["--model", output]
    return joined(words)


def _command(facts: RunFacts, report: SFTReport) -> Block:
    return CommandBlock(use_command(facts, report, report.output.name, _base(facts), _adapters(facts)))


def _base(facts: RunFacts) -> str:
    """The base's name without its folder: a card is published, and this machine's paths are private."""
    return Path(facts.base).name


def _adapters(facts: RunFacts) -> list[str]:
    """The names of the adapters that training started from, in order."""
    # A list of texts is the same in TOML, as `facts` has it, and in JSON.
    return [Path(folder).name for folder in json.loads(facts.setting("adapters") or "[]")]


def _training(facts: RunFacts, report: SFTReport) -> Iterator[Block]:
    template = report.template or (facts.lengths.template if facts.lengths else "")
    rows = [(say("底座", "base"), _base(facts)), (say("模板", "template"), template)]
    rows.insert(1, (say("底座上的适配器", "adapters on the base"), ", ".join(_adapters(facts))))
    told = _TOLD + (_TOLD_OF_LORA if facts.method in ("lora", "qlora") else ())
    rows += [(name, facts.setting(name)) for name in told if facts.setting(name)]
    rows += [(name, value) for name, value, _ in facts.settings if name.startswith(EXTRA)]
    rows.append((say("程序", "program"), f"MedChat {facts.version}，{facts.created}"))
    yield item_table([row for row in rows if row[1]])
    yield Paragraph(
        say(
            "全部设置在 sft.toml，每一步的记录在 metrics.jsonl，图表在 report.html。",
            "All settings are in sft.toml, every logged step is in metrics.jsonl, the pictures are in report.html.",
        )
    )


def _results(facts: RunFacts, report: SFTReport) -> Iterator[Block]:
    yield item_table(result_rows(facts, report) + cost_rows(facts, report))
    for sample in report.samples[:_SAMPLES]:
        yield Quotation(say("问题", "question"), sample.question)
        yield Quotation(say("训练后的回答", "answer after training"), sample.after or "—")
    yield Paragraph(
        say(
            "这些数字只说明它学会了这份数据，不说明它的回答在医学上正确。",
            "These figures say how well it learned this data, not that its answers are medically right.",
        )
    )


def write_report(folder: Path, facts: RunFacts, report: SFTReport | None) -> None:
    """Write `report.md`, `report.html`, the curves and `report.json` from the log in `folder`."""
    document = run_document(facts, report, read_metrics(folder))
    for picture in document.pictures:
        write_whole_file(folder / picture.file, picture.svg)
    write_whole_file(folder / REPORT, as_markdown(document))
    write_whole_file(folder / PAGE, as_html(document))
    write_facts(folder, facts, report)


def write_card(folder: Path, facts: RunFacts, report: SFTReport) -> None:
    """Write the model card."""
    write_whole_file(folder / CARD, model_card(facts, report))
