"""What the wording of a text adds to the rules, and what it takes back."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace

import pytest
from locations import ROOT, SHARED

from medchat.medical_safety import find_red_flags, wording

pytestmark = pytest.mark.safety

#: No rule has these words.
UNLISTED = "外面有个外卖小哥骑车倒了，躺着不动，头盔还戴着"
BREATHLESS = "我爸躺在沙发上没有呼吸了，怎么叫都不应"
SWALLOWED = "我家娃刚才误吞了一颗纽扣电池怎么办"
EVERYDAY = "最近工作比较忙，晚上睡不好，白天没有精神，请问饮食上要注意什么？"


@pytest.fixture
def thresholds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set thresholds of the weights for one test."""
    shipped = wording.lexicon_weights()

    def use(**changed: float) -> None:
        monkeypatch.setattr(wording, "lexicon_weights", lambda: replace(shipped, **changed))

    return use


def test_weak_signs_add_up_where_no_rule_has_the_words() -> None:
    """None of these words is a rule's; together they are how people write of an emergency."""
    flags = find_red_flags(UNLISTED)
    assert [notice.key for notice in flags.notices] == ["possible-emergency"]
    (evidence,) = flags.evidence
    assert evidence.mentions and all(
        mention.text == UNLISTED[mention.start : mention.end] for mention in evidence.mentions
    )


def test_weak_signs_of_a_long_text_are_left_to_the_rules() -> None:
    assert find_red_flags(UNLISTED + "，" + "今天天气很好" * 80).notices == ()


@pytest.mark.parametrize(
    ("ordinary", "rule"),
    [
        ("乡下老屋要生炉子过冬，一氧化碳报警器挂墙上还是挂顶棚", "gas leaking or alarm"),
        ("I'm drowning in anatomy flashcards, any mnemonic for the cranial nerves?", "drowning"),
        ("又被对面秒了，吐血三升，这英雄到底怎么玩", "heavy bleeding"),
        ("笔记本进水直接休克，抢救了一晚上硬盘没救回来", "unconscious or cannot be woken"),
    ],
)
def test_the_words_of_a_rule_in_ordinary_talk_are_silenced_and_kept_as_evidence(
    ordinary: str, rule: str
) -> None:
    flags = find_red_flags(ordinary)
    assert flags.notices == ()
    assert "wording" in {each.silenced_by for each in flags.silenced if each.rule == rule}


@pytest.mark.parametrize(
    "said", ["我爸突然胸口疼，还出冷汗", "my dad collapsed and won't wake up", "娃喝了一口洁厕灵"]
)
def test_ordinary_talk_around_an_emergency_does_not_weaken_it(said: str) -> None:
    alone = {each.key for each in find_red_flags(said).evidence}
    for text in (EVERYDAY * 3 + said, said + "。" + EVERYDAY * 3, EVERYDAY * 3 + said + "。" + EVERYDAY * 3):
        assert alone <= {each.key for each in find_red_flags(text).evidence}, text


def test_a_wording_that_doubts_everything_silences_rules_but_no_intent_to_harm_oneself(
    thresholds: Callable[..., None],
) -> None:
    assert find_red_flags(BREATHLESS) and find_red_flags(SWALLOWED)
    thresholds(doubt=1e9, vital_doubt=1e9)
    assert not find_red_flags(BREATHLESS) and not find_red_flags(SWALLOWED)
    assert find_red_flags("我真的不想活了，药都买好了放在床头")


def test_what_two_turns_make_together_is_not_judged_by_the_wording_of_one(
    thresholds: Callable[..., None],
) -> None:
    thresholds(doubt=1e9, vital_doubt=1e9)
    assert find_red_flags("现在舌头肿得说不出话来了", "昨天晚上吃了一大盘海鲜")


def test_a_danger_to_life_is_silenced_by_a_stronger_doubt_alone(thresholds: Callable[..., None]) -> None:
    thresholds(doubt=1e9, vital_doubt=-1e9)
    assert find_red_flags(BREATHLESS)
    assert not find_red_flags(SWALLOWED)


def test_a_bare_cry_is_believed_whatever_its_wording(thresholds: Callable[..., None]) -> None:
    thresholds(doubt=1e9, vital_doubt=1e9)
    assert find_red_flags("被蛇咬了") and find_red_flags("溺水了！") and find_red_flags("no pulse. help")


def test_the_shipped_thresholds_stand_in_their_order() -> None:
    shipped = wording.lexicon_weights()
    assert shipped.vital_doubt < shipped.doubt < shipped.alarm


@pytest.mark.slow
@pytest.mark.torch
def test_the_shipped_weights_are_what_the_script_learns_from_the_shipped_sentences() -> None:
    if not (SHARED / "data" / "llama_data.json").exists():
        pytest.skip(f"{SHARED / 'data'} is not there")
    script = runpy.run_path(str(ROOT / "scripts" / "red_flag_weights.py"))
    learned = script["learn"](script["sentences"]() + script["questions"](SHARED / "data"))
    shipped = wording.lexicon_weights()
    assert (learned.bias, learned.alarm) == (pytest.approx(shipped.bias, abs=0.02), shipped.alarm)
    differ = {
        piece
        for piece in learned.pieces.keys() | shipped.pieces.keys()
        if abs(learned.pieces.get(piece, 0) - shipped.pieces.get(piece, 0)) > 0.02
    }
    # A weight at the edge of what is left out, or of a digit, may fall the other way on another machine.
    assert len(differ) < 0.01 * len(shipped.pieces), "run scripts/red_flag_weights.py"
