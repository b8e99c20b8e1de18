"""What is written beside a result for people to read: model card, report with pictures, settings, facts."""

from __future__ import annotations

from pathlib import Path

from medchat.api import SFTReport
from medchat.document import as_html, as_markdown
from medchat.sft_job.card import model_card
from medchat.sft_job.facts import RunFacts, write_facts
from medchat.sft_job.metrics import read_metrics
from medchat.sft_job.report import run_document
from medchat.whole_file import write_whole_file

CARD, REPORT, PAGE = "README.md", "report.md", "report.html"


def write_report(folder: Path, facts: RunFacts, report: SFTReport | None) -> None:
    """Write `report.md`, `report.html`, the pictures and `report.json` from the log in `folder`."""
    document = run_document(facts, report, read_metrics(folder))
    for picture in document.pictures:
        write_whole_file(folder / picture.file, picture.svg)
    write_whole_file(folder / REPORT, as_markdown(document))
    write_whole_file(folder / PAGE, as_html(document))
    write_facts(folder, facts, report)


def write_card(folder: Path, facts: RunFacts, report: SFTReport) -> None:
    """Write the model card."""
    write_whole_file(folder / CARD, model_card(facts, report))
