"""What a run leaves for people: model card, report and pictures. No text in them can become markup or fetch a thing."""

from __future__ import annotations

import contextlib
import errno
import html.parser
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cli_program import MARK_EN, MARK_ZH, Call
from hypothesis import example, given
from hypothesis import strategies as st
from scripted_recipe import Pupil

from medchat.api import SFTReport, SFTSample
from medchat.document import (
    Document,
    Paragraph,
    Picture,
    Quotation,
    Section,
    Table,
    as_html,
    as_markdown,
)
from medchat.errors import CheckpointError
from medchat.language import current_language
from medchat.sft_job.card import model_card, write_card, write_report
from medchat.sft_job.curves import loss_picture, rate_picture
from medchat.sft_job.facts import DataFacts, LengthFacts, RunFacts, read_facts, write_facts
from medchat.sft_job.metrics import Metrics, Point, read_metrics
from medchat.sft_job.run_file import read_run_file

pytest_plugins = ("cli_program",)

HOSTILE = (
    "<script>alert(1)</script> | [x](http://evil.example) \x1b[31m </td></table><img src=http://e.x/a.png>"
)
FACTS = RunFacts(
    backbone="llama",
    method="lora",
    base="/home/somebody/llama-7b",
    settings=(
        ("method", '"lora"', "--method"),
        ("learning_rate", "0.0003", "a.toml:3"),
        ("lora_r", "8", "内置"),
    ),
    data=(DataFacts("train.json", "Alpaca", 8658, 2),),
    train=8158,
    held_out=500,
    created="2026-11-21",
    lengths=LengthFacts("med_template", 8658, 256, 120, 230, 600, 1983, 0, 1985, 760, 2, 1000000, 300000),
    memory={"weights": 13 * 2**30, "logits": 2**30},
    available=24 * 2**30,
    device="cuda:0",
    notes=("一条说明",),
)
REPORT = SFTReport(
    output=Path("/tmp/lora-out"),
    steps=680,
    examples=8158,
    label_tokens=300000,
    first_loss=2.5,
    last_loss=0.93,
    seconds=8220.0,
    kind="adapter",
    template="med_template",
    tokens=10_000_000,
    held_out=500,
    best_step=640,
    best_loss=0.8948,
    trainable_parameters=4194304,
    parameters=6742609920,
    peak_bytes=20 * 2**30,
    samples=(SFTSample(HOSTILE, "参考", "before", HOSTILE),),
)
LOG = [{"step": step, "loss": 3.0 / step, "lr": 1e-4, "tokens_per_second": 5.0} for step in range(1, 30)]
LOG += [{"step": 10, "eval_loss": 1.5, "perplexity": 4.5}, {"step": 20, "eval_loss": 1.2}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps(row) for row in LOG]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 30, "lo']), encoding="utf-8")
    return tmp_path


# ---------------------------------------------------------------- the report


def test_the_report_tells_results_curves_data_cuts_cost_samples_and_settings(folder: Path) -> None:
    write_report(folder, FACTS, REPORT)
    text = (folder / "report.md").read_text(encoding="utf-8")
    results = ("2.5000 → 0.9300", "0.8948（第 640 步），困惑度 2.45", "4,194,304", "一条说明", MARK_ZH)
    costs = ("2:17:00", "20.0 GiB（估计 14.0 GiB）", "1985", "22.93%", "train.json", "a.toml:3")
    for said in (*results, *costs, "![训练损失与评估损失](loss.svg)"):
        assert said in text, said
    assert ElementTree.parse(folder / "loss.svg").getroot().tag.endswith("}svg")
    head = text.partition("---\n")[2].partition("---\n")[0]
    assert json.loads(head.removeprefix("AIGC: "))["Label"] == "1"


