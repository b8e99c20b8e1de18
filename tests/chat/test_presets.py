"""Questions with placeholders: filling them, and `ask --preset`."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_program import Scripted
from hypothesis import given
from hypothesis import strategies as st
from scripted_backbone import BROKEN

from medchat.chat.presets import Preset, preset_named
from medchat.errors import UsageError
from medchat.paths import config_file

pytest_plugins = ("cli_program",)


@pytest.mark.parametrize(
    ("text", "words", "question", "missing"),
    [
        ("总结：{内容}", "发热 三天", "总结：发热 三天", []),
        ("总结：{内容}", "内容=发热", "总结：发热", []),
        ("总结：{内容}", "内容='发热 三天'", "总结：发热 三天", []),
        ("总结：{内容}", "血压=高", "总结：血压=高", []),
        ("总结：{内容}", "it's", "总结：it's", []),
        ("总结：{内容}", "", "总结：{内容}", ["内容"]),
        ("{a} 和 {b}", "a=甲", "甲 和 {b}", ["b"]),
        ("{a} 和 {b}", "a={b} b=乙", "{b} 和 乙", []),
        ("{a}{a}", "甲", "甲甲", []),
        ("没有占位", "", "没有占位", []),
        ("{} {a b} {{a}}", "甲", "{} {a b} {甲}", []),
    ],
)
def test_placeholders_are_filled(text: str, words: str, question: str, missing: list[str]) -> None:
    assert Preset("名", text).filled(words) == (question, missing)


@given(st.text(max_size=40))
def test_whatever_is_typed_fills_the_only_placeholder_to_the_letter(words: str) -> None:
    whole, missing = Preset("名", "<{x}>").filled(words)
    assert bool(missing) is not bool(words)
    if words and not words.startswith("x="):
        assert whole == f"<{words}>"


@pytest.mark.parametrize(
    ("text", "words"), [("没有占位", "多余的话"), ("{a} 和 {b}", "甲乙"), ("{a} 和 {b}", "a=甲 c=丙")]
)
def test_words_that_fill_no_placeholder_are_refused_and_not_dropped(text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        Preset("名", text).filled(words)
    assert "没有地方填入" in refused.value.what and "{" not in refused.value.remedy.replace("{名称}", "")


def test_values_that_are_given_leave_the_words_to_the_others() -> None:
    preset = Preset("名", "{a} 和 {b}")
    assert preset.filled("乙 x", preset.pairs(["a=甲=甲"])) == ("甲=甲 和 乙 x", [])
    assert preset.filled("a=乙", preset.pairs(["a=甲"])) == ("甲 和 a=乙", [])
    for wrong in ("c=丙", "a", "=甲"):
        with pytest.raises(UsageError):
            preset.pairs([wrong])


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="病例") as refused:
        preset_named("病例", {"病历": "总结：{内容}"})
    assert "现有：病历" in refused.value.remedy
    with pytest.raises(UsageError) as refused:
        preset_named("\x1b[2J", {})
    assert "\x1b" not in refused.value.what and "[preset]" in refused.value.remedy


# ---------------------------------------------------------------- ask


@pytest.fixture
def presets(scripted: Scripted) -> Scripted:
    path = config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    text = '[preset]\n"病历" = "总结：{内容}"\n"用药" = "{药名} 和 {另一种} 能一起吃吗？"\n"问候" = "早"\n'
    path.write_text(text, encoding="utf-8")
    return scripted


@pytest.mark.parametrize(
    ("typed", "stdin", "asked"),
    [
        (("--preset", "病历", "发热三天"), "", "总结：发热三天"),
        (("--preset", "病历", "--fill", "内容=发热 三天"), "", "总结：发热 三天"),
        (("--preset", "病历"), "发热\n三天\n", "总结：发热\n三天"),
        (("--preset", "病历", "-"), "内容=发热\n", "总结：内容=发热"),
        (("--preset", "病历", "发热"), "血压高\n", "总结：发热\n\n血压高"),
        (("--preset", "用药", "--fill", "药名=甲", "乙"), "", "甲 和 乙 能一起吃吗？"),
        (("--preset", "用药", "药名=甲 另一种=乙"), "", "甲 和 乙 能一起吃吗？"),
        (("--preset", "用药", "--fill", "另一种=乙"), "甲", "甲 和 乙 能一起吃吗？"),
        (("--preset", "问候"), "中文\n", "早\n\n中文"),
    ],
)
def test_ask_fills_a_preset_from_flags_words_and_standard_input(
    presets: Scripted, typed: tuple[str, ...], stdin: str, asked: str
) -> None:
    outcome = presets.run("ask", *typed, stdin=stdin)
    assert (outcome.code, outcome.out) == (0, f"你问的是{asked}\n"), outcome.err


@pytest.mark.parametrize(
    ("typed", "stdin", "what", "remedy"),
    [
        (("--preset", "病例", "x"), "", "没有名为“病例”的预设", "现有：病历"),
        (("--preset", "病历"), "", "预设“病历”没有填完", "--fill 内容=…"),
        (("--preset", "用药", "药名=甲"), "", "预设“用药”没有填完", "--fill 另一种=…"),
        (("--preset", "用药"), "甲乙", "没有地方填入这些文字", "写成 药名=… 另一种=…"),
        (("--preset", "病历", "--fill", "药名=甲"), "", "没有地方填入这些文字", "写成 内容=…"),
        (("--preset", "问候", "你好"), "", "没有地方填入这些文字", "或在预设里写 {名称}"),
        (("--fill", "内容=甲", "头痛"), "", "--fill 要和 --preset 一起用", "--preset 名称"),
        ((), "", "缺少参数", ""),
    ],
)
def test_a_preset_that_cannot_be_asked_ends_with_2_before_the_model_is_loaded(
    presets: Scripted, typed: tuple[str, ...], stdin: str, what: str, remedy: str
) -> None:
    (presets.model / BROKEN).touch()  # to load it would fail with 3
    outcome = presets.run("ask", *typed, stdin=stdin)
    assert outcome.code == 2 and what in outcome.err and remedy in outcome.err


def test_a_long_filling_is_bounded_as_any_question_is(presets: Scripted) -> None:
    outcome = presets.run(
        "ask", "--preset", "病历", "--fill", "内容=" + "字" * 100, MEDCHAT_MAX_QUESTION_BYTES="99"
    )
    assert outcome.code == 2 and "99" in outcome.err


def test_a_preset_of_a_folder_is_refused(presets: Scripted, tmp_path: Path) -> None:
    (tmp_path / "medchat.toml").write_text('[preset]\n"病历" = "不是你的"\n', encoding="utf-8")
    outcome = presets.run("ask", "--preset", "病历", "发热", cwd=tmp_path)
    assert outcome.code == 2 and "medchat.toml" in outcome.err
