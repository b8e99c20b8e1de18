"""What is written beside a result for people to read: model card, report with pictures, settings, facts."""

from __future__ import annotations

from pathlib import Path

from medchat.api import SFTReport
from medchat.sft_job.card import model_card
from medchat.sft_job.document import as_html, as_markdown
from medchat.sft_job.facts import RunFacts, write_facts
from medchat.sft_job.metrics import read_metrics
from medchat.sft_job.report import run_document

CARD, REPORT, PAGE = "README.md", "report.md", "report.html"


def write_report(folder: Path, facts: RunFacts, report: SFTReport | None) -> None:
    """Write `report.md`, `report.html`, the pictures and `report.json` from the log in `folder`."""
    document = run_document(facts, report, read_metrics(folder))
    for picture in document.pictures:
        (folder / picture.file).write_text(picture.svg, encoding="utf-8")
    (folder / REPORT).write_text(as_markdown(document), encoding="utf-8")
    (folder / PAGE).write_text(as_html(document), encoding="utf-8")
    write_facts(folder, facts, report)


def write_card(folder: Path, facts: RunFacts, report: SFTReport) -> None:
    """Write the model card."""
    (folder / CARD).write_text(model_card(facts, report), encoding="utf-8")