class Parsed(html.parser.HTMLParser):
    """Elements, their attributes and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_one_file_that_fetches_nothing_and_runs_nothing(folder: Path) -> None:
    write_report(folder, FACTS, REPORT)
    page = (folder / "report.html").read_text(encoding="utf-8")
    parsed = Parsed(page)
    assert "script" not in {tag for tag, _ in parsed.elements} and "link" not in {
        tag for tag, _ in parsed.elements
    }
    sources = [attributes["src"] or "" for _, attributes in parsed.elements if "src" in attributes]
    assert len(sources) == 2 and all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert not [1 for _, attributes in parsed.elements if "href" in attributes or "style" in attributes]
    assert "default-src 'none'" in page and "url(" not in page and "@import" not in page
    assert "<script>alert(1)</script>" in parsed.text and "\x1b" not in page
    assert json.loads(
        dict(parsed.elements[[tag for tag, _ in parsed.elements].index("meta") :][3][1])["content"] or ""
    )


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_becomes_markup(first: str, second: str) -> None:
    blocks = [Paragraph(first), Table((first,), [(second,)]), Quotation(first, second)]
    document = Document(first, [Section(second, [*blocks, Picture("a.svg", second, "")])])
    plain = Document("x", [Section("x", [Paragraph("x"), Table(("x",), [("x",)]), Quotation("x", "x"),
                                         Picture("a.svg", "x", "")])])  # fmt: skip
    tags = [tag for tag, _ in Parsed(as_html(document)).elements]
    assert tags == [tag for tag, _ in Parsed(as_html(plain)).elements]
    markdown = as_markdown(document)
    assert not re.search(r"(?<!\\)<(?!br>)", markdown)
    assert markdown.count("\n") == as_markdown(plain).count("\n")


def test_a_run_that_has_not_ended_has_a_report_too(folder: Path) -> None:
    write_report(folder, FACTS, None)
    assert "还没有结束" in (folder / "report.md").read_text(encoding="utf-8")
    facts, report = read_facts(folder)
    assert (facts, report) == (FACTS, None)


def test_what_is_known_of_a_run_comes_back_from_its_file(folder: Path) -> None:
    write_facts(folder, FACTS, REPORT)
    assert read_facts(folder) == (FACTS, REPORT)
    (folder / "report.json").write_text("{}")
    with pytest.raises(CheckpointError, match="没有微调的记录"):
        read_facts(folder)


# ---------------------------------------------------------------- curves


def test_a_torn_log_gives_what_is_whole_and_nan_is_no_point(folder: Path) -> None:
    metrics = read_metrics(folder)
    assert [point.step for point in metrics.loss] == list(range(1, 30))
    assert metrics.held_out_loss == (Point(10, 1.5), Point(20, 1.2))
    assert metrics.learning_rate[0] == Point(1, 1e-4)
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('\n{"step": 31, "loss": NaN}\n[1]\n{"step": "x", "loss": 1}\n{"step": 5, "loss": 9.0}\n')
    again = read_metrics(folder)
    assert len(again.loss) == 29 and again.loss[4] == Point(5, 9.0)  # a step done again counts once
    assert read_metrics(folder / "nowhere") == Metrics()


def _points(picture: str) -> list[list[tuple[float, float]]]:
    """The pixels of each curve of an SVG."""
    lines = ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}polyline")
    return [
        [(float(x), float(y)) for x, y in (p.split(",") for p in line.get("points", "").split())]
        for line in lines
    ]


def test_pictures_show_each_curve_within_the_axes_and_none_of_nothing() -> None:
    points = tuple(Point(step, 1 / step) for step in range(1, 50))
    both = _points(loss_picture(Metrics(loss=points, held_out_loss=points[::10])))
    assert [len(curve) for curve in both] == [49, 5]
    assert both[0][::10] == both[1]  # one scale for both
    steps, values = zip(*both[0], strict=True)
    assert list(steps) == sorted(steps) and list(values) == sorted(values)  # downwards on the screen
    assert loss_picture(Metrics()) == rate_picture(Metrics(loss=points)) == ""
    assert all(
        mark in rate_picture(Metrics(learning_rate=points)) for mark in (">step<", ">learning rate<", ">0.2<")
    )


def test_a_long_run_gives_a_small_picture_that_keeps_its_extremes() -> None:
    points = tuple(Point(step, 9.0 if step == 70_000 else 1.0) for step in range(100_000))
    picture = loss_picture(Metrics(loss=points))
    assert len(picture) < 40_000
    [curve] = _points(picture)
    assert min(y for _, y in curve) < 40 and curve[-1][0] > 670


@example([5e-324])
@example([1.0, 1.0 + 2**-52])
@example([0.0])
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20))
def test_every_finite_curve_can_be_drawn(values: list[float]) -> None:
    [curve] = _points(
        loss_picture(Metrics(loss=tuple(Point(step, value) for step, value in enumerate(values))))
    )
    assert all(0 <= x <= 720 and 0 <= y <= 360 for x, y in curve)


# ---------------------------------------------------------------- the model card


def test_the_card_is_chinese_first_and_carries_disclaimer_and_licence(tmp_path: Path) -> None:
    write_card(tmp_path, FACTS, REPORT)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    chinese, english = card.split("# lora-out (llama, lora)\n")
    for said in (MARK_ZH, "120", "许可", "med\\_template", "8158", "0.8948", "medchat chat --backbone llama"):
        assert said in chinese, said
    for said in (
        MARK_EN,
        "call 120",
        "Licence",
        "8158 to train on, 500 held out",
        "not that its answers are medically right",
    ):
        assert said in english, said
    assert "/home/somebody" not in card and "--model llama-7b --adapter lora-out" in card
    assert card.startswith("---\nlanguage: ") and current_language() == "zh"
    assert "<script>" not in card and "\x1b" not in card


def test_a_card_of_a_whole_model_says_model() -> None:
    card = model_card(replace(FACTS, method="full"), replace(REPORT, kind="model", samples=()))
    assert "medchat chat --backbone llama --model lora-out" in card


def test_the_card_of_a_lora_over_others_names_those_that_it_needs() -> None:
    over = (*FACTS.settings, ("adapters", '["/home/somebody/first", "/home/somebody/二 号"]', "--adapter"))
    card = model_card(replace(FACTS, settings=over), REPORT)
    assert "--model llama-7b --adapter first --adapter '二 号' --adapter lora-out" in card
    assert card.count("| first, 二 号 |") == 2 and "/home/somebody" not in card
    whole = model_card(replace(FACTS, method="full", settings=over), replace(REPORT, kind="model"))
    assert "--model lora-out\n" in whole


# ---------------------------------------------------------------- nothing is lost


def test_a_disk_that_fills_up_at_the_end_leaves_whole_settings_to_go_on_with(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupil = Pupil(tmp_path / "pupil")
    monkeypatch.syspath_prepend(pupil.site)
    settings, fsync = pupil.output / "sft.toml", os.fsync

    def fill_up(descriptor: int) -> None:  # once what the run began with is there
        if settings.with_name("report.json").exists():
            with contextlib.suppress(OSError):  # a folder, or a file that was opened to be read
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            raise OSError(errno.ENOSPC, "no room")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fill_up)
    ended = call(*pupil.flags)
    assert ended.code == 0 and "no room" in ended.err
    assert {"model", "data", "report_to"} <= set(read_run_file(settings))
    assert not list(pupil.output.glob(".*.partial"))


def test_a_report_that_cannot_be_drawn_costs_no_weights(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupil = Pupil(tmp_path / "pupil")
    monkeypatch.syspath_prepend(pupil.site)

    def fail(*_: object) -> bytes:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("medchat.sft_job.report.loss_picture", fail)
    ended = call(*pupil.flags)
    assert ended.code == 0 and "RuntimeError: no fonts" in ended.err
    assert (pupil.output / "sft.toml").is_file() and (pupil.output / "README.md").is_file()
