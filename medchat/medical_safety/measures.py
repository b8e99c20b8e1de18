"""Numbers that are signs: pressure, temperature, oxygen, sugar, pulse, ages, amounts, how long something lasts.

A number alone is none. Each pattern begins with a digit or a word and looks a bounded way ahead, so that
the time stays linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

Measure = tuple[int, int, str]

_DIGITS = {"零": 0, "一": 1, "二": 2, "两": 2, "俩": 2, "三": 3, "仨": 3, "四": 4, "五": 5, "六": 6,
           "七": 7, "八": 8, "九": 9}  # fmt: skip
_CHINESE = "零一二两俩三仨四五六七八九十百半几"
_NUMBER = rf"(?:\d{{1,4}}(?:\.\d{{1,2}})?|[{_CHINESE}]{{1,5}})"
#: What may stand between the name of a measure and its number: "血氧饱和度才掉到 82".
_BETWEEN = r"[^\d。!?;\n]{0,8}?"


def number_of(written: str) -> float:
    """Return the number that digits or Chinese numerals write: 30, 三十, 十二, 半 (0.5), 几十 (30)."""
    if written[0].isdigit():
        return float(written)
    if written == "半":
        return 0.5
    total, current = 0, 0
    for character in written:
        if character == "百":
            total, current = total + (current or 1) * 100, 0
        elif character == "十":
            total, current = total + (current or 1) * 10, 0
        elif character != "半":
            current = 3 if character == "几" else _DIGITS[character]
    return float(total + current)


def _pressure(match: re.Match[str]) -> str:
    upper, lower = float(match["upper"]), float(match["lower"])
    if lower >= upper:
        return ""
    if 30 <= upper <= 85:
        return "sign.low-pressure"
    return "sign.high-pressure" if 200 <= upper <= 320 or 130 <= lower <= 200 else ""


def _upper_pressure(match: re.Match[str]) -> str:
    value = float(match["value"])
    if 30 <= value <= 80:
        return "sign.low-pressure"
    return "sign.high-pressure" if 200 <= value <= 320 else ""


def _temperature(match: re.Match[str]) -> str:
    value = float(match["value"])
    if 95 <= value <= 110:
        value = (value - 32) / 1.8
    if not 30 <= value <= 44:
        return ""
    if value >= 40.5:
        return "sign.very-hot"
    if value >= 37.9:
        return "sign.fever"
    return "sign.cold" if value <= 35.4 else ""


def _oxygen(match: re.Match[str]) -> str:
    return "sign.low-oxygen" if 40 <= float(match["value"]) < 90 else ""


def _sugar(match: re.Match[str]) -> str:
    value = float(match["value"])
    if value >= 40:  # mg/dl
        value /= 18
    if 0.5 <= value < 3.0:
        return "sign.low-sugar"
    return "sign.high-sugar" if 16.7 <= value <= 60 else ""


def _pulse(match: re.Match[str]) -> str:
    value = float(match["value"])
    if 150 <= value <= 280:
        return "sign.fast-pulse"
    return "sign.slow-pulse" if 15 <= value < 40 else ""


def _age(match: re.Match[str]) -> str:
    unit = match["unit"]
    days = number_of(match["value"]) * (1 if unit[0] in "天日d" else 7 if unit[0] in "周w" else 30)
    return "age.young-infant" if days < 90 else "age.child"


def _child(match: re.Match[str]) -> str:
    return "age.child" if number_of(match["value"]) <= 14 else "age.adult"


def _amount(match: re.Match[str]) -> str:
    value, unit = number_of(match["value"]), match["unit"]
    if unit in ("瓶", "盒", "板", "bottle", "bottles", "boxes", "packs"):
        return "amount.much" if value >= 0.5 else ""
    if unit in ("片", "粒", "颗", "丸", "pills", "tablets", "capsules", "tabs"):
        return "amount.much" if value >= 10 else "amount.some"
    return "amount.some"


def _duration(match: re.Match[str]) -> str:
    return "time.duration"


_BABY = "(?:龄|大|的?小?(?:宝宝|宝贝|婴儿|娃|孩子|新生儿|宝|毛头|奶娃))"
_BORN = "(?:出生|生下来|刚生|才生|刚满|才满|刚|才|宝宝|孩子|娃|满)(?:才|刚|第|不到|了)?"
_UNITS = "(?P<unit>片|粒|颗|丸|瓶|盒|板|包|支|毫升|ml|克|pills|tablets|capsules|tabs|bottles?|boxes|packs)"
_HEAT = "(?:体温|烧到|烧了|发烧|发热|高烧|高热|低烧|temp(?:erature)?|fever of|fever)"
_DEGREES = r"(?:度|°|c(?![a-z])|f(?![a-z])|degrees)"
_LASTING = r"(?:秒|分钟|小时|钟头|天|宿|晚上|min(?:ute)?s?|hours?|hrs?|days?)(?!前|后|龄|大)"
_LOWER = r"\s*[/\-到和]\s*(?:低压)?(?P<lower>\d{2,3})"

_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), judge)
    for pattern, judge in (
        (rf"(?:血压|bp|高压|blood pressure){_BETWEEN}(?P<upper>\d{{2,3}}){_LOWER}", _pressure),
        (r"(?<!\d)(?P<upper>\d{2,3})\s*/\s*(?P<lower>\d{2,3})\s*(?:mmhg|毫米汞柱)", _pressure),
        (rf"(?:血压|高压|收缩压|blood pressure){_BETWEEN}(?P<value>\d{{2,3}})(?![\d./])", _upper_pressure),
        (rf"(?<![\d.])(?P<value>\d{{2,3}}(?:\.\d{{1,2}})?)\s*[多几]?{_DEGREES}", _temperature),
        (rf"{_HEAT}{_BETWEEN}(?P<value>\d{{2,3}}(?:\.\d{{1,2}})?)(?![\d个])", _temperature),
        (rf"(?:血氧|氧饱和|spo2|o2 sats?|sats|oxygen){_BETWEEN}(?P<value>\d{{2}})(?!\d)", _oxygen),
        (rf"(?:血糖|sugar|glucose){_BETWEEN}(?P<value>\d{{1,3}}(?:\.\d{{1,2}})?)", _sugar),
        (rf"(?:心率|心跳|脉搏|heart ?rate|pulse){_BETWEEN}(?P<value>\d{{2,3}})(?!\d)", _pulse),
        (rf"(?P<value>{_NUMBER})\s*(?P<unit>天|日|周|个半月|个月|个多月|月){_BABY}", _age),
        (rf"{_BORN}(?P<value>{_NUMBER})\s*(?P<unit>天|周|个半月|个月|个多月)", _age),
        (rf"(?P<value>{_NUMBER})[\s-]*(?P<unit>days?|weeks?|months?)[\s-]*old", _age),
        (rf"(?P<value>{_NUMBER})\s*(?:岁|周岁|years? old|yo(?![a-z]))", _child),
        (rf"(?P<value>{_NUMBER})\s*[来多几]?\s*{_UNITS}", _amount),
        (rf"{_NUMBER}\s*[来多几]?个?多?{_LASTING}", _duration),
    )
)
#: Without one of these there is no measure.
_ANY = re.compile(rf"\d|[{_CHINESE}]")


def measures(text: str) -> Iterator[Measure]:
    """Yield (start, end, class) of every measure in a folded text."""
    if not _ANY.search(text):
        return
    for pattern, judge in _PATTERNS:
        for match in pattern.finditer(text):
            if name := judge(match):
                yield match.start(), match.end(), name
