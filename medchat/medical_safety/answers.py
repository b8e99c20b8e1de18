"""A look at the model's answer where a red flag fired: what speaks against the notice is said to do so.

An answer is never rewritten. What is looked for: that there is no need for help or time to wait, first aid
that harms, and a dose for somebody whom it may harm. A word counts unless its own clause denies it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from medchat.api import Notice
from medchat.language import say

#: There is no need for help, or time to wait.
_DELAYS = re.compile(
    r"(?:不用|不必|不需要|无需|无须|没必要|没有必要|用不着|暂时不用|先不用)(?:急着|马上|立即|立刻|着急|专门|特意|再)?"
    r"(?:去|到|上|跑|送|进)?(?:医院|就医|就诊|急诊|看医生|看病|看急诊|打120|叫120|拨打120|呼叫120|叫救护车|打急救)"
    r"|(?:在家|居家|先|可以|可先|自行|自己)(?:里|中)?(?:继续|先)?(?:观察|静养|休养|处理)(?:即可|就行|就好|看看|几天|一下|一晚|一段时间)?"
    r"|(?:自行|自己|自然|慢慢|自动)(?:就)?(?:会)?(?:缓解|恢复|消失|好转|痊愈|消退)|会自己好|自己会好|自愈"
    r"|(?:休息|躺|睡|忍|缓)(?:一下|一会儿?|一觉|几天|一晚|几分钟)?(?:就)(?:会|能|可以)?(?:好|没事|缓解|过去|恢复)"
    r"|(?:明天|明早|过几天|过两天|等几天|等天亮|下周|周末)(?:再)(?:去|看|说|就医|处理)"
    r"|(?:一会儿?|几分钟|很快|过一阵)(?:后)?(?:就|都)?会(?:过去|好|缓解|没事)"
    r"|\b(?:no need|don['’]t need|do not need|needn['’]t|not necessary|unnecessary) (?:for you )?(?:to )?"
    r"(?:go to (?:the )?(?:hospital|er|emergency)|see a doctor|call|seek)"
    r"|\b(?:watch|observe|monitor|rest|stay)(?: it| him| her| them| yourself)?(?: and wait)? at home|\bwait and see\b"
    r"|\b(?:pass|go away|resolve|get better|subside|heal)s? (?:on its own|by itself|by themselves|on their own)"
    r"|\b(?:see a doctor|go) tomorrow\b",
    re.IGNORECASE,
)
#: Words that calm. They count only where the answer sends nobody to help.
_CALMS = re.compile(
    r"(?:不用|不必|无需|不要|别)(?:太|过于|过分|过度)?(?:担心|紧张|害怕|惊慌)|不要紧|没(?:什么|有)?大碍|没(?:什么)?大问题|问题不大"
    r"|(?:并不|不太|不)严重|没(?:什么)?事的?(?=[，。！]|$)|正常现象"
    r"|\bnothing to worry about|\bnothing serious|\bnot (?:serious|dangerous)"
    r"|\b(?:do not|don['’]t) worry|\bis harmless",
    re.IGNORECASE,
)
#: First aid that harms.
_HARMS = re.compile(
    r"催吐|抠(?:嗓子|喉咙|喉)|掐(?:他|她|患者|病人)?的?人中|按(?:压)?人中"
    r"|(?:涂|抹|敷|擦)(?:点|上|些)?(?:牙膏|酱油|香油|麻油|蛋清|面粉|盐|黄酱|猪油)"
    r"|(?:十指|手指|耳垂|指尖|耳尖)?放血|(?:扎|刺|挑)(?:破)?(?:手指|十指|指尖|耳垂)|捂(?:一|出)?(?:捂)?(?:汗|被子|热)"
    r"|(?:嘴|口)里?(?:塞|放|垫)(?:上|入|一)?(?:块|根|条)?(?:毛巾|筷子|勺子?|布|压舌板|东西)|塞(?:毛巾|筷子|勺子?)"
    r"|(?:用)?嘴(?:巴)?(?:把|去)?(?:毒|毒液|毒血)?吸(?:出|毒)|(?:切|割)开(?:伤口|皮肤)|倒(?:挂|立|提|吊)|控水"
    r"|(?:灌|喂|喝)(?:他|她|下|点|些|一杯|大量){0,3}(?:醋|牛奶|肥皂水|盐水|白酒|酒|水)(?:解毒|中和|催|稀释)|(?:喂|灌)(?:他|她|患者|病人)(?:吃|喝)"
    r"|用?(?:酒精|白酒)(?:擦身|擦拭全身|擦浴)|按住(?:他|她|患者|病人|四肢|手脚)|强行(?:按|掰)"
    r"|\b(?:induce|make (?:him|her|them|yourself) |to )\s?vomit(?:ing)?\b"
    r"|\b(?:butter|toothpaste|oil) (?:on|to) the burn"
    r"|\b(?:spoon|something|cloth|wallet) (?:in|into|between) (?:his|her|their|the) (?:mouth|teeth)"
    r"|\bsuck (?:out )?the (?:venom|poison)",
    re.IGNORECASE,
)
_SENDS = re.compile(
    r"120|急救|救护车|急诊|(?:立即|立刻|马上|尽快|赶紧|及时|务必)(?:去|到|送)?(?:往)?(?:医院|就医|就诊)|\b(?:ambulance|emergency|hospital|911|999)\b",
    re.IGNORECASE,
)

#: Before the word in its clause: it is denied, forbidden or doubted.
_DENIED_BEFORE = re.compile(
    r"不要|不能|不可|不宜|不应|不得|不该|不会|不是|不建议|不推荐|不提倡|不主张|不准|勿|切忌|别|禁止|严禁|忌|避免|千万不|并非|绝非|没有|无法|难以"
    r"|未|而不是|不等于|不代表|不意味|误以为|以为|误区|谣言|防止"
    r"|\b(?:not|never|don['’]t|avoid|without|cannot|can['’]t|won['’]t|instead of)\b",
    re.IGNORECASE,
)
#: Behind it: the same.
_DENIED_AFTER = re.compile(
    r"错|不对|不可取|不科学|不正确|危险|有害|误区|没有?用|无效|会加重|加重|会让|可能导致|会导致|造成|反而|不可以|都不行|都不能|更(?:危险|严重)"
    r"|\b(?:is|are) (?:wrong|dangerous|harmful|a myth)|\bmakes? it worse",
    re.IGNORECASE,
)
_CLAUSE_ENDS = re.compile(r"[，,。.；;！!？?\n：:]")
_SENTENCE_ENDS = re.compile(r"[。！!？?\n；;]|\.\s")
#: A clause is read so far, whatever its length: the work stays in proportion to the answer's.
_REACH = 60


def contradicts_notice(answer: str) -> bool:
    """Whether `answer` delays or denies help, or advises first aid that harms, in words that it does not deny."""
    if any(_stands(answer, found) for pattern in (_DELAYS, _HARMS) for found in pattern.finditer(answer)):
        return True
    if any(_stands(answer, found) for found in _SENDS.finditer(answer)):
        return False
    return any(not _denied_before(answer, found) for found in _CALMS.finditer(answer))


def _stands(answer: str, found: re.Match[str]) -> bool:
    return not _denied_before(answer, found) and not _denied_behind(answer, found)


def _denied_before(answer: str, found: re.Match[str]) -> bool:
    before = answer[max(0, found.start() - _REACH) : found.start()]
    return _DENIED_BEFORE.search(_CLAUSE_ENDS.split(before)[-1]) is not None


def _denied_behind(answer: str, found: re.Match[str]) -> bool:
    behind = answer[found.end() : found.end() + _REACH]
    return _DENIED_AFTER.search(_SENTENCE_ENDS.split(behind)[0]) is not None


_DOSE = re.compile(
    r"(?:(?<![0-9.])[0-9]{1,6}(?:\.[0-9]{1,4})?|[一二两三四五六七八九十半])"
    r"\s?(?:(?:到|至|[-~～—])\s?(?:[0-9]{1,6}(?:\.[0-9]{1,4})?|[一二两三四五六七八九十]))?\s?"
    r"(?:毫克|微克|毫升|国际单位|片|粒|颗|丸|滴|支|袋|包|勺|胶囊|mg|ml|mcg|μg|iu|tablets?|pills?|capsules?|drops?)(?![a-z])",
    re.IGNORECASE,
)
_DOSE_MATTERS = re.compile(
    r"孩子|小孩|宝宝|宝贝|婴儿|幼儿|新生儿|儿童|儿子|女儿|孙子|孙女|娃|(?:(?<![0-9])[0-9]{1,3}|[一二两三四五六七八九十])\s?(?:岁|个月|月龄|天)大?的?|怀孕|孕妇|孕期|孕[0-9]|哺乳|喂奶"
    r"|肾|透析|尿毒|肌酐|(?:吃|服|喝|用|打)?(?:几|多少)(?:片|粒|颗|毫克|毫升|滴|支|袋|包|勺|个)|吃多少|用多少|剂量|用量|加量"
    r"|\b(?:child|children|kid|baby|infant|toddler|son|daughter|pregnan\w*|breast-?feeding|kidney|renal|dialysis|dose|dosage"
    r"|how (?:many|much))\b",
    re.IGNORECASE,
)


#: The key of the remark on a dose, made once a conversation.
DOSE_KEY = "answer-dose"


def names_dose(question: str, answer: str) -> bool:
    """Whether `answer` names a dose where `question` is about a child, a pregnancy, a kidney, or an amount."""
    return _DOSE_MATTERS.search(question) is not None and _DOSE.search(answer) is not None


def review_answer(question: str, answer: str, shown: Set[str] = frozenset()) -> Sequence[Notice]:
    """Return what to say after an answer to words on which a red flag fired.

    `shown` are the keys of the notices of this conversation so far: a dose is remarked on once.
    """
    notices = []
    if contradicts_notice(answer):
        text = say(
            "这段回答与上面的提示不一致，请以提示为准。",
            "This answer disagrees with the notice above: go by the notice.",
        )
        notices.append(Notice(text, urgent=True, key="answer-contradicts"))
    if DOSE_KEY not in shown and names_dose(question, answer):
        text = say(
            "回答里的用药量没有核对过，不要照着用：请问医生或药师。",
            "The dose in this answer was not checked: do not go by it, ask a doctor or pharmacist.",
        )
        notices.append(Notice(text, key=DOSE_KEY))
    return notices
