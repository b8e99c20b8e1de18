"""Which options a reply in words chooses: from statements of the answer down to the text of an option.

What counts, in this order: a statement of the answer (the last one), letters that the reply begins with, a weaker
statement (the last one), letters on a line of their own, what is said of each option, the text of one option. What
is denied, supposed or said of others does not count, nor letters inside words. Where nothing is found, or several
options for a question that has one, nothing is chosen. Knows no models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from medchat_eval.choice_file import LETTERS
from medchat_eval.reply_text import folded_options, reply_text

_BETWEEN = (
    r"(?:(?:选?项)?[\s\"'”’)\]]*(?:[、,/&+;和与及或跟]|and|n?or|(?<=\))(?=\s*\())[\s\"'“‘(\[]*(?:选项)?|\s*)"
)
#: Letters, one or several, inside no word and no name such as C反应蛋白 or B超.
_SET = rf"(?<![A-Za-z0-9])(?-i:(?P<set>[A-J](?:{_BETWEEN}[A-J]){{0,9}})(?![A-Za-z0-9]|[-‐–]\w))"
_OPEN = r"(?:[ \t\"'“‘”『「(\[【<《*_`{$:,~\\]|\\(?:text|mathrm|mathbf|textbf)\{|:\s*)*"
_NO_NAME = r"(?!\s*[型级族类组期区超肝链球胞淋臂肽群反二抗淀蛋波链])"
_STRONG = re.compile(
    r"(?:答案|正确的?选项|正确的(?:应[该当]?)?(?:[是为有]|包括)|最佳选项|选项应?[是为]|\bans\b"
    r"|(?:final|correct|best|right)?\s*(?:answers?|option|choice)|boxed)"
    r"(?P<filler>(?:\s*(?:'s|is|are|(?:w|sh|c)ould|must|has|can|only|likely|therefore|be|to|option|:)\b)*"
    rf"[^A-Za-z\n。;!?]{{0,15}}?)(?<!项)(?:(?<=案)\s*)?{_OPEN}(?:选项)?\s*{_SET}{_NO_NAME}",
    re.IGNORECASE,
)
#: Words that announce an answer only where nothing but a letter follows.
_BARELY = (
    r"(?<!还)[是为即应]|应[该当]|只有|仅有?|实[则为]|(?:不对|错了)[,。!]?"
    r"|\b(?:[Ss]o|[Hh]ence|[Tt]hus|[Tt]herefore|[Nn]o|[Aa]ctually|but|[Ww]ait)\b[,.]?|(?<=[a-z\u3400-\u9fff]),(?=\s*[A-J]\W*\Z)"
)
_WEAK = re.compile(
    r"(?:[选選](?:择|擇|项|項|的|是|为|了)*|而是|应为|应是|应该是|应当是|就是|认为是|考虑"
    rf"|(?:{_BARELY})\s*(?={_OPEN}[A-J](?:{_BETWEEN}[A-J]){{0,9}}(?:选?项)?吧?\W*(?:\Z|[。,!\n]))|(?:符合|支持|指向|倾向于?)(?:的是)?"
    r"|综上所述|综上|因此|所以|可见|故|choose|pick|select|go with|(?:should|must|would|has to) be|[Ii]t(?:'s| is))"
    rf"(?P<filler>[^A-Za-z\n。选選]{{0,3}}?){_OPEN}(?:选项)?\s*{_SET}{_NO_NAME}"
)
_SAID_RIGHT = re.compile(
    rf"{_SET}\s*(?:选?项)?[\"'”’』」)\]】*_]*\s*(?P<filler>)(?:[一二两三四五六七八]?[个项])?"
    r"(?:的?(?:说法|描述|选项))?(?:[都均皆全也]?[是为]?|才是?|就是)\s*"
    r"[最更较]?(?:就是答案|答案|正确|对的|对(?=[。,;\s]|\Z)|符合|合适|恰当|合理|成立|可取|吻合|相符|佳|可能性[最更较]?大"
    r"|(?:is|are) (?:both |all )?(?:the )?(?:correct|right|best|most|answer))"
)
_ALL_BUT = re.compile(
    rf"(?:除了?\s*(?:选?项)?|(?=[A-J、,和选项]{{1,24}}[之以]外)){_SET}\s*(?:选?项)?"
    r"(?:之外|以外|外|,)[^。;\n]{0,8}?[都均全皆]部?(?:是|为)?"
    r"(?:(?P<wrong>不对|不正确|不符合?|不是|错误?)|对|正确|符合|是)"
)
_ALL_OF_THEM = re.compile(
    r"(?:以上|上述|[四五六]项|所有|选项|答案|\W)*[全都均皆]部?[是为]?(?:正确|对的?|选|符合)\W*"
)
_LEADING = re.compile(
    rf"\W*(?:选项|Option)?\s*{_SET}(?:[一二两三四五六七八][个项](?:选项)?)?[\"'”’』」)\]】>》*_`]*(?P<rest>[^\n]*)"
)
#: Letters and nothing said of them.
_BARE = re.compile(r"(?:[\W_]*[A-J](?![A-Za-z]))+[\W_]*")
#: What may follow letters at the beginning: an end, a mark, a bracket, or words (looked at one by one).
_REST = re.compile(r"\s*(?:\Z|[√✓✔.。,、:;!(\[“\"'—-]|[A-Za-z\u3400-\u9fff])")
_LINE = re.compile(
    rf"(?m)^(?:\d+[.、)]|[^\n:A-Z]{{0,12}}(?:A[IＩ])?[^\n:A-Z]{{0,8}}:)?{_OPEN}{_SET}[ \t.。,\"'”’)\]】*_`}}$]*$"
)
_OF_EACH = re.compile(r"(?m)^[ \t*\-(]*(?P<letter>[A-J])(?![A-Za-z])[ \t.。、:)*]*(?P<said>[^\n]*)$")
_RIGHT, _WRONG = (
    re.compile(r"正确|[√✓✔]|对(?!于|应|照)"),
    re.compile(r"不正确|错|[×✗✘]|不对|不符|不是|排除|不属于"),
)
_DENIES = re.compile(
    r"不(?!如|仅|但|只|同|过|良|足|全|稳|适|典型)|非(?!常)|排除|错|误|别|勿|没有?|未必",
    re.IGNORECASE,
)
#: What denies in English may stand further off.
_DENIES_IN_ENGLISH = re.compile(
    r"(?:\b(?:not|neither|nor|except|cannot|exclude|rule out)\b|n't\b)[^.]{0,16}$", re.IGNORECASE
)
_SUPPOSES = re.compile(
    r"(?:如果|若|假如|倘若|要是|有人|有的人|很多人|容易|可能会|考生|同学|是否|与其|[A-J]\s*还是"
    r"|(?:无法|不能|不敢|难以)(?:确定|判断|确认|肯定|断定|说))[^,。;\n]{0,6}$"
)
_RULED_OUT = (
    r"(?:[都均也皆]?(?:可以?|应)?(?:被|予以)?(?:排除|除外)|(?:的?可能性)?(?:很|较|更)?[小低](?![剂分]))"
)
_DENIED_BEHIND = re.compile(
    r"\s*(?:选?项)?[\"'”’』」)\]】*_]*\s*(?:,?\s*(?:[都均也皆全])?[是为]?(?:不(?:对|正确|符|合|恰|是正|考虑)|错|误|并非|排除)"
    r"|(?:[都均也皆全])?[是为]?不(?![选是]\s*[A-J])|[?？]|吗|呢|还是|(?:is|are) (?:not|wrong|incorrect)"
    rf"|{_RULED_OUT})"
)
#: Something is said of the letter before, which begins a clause of its own.
_SAID_OF_IT = re.compile(r"属于?|见于|提示|则|无|[是为](?!正确|答案|对)|[多常](?!选)")
#: A guess: several of them that differ choose nothing.
_HEDGES = re.compile(
    r"(?:(?<![最很极])可能(?!性)|也许|或许|大概|不是就|似乎|看似|看起来|好像|乍看|起初|一开始)[^。;\n]{0,4}$"
)
_ORDINAL = re.compile(r"第([一二三四五六七八1-8])(?:个选项|个|项|选项)")
_CORRECTS = re.compile(
    r"不对|不,|更正|纠正|修正|改选|改为|改成|[说看弄搞]错|错了|重新|等一?等|再(?:想|看)|其实"
    r"|actually|\bwait\b|\bno,|correction|second thought",
    re.IGNORECASE,
)
_REFUSES = re.compile(
    r"抱歉|对不起|很遗憾|无法|不能(?:回答|提供|给出|判断|确定|作答)|不(?:知道|清楚|确定)|没有正确|都不(?:对|正确)"
    r"|(?:作为|我只?是)(?:一个|一名)?(?:AI|人工智能|语言模型)|\bcannot\b|\bcan't\b|as an ai|\bsorry\b|unable to",
    re.IGNORECASE,
)
_CUE = re.compile(r"答案|正确|应?首?选|考虑|诊断|最可能|因此|所以|综上|可见|应为|应该是|就是|而是|故|是")
_TEXT_DENIED = re.compile(
    r"(?:不是|并非|而非|(?<!不能)(?<!无法)排除|不考虑|不选|不支持|不符合|不像|不能(?!排除)|不宜|不应|不可|不必|[不无]需要?|不用|无须"
    r"|区别于|鉴别)[^,。;\n而]{0,8}$"
)
_TEXT_DENIED_BEHIND = re.compile(rf"{_RULED_OUT}|(?:是|均|都)?(?:不对|不正确|错误|错的|不成立|依据不足)")
#: What may directly follow a letter that is an answer: anything else may make a word of it (A型, C反应蛋白).
_BEHIND = "都均皆吧哦项選选是对为正因由最而和与即也"
_CJK = re.compile("[\u3400-\u9fff]")


def extract_choice(reply: str, options: Sequence[str], *, several: bool = False) -> frozenset[int]:
    """Return the places of the chosen options, none where the reply does not choose; `several` allows a set."""
    text = reply_text(reply, options, several=several)
    known = LETTERS[: len(options)]

    def places(found: str) -> frozenset[int] | None:
        return _places_of(found, known, several=several)

    if left_over := _all_but(text, known, several=several):
        return left_over
    strong = list(_stated(_STRONG, text))
    weak = _weak(text, several=several)
    if strong:
        letters, match = strong[-1]
        return places(_corrected(text, match.end(), weak) or letters) or frozenset()
    leading = _leading(text, options, several=several)
    chosen = [places(letters) for letters, _ in weak]
    if leading is not None and not (weak and (_CORRECTS.search(text) or not places(leading))):
        return _joined([places(leading), *chosen]) if several else places(leading) or frozenset()
    if weak:
        return _joined(chosen) if several else chosen[-1] or frozenset()
    refuses = bool(_REFUSES.search(text))
    lines = [places(found["set"]) for found in _LINE.finditer(text)]
    if lines and not refuses and lines[-1]:
        return lines[-1]
    judged = _judged(text, known, several=several)
    if judged and (several or len(judged) == 1):
        return judged
    return frozenset() if refuses else _by_text(text, options, several=several)


def _all_but(text: str, known: str, *, several: bool) -> frozenset[int] | None:
    """Return what is left over where all options, or all but some, are said to be wrong or right (除A外都不对)."""
    found = list(_ALL_BUT.finditer(text))
    if several and _ALL_OF_THEM.fullmatch(text):
        return frozenset(range(len(known)))
    named = _places_of(found[-1]["set"], known, several=True) if found else None
    if not named:
        return None
    chosen = named if found[-1]["wrong"] else frozenset(range(len(known))) - named
    return chosen if several or len(chosen) == 1 else None


def _corrected(text: str, end: int, weak: Sequence[tuple[str, int]]) -> str | None:
    """Return the letters that a reply names after it takes back what it stated up to `end`, None where it does not."""
    taken_back = _CORRECTS.search(text, end)
    later = [letters for letters, start in weak if taken_back and start >= taken_back.start()]
    return later[-1] if later else None


def _places_of(found: str, known: str, *, several: bool) -> frozenset[int] | None:
    """Return the places of stated letters, None where they are no choice: unknown, alternatives, or too many."""
    letters = re.sub(r"(?i)and|n?or", "", found).upper()
    chosen = [letter for letter in letters if letter in LETTERS]
    if not found.isalpha() and len(set(chosen)) == 1 and len(chosen) <= 3:
        del chosen[1:]  # D, D, D
    if not chosen or not set(chosen) <= set(known) or "或" in found or re.search(r"(?i)\bor\b", found):
        return None
    if len(chosen) > 1 and (not several or (found.isalpha() and chosen != sorted(set(chosen)))):
        return None
    return frozenset(map(known.index, chosen))


def _joined(found: Sequence[frozenset[int] | None]) -> frozenset[int]:
    """Return what several statements choose together (选 A，也选 C)."""
    return frozenset().union(*(places for places in found if places))


def _weak(text: str, *, several: bool) -> list[tuple[str, int]]:
    """Return the letters of the weaker statements and where each begins; of guesses only such as agree."""
    right = (
        (letters.rpartition(",")[2] if not several else letters, found)
        for letters, found in _stated(_SAID_RIGHT, text)
    )  # 剩下B和D,B更合适
    found = sorted([*_stated(_WEAK, text), *right], key=lambda one: one[1].end())
    placed = [(letters, match.start()) for letters, match in found]
    sure = [one for one in placed if not _HEDGES.search(text[max(0, one[1] - 12) : one[1]])]
    return sure or (placed if len({letters for letters, _ in placed}) == 1 else [])


def _stated(pattern: re.Pattern[str], text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield the letters of statements that are neither denied nor supposed, each with its match."""
    for found in pattern.finditer(text):
        before = text[max(0, found.start() - 24) : found.start()]
        clause = re.split(r"[,。;!?\n]", before)[-1]
        letters = found["set"]
        contrasts = text.startswith("but", found.start())  # not B but C
        denied = _DENIES.search(clause[-3:]) or (not contrasts and _DENIES_IN_ENGLISH.search(clause))
        if denied and pattern is _SAID_RIGHT:
            letters = letters.partition(",")[2]  # 不是A,B正确
        elif denied or _DENIES.search(found["filler"]) or _DENIES_IN_ENGLISH.search(found["filler"]):
            continue
        if _SUPPOSES.search(clause[-12:]):
            continue
        behind = text[found.end("set") :]
        if _DENIED_BEHIND.match(behind) or (letters.count(",") == 1 and _SAID_OF_IT.match(behind)):
            letters = letters.rpartition(",")[0]  # A,B,D,C错误; ABCD,E属于…
        if letters:
            yield letters, found


