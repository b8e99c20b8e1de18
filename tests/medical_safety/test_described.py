"""Emergencies told by what is seen and what happened, and the same words where nothing is wrong."""

from __future__ import annotations

import pytest

from medchat.medical_safety import find_red_flags

pytestmark = pytest.mark.safety

#: (what somebody in need writes, the notice, the same words in an ordinary sentence)
PAIRS = [
    ("我同事靠墙溜下去，眼睛睁着不认人", "unconscious", "孩子靠墙玩滑梯溜下来，很开心"),
    ("喊三声应一声，后来不应了", "unconscious", "喊了三声，狗狗就跑过来了"),
    ("外婆今天叫她没什么反应，眼睛半闭", "unconscious", "跟老师说了没什么反应"),
    ("found my mom on the kitchen floor, she's not answering", "unconscious", "my phone is not responding"),
    ("娃吸气像拉锯一样，鼻孔一扇一扇的", "breathing", "锯木头像拉锯一样要用力"),
    ("咳的痰带泡沫，粉的", "breathing", "洗面奶泡沫是粉的"),
    ("grandad heaving his shoulders and wont lie flat", "breathing", "the box is heavy, heaving it up the stairs"),
    ("气不够用，话要分三截说，指甲发乌", "breathing", "手机内存不够用"),
    ("刚给宝宝喂米糊，呛到了，现在不哭也不喘", "choking", "刚给宝宝喂米糊，吃得很香"),
    ("崽崽吃荔枝，核下去了，光张嘴不出声", "choking", "吃荔枝上火怎么办"),
    ("孩子身子绷得像弓一样，眼睛往上吊", "seizure", "射箭的时候弓要绷紧"),
    ("他手自己抖停不住，接着人就迷了", "seizure", "手抖是不是帕金森"),
    ("手腕子啥也没有，我按着呢，接着按吗", "not-breathing", "可乐没气了还能喝吗"),
    ("肩膀头子酸，恶心，心里发慌，手心全是汗", "chest-pain", "一紧张手心全是汗"),
    ("后背像撕开一样疼，从前面撕到腰", "chest-pain", "健身拉伤后背疼像撕裂"),
    ("他看我只能看到半边，走路老撞门框", "stroke", "近视眼看东西重影"),
    ("粥从右边嘴角漏，想骂骂不出来", "stroke", "锅漏了粥流一桌"),
    ("dad cant find his words, left hand is clumsy", "stroke", "i cant find my keys"),
    ("蜂子叮了脖颈，一身都是坨坨，心里慌", "anaphylaxis", "蚊子叮了一身包"),
    ("吃了海鲜十几分钟脸肿，喘", "anaphylaxis", "吃了海鲜拉肚子两次"),
    ("血捂不住，从指缝里往外冒", "bleeding", "水龙头捂不住往外冒水"),
    ("我爸吐出来全是暗红色的，一地", "bleeding", "吃火龙果拉红色的大便"),
    ("刀口崩了，血透了三层垫子", "bleeding", "玻璃划了手背，血已经止住了"),
    ("割稻机打到脚踝，脚掌就剩一层皮吊着", "severed", "剪指甲剪到一点皮"),
    ("裤腿卷进传送带里了拔不出来", "severed", "传送带皮带怎么换"),
    ("轮子从脚上过去，站不起来", "trauma", "骑车摔了一跤胳膊蹭破皮"),
    ("驾驶室瘪了，我哥夹里面喊疼", "trauma", "车追尾了，人没事，怎么定责"),
    ("孩子在浴缸自己坐着，两分钟回来在水底下", "drowning", "泳镜掉水里找不到了"),
    ("插头漏电，麻了半条胳膊，心咚咚乱跳", "electric-shock", "冬天总被静电电到"),
    ("药都攒够了，孩子托给我姐了", "self-harm", "托我姐照顾孩子去旅游"),
    ("站在桥头，水挺急的，好累", "self-harm", "站在江边看日落真美"),
    ("血压测不出来，人冷，说口干", "vital-signs", "血压计没电了血压测不出来"),
    ("输完液回来喉咙像有手掐着，身上刺痒", "anaphylaxis", "毛衣刺痒，换一件"),
    ("破水了，绿色的，才33周", "pregnancy", "33周产检都正常"),
    ("there's blood in the toilet bowl, a lot, and im dizzy", "severe", "the toilet bowl is cracked"),
    ("摔了磕到太阳穴，他吃拜瑞妥，头疼起来", "head-injury", "拜瑞妥一天吃几次"),
    ("月经血崩，两小时换了五片，站不稳", "bleeding", "月经第二天量多，有血块"),
    ("工友手碰到砂带机，手掌皮没了，露着筋", "severed", "手碰到砂纸有点糙"),
]  # fmt: skip


def rules(text: str) -> list[str]:
    """Return the rules that fire; weak signs are weighed elsewhere."""
    return [each.rule for each in find_red_flags(text).evidence if each.key != "possible-emergency"]


@pytest.mark.parametrize(("said", "key", "ordinary"), PAIRS)
def test_what_is_seen_fires_and_the_same_words_elsewhere_do_not(said: str, key: str, ordinary: str) -> None:
    assert key in {evidence.key for evidence in find_red_flags(said).evidence}
    assert rules(ordinary) == []


def test_slight_holds_in_its_own_clause_alone() -> None:
    assert rules("感冒了，呼吸有点费劲") == []
    assert find_red_flags("我爸喘得厉害，坐着都喘，嘴唇有点发紫").vital


def test_every_ordinary_reason_near_is_looked_at_not_only_the_first() -> None:
    assert rules("嘴角有点干，呼吸有点费劲") == []


def test_long_standing_is_taken_back_by_what_began_today() -> None:
    assert rules("右手没劲两年了，颈椎病") == []
    assert find_red_flags("中风后遗症两年，今天右手突然没劲").vital


def test_a_rule_reaches_as_many_words_of_latin_letters_as_of_chinese() -> None:
    assert find_red_flags(
        "she fell off her horse this morning, helmet cracked, keeps asking the same question"
    )


def test_so_many_yrs_ago_is_the_past() -> None:
    assert rules("grandpa collapsed 10 yrs ago, can he fly") == []


def test_half_a_day_is_no_age() -> None:
    assert "infant" not in [notice.key for notice in find_red_flags("孩子赖床，叫半天叫不醒").notices]


def test_a_piece_of_text_with_nothing_to_weigh_is_no_error() -> None:
    assert rules("my tongue is sore, bit it") == []
