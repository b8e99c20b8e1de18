"""Untrusted text cannot act on the terminal, hide words or reorder them."""

from __future__ import annotations

import pickle
import time
import unicodedata
from collections.abc import Callable

import pyte
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medchat.sanitize import StreamSanitizer, sanitize, sanitize_line

ESC = "\x1b"

#: Bits that make and break escape sequences, joined at random; far likelier to hurt than random text.
FRAGMENTS = st.sampled_from(
    [
        ESC,
        *"[]P_^X\\\x07\x9b\x9d\x90\x9c\x85\r\n\t\x08\x7f\x00\x18 #(ca❤🔥👩🏽",
        "\r\n",
        "2J",
        "31m",
        "1;1H",
        "6n",
        "0;标题",
        "52;c;aGk=",
        "8;;http://x",
        "头痛",
        "\ufe0f",
        "\U000e0100",
        "\u200d",
        "\u202e",
        "\u2066",
        "\u200f",
        "\u2028",
        "\ud83d",
        "\U000e0041",
        "\u3164",
        "\ufeff",
        "\u200b",
    ]
)
HOSTILE = st.lists(st.one_of(FRAGMENTS, st.characters())).map("".join)


def is_forbidden(character: str) -> bool:
    if character in "\n\t":
        return False
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in VISIBLE_FORMAT)


#: Format characters (Cf) that are allowed: the joiner inside emoji, and marks that print something.
VISIBLE_FORMAT = "\u200d" + "".join(
    map(
        chr,
        [*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)],
    )
)


@given(HOSTILE)
def test_nothing_forbidden_comes_out(text: str) -> None:
    assert [c for c in sanitize(text) if is_forbidden(c)] == []


@given(HOSTILE)
def test_doing_it_twice_changes_nothing_and_nothing_grows(text: str) -> None:
    once = sanitize(text)
    assert sanitize(once) == once
    assert len(once) <= len(text)


@given(st.lists(HOSTILE))
def test_pieces_give_what_the_whole_gives_wherever_it_is_cut(pieces: list[str]) -> None:
    stream = StreamSanitizer()
    shown = "".join(map(stream.feed, pieces)) + stream.flush()
    assert shown == sanitize("".join(pieces))


@given(HOSTILE)
@example(f"{ESC}[1 2m")
@example(f"{ESC}]0;x{ESC}\\后")
def test_one_character_at_a_time_gives_what_the_whole_gives(text: str) -> None:
    stream = StreamSanitizer()
    assert "".join(map(stream.feed, text)) + stream.flush() == sanitize(text)


@given(HOSTILE, HOSTILE)
def test_a_flushed_stream_starts_afresh(first: str, second: str) -> None:
    stream = StreamSanitizer()
    stream.feed(first)
    stream.flush()
    assert stream.feed(second) + stream.flush() == sanitize(second)


@pytest.mark.parametrize(
    "text",
    [
        "头痛三天，体温38.5℃，怎么办？——先量血压。\n\n1. 休息\n2. 多喝水……",
        "# 标题\n\n| 药 | 用法 |\n|---|---|\n\t`code` **粗体** [链接](https://example.org) <b>",
        "[red]不是标记[/red] [[训练时间]] </s> [gMASK] <|endofutterance|>",
        "👩‍⚕️ 👨🏽‍⚕️ ❤️‍🔥 🙂‍↔️ 🇨🇳 1️⃣ ☎︎ 👨‍👩‍👧‍👦",
        "全角　空格、日本語ひらがな、한국어, café, naïve, עברית, العربية, β-谷甾醇, 5′-NT, H₂O, ﷽",
        "葛\U000e0100城 〇々〆 𠮷野家 \ue000",
    ],
)
def test_ordinary_text_comes_back_unchanged(text: str) -> None:
    assert sanitize(text) == text
    stream = StreamSanitizer()
    assert "".join(map(stream.feed, text)) + stream.flush() == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"前{ESC}[31;1m红{ESC}[0m后", "前红后"),
        (f"前{ESC}[2J{ESC}[H后", "前后"),
        (f"前{ESC}]0;标题\x07后", "前后"),
        (f"前{ESC}]0;标题{ESC}\\后", "前后"),
        (f"前{ESC}]52;c;5Lit\x9c后", "前后"),
        (f"{ESC}]8;;http://evil.example{ESC}\\链接{ESC}]8;;{ESC}\\", "链接"),
        (f"前{ESC}P1$r0m{ESC}\\{ESC}_G秘密{ESC}\\{ESC}^x{ESC}\\{ESC}Xx{ESC}\\后", "前后"),
        ("前\x9b31m红\x9d0;t\x07\x90q\x9c后", "前红后"),
        (f"前{ESC}]0;没有结尾\n下一行", "前\n下一行"),
        (f"前{ESC}[31", "前"),
        (f"前{ESC}[31中", "前中"),
        (f"前{ESC}", "前"),
        (f"前{ESC}c{ESC}7{ESC}(B{ESC}#8后", "前后"),
        ("密码错误\r您好", "密码错误\n您好"),
        ("一\r\n二\u2028三\u2029四\x85五\x0b六\x0c七", "一\n二\n三\n四\n五\n六\n七"),
        ("abc\x08\x08\x08xyz\x7f\x00", "abcxyz"),
        ("假\u202egnp.exe\u202c", "假gnp.exe"),
        ("\u2067右\u2069\u200e\u200f\u061c", "右"),
        ("不\u200b可\u2060以\ufeff吃\u00ad", "不可以吃"),
        ("🏴\U000e0067\U000e007f", "🏴"),
        ("a\u200db 👩\u200dx \u200d⚕", "ab 👩x ⚕"),
        ("a\ufe0f\ufe0f\ufe01b\n\ufe0f", "a\ufe0fb\n"),
        ("坏\ud800\udfff字", "坏\ufffd\ufffd字"),
    ],
)
def test_what_would_act_or_hide_is_dropped_and_the_words_stay(text: str, shown: str) -> None:
    assert sanitize(text) == shown


