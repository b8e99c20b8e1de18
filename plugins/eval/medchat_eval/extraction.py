"""Which options a reply in words chooses: from statements of the answer down to the text of an option.

What counts, in this order: a statement of the answer (the last one), letters that the reply begins with, a weaker
statement (the last one), letters on a line of their own, what is said of each option, the text of one option. What
is denied, supposed or said of others does not count, nor letters inside words. Where nothing is found, or several
options for a question that has one, nothing is chosen. Knows no models.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from medchat_eval.choice_file import LETTERS

#: What a model writes before its answer.
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_BETWEEN = r"(?:\s*(?:[、,/&+;和与及或跟]|and|or)\s*|\s*)"
#: Letters, one or several, inside no word and no name such as C反应蛋白 or B超.
_SET = rf"(?<![A-Za-z0-9])(?P<set>[A-J](?:{_BETWEEN}[A-J]){{0,9}})(?![A-Za-z0-9]|[-‐–]\w)"
_OPEN = r"(?:[ \t\"'“‘”(\[【<《*_`{$:,~\\]|\\text\{|:\s*)*"
_NO_NAME = r"(?!\s*[型级族类组期区超肝链球胞淋臂肽群反二抗淀蛋波链])"
_STRONG = re.compile(
    rf"(?:答案|正确的?选项|正确的是|最佳选项|选项应?[是为]|\bans\b|(?:final|correct|best|right)?\s*"
    rf"(?:answers?|option|choice)|boxed)(?P<filler>(?:\s*(?:is|are|would|should|be|to|option|:)\b)*"
    rf"[^A-Za-z\n。;!?]{{0,15}}?)(?<!项)(?:(?<=案)\s*)?{_OPEN}(?:选项)?\s*{_SET}{_NO_NAME}",
    re.IGNORECASE,
)
_WEAK = re.compile(
    rf"(?:[选選](?:择|擇|项|項|的|是|为|了)*|而是|应为|应是|应该是|应当是|就是|认为是|考虑|(?<!还)[是为](?={_OPEN}[A-J]\W*(?:\Z|[。,\n]))"
    rf"|综上所述|综上|因此|所以|可见|故|choose|pick|select|go with)"
    rf"(?P<filler>[^A-Za-z\n。]{{0,3}}?){_OPEN}(?:选项)?\s*{_SET}{_NO_NAME}"
)
_SAID_RIGHT = re.compile(
    rf"{_SET}\s*(?:选?项)?[\"'”’)\]】*_]*\s*(?P<filler>)(?:的?(?:说法|描述|选项))?(?:[都均皆全]?[是为]?|才是?|就是)\s*"
    r"[最更较]?(?:就是答案|答案|正确|对的|对(?=[。,;\s]|\Z)|符合|合适|恰当|佳|可能性[最更较]?大"
    r"|is (?:the )?(?:correct|right|best|most|answer))"
)
_LEADING = re.compile(rf"\W*(?:选项|Option)?\s*{_SET}[\"'”’)\]】>》*_`]*(?P<rest>[^\n]*)")
#: What may follow letters at the beginning: an end, a mark, a bracket, or words (looked at one by one).
_REST = re.compile(r"\s*(?:\Z|[.。,、:;!(\[“\"'—-]|[A-Za-z\u3400-\u9fff])")
_LINE = re.compile(
    rf"(?m)^(?:\d+[.、)]|[^\n:A-Z]{{0,12}}(?:A[IＩ])?[^\n:A-Z]{{0,8}}:)?{_OPEN}{_SET}[ \t.。,\"'”’)\]】*_`}}$]*$"
)
_OF_EACH = re.compile(r"(?m)^[\s*\-(]*(?P<letter>[A-J])(?![A-Za-z])[\s.。、:)*]*(?P<said>[^\n]*)$")
_RIGHT, _WRONG = (
    re.compile(r"正确|[√✓✔]|对(?!于|应|照)"),
    re.compile(r"不正确|错|[×✗✘]|不对|不符|不是|排除|不属于"),
)
_DENIES = re.compile(
    r"不(?!仅|但|只|同|过|良|足|全|稳|适|典型)|非(?!常)|排除|错|误|别|勿|没有?|\bnot\b|\bexcept\b",
    re.IGNORECASE,
)
_SUPPOSES = re.compile(
    r"(?:如果|若|假如|倘若|要是|有人|有的人|很多人|容易|可能会|考生|同学|是否|还是)[^,。;\n]{0,6}$"
)
_DENIED_BEHIND = re.compile(
    r"\s*(?:选?项)?[\"'”’)\]】*_]*\s*(?:,?\s*(?:[都均也皆全])?[是为]?(?:不(?:对|正确|符|合|恰|是正|考虑)|错|误|并非|排除)"
    r"|(?:[都均也皆全])?[是为]?不|[?？]|吗|呢|还是|(?:is|are) (?:not|wrong|incorrect))"
)
#: A guess: several of them that differ choose nothing.
_HEDGES = re.compile(r"可能$|也许$|或许$|大概$|不是就$")
_ORDINAL = re.compile(r"第([一二三四五六七八1-8])(?:个选项|个|项|选项)")
_CORRECTS = re.compile(r"不对|更正|纠正|改选|改为|改成|说错|重新|actually|wait", re.IGNORECASE)
_REFUSES = re.compile(
    r"抱歉|对不起|很遗憾|无法|不能(?:回答|提供|给出|判断|确定|作答)|不(?:知道|清楚|确定)|没有正确|都不(?:对|正确)"
    r"|(?:作为|我只?是)(?:一个|一名)?(?:AI|人工智能|语言模型)|\bcannot\b|\bcan't\b|as an ai|\bsorry\b|unable to",
    re.IGNORECASE,
)
_CUE = re.compile(r"答案|正确|应?首?选|考虑|诊断|最可能|因此|所以|综上|可见|应为|应该是|就是|而是|故|是")
_TEXT_DENIED = re.compile(
    r"(?:不是|并非|而非|排除|不考虑|不选|不支持|不符合|不像|不能|不宜|不应|不可|不必|无需|区别于|鉴别)[^,。;\n]{0,8}$"
)
#: What may directly follow a letter that is an answer: anything else may make a word of it (A型, C反应蛋白).
_BEHIND = "吧哦项選选是对为正因由最而和与即也"
_CJK = re.compile("[\u3400-\u9fff]")


def extract_choice(reply: str, options: Sequence[str], *, several: bool = False) -> frozenset[int]:
    """Return the places of the chosen options, none where the reply does not choose; `several` allows a set."""
    text = _plain(reply)
    known = LETTERS[: len(options)]

    def places(found: str) -> frozenset[int] | None:
        return _places_of(found, known, several=several)

    strong = [places(letters) for letters, _ in _stated(_STRONG, text)]
    if strong:
        return strong[-1] or frozenset()
    leading = _leading(text, options, several=several)
    weak = _weak(text, several=several)
    if leading is not None and not (weak and _CORRECTS.search(text)):
        return places(leading) or frozenset()
    if weak:
        chosen = [places(letters) for letters in weak]
        return _joined(chosen) if several else chosen[-1] or frozenset()
    refuses = bool(_REFUSES.search(text))
    lines = [places(found["set"]) for found in _LINE.finditer(text)]
    if lines and not refuses and lines[-1]:
        return lines[-1]
    judged = _judged(text, known, several=several)
    if judged and (several or len(judged) == 1):
        return judged
    return frozenset() if refuses else _by_text(text, options, several=several)


def _plain(reply: str) -> str:
    """Return the reply without what was thought before it, full-width letters and blanks inside Chinese folded."""
    text = unicodedata.normalize("NFKC", _THOUGHT.sub("", reply)).strip()
    text = re.sub("(?<=[\u3400-\u9fff])[ \t]+(?=[\u3400-\u9fff])", "", text)
    return text.upper() if re.fullmatch(r"[a-j]\W*", text) else text


def _places_of(found: str, known: str, *, several: bool) -> frozenset[int] | None:
    """Return the places of stated letters, None where they are no choice: unknown, alternatives, or too many."""
    letters = re.sub(r"(?i)and|or", "", found).upper()
    chosen = [letter for letter in letters if letter in LETTERS]
    if not chosen or not set(chosen) <= set(known) or "或" in found or re.search(r"(?i)\bor\b", found):
        return None
    if len(chosen) > 1 and (not several or (found.isalpha() and chosen != sorted(set(chosen)))):
        return None
    return frozenset(map(known.index, chosen))


def _joined(found: Sequence[frozenset[int] | None]) -> frozenset[int]:
    """Return what several statements choose together (选 A，也选 C)."""
    return frozenset().union(*(places for places in found if places))


def _weak(text: str, *, several: bool) -> list[str]:
    """Return the letters of the weaker statements in their order; of guesses only such as agree."""
    right = (
        (letters.rpartition(",")[2] if not several else letters, found)
        for letters, found in _stated(_SAID_RIGHT, text)
    )  # 剩下B和D,B更合适
    found = sorted([*_stated(_WEAK, text), *right], key=lambda one: one[1].end())
    sure = [letters for letters, match in found if not _HEDGES.search(text[: match.start()])]
    guessed = {letters for letters, _ in found}
    return sure or ([*guessed] if len(guessed) == 1 else [])


def _stated(pattern: re.Pattern[str], text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield the letters of statements that are neither denied nor supposed, each with its match."""
    for found in pattern.finditer(text):
        before = text[max(0, found.start() - 12) : found.start()]
        clause = re.split(r"[,。;!?\n]", before)[-1]
        if _DENIES.search(found["filler"]) or _DENIES.search(clause[-3:]) or _SUPPOSES.search(clause):
            continue
        letters = found["set"]
        if _DENIED_BEHIND.match(text[found.end("set") :]):
            letters = letters.rpartition(",")[0]  # A,B,D,C错误
        if letters:
            yield letters, found


