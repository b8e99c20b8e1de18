"""Numbers that are signs: pressure, temperature, oxygen, sugar, pulse, ages, amounts, how long something lasts.

A number alone is none: what stands shortly before and behind it says what it measures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

#: (start, end, class)
Measure = tuple[int, int, str]

_DIGITS = {"零": 0, "一": 1, "二": 2, "两": 2, "俩": 2, "三": 3, "仨": 3, "四": 4, "五": 5, "六": 6,
           "七": 7, "八": 8, "九": 9}  # fmt: skip
_NUMBER = re.compile(r"\d{1,4}(?:\.\d{1,2})?|[零一二两俩三仨四五六七八九十百半几]{1,5}")
#: "一百四" is 140.
_SHORT_HUNDRED = re.compile("([一二两三])百([一二三四五六七八九])")
#: How far before and behind a number its meaning may stand.
_BEFORE, _BEHIND = 14, 14


def number_of(written: str) -> float:
    """Return the number that digits or Chinese numerals write: 30, 三十, 十二, 半 (0.5), 几十 (30)."""
    if written[0].isdigit():
        return float(written)
    if written == "半":
        return 0.5
    if (short := _SHORT_HUNDRED.fullmatch(written)) is not None:
        return float(_DIGITS[short[1]] * 100 + _DIGITS[short[2]] * 10)
    total, current = 0, 0
    for character in written:
        if character == "百":
            total, current = total + (current or 1) * 100, 0
        elif character == "十":
            total, current = total + (current or 1) * 10, 0
        elif character != "半":
            current = 3 if character == "几" else _DIGITS[character]
    return float(total + current)


def _pressure(value: float, behind: re.Match[str] | None) -> str:
    if behind is not None:
        lower = float(behind["lower"])
        if not lower < value:
            return ""
        if 30 <= value <= 85:
            return "sign.low-pressure"
        if 160 <= value <= 320 or 110 <= lower <= 200:
            return "sign.high-pressure" if value >= 200 or lower >= 130 else "sign.raised-pressure"
        return ""
    if 30 <= value <= 80:
        return "sign.low-pressure"
    if 160 <= value < 200:
        return "sign.raised-pressure"
    return "sign.high-pressure" if 200 <= value <= 320 else ""


def _temperature(value: float) -> str:
    if 95 <= value <= 110:  # Fahrenheit
        value = (value - 32) / 1.8
    if not 30 <= value <= 44:
        return ""
    if value >= 40.5:
        return "sign.very-hot"
    if value >= 37.9:
        return "sign.fever"
    return "sign.cold" if value <= 35.4 else ""


def _sugar(value: float) -> str:
    if value >= 40:  # mg/dl
        value /= 18
    if 0.5 <= value < 3.0:
        return "sign.low-sugar"
    return "sign.high-sugar" if 16.7 <= value <= 60 else ""


def _pulse(value: float) -> str:
    if 140 <= value <= 280:
        return "sign.fast-pulse"
    return "sign.slow-pulse" if 15 <= value < 42 else ""


def _oxygen(value: float) -> str:
    return "sign.low-oxygen" if 40 <= value < 90 else ""


def _age(value: float, unit: str) -> str:
    if unit[0] == "岁" or unit[0] == "y":
        return "age.child" if value <= 14 else ""
    days = value * (1 if unit[0] in "天日d" else 7 if unit[0] in "周w" else 30)
    return "age.young-infant" if days < 92 else "age.child"


def _amount(value: float, unit: str) -> str:
    if unit in ("瓶", "盒", "板", "bottle", "bottles", "boxes", "packs"):
        return "amount.much"
    if unit in ("片", "粒", "颗", "丸", "pills", "tablets", "capsules", "tabs"):
        return "amount.much" if value >= 10 else ""
    return ""


def _cue(words: str) -> re.Pattern[str]:
    """Return what matches text that ends with one of these words and up to eight characters without a digit."""
    return re.compile(rf"(?:{words})[^\d。!?;\n]{{0,8}}$")


_PRESSURE = _cue("血压|bp|高压|收缩压|blood pressure")
_LOWER = re.compile(r"\s*[/\-到和比]\s*(?:低压)?(?P<lower>\d{2,3})(?!\d)")
_MMHG = re.compile(r"\s*/\s*(?P<lower>\d{2,3})(?!\d)")
_HEAT = _cue(
    "体温|额温|耳温|腋温|肛温|腋下|烧到|烧了|发烧|发热|高烧|高热|低烧|温度计|temp|temperature|fever of|fever|rectal"
)
_DEGREES = re.compile(r"\s*(?:多|几)?(?:度|°|c(?![a-z])|f(?![a-z])|degrees)|\s*rectal")
_OXYGEN = _cue("血氧|指脉氧|脉氧|指氧|氧|氧饱和|氧饱和度|spo2|o2 sats?|o2|sats|oxygen")
_SUGAR = _cue("血糖|血糖仪|sugar|glucose|测了|meter says|meter reads")
_PULSE = _cue("心率|心跳|脉搏|heart ?rate|pulse|hr")
_BABY = re.compile(
    r"(?P<unit>天|日|周|个半月|个多月|个月|月)(?:龄|大|的?小?(?:宝宝|宝贝|婴儿|婴|娃|孩子|新生儿|宝|毛头|奶娃|崽|女儿|儿子))"
)
_BORN = _cue("出生|生下来|刚生|才生|刚满|才满|刚|才|宝宝|孩子|娃|满|宝|老大|老二|儿子|女儿")
_BORN_UNIT = re.compile(r"(?P<unit>天|周|个半月|个多月|个月)(?!前|后|没|就)")
_OLD = re.compile(r"[\s-]*(?P<unit>days?|weeks?|wks?|months?|mos?)[\s-]*old")
_YEARS = re.compile(r"\s*(?P<unit>岁|周岁|years? old|y/?o(?![a-z])|yrs? old)")
_UNITS = re.compile(
    r"\s*[来多几]?\s*(?P<unit>片|粒|颗|丸|瓶|盒|板|包|支|毫升|ml|克|pills|tablets|capsules|tabs|bottles?|boxes|packs)"
)
_LASTING = re.compile(
    r"\s*[来多几]?个?多?(?:秒|分钟|小时|钟头|钟|天|宿|晚上|min(?:ute)?s?|hours?|hrs?|days?)(?!前|后|龄|大|ago)"
)
_WEEKS = re.compile(r"\s*(?:周|wks?(?![a-z])|weeks?(?![a-z])|w(?![a-z])|\+)")
_YEARS_LONG = re.compile(r"\s*(?:多|来)?(?:年|个月|个多月)了?(?!前)")
_LONG_AGO = re.compile(r"\s*(?:多|来|几)?(?:年|个月|个多月|years?|yrs?|months?)(?:之?前| ago)")
_YEAR = re.compile(r"年|\b")


def _read(text: str, match: re.Match[str]) -> Iterator[tuple[int, str]]:
    """Yield (end, class) of what a number measures."""
    end = match.end()
    before = text[max(0, match.start() - _BEFORE) : match.start()]
    behind = text[end : end + _BEHIND]
    value = number_of(match[0])
    if match[0][0].isdigit() or len(match[0]) > 1:
        yield from _readings(value, before, behind, end, is_precise="." in match[0])
        if 1950 <= value <= 2030 and len(match[0]) == 4:
            yield end, "time.past"
    unit = _BABY.match(behind) or _OLD.match(behind) or _YEARS.match(behind)
    if unit is None and match[0] not in "半几" and _BORN.search(before):
        unit = _BORN_UNIT.match(behind)
    if unit is not None:
        yield end + unit.end(), _age(value, unit["unit"])
    if unit := _UNITS.match(behind):
        yield end + unit.end(), _amount(value, unit["unit"])
    for pattern, name in ((_LONG_AGO, "time.past"), (_YEARS_LONG, "time.years"), (_LASTING, "time.duration")):
        if unit := pattern.match(behind):
            yield end + unit.end(), name
            break
    if 6 <= value <= 42 and (unit := _WEEKS.match(behind)):
        yield end + unit.end(), "age.weeks"


def _readings(
    value: float, before: str, behind: str, end: int, *, is_precise: bool
) -> Iterator[tuple[int, str]]:
    lower = _LOWER.match(behind)
    if _PRESSURE.search(before):
        yield end + (lower.end() if lower else 0), _pressure(value, lower)
    elif (lower := _MMHG.match(behind)) and 50 <= value <= 260 and 30 <= float(lower["lower"]) < value:
        yield end + lower.end(), _pressure(value, lower)
    if _HEAT.search(before) or _DEGREES.match(behind) or (37.9 <= value <= 42 and is_precise):
        yield end, _temperature(value)
    simple: tuple[tuple[re.Pattern[str], Callable[[float], str]], ...] = (
        (_OXYGEN, _oxygen), (_SUGAR, _sugar), (_PULSE, _pulse),
    )  # fmt: skip
    for cue, judge in simple:
        if cue.search(before):
            yield end, judge(value)


def measures(text: str) -> Iterator[Measure]:
    """Yield (start, end, class) of every measure in a folded text."""
    for match in _NUMBER.finditer(text):
        for end, name in _read(text, match):
            if name:
                yield match.start(), end, name
