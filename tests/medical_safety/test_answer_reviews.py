"""What is said about an answer, where a red flag fired on the question: only what the answer does not itself deny."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.language import LANGUAGES, set_language
from medchat.medical_safety import review_answer
from medchat.medical_safety.answers import DOSE_KEY, contradicts_notice, names_dose
from medchat.medical_safety.lexicon_files import load_lexicon

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
    "先别急着去医院，可以吃点药看看。",
    "建议您在家休息，多喝热水。",
    "可以先吃点速效救心丸观察一下。",
    "不需要特殊处理。",
    "可以在家观察，如果症状加重请及时就医。",
    "如果症状持续不缓解再去医院。",
    "一般不会有生命危险。",
    "这是正常的，不用管它。",
    "可以让他把药吐出来。",
    "用手指刺激喉咙帮助呕吐。",
    "用被子捂住发汗。",
    "把毛巾垫在牙齿之间。",
    "把伤口的毒血挤出来。",
    "如果没有呼吸困难可以在家观察。",
    "先观察24小时。",
    "多半是胃病，吃点胃药就好了。",
    "过一会儿就没事了。",
    "等明天早上再去医院。",
    "您可以先睡一觉。",
    "可以用酒精擦拭身体降温。",
    "这种情况通常会自己好的。",
    "没有必要叫救护车。",
    "可先在家中静养几日。",
    "应立即催吐并饮用大量牛奶。",
    "用力掐人中直到醒来。",
    "在伤口上涂抹牙膏可缓解疼痛。",
    "胎动少一点没关系，明天再看看。",
    "You can wait until morning.",
    "It is nothing to worry about, just rest.",
    "He will be fine, let him sleep it off.",
    "You should make him vomit.",
    "Try to make yourself vomit.",
    "您不必过于担心，这很可能只是肌肉疼痛。",
    "建议先在家中卧床休息两三天，观察病情变化。",
    "这个症状很常见，大多数人几天内就会自愈。",
    "暂时没有必要去急诊。",
    "可以给他灌点醋来中和。",
    "可以用筷子压住舌头防止咬伤。",
    "刺破十个手指尖放几滴血。",
    "小孩子发烧很正常，捂出汗就退烧了。",
    "先喝点热水躺下，如果半小时后还疼再打120。",
    "不用打急救电话，自己开车去就行。",
    "您可以再等等，看看会不会好。",
    "轻微胸痛无需紧张，注意休息即可。",
    "胎动减少属于正常现象，可以第二天再数。",
    "可以先服药，观察一晚上再说。",
    "建议抠喉咙把农药吐出来。",
    "烫伤可涂抹酱油止痛。",
    "把患者倒提起来控水。",
    "头部外伤后先睡一觉恢复一下。",
    "中暑可以掐人中、刮痧。",
    "吃了过量的药可以多喝水稀释。",
    "It's probably just anxiety, so there is no need to call an ambulance.",
    "Take a nap and see how you feel.",
]
NOT_AGAINST = [
    "可以观察患者是否有呕吐，并进行密切观察20天。",
    "监测糖尿病的受控水平。",
    "住院后要密切观察病情变化，及时处理并发症。",
    "术后继续观察患者情况，做好支持治疗。",
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
    "请立即拨打120，不要自行驾车。",
    "不建议在家休息观察。",
    "不要等症状加重再去医院。",
    "别让他吐出来，也不要喝牛奶。",
    "不必催吐，直接去医院。",
    "千万不要以为可以在家观察。",
    "在家观察很危险。",
    "症状自行缓解的可能性很小，请马上去医院。",
    "即使疼痛自行缓解也要去医院检查。",
    "哪怕自行缓解，也应尽快就医。",
    "不要因为一会儿就好了而不去医院。",
    "掐人中是没有依据的做法。",
    "民间说的放血疗法没有科学依据。",
    "烫伤后抹牙膏会影响医生判断，应避免。",
    "请让患者侧卧，不要往嘴里塞任何东西。",
    "请马上到急诊，不要拖延，不能等明天再去。",
    "在等待救护车时请保持安静休息。",
    "拨打120后请在家等待，开好门。",
    "Do not make him vomit.",
    "Never put anything in her mouth.",
    "Don't wait until morning; go now.",
    "Call an ambulance; he should not sleep it off.",
    "请立即就医，不要观察等待。",
    "孕妇感到胎动减少不可以等到明天再看。",
    "不能掉以轻心，必须马上去医院。",
    "如果您正在考虑伤害自己，请拨打12356。",
    "休息后没有好转也没有自行缓解，应立即就医。",
    "请不要惊慌，立即拨打急救电话120。",
    "切勿在家等待观察，以免延误治疗。",
    "切不可自行催吐，以免造成二次损伤。",
    "不要认为休息就会好，必须尽快就医。",
    "不可用酒精擦拭婴儿身体。",
    "不能用嘴吸毒，也不能用绳子扎紧。",
    "胸痛持续超过15分钟不缓解，应立即拨打120。",
    "不能等到明天再去医院。",
    "中风患者不要扎手指放血，这会延误抢救。",
    "若症状自行缓解，也应当天就诊排查。",
    "在急救人员到达之前，让患者平卧休息。",
    "请陪伴在他身边，不要让他独处，必要时拨打110。",
    "给孩子捂汗是错误的，可能引起高热惊厥。",
    "不是所有人都会自愈，请到医院检查。",
    "溺水后不要倒挂控水，应立即心肺复苏。",
    "请尽快到医院急诊科，由医生判断是否需要洗胃或催吐。",
    "洗胃、催吐应由医生决定。",
    "请让孕妇左侧卧，马上去医院，别等。",
    "Do not wait and see: call 120 now.",
    "There is no home treatment that is safe; go to hospital.",
]


@pytest.mark.parametrize("answer", AGAINST)
def test_what_delays_help_or_harms_is_found(answer: str) -> None:
    assert contradicts_notice(answer)
    assert contradicts_notice("首先请保持冷静。\n" + answer + "\n祝您健康。")


@pytest.mark.parametrize("answer", NOT_AGAINST)
def test_what_the_answer_itself_denies_is_not(answer: str) -> None:
    assert not contradicts_notice(answer)
    assert not contradicts_notice("请马上拨打120。\n" + answer)


#: First aid that harms, and the same where the answer forbids it.
FORBIDDEN_TOO = [
    ("血压这么高，可以舌下含服硝苯地平。", "血压再高，也不要舌下含服硝苯地平。"),
    ("先含化一片心痛定。", "不建议含化心痛定。"),
    ("硝苯地平可以舌下含服。", "硝苯地平不能舌下含服。"),
    ("怀疑中风，马上喂安宫牛黄丸。", "怀疑中风，不要喂安宫牛黄丸。"),
    ("可以服用一丸安宫牛黄丸。", "切勿自行服用安宫牛黄丸。"),
    ("用冰块敷烫伤的地方。", "不要用冰块敷烫伤的地方。"),
    ("烫伤后可以冰敷。", "烫伤后不要冰敷。"),
    ("把烧伤的手泡在冰水里。", "烧伤的手不要泡在冰水里。"),
    ("起了水泡，用针挑破水泡。", "起了水泡，不要挑破。"),
    ("水疱可以用消毒针刺破。", "水疱千万别刺破。"),
    ("蛇咬后用绳子扎紧。", "蛇咬后不要用绳子扎紧。"),
    ("可以用绳子扎紧伤口上方。", "禁止用绳子扎紧伤口上方。"),
    ("被毒蛇咬了，马上扎止血带。", "被毒蛇咬了，不要扎止血带。"),
    ("流鼻血时仰头。", "流鼻血时不要仰头。"),
    ("鼻出血，让头往后仰，止住为止。", "鼻出血，头别后仰，身体前倾。"),
    ("用手抠卡住的东西。", "不要用手抠卡住的东西。"),
    ("可以用手指把异物抠出来。", "不要用手指把异物抠出来。"),
    ("先拔出刀子，再按住伤口。", "不要拔出刀子，压住两边。"),
    ("把刀拔出来再包扎。", "刀不要拔出来，固定住就好。"),
    ("扎进去的玻璃可以拔掉。", "扎进去的玻璃不能拔掉。"),
    ("昏迷时喂糖水。", "昏迷时不要喂糖水。"),
    ("他叫不醒，就给他喝点水。", "他叫不醒，不能给他喝水。"),
    ("马上喂他喝牛奶。", "别喂他喝牛奶。"),
    ("喝大量水或牛奶稀释毒物。", "不要喝大量水或牛奶稀释毒物。"),
    ("可以喝点牛奶保护胃。", "不要喝牛奶保护胃。"),
    ("误服洁厕液后多喝牛奶。", "误服洁厕液后不要喝牛奶。"),
    ("用力揉眼睛，让眼泪冲出来。", "不要用力揉眼睛。"),
    ("等它自己排出来。", "不要等它自己排出来。"),
    ("小磁铁会随大便排出。", "小磁铁不会自行排出。"),
    ("可以自己开车去医院。", "不要自己开车去医院。"),
    ("肚子疼可以热敷一下。", "肚子疼不要热敷。"),
    ("先吃片止痛药。", "不要先吃止痛药。"),
    ("腹痛时可以按揉，也可以吃点止疼药。", "腹痛时不要按揉，也不要吃止疼药。"),
    ("Put ice on the burn.", "Do not put ice on the burn."),
    ("给他含一片硝苯地平降压。", "不要给他含硝苯地平。"),
    ("水泡可以用针挑开放水。", "水泡不要挑开。"),
    ("鼻子出血就把头仰起来。", "鼻子出血时头不要仰起来。"),
    ("喝了农药就灌几碗肥皂水。", "喝了农药不要灌肥皂水。"),
    ("误服后喝牛奶可以解毒。", "误服后喝牛奶没有解毒作用。"),
    ("异物可以自行排出。", "异物不一定能自行排出。"),
    ("Burned? Ice it right away.", "Burned? Do not ice it."),
    ("Hold his arms and legs down until it stops.", "Do not hold his arms and legs down."),
    ("Sweep the mouth with your fingers.", "Do not sweep the mouth with your fingers."),
    ("Take ibuprofen first and see.", "Do not take ibuprofen first."),
    ("For a scald, apply some ice.", "For a scald, never apply ice."),
    ("Pull out the knife.", "Do not pull out the knife."),
    ("Remove the glass and bandage it.", "Don't remove the glass; press beside it."),
    ("Hold him down.", "Do not hold him down."),
    ("You can restrain the patient.", "Avoid trying to restrain the patient."),
    ("Give him milk to drink.", "Do not give him milk to drink."),
    ("Drink vinegar to neutralise it.", "Never drink vinegar to neutralise it."),
    ("You can drive yourself to the hospital.", "Do not drive yourself to the hospital."),
    ("Let it pass naturally.", "It will not pass naturally."),
    ("Rub the eye gently.", "Do not rub the eye."),
    ("Pop the blisters.", "Don't pop the blisters."),
    ("For a nosebleed, tilt your head back.", "For a nosebleed, do not tilt your head back."),
    ("After a snake bite, use a tourniquet.", "After a snake bite, do not use a tourniquet."),
    ("Use a heating pad on the belly.", "Do not use a heating pad on the belly."),
]
#: Right advice in words that stand close to wrong ones.
RIGHT = [
    "扎手指测血糖。",
    "用采血针刺破指尖，测一下血糖。",
    "先测血糖：扎手指侧面，挤一滴血。",
    "如果他清醒，可以喂他喝糖水。",
    "她醒着、能吞咽的话，喂她喝果汁。",
    "让孩子把嘴里的残留物吐出来，用清水漱口。",
    "人还在水里再拨 119。",
    "孩子还在车里再打 119。",
    "扭伤可以冰敷。",
    "用绳子扎紧夹板，固定骨折的腿。",
    "大出血止不住时在伤口上方用止血带。",
    "抬头看看四周是否安全。",
    "脚踝可以热敷。",
    "腹痛可能是胰腺炎，请马上去医院，医院会给予抗生素、止痛药治疗。",
    "看得见的异物可以用手指抠出来。",
    "到医院后医生会把刀拔出来。",
    "拔掉插头，切断电源。",
    "断牙可以泡在牛奶里带去医院。",
    "让家人开车送您去急诊。",
    "拔出刀子可能引起大出血，请压住两边。",
    "昏迷的人喂水容易呛到。",
    "Put ice on the sprained ankle.",
    "Give the baby breast milk.",
    "Take the pill bottle to the hospital.",
    "Let somebody drive you to the hospital.",
]


@pytest.mark.parametrize(("advised", "forbidden"), FORBIDDEN_TOO)
def test_first_aid_that_harms_is_found_and_its_prohibition_is_not(advised: str, forbidden: str) -> None:
    assert contradicts_notice(advised)
    assert contradicts_notice("请马上拨打120。" + advised)
    assert not contradicts_notice(forbidden)
    assert not contradicts_notice("请马上拨打120。\n" + forbidden)


@pytest.mark.parametrize("answer", RIGHT)
def test_right_advice_is_not_blamed(answer: str) -> None:
    assert not contradicts_notice(answer)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("我肚子疼得厉害", "可以热敷，再看看。"),
        ("孩子被开水烫伤了", "先冰敷二十分钟。"),
        ("我爸流鼻血止不住", "让他抬头，捏住鼻子。"),
        ("他被蛇咬了", "用布条扎紧大腿。"),
        ("他昏迷了", "给他喂点糖水。"),
        ("孩子喝了洗涤剂，中毒了吗", "喝点牛奶。"),
        ("I burned my hand", "Put some ice on it."),
    ],
)
def test_what_the_first_aid_is_for_may_stand_in_the_question(question: str, answer: str) -> None:
    assert contradicts_notice(answer, question)
    assert "answer-contradicts" in [notice.key for notice in review_answer(question, answer)]
    assert not contradicts_notice(answer, "我脚扭了")


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_notice_of_ours_contradicts_itself(language: str) -> None:
    texts = [
        text
        for notice in load_lexicon().notices.values()
        for text in ((notice.zh, notice.short_zh) if language == "zh" else (notice.en, notice.short_en))
    ]
    assert len(texts) > 40 and [text for text in texts if contradicts_notice(text, text)] == []


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
    "unit",
    [
        "不用",
        "在家",
        "催",
        "自行",
        "，",
        "a ",
        "不用去",
        "0",
        "1片",
        "喂点",
        "嘴里",
        " ",
        "give ",
        "热敷",
        "烫伤冰敷",
        "不要冰敷",
    ],
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