def _leading(text: str, options: Sequence[str], *, several: bool) -> str | None:
    """Return the letters that the reply begins with, None where it begins otherwise or lists the options again."""
    found = _LEADING.match(text)
    if not found or len(list(_OF_EACH.finditer(text))) > 1:
        return None
    rest, letters = found["rest"], found["set"]
    if _DENIED_BEHIND.match(rest) or not _REST.match(rest) or re.search(r"(?<![A-Za-z])[A-J][.、:)]", rest):
        return None
    behind = rest.lstrip()
    glued = len(letters) > 1 and letters.isalpha()
    if behind[:1].isascii() and behind[:1].isalpha():
        return None  # an English sentence, as in "A patient …"
    if _CJK.match(behind):
        place = LETTERS.index(letters[-1])
        text_of = options[place] if place < len(options) else ""
        names_option = bool(text_of) and behind.startswith(text_of[: max(2, len(text_of) // 2)])
        if not names_option and (glued or behind[0] not in _BEHIND):
            return None
    return letters if several or not glued else None


def _judged(text: str, known: str, *, several: bool) -> frozenset[int]:
    """Return the options that are said to be right where something is said of each, a line for each.

    Of a question with several right ones, a list of some of the options chooses those.
    """
    said = [(found["letter"], found["said"]) for found in _OF_EACH.finditer(text) if found["letter"] in known]
    if len(said) < 2:
        return frozenset()
    right = {letter for letter, words in said if _RIGHT.search(words) and not _WRONG.search(words)}
    if not right and several and len(said) < len(known):
        right = {letter for letter, words in said if not _WRONG.search(words)}
    return frozenset(map(known.index, right))


def _by_text(text: str, options: Sequence[str], *, several: bool) -> frozenset[int]:
    """Return the one option whose text is named, or the one behind the last word that announces an answer."""
    folded = [re.sub(r"\s", "", unicodedata.normalize("NFKC", option)).rstrip("。.") for option in options]
    text = re.sub(r"\s", "", text)
    exact = [place for place, option in enumerate(folded) if text.rstrip("。.!") == option]
    if len(exact) == 1:
        return frozenset(exact)
    spans = [
        (found.start(), found.end(), place)
        for place, option in enumerate(folded)
        if len(option) > 1
        for found in re.finditer(re.escape(option), text, re.IGNORECASE)
    ]
    named = [
        (start, place)
        for start, end, place in spans
        if not any(low <= start and end <= high and high - low > end - start for low, high, _ in spans)
        and not _TEXT_DENIED.search(text[max(0, start - 12) : start])
    ]
    places = {place for _, place in named}
    if len(places) == 1 or (several and places and len(places) < len(options)):
        return frozenset(places)
    for cue in reversed(list(_CUE.finditer(text))):
        behind = [place for start, place in sorted(named) if 0 <= start - cue.end() <= 6]
        if len(set(behind)) == 1 and not _DENIES.search(text[max(0, cue.start() - 2) : cue.start()]):
            return frozenset(behind)
    ordinals = {("一二三四五六七八".find(found[1]) + 1) or int(found[1]) for found in _ORDINAL.finditer(text)}
    return (
        frozenset(place - 1 for place in ordinals if place <= len(options))
        if len(ordinals) == 1
        else frozenset()
    )
