"""What in the user's words needs help now: the rules applied, and the notices they come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from medchat.api import Conversation, Notice
from medchat.language import say
from medchat.medical_safety import wording
from medchat.medical_safety.folding import FoldedText
from medchat.medical_safety.lexicon_files import POLAR, FlagRule, NoticeText, load_lexicon
from medchat.medical_safety.mentions import Found, Mentions, find_mentions
from medchat.medical_safety.scopes import Scopes, silenced_by

#: So much of the end of the previous turn is read along.
_PREVIOUS_CHARACTERS = 2000
#: Of a conversation that continues, so many turns are looked at for what was shown.
_TURNS_LOOKED_AT = 50
#: What separates the two turns: the end of a sentence.
_BETWEEN_TURNS = "\n\n"
#: Of each rule, so many silenced findings are kept as evidence.
_SILENCED_KEPT = 5

#: What says that something is of long standing, and what takes that back: "支架放了两年，今天…".
_CHRONIC = "chronic"
_LATELY = ("time.now", "time.sudden")
#: What says in its own clause alone that something is slight: "喘得厉害，嘴唇有点紫" is not.
_MILD = "mild"
#: Words of Latin letters take more room: a rule reaches so many times as far behind them.
_LATIN_REACH = 3
#: How near to the first part the words stand that a rule names under `unless`.
_UNLESS_REACH = 20

#: What is in place of a rule where none fired and the wording speaks for an emergency.
_WORDING_RULE, _WORDING_SIGN, _WORDING_NOTICE = "weak signs that add up", "weak sign", "possible-emergency"
_WORDING_SOURCE = "weights learned from labelled sentences: docs/safety.md"
#: Notices on a mind in danger, and what the first becomes where a body is in danger too.
_SELF_HARM, _SELF_HARM_NOW = "self-harm", "self-harm-now"
_OF_MIND = {_SELF_HARM, _SELF_HARM_NOW, "violence", "harm-others"}
#: What silences a rule where the wording speaks against it.
_WORDING_SCOPE = "wording"


@dataclass(frozen=True, slots=True)
class Mention:
    """A piece of the user's words that a rule rests on: text[start:end], of the previous turn where it says so."""

    start: int
    end: int
    text: str
    concept: str
    previous: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """One rule that found what it looks for, the first of `mentions` before all.

    `silenced_by` is the scope that kept it from firing, "" where it fired; `intent` to harm oneself is silenced
    by hardly anything.
    """

    rule: str
    key: str
    vital: bool
    mentions: tuple[Mention, ...]
    scopes: tuple[str, ...]
    source: str
    silenced_by: str = ""
    intent: bool = False