def test_ordinary_text_is_not_held_back() -> None:
    stream = StreamSanitizer()
    assert [stream.feed(piece) for piece in ("您", "好，", "👩")] == ["您", "好，", "👩"]


def test_an_endless_sequence_costs_no_memory() -> None:
    stream = StreamSanitizer()
    empty = len(pickle.dumps(stream))
    stream.feed(ESC + "]0;")
    for _ in range(100):
        assert stream.feed("x" * 1000) == ""
        assert len(pickle.dumps(stream)) < empty + 16
    assert stream.feed("\x07好") == "好"
    stream.feed(ESC + "[")
    for _ in range(100):
        assert stream.feed("0;" * 500) == ""
        assert len(pickle.dumps(stream)) < empty + 16
    assert stream.feed("m好") == "好"


@pytest.mark.parametrize(
    "unit", ["头痛怎么办？", ESC + "[31m", ESC, "\r", ESC + "]0;", "👩\u200d", "\x9b0", "a\ufe0f\ufe0f"]
)
def test_a_megabyte_takes_well_under_a_second_or_two(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    sanitize(text)
    stream = StreamSanitizer()
    stream.feed(text)
    stream.flush()
    assert time.process_time() - start < 4


def test_a_line_stays_one_line_within_its_limit() -> None:
    assert sanitize_line("  名字\n\t带换行\r\n.json ") == "名字 带换行 .json"
    assert sanitize_line("字" * 300, 10) == "字" * 9 + "…"
    assert sanitize_line("字" * 10, 10) == "字" * 10


@given(HOSTILE, st.integers(1, 30))
def test_a_line_never_holds_a_newline_or_exceeds_its_limit(text: str, limit: int) -> None:
    line = sanitize_line(text, limit)
    assert "\n" not in line
    assert "\t" not in line
    assert len(line) <= limit
    assert sanitize_line(line, limit) == line


class Witness(pyte.Screen):
    """A screen that notes everything the text made it do besides drawing, tabs and going to the next line."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.asked = False
        super().__init__(40, 200)
        self.acts.clear()

    def write_process_input(self, data: str) -> None:
        self.acts.append(f"report {data!r}")


def _noting(name: str) -> Callable[..., object]:
    original = getattr(pyte.Screen, name)

    def method(self: Witness, *arguments: object, **options: object) -> object:
        outermost, self.asked = not self.asked, True
        if outermost and name not in ("draw", "linefeed", "tab"):
            self.acts.append(name)
        try:
            return original(self, *arguments, **options)  # what a draw does by itself (wrapping) is its own
        finally:
            self.asked = not outermost

    return method


for _event in sorted(pyte.Stream.events):
    setattr(Witness, _event, _noting(_event))


def acts_of(text: str) -> list[str]:
    screen = Witness()
    pyte.Stream(screen).feed(text)
    return screen.acts


HOSTILE_TO_SCREENS = [
    f"{ESC}[2J{ESC}[1;1H",
    f"{ESC}]2;title\x07",
    f"{ESC}[6n{ESC}[c{ESC}[5n",
    f"{ESC}[10A{ESC}M{ESC}c",
    "\x9b5A\x08\r",
    f"{ESC}[?1049h{ESC}(0{ESC}[4h",
]


@pytest.mark.parametrize("text", HOSTILE_TO_SCREENS)
def test_the_witness_screen_sees_hostile_text_act(text: str) -> None:
    assert acts_of(text), "the next test proves nothing if this one fails"


@pytest.mark.parametrize("text", HOSTILE_TO_SCREENS)
def test_a_screen_fed_inert_text_only_draws(text: str) -> None:
    assert acts_of(sanitize(f"前{text}后")) == []


@given(HOSTILE)
def test_no_hostile_text_moves_clears_titles_or_reports(text: str) -> None:
    stream = StreamSanitizer()
    assert acts_of("".join(map(stream.feed, text)) + stream.flush()) == []
