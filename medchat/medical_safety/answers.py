"""A look at the model's answer where a red flag fired: what speaks against the notice is said to do so.

An answer is never rewritten. What is looked for: that there is no need for help or time to wait, first aid
that harms, and a dose for somebody whom it may harm. A word counts unless its own clause denies it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from medchat.api import Notice
from medchat.language import say
from medchat.medical_safety.harmful_first_aid import HARMS, HIM, Harm, any_of

_NO_NEED = "(?:不用|不必|不需要|无需|无须|没必要|没有必要|用不着)"
_HELP = "(?:医院|就医|就诊|急诊|看医生|看病|看急诊|打120|叫120|拨打120|呼叫120|叫救护车|打急救)"
#: There is no need for help, or time to wait.
_DELAYS = any_of(
    rf"{_NO_NEED}(?:急着|马上|立即|立刻|着急|专门|特意|再)?(?:去|到|上|跑|送|进)?{_HELP}",
    rf"(?:别|不要|先别|先不|暂时不)(?:急着|忙着|着急)(?:去|到|上)?{_HELP}",
    rf"{_NO_NEED}(?:特殊|特别|额外|任何|做)?(?:处理|治疗|管它|理会|理它)",
    r"(?:在家|居家)(?:里|中)?(?:先|继续|卧床|好好|多)?(?:观察|静养|休养|休息|处理|调养)",
    r"(?:先|可以|可|自行)(?:自行|继续)?观察(?!患者|病人|是否|到|性)",
    r"(?<!密切)观察(?:即可|就行|就好|看看|几天|几小时|一下|一晚|一段时间|[0-9])|再(?:等等|等一等|等一会|观察|看看情况|看看会)",
    r"(?:服用|吃|喝)[^，。；！？\n]{0,12}(?:观察一下|看看情况|看看效果|就好了|就没事了)",
    r"(?:自行|自己|自然|慢慢|自动)(?:就)?(?:会)?(?:缓解|恢复|消失|好转|痊愈|消退)|会自己好|自己会好|自愈",
    r"(?:休息|躺|睡|忍|缓)(?:一下|一会儿?|一觉|几天|一晚|几分钟)?就(?:会|能|可以)?(?:好|没事|缓解|过去|恢复)",
    r"(?:明天|明早|明天早上|过几天|过两天|等几天|等天亮|天亮|下周|周末|改天)(?:以?后)?(?:上午|早上)?再(?:去|看|说|就医|处理)",
    r"(?:加重|恶化|不缓解|不好转|没好转|没有好转|没有缓解|不退|厉害)(?:了|时|的话|后)?再(?:去|来|到|就医|就诊|看|考虑|说)",
    r"(?:还|仍然?|依然)(?!在[^，。；！？\n]{1,3}[里中上下内])[^，。；！？\n]{0,4}再(?:打|叫|拨|去|来|就医|就诊)",
    r"(?:一会儿?|几分钟|很快|过一阵|过一会儿?)(?:后)?(?:就|都)?(?:会)?(?:过去|好了?|缓解|没事)",
    r"(?:自己|自行|自然|慢慢|随(?:着)?(?:大便|粪便))(?:会|能|就|可以)?排(?:出|掉|走|下来)",
    rf"让{HIM}(?:先)?睡(?:一觉|一会儿?)|先睡(?:一觉|一会)|(?:可以|不妨)先睡",
    r"\b(?:no need|don['’]t need|do not need|needn['’]t|not necessary|unnecessary) (?:for you )?(?:to )?"
    r"(?:go to (?:the )?(?:hospital|er|emergency)|see a doctor|call|seek)",
    r"\b(?:watch|observe|monitor|rest|stay)(?: it| him| her| them| yourself)?(?: and wait)? at home|\bwait and see\b",
    r"\b(?:pass|go away|resolve|get better|subside|heal)s? "
    r"(?:on its own|by itself|by themselves|on their own|naturally)",
    r"\b(?:see a doctor|go|call) tomorrow\b|\bwait (?:until|till) (?:the )?(?:morning|tomorrow)",
    r"\bsleep it off\b|\btake a nap\b",
)
#: Words that calm. They count only where the answer sends nobody to help.
_CALMS = any_of(
    r"(?:不用|不必|无需|不要|别)(?:太|过于|过分|过度)?(?:担心|紧张|害怕|惊慌)|不要紧|没关系|没(?:什么|有)?大碍",
    r"没(?:什么)?大问题|问题不大|(?:并不|不太|不)严重|没(?:什么)?事的?(?=[，。！]|$)|正常现象|是正常的|很正常",
    r"(?:不会|没)有?(?:生命)?危险",
    r"\bnothing to worry about|\bnothing serious|\bnot (?:serious|dangerous)|\b(?:do not|don['’]t) worry|\bis harmless",
    r"\b(?:he|she|you|they|it)(?: will|['’]ll) be (?:fine|ok|okay|all right)",
)
_SENDS = any_of(
    r"120|急救|救护车|急诊|(?:立即|立刻|马上|尽快|赶紧|及时|务必|尽早|必须)(?:去|到|送)?(?:往)?(?:医院|就医|就诊)",
    r"\b(?:ambulance|emergency|hospital|911|999)\b",
)

#: Before the word in its clause: it is denied, forbidden or doubted.
_DENIED_BEFORE = any_of(
    r"不要|不能|不可以|不一定|不见得|不可|不宜|不应该?|不得|不该|不会|不是|不建议|不推荐|不提倡|不主张|不准|不必|不用|不需要?|无需|勿|切忌|(?<![特分个区性级类辨鉴识])别",
    r"禁止|严禁|忌|避免|防止|千万不|并非|绝非|没有|无法|难以|未|而不是|不等于|不代表|不意味|误区|谣言|(?:误)?以为(?:可以|能|就|会)?",
    r"即使|即便|哪怕|就算|虽然|尽管|有人说|民间|传言|听说|是否|由医生|不$",
    r"\b(?:not|never|don['’]t|avoid|without|cannot|can['’]t|won['’]t|shouldn['’]t|instead of|even if)\b",
)
#: Between a denial and the word: what was denied is something else ("没有呼吸困难可以在家观察").
_BUT = re.compile(r"可以|就可|就能|那就|则|即可|建议|应当|应该|只需|只要")
#: Behind it, in its clause or (first aid) its sentence: the same.
_DENIED_BEHIND = any_of(
    r"错|不对|不可取|不科学|不正确|危险|有害|误区|没有?用|没有[^，。]{0,2}(?:依据|根据|效果|作用)|无效|不可以|都?不行|都不能|耽误|延误|不妥",
    r"可能性(?:不大|很小|极小|较小)|不(?:太)?可能|几乎不|也(?:要|应|必须|不能|得)|而(?:不|延误|耽误)|由医生",
    r"\b(?:is|are) (?:wrong|dangerous|harmful|a myth)|\bmakes? it worse",
)
_HARM_DENIED_BEHIND = any_of(
    r"(?:会|可能|容易)(?:使|让|加重|导致|造成|影响|引起|刺激|损伤|烧伤|冻伤|感染|掩盖|大?出血|呛|窒息)",
    r"反而|更(?:危险|严重)",
)
#: Before first aid in its clause: those do it who may.
_BY_STAFF = any_of("医生(?:会|来|再|可能)|医护|急救人员(?:会|来)|\\bdoctors? (?:will|may|can)")
_CLAUSE_ENDS = re.compile(r"[，,。.；;！!？?\n：:]")
_SENTENCE_ENDS = re.compile(r"[。！!？?\n；;]|\.\s")
#: A clause is read so far, whatever its length: the work stays in proportion to the answer's.
_REACH = 60


def contradicts_notice(answer: str, question: str = "") -> bool:
    """Whether `answer` delays or denies help, or advises first aid that harms, in words that it does not deny.

    `question` says what first aid is for where the answer does not.
    """
    if any(not _denied(answer, found) for found in _DELAYS.finditer(answer)):
        return True
    if any(_advises(answer, question, harm) for harm in HARMS):
        return True
    if any(not _denied_before(answer, found) for found in _SENDS.finditer(answer)):
        return False
    return any(not _denied_before(answer, found) for found in _CALMS.finditer(answer))


def _advises(answer: str, question: str, harm: Harm) -> bool:
    everywhere = harm.about is None or harm.about.search(question) is not None
    for found in harm.advice.finditer(answer):
        before, behind = (
            answer[max(0, found.start() - _REACH) : found.start()],
            _sentence_behind(answer, found),
        )
        if not everywhere and harm.about and not harm.about.search(before + found[0] + behind):
            continue
        sentence = _SENTENCE_ENDS.split(before)[-1] + found[0] + behind
        if harm.unless and harm.unless.search(sentence):
            continue
        if not (_denied(answer, found) or _warned_of(answer, found) or _left_to_staff(before)):
            return True
    return False


def _left_to_staff(before: str) -> bool:
    return _BY_STAFF.search(_CLAUSE_ENDS.split(before)[-1]) is not None


def _sentence_behind(answer: str, found: re.Match[str]) -> str:
    return _SENTENCE_ENDS.split(answer[found.end() : found.end() + _REACH])[0]


def _denied(answer: str, found: re.Match[str]) -> bool:
    clause = _CLAUSE_ENDS.split(answer[found.end() : found.end() + _REACH])[0]
    return (
        _denied_before(answer, found) or _DENIED_BEHIND.search(clause) is not None or _conceded(answer, found)
    )


def _denied_before(answer: str, found: re.Match[str]) -> bool:
    clause = _CLAUSE_ENDS.split(answer[max(0, found.start() - _REACH) : found.start()])[-1]
    denials = list(_DENIED_BEFORE.finditer(clause))
    return bool(denials) and _BUT.search(clause, denials[-1].end()) is None


def _conceded(answer: str, found: re.Match[str]) -> bool:
    """Whether the next clause takes it back: "哪怕自行缓解，也应就医"."""
    clauses = _CLAUSE_ENDS.split(answer[found.end() : found.end() + _REACH])
    return (
        len(clauses) > 1 and re.match(r"(?:也|仍|还是|都)(?:要|应|必须|需|得|不能)", clauses[1]) is not None
    )


def _warned_of(answer: str, found: re.Match[str]) -> bool:
    sentence = _sentence_behind(answer, found)
    return _DENIED_BEHIND.search(sentence) is not None or _HARM_DENIED_BEHIND.search(sentence) is not None


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
    if contradicts_notice(answer, question):
        text = say(
            "这段回答与上面的提示不一致，请以提示为准。",
            "This answer disagrees with the notice above: go by the notice.",
        )
        notices.append(Notice(text, urgent=True, key="answer-contradicts"))
    if DOSE_KEY not in shown and names_dose(question, answer):
        text = say(
            "回答里的用药量没有核对过，不要照着用：请咨询医生或药师。",
            "The dose in this answer was not checked. Do not use it: ask a doctor or a pharmacist.",
        )
        notices.append(Notice(text, key=DOSE_KEY))
    return notices
