"""Masking what identifies a person: what is found, what is left, and that the text around it stays."""

from __future__ import annotations

import time
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.language import set_language
from medchat.redaction import Personal, find_personal, redact

pytestmark = pytest.mark.safety

#: GB 11643-1999: the published example number, with the right last character.
RESIDENT = "11010519491231002X"
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def with_check(first_17: str) -> str:
    return first_17 + "10X98765432"[sum(int(d) * w for d, w in zip(first_17, _WEIGHTS, strict=True)) % 11]


# ---------------------------------------------------------------- what is masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("我叫张三，今年30岁", "我叫[姓名]，今年30岁"),
        ("我叫李明今年45岁，头疼", "我叫[姓名]今年45岁，头疼"),
        ("我叫欧阳娜娜", "我叫[姓名]"),
        ("我的名字是王小明。", "我的名字是[姓名]。"),
        ("医生好我叫小明，我妈叫王芳", "医生好我叫[姓名]，我妈叫[姓名]"),
        ("我女儿叫陳思思，三歲", "我女儿叫[姓名]，三歲"),
        ("姓名：陈伟 性别：男", "姓名：[姓名] 性别：男"),
        ("患者姓名:买买提·阿不都拉，男", "患者姓名:[姓名]，男"),
        ("Name: John Smith, male", "Name: [姓名], male"),
        ("My name is John Smith and I have a fever.", "My name is [姓名] and I have a fever."),
        ("hi, my name's mary, my chest hurts", "hi, my name's [姓名], my chest hurts"),
        ("手机13812345678", "手机[电话]"),
        ("手机号：１３８１２３４５６７８。", "手机号：[电话]。"),
        ("+86 138-1234-5678", "[电话]"),
        ("打010-62345678找我", "打[电话]找我"),
        ("家里电话 6234 5678", "家里电话 [电话]"),
        ("call +44 20 7946 0958", "call [电话]"),
        ("邮箱是abc.d@example.com.cn谢谢", "邮箱是[邮箱]谢谢"),
        (f"身份证{RESIDENT}", "身份证[证件号]"),
        (RESIDENT.lower(), "[证件号]"),
        ("110105 19491231 002X", "[证件号]"),
        ("证件 110105491231002", "证件 [证件号]"),
        ("住院号：20231234567", "住院号：[证件号]"),
        ("医保卡号是 A12345678", "医保卡号是 [证件号]"),
        ("passport no. E12345678", "passport no. [证件号]"),
        ("通行证H1234567890", "通行证[证件号]"),
        ("香港身份证A123456(3)", "香港身份证[证件号]"),
        ("卡号6222021234567894", "卡号[卡号]"),
        ("4111 1111 1111 1111", "[卡号]"),
    ],
)
def test_what_identifies_a_person_is_masked_and_nothing_else(text: str, masked: str) -> None:
    assert redact(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "我叫了120",
        "我叫车去医院",
        "我叫他去医院",
        "他叫不醒了",
        "孩子叫声很大",
        "我叫马上来",
        "叫周围的人帮忙",
        "我叫救护车了",
        "我妈叫我去看医生",
        "my name is not on the list",
        "请拨打120或12356",
        "血压120/80，体温37.5，2024-05-28 10:30",
        "血糖 6.1，白细胞 12000000000",
        "订单123456789012345678",  # 18 digits that are no ID: month 90 does not exist
        "1700000000000",
        "4111 1111 1111 1112",  # wrong Luhn sum
        "0.13812345678",
        "@example",
        "吃了3片，每天2次",
        "5-羟色胺",
        "",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redact(text) == text


def test_a_mistyped_id_is_masked_where_it_stands_in_one_piece_and_not_where_it_is_spread() -> None:
    assert redact("110105194912310021") == "[证件号]"  # wrong checksum, right date and province
    assert redact("110105 19491231 0021") == "110105 19491231 0021"
    assert redact("110105204912310021") == "110105204912310021"  # not born yet


def test_labels_are_in_the_interface_language() -> None:
    set_language("en")
    try:
        assert redact("my name is John, 13812345678") == "my name is [name], [phone]"
    finally:
        set_language("zh")


# ---------------------------------------------------------------- for any text

_BIRTHS = st.dates(date(1900, 1, 1), date.today() - timedelta(days=1))
_OTHER_WORDS = st.text(st.sampled_from(list("头疼发热，。 \n咳嗽ab!")), max_size=12)


@given(
    st.sampled_from(["11", "31", "44", "65", "82"]),
    st.integers(0, 9999),
    _BIRTHS,
    st.integers(0, 999),
    _OTHER_WORDS,
    _OTHER_WORDS,
)
def test_every_resident_id_with_its_checksum_is_found_wherever_it_stands(
    province: str, place: int, born: date, order: int, before: str, behind: str
) -> None:
    number = with_check(f"{province}{place:04d}{born:%Y%m%d}{order:03d}")
    before, behind = before + "，", "，" + behind
    assert redact(before + number + behind) == before + "[证件号]" + behind


@given(st.integers(3, 9), st.integers(0, 999_999_999), _OTHER_WORDS)
def test_every_mobile_number_is_found(second: int, rest: int, behind: str) -> None:
    assert redact(f"电话1{second}{rest:09d}，{behind}") == f"电话[电话]，{behind}"


_ANY = st.text(
    st.sampled_from(list("我叫张三李明妈的姓名是：:,，。 0123456789Xx-+@.[]()abcname is")) | st.characters(),
    max_size=80,
)


@given(_ANY)
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(_ANY)
def test_what_is_found_lies_in_the_text_in_order_and_apart(text: str) -> None:
    ends = 0
    for span in find_personal(text):
        assert ends <= span.start < span.end <= len(text) and span.kind in Personal
        ends = span.end


@pytest.mark.parametrize(
    "unit",
    ["1", "138", "我叫", "a@", "a.", "+1 ", "1 ", "身份证", "姓名：", "my name is ", "张", "11010519491231", "0-",
     "A", "a-", "[", "姓名：张·", "电话1 "],
)  # fmt: skip
def test_the_work_grows_with_the_length_of_the_text(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * length)[:length]
        began = time.process_time()
        redact(text)
        return time.process_time() - began

    short, long = min(seconds(10_000) for _ in range(3)), min(seconds(40_000) for _ in range(3))
    assert long < 12 * short + 0.05
