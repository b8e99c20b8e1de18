"""Templates keep ours and the user's words apart, render the published forms, and prompts fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from locations import ROOT, SHARED

from medchat.api import Conversation, Segment, Text, Turn
from medchat.errors import UsageError
from medchat.language import set_language
from medchat.templates import Fitted, JsonTemplate, fit, list_templates, load_template, read_template
from medchat.templates.json_template import KNOWN_KEYS

PUBLISHED = SHARED / "data" / "templates"
PROMPT_KEYS = ("prompt_input", "prompt_no_input", "response_split")


def joined(segments: Sequence[Segment]) -> str:
    assert all(isinstance(segment, Text) for segment in segments)
    return "".join(segment.text for segment in segments if isinstance(segment, Text))


def shipped(name: str) -> JsonTemplate:
    template = load_template(name)
    assert isinstance(template, JsonTemplate)
    return template


# ---------------------------------------------------------------- the shipped ones


def test_every_shipped_file_is_listed_and_says_what_it_is_for() -> None:
    files = {path.stem for path in (ROOT / "templates").glob("*.json")}
    assert {template.name for template in list_templates()} == files
    assert {"med_template", "literature_template", "bloom_deploy", "ori_template", "alpaca"} <= files
    for template in list_templates():
        assert template.note["zh"]
        assert template.note["en"]
        content = json.loads((ROOT / "templates" / f"{template.name}.json").read_text(encoding="utf-8"))
        assert content["description"] and set(content) <= set(KNOWN_KEYS)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no published templates at {PUBLISHED}")
def test_shipped_prompts_equal_the_published_ones_character_by_character() -> None:
    paths = sorted(PUBLISHED.glob("*.json"))
    assert paths
    for path in paths:
        theirs = json.loads(path.read_text(encoding="utf-8"))
        ours = json.loads((ROOT / "templates" / path.name).read_text(encoding="utf-8"))
        for key in PROMPT_KEYS:
            assert ours.get(key) == theirs.get(key), f"{path.name}: {key}"


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("med_template", "下面是一个问题，运用医学知识来正确回答提问.\n### 问题:\n头痛？\n### 回答:\n"),
        ("bloom_deploy", "下面是一个问题，运用医学知识来正确回答提问.\n头痛？\n### 回答：\n"),
        (
            "literature_template",
            "以下是描述任务的说明，编写适当地回复完成请求的响应。\n\n"
            " ### 说明:\n <user>: 头痛？\n\n### 回复:\n",
        ),
        ("ori_template", "问题：头痛？ 回答:"),
        ("bare", "头痛？"),
    ],
)
def test_a_single_question_is_rendered_in_the_published_form(name: str, prompt: str) -> None:
    assert joined(shipped(name).render((), "头痛？")) == prompt


def test_a_single_turn_form_repeats_its_block_in_a_longer_chat() -> None:
    template = shipped("bloom_deploy")
    lead = "下面是一个问题，运用医学知识来正确回答提问.\n"
    prompt = joined(template.render([Turn("一", "甲"), Turn("二", "乙")], "三"))
    assert prompt == f"{lead}一\n### 回答：\n甲\n{lead}二\n### 回答：\n乙\n{lead}三\n### 回答：\n"
    assert not template.multi_turn


def test_the_literature_form_puts_the_dialogue_into_one_block() -> None:
    template = shipped("literature_template")
    prompt = joined(template.render([Turn("一", "甲"), Turn("二", "乙")], "三"))
    assert "### 说明:\n <user>: 一 <bot>: 甲 <user>: 二 <bot>: 乙 <user>: 三\n\n### 回复:\n" in prompt
    assert prompt.count("### 说明") == 1
    assert template.multi_turn


def test_a_question_that_is_a_dialogue_already_is_not_wrapped_in_another() -> None:
    """Records of the literature data carry the marks themselves."""
    template = shipped("literature_template")
    for record in ("<user>: 肝癌是什么？", " <user>: 甲？ <bot>: 乙。 <user>: 丙？"):
        assert f"### 说明:\n{record}\n\n### 回复:" in joined(template.render((), record))
    later = joined(template.render((Turn("甲？", "乙。"),), "<user>: 丙？"))
    assert "### 说明:\n <user>: 甲？ <bot>: 乙。 <user>: <user>: 丙？\n" in later


@pytest.mark.skipif(not (SHARED / "data" / "liver_cancer.json").is_file(), reason="no published dialogues")
def test_the_published_dialogues_are_rendered_as_they_were_trained() -> None:
    records = json.loads((SHARED / "data" / "liver_cancer.json").read_text(encoding="utf-8").splitlines()[0])
    template = shipped("literature_template")
    assert records
    for record in records:
        asked = record["instruction"].split(" <user>: ")[1:]
        turns = [Turn(*pair.split(" <bot>: ")) for pair in asked[:-1]]
        expected = template.no_input.fill({"instruction": record["instruction"]})
        assert joined(template.render(turns, asked[-1])) == joined(expected)


def test_a_system_text_stands_once_in_front() -> None:
    template = shipped("bare")
    assert joined(template.render([Turn("一", "甲")], "二", "你是助手")) == "你是助手\n一甲\n二"


def test_a_record_with_an_input_takes_the_form_with_input() -> None:
    rendered = joined(shipped("alpaca").render_with_input("Translate", "头痛"))
    assert rendered.endswith("### Instruction:\nTranslate\n\n### Input:\n头痛\n\n### Response:\n")
    assert shipped("alpaca").render_with_input("Translate", "") == shipped("alpaca").render((), "Translate")
    assert " <user>: 说明\n补充\n" in joined(shipped("literature_template").render_with_input("说明", "补充"))


# ---------------------------------------------------------------- whatever the user types

PLACEHOLDERS = st.sampled_from(
    ["{instruction}", "{input}", "{", "}", "{{", "{0}", "</s>", "<sop>", "%s", "\\n"]
)
WORDS = st.lists(st.one_of(PLACEHOLDERS, st.text(max_size=8)), min_size=1, max_size=5).map("".join)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=3), WORDS, st.sampled_from(list_templates()))
def test_the_users_words_stand_alone_and_are_never_filled_in_again(
    pairs: list[tuple[str, str]], question: str, template: JsonTemplate
) -> None:
    turns = [Turn(*pair) for pair in pairs]
    segments = template.render(turns, question)
    assert all(isinstance(segment, Text) and segment.text for segment in segments)
    marks = [Turn(f"\0问{i}", f"\0答{i}") for i in range(len(turns))]
    marked = joined(template.render(marks, "\0问"))
    for mark, turn in zip(reversed(marks), reversed(turns), strict=True):
        marked = marked.replace(mark.question, turn.question).replace(mark.answer, turn.answer)
    if "\0" not in "".join([question, *(text for pair in pairs for text in pair)]):
        assert joined(segments) == marked.replace("\0问", question)
    assert question == "" or Text(question) in segments


# ---------------------------------------------------------------- finding and reading


def test_a_path_and_a_name_lead_to_the_template(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('\ufeff{"prompt_no_input": "{{Q}} {instruction}", "vendor": 1}', encoding="utf-8")
    for given_as in (path, str(path)):
        template = load_template(given_as)
        assert isinstance(template, JsonTemplate)
        assert template.name == "mine"
        assert joined(template.render((), "头痛")) == "{Q} 头痛"


@dataclass(frozen=True)
class Foreign:
    name: str
    stop: tuple[str, ...] = ()
    multi_turn: bool = True

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        return (Text("foreign"),)


def test_plugins_templates_are_found_by_name_but_cannot_replace_a_shipped_one() -> None:
    extra = [Foreign("chatglm_rounds"), Foreign("med_template")]
    assert load_template("chatglm_rounds", extra) is extra[0]
    assert load_template("med_template", extra) is shipped("med_template")


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        load_template("med_templat", [Foreign("med_rounds")])
    assert "med_template" in caught.value.remedy
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b'{\n "prompt_no_input": "a"\n "x": 1}', 3, "JSON"),
        (b"[]", None, "object"),
        (b"[" * 100_000, None, "JSON"),
        (b"1" * 5000, None, "JSON"),
        (b"{}", None, "prompt_no_input"),
        (b'{"prompt_no_input": ""}', None, "lacks prompt_no_input"),
        (b'{\n\n"prompt_noinput": "{instruction}"}', 3, "prompt_noinput"),
        (b'{\n"prompt_no_input": "Q:"}', 2, "{instruction}"),
        (b'{\n"prompt_no_input": "{instruction} {inptu}"}', 2, "{inptu}"),
        (b'{\n"prompt_no_input": "{instruction} {input}"}', 2, "{input}"),
        (b'{\n"prompt_no_input": "{instruction!r}"}', 2, "{instruction}"),
        (b'{\n"prompt_no_input": "{instruction.__class__}"}', 2, "__class__"),
        (b'{\n"prompt_no_input": "} {instruction}"}', 2, "}"),
        (b'{\n"prompt_no_input": ["{instruction}"]}', 2, "not text"),
        (b'{"prompt_no_input": "{instruction}",\n"prompt_input": "{input}"}', 2, "{instruction}"),
        (b'{"prompt_no_input": "{instruction}",\n"stop": "###"}', 2, "stop"),
        (b'{"prompt_no_input": "{instruction}",\n"stop": [""]}', 2, "stop"),
        (b'{"prompt_no_input": "{instruction}",\n"note": [1]}', 2, "note"),
        (
            b'{"prompt_no_input": "{instruction}",\n"dialogue_question": "{question}"}',
            None,
            "dialogue_answer",
        ),
        (b'{"prompt_no_input":\n"\xff{instruction}"}', 2, "UTF-8"),
        (b" " * ((1 << 20) + 1), None, "bytes"),
    ],
)
def test_a_bad_file_is_refused_naming_file_line_and_fault(
    tmp_path: Path, content: bytes, line: int | None, words: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    set_language("en")
    try:
        with pytest.raises(UsageError) as caught:
            load_template(str(path))
    finally:
        set_language("zh")
    assert caught.value.where == (str(path) if line is None else f"{path}:{line}")
    assert words in caught.value.what
    assert caught.value.remedy


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError) as caught:
            read_template(path)
        assert caught.value.where == str(path)


def test_stop_texts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "stops.json"
    path.write_text('{"prompt_no_input": "{instruction}", "stop": ["###"]}', encoding="utf-8")
    assert read_template(path).stop == ("###",)


# ---------------------------------------------------------------- fitting


class Counter:
    """Counts characters, and how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, segments: Sequence[Segment]) -> int:
        self.calls += 1
        return len(joined(segments))