def _leading(text: str, options: Sequence[str], *, several: bool) -> str | None:
    """Return the letters that the reply begins with, None where it begins otherwise or lists the options again."""
    found = _LEADING.match(text)
    if not found or len({each["letter"] for each in _OF_EACH.finditer(text)}) > 1:
        return None
    if not several and _BARE.fullmatch(text) and len(set(re.findall("[A-J]", text))) > 1:
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


def _one_of_a_list(text: str, start: int, end: int) -> bool:
    """Say whether the text between `start` and `end` is an item of a list that nothing announces as the answer."""
    listed = text[max(0, start - 1) : start] == "、" or text.startswith("、", end)
    return listed and not _CUE.search(text[max(0, start - 6) : start])


def _by_text(text: str, options: Sequence[str], *, several: bool) -> frozenset[int]:
    """Return the one option whose text is named, or the one behind the last word that announces an answer."""
    folded = folded_options(options)
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
        and not _TEXT_DENIED_BEHIND.match(text, end)
        and (several or not _one_of_a_list(text, start, end))
    ]
    places = {place for _, place in named}
    if len(places) == 1 or (several and places and len(places) < len(options)):
        return frozenset(places)
    for cue in reversed(list(_CUE.finditer(text))):
        behind = [place for start, place in sorted(named) if 0 <= start - cue.end() <= 6]
        before = text[max(0, cue.start() - 6) : cue.start()]
        if len(set(behind)) == 1 and not (_DENIES.search(before[-2:]) or _HEDGES.search(before)):
            return frozenset(behind)
    ordinals = {("一二三四五六七八".find(found[1]) + 1) or int(found[1]) for found in _ORDINAL.finditer(text)}
    return (
        frozenset(place - 1 for place in ordinals if place <= len(options))
        if len(ordinals) == 1
        else frozenset()
    )
