"""What makes two questions different however alike they are written: a number, a no, a side, an age, what is asked for.

Two questions that differ in any of it are no duplicates. Most of it is found by lists of words, the rest (the name of a
disease) where two or more characters stand in each other's place. Where in doubt they differ, so that both are kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from itertools import chain

_DIGITS = {digit: number for number, digit in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_NUMBER = re.compile(r"\d+(?:\.\d+)?%?")
#: Chinese numbers count where they count something: 一名患者 is no more than a patient.
_CHINESE_NUMBER = re.compile(
    "([零〇一二两三四五六七八九十百半]+)(?=个?(?:半|多)?(?:岁|月|天|日|周|年|次|小时|分钟|片|粒|支|毫升|毫克|克|度|级|期|型|胎|倍|成))"
)
_LATIN = re.compile(r"[a-z][a-z0-9+-]*")
#: Neither of these says no.
_NO_NEGATION = re.compile(
    "是不是|能不能|会不会|要不要|有没有|可不可以|是否|能否|可否|与否|不同(?!意)|不适(?!合|用|宜|应)|不舒服|不良|不仅|不但|不过(?!敏|量|期|度)|非常|除非|无论|不管|不断"
    "|特别|分别|类别|性别|个别|区别|差别|级别|鉴别|别的|别人|告别"
)
_NEGATION = re.compile("不|没|无|非|未|勿|别|莫|禁|忌")
_NO_SIDE = re.compile(
    "左右|上下|前后|以上|以下|之前|之后|目前|以前|以后|最后|然后|上述|上面|下面|早上|晚上|上午|下午"
)
#: Words that stand in each other's place.
_SIDES = (
    "双侧|两侧|单侧|一侧|左|右|上|中|下|前|后|内|外|急性|慢性|良性|恶性|早期|中期|晚期|升高|降低|增高|减低|增加|减少|增"
    "多|偏高|偏低|过高|过低|轻度|中度|重度|男|女|先生|女士|近端|远端|原发|继发|甲型|乙型|丙型|丁型|戊型|阳性|阴性"
    "|高|低|快|慢|深|浅|干|湿|父|母|爸|妈|正常|异常|心房|心室|房性|室性|动脉|静脉|收缩|舒张|开放|闭合|显性|隐性|口服|注射|空腹"
)
_AGES = (
    "新生儿|早产儿|婴儿|婴幼儿|幼儿|婴|儿童|小儿|小孩|孩子|宝宝|童|青少年|少年|青年|年轻|成人|成年|中年|老年|老人|孕妇|孕期"
    "|妊娠|哺乳期|产妇|更年期|绝经"
)
_ORGAN = re.compile("[心肝脾肺肾胃肠胆胰脑眼耳鼻喉舌牙膝肩腰颈胸腹腿脚手足]")
#: Words that say the same, and what stands for them while two texts are compared.
_SYNONYMS = (
    (re.compile("怎么样|怎么|怎样|如何"), "怎"),
    (re.compile("方案|方法|办法|措施"), "法"),
    (re.compile("什么|哪些|哪种|哪个|哪几种"), "何"),
    (re.compile("些"), ""),
    (re.compile("请问|您好|你好|医生|大夫|想问一下|想了解一下|一下|谢谢"), ""),
    (re.compile("可能|也许|大概|应该|应当|需要|能够|可以"), ""),
)
_CLAUSE_END = re.compile("[，。；,;？?！!]")
#: What a question asks for, each in the words people use for it.
_ATTRIBUTES: Mapping[str, str] = {
    "causes": "病因 原因 为什么 诱因 怎么引起 引起的 怎么得 导致",
    "symptoms": "症状 体征 表现 征兆 感觉",
    "tests": "检查 检测 化验 查什么",
    "diagnosis": "诊断 确诊 什么病 什么疾病 怎么判断",
    "treatment": "治疗 怎么治 疗法 怎么办 怎么处理 治得好 治好",
    "medicines": "药物 用药 吃什么药 什么药",
    "surgery": "手术",
    "prevention": "预防 避免",
    "complications": "并发症 后遗症 后果",
    "outlook": "预后 能活 存活 治愈率 复发",
    "department": "科室 什么科 挂号",
    "people": "多发群体 高危人群 易感人群 哪些人 什么人",
    "place": "发病部位 部位",
    "spread": "传播 传染",
    "food": "饮食 吃什么 食物 忌口 能吃",
    "forbidden": "禁忌 不能用",
    "side-effects": "副作用 不良反应",
    "dose": "剂量 用量 吃多少 几次 用法 服用方法",
    "cost": "费用 多少钱 价格",
    "nursing": "护理 注意什么 注意事项 照顾",
    "duration": "多久 多长时间 几天能",
    "inheritance": "遗传",
    "vaccine": "疫苗 接种",
}


def _finder(words: str) -> re.Pattern[str]:
    """Return what finds the words, given with bars between them, a longer one before a shorter one in it."""
    return re.compile("|".join(sorted(words.split("|"), key=len, reverse=True)))


def _in_common_words(text: str) -> str:
    for words, common in _SYNONYMS:
        text = words.sub(common, text)
    return text


_WORDS_ASKED = {_in_common_words(word): name for name, words in _ATTRIBUTES.items() for word in words.split()}
_SIDE, _AGE, _ASKED = _finder(_SIDES), _finder(_AGES), _finder("|".join(_WORDS_ASKED))
#: Asks for a diagnosis by itself, and for nothing more after what is asked for: 治疗方案是什么 is 怎么治疗.
_WHAT_IS_IT = _in_common_words("是什么")


def difference(first: str, second: str) -> str:
    """Return in what two questions differ that makes them two, "" for nothing of the kind."""
    one, other = (unicodedata.normalize("NFKC", text).casefold() for text in (first, second))
    by_words = next((name for name, mark in _MARKS.items() if mark(one) != mark(other)), "")
    return by_words or ("words" if _says_another_thing(one, other) else "")


def _numbers(text: str) -> Counter[str]:
    plain = (found[0] for found in _NUMBER.finditer(text))
    chinese = (_value(found[1]) for found in _CHINESE_NUMBER.finditer(text))
    return Counter(chain(plain, chinese))


def _value(number: str) -> str:
    """Return a Chinese number up to 999 in digits; one that is read otherwise as it is."""
    if number == "半":
        return "0.5"
    total, digit = 0, None
    for character in number:
        if character in _DIGITS:
            digit = _DIGITS[character]
        elif character in "十百":
            total += (1 if digit is None else digit) * (10 if character == "十" else 100)
            digit = 0
        else:
            return number
    return str(total + (digit or 0))


def _negations(text: str) -> int:
    """Return how often it says no; which word says so makes no difference (没有, 无)."""
    plain = _NO_NEGATION.sub("", text).replace("没有", "没")
    return len(_NEGATION.findall(plain))


def _sides(text: str) -> Counter[str]:
    return Counter(_SIDE.findall(_NO_SIDE.sub("", text)))


def _ages(text: str) -> Counter[str]:
    return Counter(_AGE.findall(text))


def _asked(text: str) -> frozenset[str]:
    """Return what the last clause asks for that asks for anything: before it stands the patient's story."""
    clauses = reversed(_CLAUSE_END.split(_in_common_words(text)))
    return next(filter(None, map(_asked_in_clause, clauses)), frozenset())


def _asked_in_clause(clause: str) -> frozenset[str]:
    asked = frozenset(_WORDS_ASKED[word] for word in _ASKED.findall(clause))
    return asked or frozenset({"diagnosis"} if _WHAT_IS_IT in clause else ())


def _organs(text: str) -> Counter[str]:
    return Counter(_ORGAN.findall(text))


def _says_another_thing(one: str, other: str) -> bool:
    """Whether two or more characters of meaning stand where the other has two or more others."""
    first, second = (re.sub(r"\W", "", _in_common_words(text)) for text in (one, other))
    steps = SequenceMatcher(None, first, second, autojunk=False).get_opcodes()
    return any(step == "replace" and min(b - a, d - c) > 1 for step, a, b, c, d in steps)


def _latin(text: str) -> Counter[str]:
    return Counter(_LATIN.findall(text))


#: What is compared, by the name of the difference.
_MARKS: Mapping[str, Callable[[str], object]] = {
    "number": _numbers,
    "negation": _negations,
    "side": _sides,
    "age": _ages,
    "attribute": _asked,
    "organ": _organs,
    "name": _latin,
}
