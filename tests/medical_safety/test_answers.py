"""What is said about an answer, where a red flag fired on the question: only what the answer does not itself deny."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.language import LANGUAGES, set_language
from medchat.medical_safety import review_answer
from medchat.medical_safety.answers import DOSE_KEY, contradicts_notice, names_dose

pytestmark = pytest.mark.safety

AGAINST = [
    "这种情况一般不用去医院，在家观察就好。",
    "通常几分钟就会过去。",
    "胸口闷多半会自行缓解，休息一下就好。",
    "马上催吐，然后多喝水。",
    "掐人中可以让他醒来。",
    "烫伤后可以涂牙膏。",
    "十指放血能救命。",
    "盖上被子捂汗。",
    "不用担心，问题不大。",
    "您先观察几天，明天再去医院看看。",
    "往嘴里塞毛巾防止咬舌。",
    "先给他灌醋解毒。",
    "这个没什么大碍。",
    "可以居家观察。",
    "无需就医。",
    "暂时不用打120。",
    "请不要惊慌。不用叫救护车。",
    "You don't need to go to the hospital, it will pass on its own.",
    "Induce vomiting immediately.",
    "Rest at home and wait and see.",
]
NOT_AGAINST = [
    "不要催吐，马上拨打120。",
    "切勿掐人中、催吐、放血。",
    "不能在家观察，请立即去医院。",
    "胸痛不会自行缓解时请立即拨打120。",
    "涂牙膏是错误的。",
    "掐人中没有用。",
    "不要给孩子捂汗。",
    "请立即拨打120，不用担心费用。",
    "避免自行催吐。",
    "请马上拨打120，保持冷静。",
    "如果疼痛不能自行缓解，立即就医。",
    "催吐会加重食管损伤。",
    "别往嘴里塞东西。",
    "千万不要以为忍一忍就好。",
    "不要用嘴吸毒液，也不要切开伤口。",
    "请侧卧，不要按住他。",
    "Do not induce vomiting; call an ambulance.",
    "",
]


@pytest.mark.parametrize("answer", AGAINST)
def test_what_delays_help_or_harms_is_found(answer: str) -> None:
    assert contradicts_notice(answer)
    assert contradicts_notice("首先请保持冷静。\n" + answer + "\n祝您健康。")


@pytest.mark.parametrize("answer", NOT_AGAINST)
def test_what_the_answer_itself_denies_is_not(answer: str) -> None:
    assert not contradicts_notice(answer)
    assert not contradicts_notice("请马上拨打120。" + answer)


def test_help_that_is_called_for_elsewhere_does_not_excuse_wrong_first_aid() -> None:
    assert contradicts_notice("请拨打120。同时给他催吐。")
    assert contradicts_notice("不要捂汗。可以掐人中。")


@pytest.mark.parametrize(
    ("question", "answer", "found"),
    [
        ("3岁孩子发烧吃几片", "每次半片，一天三次。", True),
        ("怀孕了能吃布洛芬吗", "一次 200 毫克。", True),
        ("肾不好能吃吗", "可以吃 2~3 粒。", True),
        ("How many tablets for my child?", "Take 2 tablets.", True),
        ("我头痛", "吃 500 毫克。", False),
        ("孩子发烧怎么办", "多喝水，体温超过 38.5 度去医院。", False),
    ],
)
def test_a_dose_is_remarked_on_where_it_may_harm(question: str, answer: str, found: bool) -> None:
    assert names_dose(question, answer) == found
    keys = [notice.key for notice in review_answer(question, answer)]
    assert (DOSE_KEY in keys) == found
    assert DOSE_KEY not in [notice.key for notice in review_answer(question, answer, {DOSE_KEY})]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_remarks_give_no_dose_and_no_blame_and_say_what_to_go_by(language: str) -> None:
    set_language(language)
    try:
        against, dose = review_answer("孩子吃几片", "不用去医院，吃 2 片就好。")
    finally:
        set_language("zh")
    assert ("以提示为准" in against.text) == (language == "zh") and against.urgent
    assert not any(character.isdigit() for character in against.text + dose.text)


@given(st.text(max_size=200))
def test_any_answer_is_reviewed_without_failing(answer: str) -> None:
    assert all(notice.key.startswith("answer-") for notice in review_answer(answer, answer))


@pytest.mark.parametrize(
    "unit", ["不用", "在家", "催", "自行", "，", "a ", "不用去", "0", "1片", "喂点", "嘴里", " "]
)
def test_the_work_grows_with_the_length_of_the_answer(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * length)[:length]
        began = time.process_time()
        review_answer(text, text)
        return time.process_time() - began

    seconds(1000)
    short, long = min(seconds(10_000) for _ in range(3)), min(seconds(40_000) for _ in range(3))
    assert long < 12 * short + 0.05