@dataclass(frozen=True, slots=True)
class RedFlags:
    """What fired on one message. True if anything did.

    `notices` are those to show, in order; `evidence` is everything that fired, which may have more keys;
    `silenced` is what would have fired but for a scope.
    """

    notices: tuple[Notice, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    silenced: tuple[Evidence, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.notices)

    @property
    def vital(self) -> bool:
        """Whether a life may be at risk this minute."""
        return any(each.vital for each in self.evidence)


def find_red_flags(text: str, previous: str | None = None) -> RedFlags:
    """Return what in `text` needs help now, together with `previous`, the user's turn before it.

    Deterministic, and linear in the length of both. What is in `previous` alone does not fire again. The
    lexicon is read at the first call.
    """
    before = (previous or "")[-_PREVIOUS_CHARACTERS:]
    joined = before + _BETWEEN_TURNS + text if before else text
    reading = _Reading(joined, len(joined) - len(text))
    found = list(reading.evidence())
    fired = [each for each in found if not each.silenced_by]
    silenced = [each for each in found if each.silenced_by]
    if len(text) <= wording.MAX_CHARACTERS and not any(map(_beyond_wording, fired)):
        judged = (_Reading(text, 0) if before else reading).by_its_wording(fired)
        silenced += [each for each in judged if each.silenced_by]
        fired = [each for each in judged if not each.silenced_by]
    return RedFlags(notices=tuple(_notices(fired)), evidence=tuple(fired), silenced=tuple(silenced))


def marks_of(text: str) -> list[wording.Mark]:
    """Return what `wording` weighs besides the words of a text: what the lexicon finds in it."""
    return _Reading(text, 0).marks()


def _beyond_wording(evidence: Evidence) -> bool:
    """Whether no wording takes it back: intent to harm oneself, and what rests on the turn before as well."""
    return evidence.intent or any(mention.previous for mention in evidence.mentions)


class _Reading:
    """Two turns as the rules read them."""

    def __init__(self, text: str, begin: int) -> None:
        self._lexicon = load_lexicon()
        self._folded: FoldedText = self._lexicon.folder.fold(text)
        self._begin = begin
        self._mentions: Mentions = find_mentions(self._folded, self._lexicon)
        self._scopes = Scopes(self._folded, self._mentions)

    def evidence(self) -> Iterator[Evidence]:
        """Yield for each rule what fires first, or what was silenced where nothing does."""
        for rule in self._lexicon.rules:
            silenced: list[Evidence] = []
            for parts in self._together(rule):
                evidence = self._judged(rule, parts)
                if not evidence.silenced_by:
                    yield evidence
                    break
                if len(silenced) < _SILENCED_KEPT:
                    silenced.append(evidence)
            else:
                yield from silenced

    def by_its_wording(self, fired: list[Evidence]) -> list[Evidence]:
        """Return what fired, silenced where the wording of the text speaks against it.

        Where nothing fired, return the one piece of evidence that a wording like an emergency's comes to.
        """
        weighed = wording.Wording(wording.lexicon_weights(), self._folded, self.marks())
        if not fired:
            reasons = weighed.alarms()
            return [] if reasons is None else [self._weak_evidence(reasons)]
        found = [self._folded.folded_span(each.mentions[0].start, each.mentions[0].end) for each in fired]
        if not weighed.is_doubtful(found, vital=any(each.vital for each in fired)):
            return fired
        return [replace(each, silenced_by=_WORDING_SCOPE) for each in fired]

    def _weak_evidence(self, reasons: list[str]) -> Evidence:
        words = [reason.strip("_").replace("_", " ") for reason in reasons]
        words = [word for word in words if word in self._folded.text]
        found = [Found(start, start + len(word), _WORDING_SIGN)
                 for word in words if (start := self._folded.text.index(word)) >= 0]  # fmt: skip
        mentions = tuple(self._mention(each) for each in sorted(found))
        return Evidence(_WORDING_RULE, _WORDING_NOTICE, False, mentions, (), _WORDING_SOURCE)

    def marks(self) -> list[wording.Mark]:
        """Return what the lexicon finds that weighs with the wording."""
        return [
            (each.start, each.end, f"not {name}" if each.negated else name)
            for name in self._mentions.names()
            if wording.weighs(name)
            for each in self._mentions.of((name,))
        ]

    def _together(self, rule: FlagRule) -> Iterator[tuple[Found, ...]]:
        """Yield what stands together as the rule asks for, at least a part of it in the present turn."""
        for first in self._mentions.of(rule.all[0]):
            if first.negated or (rule.unless and self._has_an_ordinary_reason(first, rule.unless)):
                continue
            parts = [first]
            reach = rule.reach * (_LATIN_REACH if self._is_latin(first) else 1)
            for names in rule.all[1:]:
                part = self._mentions.nearest(names, first, reach)
                if part is None:
                    break
                parts.append(part)
            else:
                if any(self._original(part)[1] > self._begin for part in parts):
                    yield tuple(parts)

    def _is_latin(self, found: Found) -> bool:
        last = self._folded.text[found.end - 1]
        return last.isascii() and last.isalpha()

    def _has_an_ordinary_reason(self, found: Found, reasons: tuple[str, ...]) -> bool:
        return any(
            self._excuses(reason, found) for reason in self._mentions.near(reasons, found, _UNLESS_REACH)
        )

    def _excuses(self, reason: Found, found: Found) -> bool:
        between = min(reason.end, found.end), max(reason.start, found.start)
        if reason.name == _MILD:
            return not self._folded.clause_end_between(*between)
        if reason.name == _CHRONIC and self._mentions.first_from(_LATELY, reason.end, found.start):
            return False
        return not self._folded.sentence_end_between(*between)

    def _judged(self, rule: FlagRule, parts: tuple[Found, ...]) -> Evidence:
        scopes = [self._scopes.at(part) for part in parts]
        silence = silenced_by(scopes[0], parts[0].name, intent=rule.intent)
        for part, scope in zip(parts[1:], scopes[1:], strict=True):
            if not rule.intent and part.name.startswith(POLAR) and (scope.past or scope.conditional):
                silence = silence or ("past" if scope.past else "conditional")
        return Evidence(
            rule=rule.name,
            key=rule.notice,
            vital=rule.vital,
            mentions=tuple(self._mention(part) for part in parts),
            scopes=scopes[0].words(),
            source=rule.source,
            silenced_by=silence,
            intent=rule.intent,
        )

    def _original(self, found: Found) -> tuple[int, int]:
        return self._folded.original_span(found.start, found.end)

    def _mention(self, found: Found) -> Mention:
        start, end = self._original(found)
        words = self._folded.original[start:end]
        if end <= self._begin:
            return Mention(start, end, words, found.name, previous=True)
        return Mention(max(0, start - self._begin), end - self._begin, words, found.name)


def _notices(fired: Iterable[Evidence]) -> Iterator[Notice]:
    """Yield the notices: self-harm and the police's first, then the strongest; never two that call 120."""
    vital: dict[str, bool] = {}
    for each in fired:
        vital[each.key] = vital.get(each.key, False) or each.vital
    if _SELF_HARM in vital and not vital.keys() <= _OF_MIND:  # already hurt: the notice with first aid
        vital[_SELF_HARM_NOW] = vital.pop(_SELF_HARM) or vital.get(_SELF_HARM_NOW, True)
    called: set[str] = set()
    texts = sorted((load_lexicon().notices[key] for key in vital), key=lambda text: text.rank)
    for text in texts:
        numbers = set(text.calls.split())
        if called and (numbers & called or "110" not in numbers) and not _first_medical(text, called):
            continue
        called |= numbers or {"hospital"}
        yield _notice(text, vital[text.key])


def _first_medical(text: NoticeText, called: set[str]) -> bool:
    """Whether this is the first notice on a body in danger, behind one that calls the police alone."""
    return called == {"110"} and "110" not in text.calls.split()


def _notice(text: NoticeText, vital: bool) -> Notice:
    return Notice(
        say(text.zh, text.en), text.urgent, key=text.key, vital=vital, short=say(text.short_zh, text.short_en)
    )


def merge_notices(ours: Iterable[Notice], advised: Iterable[Notice]) -> tuple[Notice, ...]:
    """Return our notices and, behind them, those that plugins advise: nothing is removed, urgent ones come first.

    A notice given twice is shown once, as urgent if either was.
    """
    merged: dict[tuple[str, str], Notice] = {}
    for notice in (*ours, *advised):
        known = merged.get((notice.key, notice.text))
        if known is None or (notice.urgent and not known.urgent):
            merged[notice.key, notice.text] = notice
    return tuple(sorted(merged.values(), key=lambda notice: not notice.urgent))


def as_fields(notice: Notice) -> dict[str, object]:
    """Return what JSON output and result files say of a notice: `key`, `text`, `urgent`."""
    return {"key": notice.key, "text": notice.text, "urgent": notice.urgent}


def red_flag_notices(
    question: str, advised: Iterable[Notice] = (), previous: str | None = None
) -> tuple[Notice, ...]:
    """Return what to tell the user before the answer: our notices, then those `advised` by plugins."""
    return merge_notices(find_red_flags(question, previous).notices, advised)


def keys_shown(conversation: Conversation) -> set[str]:
    """Return the keys of the notices that were shown in this conversation, worked out from its last questions."""
    questions = [turn.question for turn in conversation.turns[-_TURNS_LOOKED_AT:]]
    shown: set[str] = set()
    for previous, question in zip(["", *questions], questions, strict=False):
        shown |= {notice.key for notice in find_red_flags(question, previous).notices}
    return shown


def urgent_notices(conversation: Conversation, question: str) -> tuple[Notice, ...]:
    """Return our urgent notices on `question`, short where the conversation has shown the same in full.

    For whoever must not wait for the model: the chat engine gives the same before its answer.
    """
    shown = keys_shown(conversation)
    return tuple(
        replace(notice, text=notice.short) if notice.key in shown and notice.short else notice
        for notice in advise(conversation, question)
        if notice.urgent
    )


def advise(conversation: Conversation, question: str) -> tuple[Notice, ...]:
    """Run our rules as the chat engine's first adviser: on the question, and the one before it."""
    previous = conversation.turns[-1].question if conversation.turns else None
    return find_red_flags(question, previous).notices
