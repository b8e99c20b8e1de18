"""Masking what identifies a person: ID numbers, phone numbers, mail addresses, and names that somebody gives.

For texts that leave this machine or are kept: exports, `/redact`, training data. It recognises forms and
checksums, so it misses what has none (a name in the middle of a story, an address). Every pattern is
bounded and starts behind a border, so the work grows with the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from medchat.language import say


class Personal(StrEnum):
    """What a masked piece of text was."""

    ID = "id"
    CARD = "card"
    PHONE = "phone"
    EMAIL = "email"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class PersonalSpan:
    """`text[start:end]` identifies somebody; `kind` is "id", "card", "phone", "email" or "name"."""

    start: int
    end: int
    kind: Personal


def redact(text: str) -> str:
    """Return `text` with a label such as [姓名] in place of what identifies a person.

    Labels are in the interface language. Redacting twice changes nothing more.
    """
    labels = {
        Personal.ID: say("[证件号]", "[ID number]"),
        Personal.CARD: say("[卡号]", "[card number]"),
        Personal.PHONE: say("[电话]", "[phone]"),
        Personal.EMAIL: say("[邮箱]", "[email]"),
        Personal.NAME: say("[姓名]", "[name]"),
    }
    pieces, end = [], 0
    for span in find_personal(text):
        pieces += [text[end : span.start], labels[span.kind]]
        end = span.end
    return "".join([*pieces, text[end:]])


def find_personal(text: str) -> tuple[PersonalSpan, ...]:
    """Return what identifies a person in `text`, in order, no two of them overlapping."""
    folded = text.translate(_NARROW)
    spans: list[PersonalSpan] = []
    taken = bytearray(len(text))
    for find in _FINDERS:
        for span in find(folded):
            if not any(taken[span.start : span.end]):
                taken[span.start : span.end] = b"\1" * (span.end - span.start)
                spans.append(span)
    return tuple(sorted(spans, key=lambda span: span.start))


#: Full-width forms of ASCII, one character each, so that positions stay.
_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20, 0x2212: 0x2D, 0x2010: 0x2D}

# ---------------------------------------------------------------- numbers

#: A digit that no other digit, letter or decimal point touches begins and ends a number.
_BEFORE, _AFTER = r"(?<![0-9A-Za-z])(?<![0-9]\.)", r"(?![0-9A-Za-z])(?!\.[0-9])"
_RESIDENT = re.compile(_BEFORE + r"[1-9][0-9]{5}[ -]?[0-9]{8}[ -]?[0-9]{3}[0-9Xx]" + _AFTER)
_OLD_RESIDENT = re.compile(_BEFORE + r"[1-9][0-9]{14}" + _AFTER)
_HONG_KONG = re.compile(_BEFORE + r"[A-Za-z]{1,2}[0-9]{6}\([0-9A]\)")
_PASSPORT = re.compile(
    _BEFORE
    + r"(?:[EeGgDdSsPp][0-9]{8}|[Ee][A-Ha-hJ-Nj-nP-Zp-z][0-9]{7}|[HhMm][0-9]{8}(?:[0-9]{2})?)"
    + _AFTER
)
_LABELLED = re.compile(
    r"(?:身份证|證件|证件|护照|護照|通行证|通行證|社保卡|社保|医保卡|医保|醫保|病历|病歷|病案|住院|门诊|門診|就诊卡|军官证|军人证)"
    r"(?:号码|號碼|号|號|编号|編號)?\s?(?:是|为|為|:|：)?\s{0,3}(?P<number>[0-9A-Za-z][0-9A-Za-z-]{4,19})(?![0-9A-Za-z])"
    r"|(?i:\b(?:id|passport|ssn|medical record|patient)(?: card)? ?(?:number|no\.?|#)\s?(?:is|:)?\s{0,3})"
    r"(?P<english>[0-9A-Za-z][0-9A-Za-z-]{4,19})(?![0-9A-Za-z])"
)
_CARD = re.compile(_BEFORE + r"[3-6][0-9]{3}(?:[ -]?[0-9]{4}){2}[ -]?[0-9]{3,7}" + _AFTER)
_MOBILE = re.compile(r"(?<![0-9A-Za-z.])(?:(?:\+|00)?86[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}" + _AFTER)
_LANDLINE = re.compile(
    _BEFORE + r"\(?0[1-9][0-9]{1,2}(?:\)|-| )[ -]?[1-9][0-9]{6,7}(?:[-转轉][0-9]{1,6})?" + _AFTER
)
_ABROAD = re.compile(r"(?<![0-9A-Za-z])\+[1-9][0-9]{0,2}(?:[ -]?[0-9]{2,5}){2,5}" + _AFTER)
_CALL_ME = re.compile(
    r"(?:电话|電話|手机|手機|座机|座機|联系方式|聯繫方式|微信|QQ|qq|phone|Phone|tel|Tel|TEL|mobile|Mobile)"
    r"(?:号码|號碼|号|號| number)?\s?(?:是|为|為|is|:|：)?\s{0,3}(?P<number>[0-9][0-9 -]{5,17}[0-9])(?![0-9A-Za-z])"
)
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)

#: The first two digits of a resident ID: provinces, and 81 to 83 of residents from Hong Kong, Macao and Taiwan.
_PROVINCES = frozenset(
    str(province)
    for province in (
        *range(11, 16),
        *range(21, 24),
        *range(31, 38),
        *range(41, 47),
        *range(50, 55),
        *range(61, 66),
        71,
        81,
        82,
        83,
        91,
    )
)
#: GB 11643-1999: the weights of the first 17 digits, and the last character by the sum's remainder.
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK = "10X98765432"


def _residents(text: str) -> Iterator[PersonalSpan]:
    """Resident IDs: by province, date of birth and checksum. A run of 18 digits with a wrong checksum counts too.

    Somebody who mistypes a digit is still to be recognised by the rest; written with gaps it must be right.
    """
    for found in _RESIDENT.finditer(text):
        number = re.sub("[ -]", "", found[0]).upper()
        right = _CHECK[sum(int(d) * w for d, w in zip(number, _WEIGHTS, strict=False)) % 11] == number[17]
        if number[:2] in _PROVINCES and _is_birth(number[6:14]) and (right or len(found[0]) == 18):
            yield PersonalSpan(found.start(), found.end(), Personal.ID)
    for found in _OLD_RESIDENT.finditer(text):
        if found[0][:2] in _PROVINCES and _is_birth("19" + found[0][6:12]):
            yield PersonalSpan(found.start(), found.end(), Personal.ID)


def _is_birth(digits: str) -> bool:
    try:
        return date(1880, 1, 1) <= date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) <= date.today()
    except ValueError:
        return False


def _labelled(text: str) -> Iterator[PersonalSpan]:
    for found in _LABELLED.finditer(text):
        group = "number" if found["number"] is not None else "english"
        if sum(character.isdigit() for character in found[group]) >= 5:
            yield PersonalSpan(found.start(group), found.end(group), Personal.ID)


def _cards(text: str) -> Iterator[PersonalSpan]:
    """Bank cards: 15 to 19 digits with a right Luhn sum (ISO/IEC 7812-1)."""
    for found in _CARD.finditer(text):
        digits = [int(character) for character in found[0] if character.isdigit()]
        doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
        if (sum(digits[::-2]) + sum(doubled)) % 10 == 0:
            yield PersonalSpan(found.start(), found.end(), Personal.CARD)


def _calls(text: str) -> Iterator[PersonalSpan]:
    for found in _CALL_ME.finditer(text):
        yield PersonalSpan(found.start("number"), found.end("number"), Personal.PHONE)


def _all_of(
    pattern: re.Pattern[str], kind: Personal, group: str | int = 0
) -> Callable[[str], Iterator[PersonalSpan]]:
    def find(text: str) -> Iterator[PersonalSpan]:
        for found in pattern.finditer(text):
            yield PersonalSpan(found.start(group), found.end(group), kind)

    return find


# ---------------------------------------------------------------- names

_SURNAMES = (
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦许何吕施张孔曹严金魏陶姜戚谢邹苏潘葛范彭鲁韦马苗凤方俞任袁柳唐薛雷贺倪汤滕殷罗毕郝邬安"
    "常于傅卞齐康伍余顾孟黄穆萧尹姚邵汪祁毛米戴宋茅庞熊纪舒屈项祝董梁杜阮蓝闵席季贾路江童颜郭梅林钟徐邱骆高夏蔡田樊胡凌霍虞万柯"
    "管卢莫房丁邓洪包左石崔龚程裴陆荣翁段侯武刘龙叶黎薄白蒲赖卓屠池乔覃温庄晏柴瞿阎连习艾容向古易廖耿匡文寇广欧沃关荆游盖桂"
    "曾肖尤聂冉冀郎鞠蔺褟岳甘简饶沙牛尚车申"
    "趙錢孫吳鄭馮陳衛蔣韓楊許呂張嚴謝鄒蘇魯韋馬鳳賀湯羅畢鄔齊餘顧黃蕭龐紀項藍閔賈顏鐘鍾駱萬盧鄧龔陸榮劉龍葉賴喬溫莊閻連習廣歐關聶"
)
_COUPLED = (
    "欧阳|司马|上官|诸葛|东方|皇甫|尉迟|公孙|令狐|慕容|宇文|长孙|司徒|端木|夏侯|歐陽|司馬|諸葛|東方|長孫"
)
#: What follows a name in a sentence, and what a word that begins like a surname continues with (马上, 周围, 高声).
_NOT_GIVEN = (
    "了着过的地得是在有没我你他她它们和跟与也都就还又再不很要想去来到从把被给让请叫说问做打今昨前后现最因所但而且男女住来年月日岁"
    r"\W\d_A-Za-z"
)
_NOT_A_NAME = (
    "马上|周围|周边|高声|高血|高烧|高热|常常|常年|任何|安静|安全|白天|白色|连续|连着|文字|包括|包扎|关门|关上|房间|易怒|广播|游泳|石头|车子|车去|"
    "车来|车送|金属|江边|田里|林里|方便|方医|雷声|牛奶|温度|万一|万分|马大|许多|何时|何况|于是|余下|左边|左手|左侧|向前|向后|古怪|艾滋|容易|习惯|齐声"
)
_CHINESE_NAME = re.compile(
    r"(?:(?<![大高嚎惨喊])(?:我|他|她|名|名字|妈|爸|妈妈|爸爸|父亲|母亲|孩子|儿子|女儿|宝宝|老公|老婆|丈夫|妻子|爷爷|奶奶|病人|患者|老人|本人)(?:的)?(?:名字)?(?:就)?(?:叫做|叫作|叫)"
    r"|(?:我|他|她)的(?:真名|名字|姓名|大名)(?:是|叫)|本人姓名)\s?"
    rf"(?!{_NOT_A_NAME})(?P<name>(?:{_COUPLED}|[{_SURNAMES}]|[小阿老](?![孩朋姨姐妹弟叔舅姑师板婆公人太家是有]))[^{_NOT_GIVEN}][^{_NOT_GIVEN}]?)"
)
_NAME_FIELD = re.compile(
    r"(?:姓名|名字|(?<![A-Za-z])(?i:full name|patient name|name))\s?[:：]\s{0,3}"
    r"(?P<name>[A-Za-z][A-Za-z'’.-]{0,30}(?: [A-Z][A-Za-z'’.-]{0,30}){0,3}|[^\W\d_]{1,8}(?:·[^\W\d_]{1,10}){0,3})"
)
#: Words that follow "my name is" and are none: "my name is not on the list".
_NO_ENGLISH_NAME = (
    r"(?!(?i:not|no|on|in|a|an|the|and|i|im|from|aged?|but|with|who|is|my|he|she|please|spelled)\b)"
)
_ENGLISH_NAME = re.compile(
    r"\b(?i:my(?: full)? name(?: is|['’]s)|(?:his|her) name is)\s{1,3}"
    rf"(?P<name>{_NO_ENGLISH_NAME}[A-Za-z][A-Za-z'’-]{{0,30}}+(?: {_NO_ENGLISH_NAME}"
    r"(?:[A-Z][A-Za-z'’-]{0,30}+|[a-z]{2,20}+(?=[,.;!?]|$))){0,3})"
)

_FINDERS: tuple[Callable[[str], Iterator[PersonalSpan]], ...] = (
    _all_of(_EMAIL, Personal.EMAIL),
    _residents,
    _cards,
    _all_of(_HONG_KONG, Personal.ID),
    _labelled,
    _all_of(_PASSPORT, Personal.ID),
    _all_of(_MOBILE, Personal.PHONE),
    _all_of(_LANDLINE, Personal.PHONE),
    _all_of(_ABROAD, Personal.PHONE),
    _calls,
    _all_of(_NAME_FIELD, Personal.NAME, "name"),
    _all_of(_CHINESE_NAME, Personal.NAME, "name"),
    _all_of(_ENGLISH_NAME, Personal.NAME, "name"),
)
