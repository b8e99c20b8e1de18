"""What a reply says of the answer, ready to be searched for letters.

Left out: what a model thought before it answered, options that are listed again, the numbers of a list, the name of
who speaks, and characters that a model repeats without end. Unpacked: JSON and tables. Knows no models.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence

from medchat_eval.choice_file import LETTERS

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
#: Matched before folding, which makes a digit of ①. A number with decimals and an amount are no list numbers.
_LIST_NUMBER = re.compile(
    r"(?m)^[ \t]*(?:[①-⑳⑴-⒇]|[（(]\d{1,2}[)）]|\d{1,2}[.、)）．](?!\d)|第\s*\d+\s*[题問问][:：、.]?)[ \t]*"
)
_TABLE_ROW = re.compile(r"(?m)^[ \t]*\|(.*)\|[ \t]*$")
_ASKED_AGAIN = re.compile(r"(?m)^(?:Q|问|问题|题目):.*$")
#: "A:" before an answer is who speaks; before the text of the first option it is that option.
_SPEAKER = re.compile(
    r"(?mi)^A:\s*(?=[A-J](?![A-Za-z])|(?:the )?answer|答案|[您你]好|抱歉|对不起|sorry|hello|I )"
)
_RUN = re.compile(r"([A-Za-z])\1{3,}|([\u3400-\u9fff]{1,3}?)\2{2,}")
#: A small letter that is an answer, as in 选b or "option c"; elsewhere it is a word or a part of one.
_SMALL_LETTER = re.compile(
    r"(?i:(?<=[是为選选项案:(\[{*\"])|(?<=is )|(?<=option )|(?<=answer )|\A\W*)"
    r"\s?[a-j](?=[\s。.,;)\]\"'*}]*(?:\Z|[。,;\n]))"
)
_ANSWER_FIELDS = (
    "answer",
    "answers",
    "final_answer",
    "choice",
    "choices",
    "option",
    "答案",
    "正确答案",
    "最终答案",
    "选项",
    "选择",
)
_JSON_OBJECTS = 20
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,40}>|<\|[^<>\n]{1,40}\|>|\[(?:g?MASK|UNK|PAD|SEP|CLS|BOS|EOS)\]")
#: A model that continues with another question after its answer.
_NEXT_QUESTION = re.compile(r"(?<=\S)\s*\n\s*(?:问|题目|问题|用户|Q|Question|User|Human)\s*:.*", re.DOTALL)
_TICKS = str.maketrans("✅☑❌❎", "√√××")
#: Letters with a tick or a cross each, on one line.
_TICKED = re.compile(r"(?<=[\s,;、。√✓✔×✗✘])\s*(?=[A-J]\s*[:.、]?\s*[√✓✔×✗✘])")
#: The boxes of a Markdown list, ticked or not.
_BOX = re.compile(r"(?m)^[ \t]*(?:[-*][ \t]*)?\[([ xX√])\][ \t]*([A-J](?![A-Za-z]).*)$")
_SMALL_LETTERS = re.compile(r"[a-j](?:\s*[、,;\s]\s*[a-j])*\W*")
_WORD_OF_LETTERS = re.compile(r"(?<![A-Za-z0-9])[A-J]{2,}(?![A-Za-z0-9])")
_MARK = r"\s*[.。、:)\]】]?\s*"


def reply_text(reply: str, options: Sequence[str], *, several: bool = False) -> str:
    """Return the part of a reply that can state its answer; full-width letters are folded."""
    text = (
        unicodedata.normalize("NFKC", _LIST_NUMBER.sub("", _THOUGHT.sub("", reply))).strip().translate(_TICKS)
    )
    text = re.sub("(?<=[\u3400-\u9fff])[ \t]+(?=[\u3400-\u9fff])", "", text)
    text = _TAG.sub("", _from_json(text))
    text = _TABLE_ROW.sub(lambda row: "\n".join(cell.strip() for cell in row[1].split("|")), text)
    text = _NEXT_QUESTION.sub("", text, count=1)
    text = _without_listed_options(text, options, several=several)
    text = _named_by_letter(text, options)
    text = _BOX.sub(lambda box: f"{box[2]} {'×' if box[1] == ' ' else '√'}", text)
    text = _SPEAKER.sub("", _ASKED_AGAIN.sub("", text))
    text = _words_made_small(_TICKED.sub("\n", _RUN.sub(" ", text)).strip(), options, several=several)
    return text.upper() if _SMALL_LETTERS.fullmatch(text) else _SMALL_LETTER.sub(_upper, text)


def _named_by_letter(text: str, options: Sequence[str]) -> str:
    """Leave out the text of an option behind its letter (B. 肺炎)."""
    for letter, word in zip(LETTERS, _spaced(options), strict=False):
        if word:
            named = rf"(?<![A-Za-z0-9]){letter}{_MARK}{word}(?!\w)"
            text = re.sub(
                rf"{named}(?=[ \t]+(?!is\b)[a-z])", f"{letter}:", text
            )  # an English sentence about it
            text = re.sub(named, letter, text)
    return text


def _words_made_small(text: str, options: Sequence[str], *, several: bool) -> str:
    """Write small the words of options that look like several letters but choose nothing (首选ACEI, DIC)."""
    known = LETTERS[: len(options)]
    for word in {word for option in folded_options(options) for word in _WORD_OF_LETTERS.findall(option)}:
        if not several or not set(word) <= set(known) or list(word) != sorted(set(word)):
            text = re.sub(rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])", word.lower(), text)
    return text


def _spaced(options: Sequence[str]) -> list[str]:
    """Return patterns of the options, between whose characters there may be blanks."""
    return [r"\s*".join(map(re.escape, option)) for option in folded_options(options)]


def _upper(found: re.Match[str]) -> str:
    return found[0].upper()


def folded_options(options: Sequence[str]) -> list[str]:
    """Return the options as they are searched for: characters folded, no blanks, no full stop at the end."""
    return [re.sub(r"\s", "", unicodedata.normalize("NFKC", option)).rstrip("。.") for option in options]


def _from_json(text: str) -> str:
    """Return the answer that the last JSON object states, else the text as it is."""
    stated = [
        value
        for found in _json_objects(text)
        for key, value in found.items()
        if key.lower() in _ANSWER_FIELDS
    ]
    if not stated:
        return text
    last = stated[-1]
    return "答案是" + ",".join(map(str, last)) if isinstance(last, list) else f"答案是{last}"


def _json_objects(text: str) -> Iterator[dict[str, object]]:
    for opening in list(re.finditer(r"\{", text))[:_JSON_OBJECTS]:
        try:
            found, _ = json.JSONDecoder().raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def _without_listed_options(text: str, options: Sequence[str], *, several: bool) -> str:
    """Leave out the options where all are listed in their order, as in a reply that repeats the question."""
    listed = "".join(
        rf"[\s;,。.\-*(\[【]*{letter}{_MARK}{word}"
        for letter, word in zip(LETTERS, _spaced(options), strict=False)
    )

    def replaced(found: re.Match[str]) -> str:
        announced = re.search(r"(?:答案|应?选|正确的?)[^\n?哪]{0,6}$", text[: found.start()])
        return found[0] if several and announced else "\n"

    return re.sub(listed, replaced, text)