def conversation(lengths: Sequence[int]) -> Conversation:
    return Conversation(tuple(Turn(f"{i}" + "q" * length, "a") for i, length in enumerate(lengths)))


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(3, 400))
@example([5, 5], 2 * len("0qqqqqa\n") + 3)
@example([5, 5, 5], 2 * len("0qqqqqa\n") + 3)
def test_exactly_the_oldest_turns_that_do_not_fit_are_dropped(lengths: list[int], budget: int) -> None:
    template, said, count = shipped("bare"), conversation(lengths), Counter()
    fitted = fit(template, said, "头痛？", count, budget)
    assert fitted.segments == template.render(said.turns[fitted.dropped :], "头痛？")
    assert fitted.tokens == len(joined(fitted.segments)) <= budget
    if fitted.dropped:
        assert len(joined(template.render(said.turns[fitted.dropped - 1 :], "头痛？"))) > budget
    assert count.calls <= 2 + len(lengths).bit_length()


def test_a_prompt_that_fits_is_counted_once() -> None:
    count = Counter()
    assert fit(shipped("bare"), conversation([5] * 30), "头痛？", count, 10_000).dropped == 0
    assert count.calls == 1


@pytest.mark.parametrize("turns", [0, 3])
def test_a_question_that_cannot_fit_is_refused_naming_tokens_and_limit(turns: int) -> None:
    with pytest.raises(UsageError) as caught:
        fit(shipped("bare"), conversation([5] * turns), "头" * 31, Counter(), 30)
    assert "31" in caught.value.what
    assert "30" in caught.value.what


def test_the_system_text_is_never_dropped() -> None:
    said = Conversation((Turn("q" * 20, "a"),), system="你是助手")
    fitted = fit(shipped("bare"), said, "头痛？", Counter(), 12)
    assert fitted == Fitted((Text("你是助手\n"), Text("头痛？")), 8, 1)
