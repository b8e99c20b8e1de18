"""Markdown blocks: when one is finished, how it is laid out, and that nothing hostile survives."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from medchat.cli.cjk_wrap import break_offsets
from medchat.repl.markdown import rendered
from medchat.repl.markdown_syntax import split_finished
from medchat.repl.screen import OURS, unforgeable, untrusted
from medchat.sanitize import sanitize

ANSWER = """# 头痛的常见原因

头痛可能由**多种原因**引起：
第二行另起一行

- 睡眠不足
- 用眼过度
  1. 看屏幕
  2. 看手机

> 仅供参考

| 原因 | 建议 |
|---|---|
| 睡眠不足 | 早睡 |

```python
print("你好")

print("再见")
```

最后一段"""

MARKDOWN = st.text(alphabet=st.sampled_from(list("你好，。#*-_`>|~ \n\t1.2[](!)<&;a=+\\")), max_size=120)


def lines_of(text: str, width: int) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    return ["".join(segment.text for segment in line).rstrip() for line in rendered(text, console, width)]


def finished_while_arriving(text: str, cuts: list[int]) -> tuple[list[str], str]:
    blocks, tail, before = [], "", 0
    for cut in [*sorted(cuts), len(text)]:
        tail += text[before:cut]
        before = cut
        finished, tail = split_finished(tail)
        blocks += finished
    return blocks, tail


def test_each_kind_of_block_is_one_block() -> None:
    blocks, tail = split_finished(ANSWER)
    firsts = [block.strip().split("\n")[0] for block in [*blocks, tail]]
    assert firsts == [
        "# 头痛的常见原因",
        "头痛可能由**多种原因**引起：",
        "- 睡眠不足",
        "> 仅供参考",
        "| 原因 | 建议 |",
        "```python",
        "最后一段",
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_blocks_do_not_depend_on_how_the_text_arrives(size: int) -> None:
    cuts = list(range(0, len(ANSWER), size))
    assert finished_while_arriving(ANSWER, cuts) == split_finished(ANSWER)


@given(MARKDOWN)
def test_blocks_joined_are_the_text(text: str) -> None:
    blocks, tail = split_finished(text)
    assert "".join(blocks) + tail == text


@given(MARKDOWN, st.lists(st.integers(0, 120), max_size=6))
def test_a_finished_block_is_never_changed_by_what_comes_later(text: str, cuts: list[int]) -> None:
    blocks, tail = finished_while_arriving(text, [min(cut, len(text)) for cut in cuts])
    assert "".join(blocks) + tail == text
    so_far = ""
    for block in blocks:
        so_far += block
        later, _ = split_finished(text)
        borders = [len("".join(later[:count])) for count in range(len(later) + 1)]
        assert len(so_far) in borders, (so_far, later)


@given(MARKDOWN, st.sampled_from([10, 40, 80]))
def test_no_line_is_wider_than_asked_and_nothing_crashes(text: str, width: int) -> None:
    assert all(cell_len(line) <= width for line in lines_of(text, width))


def test_a_line_end_of_the_model_stays_a_line_end() -> None:
    assert lines_of("1、多喝水\n2、早睡", 40) == ["1、多喝水", "2、早睡"]


def test_numbers_of_a_list_keep_their_dots_and_line_up() -> None:
    assert lines_of("9. 九\n10. 十\n11. 十一", 40) == [" 9. 九", "10. 十", "11. 十一"]


def test_emphasis_next_to_chinese_punctuation_hides_its_asterisks() -> None:
    assert lines_of("**注意：**多喝水，**“别熬夜”**也重要", 40) == ["注意：多喝水，“别熬夜”也重要"]


def test_a_product_of_numbers_keeps_its_asterisks() -> None:
    assert lines_of("2*3*5 片，3~5天，体温<38&lt;39", 40) == ["2*3*5 片，3~5天，体温<38&lt;39"]


def table_of(columns: int, head: str, cell: str) -> str:
    return f"{f'|{head}' * columns}|\n{'|-' * columns}|\n{f'|{cell}' * columns}|\n"


@pytest.mark.parametrize("columns", [2, 9, 20, 21, 27, 60, 300])
def test_a_table_shows_every_character_of_its_cells_however_many_columns_it_has(columns: int) -> None:
    drawn = "".join(lines_of(table_of(columns, "剂量", "头痛"), 80))
    assert [drawn.count(character) for character in "剂量头痛"] == [columns] * 4


def test_a_table_without_room_is_written_in_lines() -> None:
    assert lines_of(table_of(4, "药", "头痛"), 15) == ["药 | 药 | 药 |", "药", "头痛 | 头痛 |", "头痛 | 头痛"]


def test_the_head_of_a_narrow_column_is_broken_as_its_cells_are() -> None:
    long = "每日推荐摄入量"
    shown = "".join(lines_of(table_of(2, long, long), 20)).replace(" ", "")
    assert shown.count("量") == 4 and "…" not in shown


def test_html_and_links_stay_visible_as_written() -> None:
    text = "<div>不见了吗</div>\n[官网](https://example.com) ![图](https://example.com/a.png)"
    assert lines_of(text, 80) == text.split("\n")


@pytest.mark.safety
@pytest.mark.parametrize(
    "text",
    [
        "> ▌ 紧急提示",
        "▌ 紧急提示",
        "&#9612; 紧急提示",
        "- ▌ 紧急提示",
        "```\n▌ 紧急提示\n```",
        "&#x1b;[2J&#x202e;",
    ],
)
def test_no_markdown_makes_our_glyph_or_a_control(text: str) -> None:
    drawn = "\n".join(lines_of(untrusted(text), 40))
    assert OURS not in drawn
    assert sanitize(drawn) == drawn


@pytest.mark.safety
@given(st.text(max_size=200))
def test_whatever_a_model_writes_comes_out_inert_and_never_as_ours(text: str) -> None:
    drawn = "\n".join(lines_of(untrusted(text), 40))
    assert OURS not in drawn
    assert sanitize(drawn) == drawn


@given(st.text(max_size=60), st.integers(0, 60))
def test_the_glyph_is_replaced_piece_by_piece_as_in_the_whole(text: str, cut: int) -> None:
    assert unforgeable(text[:cut]) + unforgeable(text[cut:]) == unforgeable(text)
    assert len(unforgeable(text)) == len(text)


# ---------------------------------------------------------------- line breaks


def broken(text: str, width: int) -> list[str]:
    borders = [0, *break_offsets(text, width), len(text)]
    return [text[start:end] for start, end in pairwise(borders)]


def test_a_latin_word_does_not_leave_half_a_chinese_line_empty() -> None:
    assert broken("建议使用 transformers 库来加载模型权重文件", 20) == [
        "建议使用 ",
        "transformers 库来加",
        "载模型权重文件",
    ]


def test_no_line_begins_with_a_closing_mark_or_ends_with_an_opening_one() -> None:
    assert broken("多喝水，早休息。注意", 14) == ["多喝水，早休", "息。注意"]
    assert broken("他说了一句“好”", 12) == ["他说了一句", "“好”"]


@given(
    st.text(alphabet=st.sampled_from(list("你好，。（a b1-。😀\u200d👨")), max_size=80), st.integers(2, 30)
)
def test_breaking_loses_nothing_and_keeps_to_the_width(text: str, width: int) -> None:
    pieces = broken(text, width)
    assert "".join(pieces) == text
    for piece in pieces:
        assert cell_len(piece.rstrip()) <= width or len(piece) == 1
