"""What fires, what does not, and which notices are shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.api import Conversation, Finish, Notice, Turn
from medchat.language import set_language
from medchat.medical_safety import advise, find_red_flags, merge_notices, red_flag_notices

pytestmark = pytest.mark.safety


@pytest.fixture(autouse=True)
def _chinese_again() -> Iterator[None]:
    set_language("zh")
    yield
    set_language("zh")


def keys(text: str, previous: str | None = None) -> list[str]:
    """Return the keys of the notices shown."""
    return [notice.key for notice in find_red_flags(text, previous).notices]


def test_a_relative_in_danger_fires_and_an_examination_question_does_not() -> None:
    assert keys("我爸突然胸口疼，还出冷汗") == ["chest-pain"]
    assert keys("患者，男，58岁，突发胸痛2小时，最可能的诊断是") == []


def test_the_past_is_silent_and_the_present_behind_it_is_not() -> None:
    assert keys("我爸去年中风过") == []
    assert keys("我爸去年中风过，现在右手又抬不起来") == ["stroke"]


def test_a_notice_has_a_full_text_and_a_short_line_in_both_languages() -> None:
    (zh,) = find_red_flags("奶奶叫不醒，没呼吸了").notices
    set_language("en")
    (en,) = find_red_flags("grandma is not breathing").notices
    assert zh.key == en.key == "not-breathing"
    assert zh.text != en.text and zh.short != en.short
    assert zh.urgent and zh.vital and zh.short


def test_the_evidence_names_words_as_they_were_written() -> None:
    text = "我爸　胸口 好疼"
    (evidence,) = find_red_flags(text).evidence
    (mention,) = evidence.mentions
    assert mention.text == text[mention.start : mention.end] == "胸口 好疼"
    assert evidence.source and evidence.rule


def test_what_a_scope_silenced_is_kept_with_the_reason() -> None:
    (silenced,) = find_red_flags("如果有人突然胸痛应该怎么急救").silenced
    assert silenced.silenced_by == "conditional"


def test_two_turns_are_read_together_and_the_first_alone_does_not_fire_again() -> None:
    assert keys("我爸胸口疼") == ["chest-pain"]
    assert keys("好的谢谢", previous="我爸胸口疼") == []


def test_the_adviser_reads_the_turn_before() -> None:
    conversation = Conversation().with_turn(Turn("吃了海鲜", "……", Finish.STOP))
    assert [notice.key for notice in advise(conversation, "舌头肿了")] == ["anaphylaxis"]
    assert advise(Conversation(), "舌头肿了") == ()


_NOTICES = st.lists(st.builds(Notice, st.text(min_size=1, max_size=4), st.booleans()), max_size=6)


@given(ours=_NOTICES, advised=_NOTICES)
def test_what_plugins_advise_adds_and_never_removes(ours: list[Notice], advised: list[Notice]) -> None:
    shown = merge_notices(ours, advised)
    assert {notice.text for notice in shown} == {notice.text for notice in (*ours, *advised)}
    for notice in (*ours, *advised):
        if notice.urgent:
            assert Notice(notice.text, urgent=True) in shown
    assert [n.urgent for n in shown] == sorted((n.urgent for n in shown), reverse=True)


def test_our_notices_come_before_those_of_plugins() -> None:
    ours, theirs = red_flag_notices("我爸没呼吸了", [Notice("插件的提示", urgent=True)])
    assert (ours.key, theirs.text) == ("not-breathing", "插件的提示")
