"""What a prompt template writes around questions and answers, found by rendering it, for other programs' templates.

Other programs write prompts by templates of their own kinds (Jinja in GGUF files, Go's in Ollama). Most of ours
are a repeated pattern of fixed texts, which any of these can state.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from medchat.plugin_kit import Control, PromptTemplate, Turn, UsageError

#: Private-use characters, which no template holds.
_SYSTEM, _QUESTIONS, _ANSWERS = "\ue000", "\ue001\ue002\ue003\ue004", "\ue011\ue012\ue013"
_BEGIN = ("<s>", "<bos>", "<|begin_of_text|>")


@dataclass(frozen=True, slots=True)
class ConversationPattern:
    """The texts around what is said; control tokens are in them by their names.

    A prompt begins with `start`, or with the system text between `before_system` and `after_system`; then
    comes the first question. Each answer follows `before_answer`, each further question behind `next`; at the
    end `last`, where the answer begins. `takes_system` is False where the template refuses a system text.
    """

    start: str
    before_system: str
    after_system: str
    next: str
    before_answer: str
    last: str
    takes_system: bool = True


def pattern_of(template: PromptTemplate) -> ConversationPattern | None:
    """Return the pattern that `template` writes, None where it writes anything else.

    A beginning-of-text token in front is left out: whoever reads the prompt puts it there.
    """
    alone = _between(_written(template, 0), (_QUESTIONS[0],))
    system = _SYSTEM if _takes_system(template) else ""
    marks = (_QUESTIONS[0], _ANSWERS[0], _QUESTIONS[1])
    spoken = _between(_written(template, 1, system), (_SYSTEM, *marks) if system else marks)
    if alone is None or spoken is None:
        return None
    before_system, after_system = (spoken[0], spoken[1]) if system else ("", "")
    before_answer, following, last = spoken[-3:]
    found = ConversationPattern(
        alone[0], before_system, after_system, following, before_answer, last, takes_system=bool(system)
    )
    cases = [(turns, said) for turns in range(4) for said in {"", system}]
    agrees = all(write(found, turns, system) == _written(template, turns, system) for turns, system in cases)
    return found if agrees else None


def write(pattern: ConversationPattern, turns: int, system: str) -> str:
    """Return the prompt after so many turns of the placeholders above."""
    parts = [pattern.before_system + system + pattern.after_system if system else pattern.start]
    for number in range(turns + 1):
        parts.append((pattern.next if number else "") + _QUESTIONS[number])
        parts.append(pattern.before_answer + _ANSWERS[number] if number < turns else pattern.last)
    return "".join(parts)


def _written(template: PromptTemplate, turns: int, system: str = "") -> str:
    said = [Turn(_QUESTIONS[number], _ANSWERS[number]) for number in range(turns)]
    segments = template.render(said, _QUESTIONS[turns], system)
    text = "".join(part.token if isinstance(part, Control) else part.text for part in segments)
    begin = next((token for token in _BEGIN if text.startswith(token)), "")
    return text.removeprefix(begin)


def _takes_system(template: PromptTemplate) -> bool:
    try:
        template.render((), _QUESTIONS[0], _SYSTEM)
    except UsageError:
        return False
    return True


def _between(text: str, marks: tuple[str, ...]) -> list[str] | None:
    """Return the texts around `marks`, None unless each is there once and in this order."""
    places = [text.find(mark) for mark in marks]
    if -1 in places or any(text.count(mark) > 1 for mark in marks) or places != sorted(places):
        return None
    edges = [0, *(edge for place in places for edge in (place, place + 1)), len(text)]
    return [text[start:end] for start, end in list(pairwise(edges))[::2]]


def as_jinja(pattern: ConversationPattern) -> str:
    """Return the pattern as a chat template of `messages`. Nothing said can leave its place."""
    return (
        "{%- set ns = namespace(begun=false, asked=false) -%}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'system' -%}"
        f"{_jinja_system(pattern)}"
        "{%- elif message['role'] == 'user' -%}"
        f"{{%- if ns.asked -%}}{_jinja(pattern.next)}{{%- elif not ns.begun -%}}{_jinja(pattern.start)}{{%- endif -%}}"
        "{{- message['content'] }}{%- set ns.asked = true -%}"
        f"{{%- elif message['role'] == 'assistant' -%}}{_jinja(pattern.before_answer)}"
        "{{- message['content'] }}{%- endif -%}{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{_jinja(pattern.last)}{{%- endif -%}}"
    )


def _jinja_system(pattern: ConversationPattern) -> str:
    if not pattern.takes_system:
        return "{{- raise_exception('System role not supported') }}"
    around = f"{_jinja(pattern.before_system)}{{{{- message['content'] }}}}{_jinja(pattern.after_system)}"
    return around + "{%- set ns.begun = true -%}"


def as_go(pattern: ConversationPattern) -> str:
    """Return the pattern as Ollama's template. Nothing said can leave its place, and no quotes are left bare."""
    start = _go(pattern.start)
    if pattern.takes_system:
        system = f"{_go(pattern.before_system)}{{{{ .System }}}}{_go(pattern.after_system)}"
        start = f"{{{{ if .System }}}}{system}{{{{ else }}}}{start}{{{{ end }}}}"
    return (
        f"{start}{{{{ $asked := false }}}}{{{{ range .Messages }}}}"
        f"{{{{ if eq .Role `user` }}}}{{{{ if $asked }}}}{_go(pattern.next)}{{{{ end }}}}"
        "{{ .Content }}{{ $asked = true }}"
        f"{{{{ else if eq .Role `assistant` }}}}{_go(pattern.before_answer)}{{{{ .Content }}}}{{{{ end }}}}"
        f"{{{{ end }}}}{_go(pattern.last)}"
    )


def _jinja(text: str) -> str:
    """Return an expression that writes `text`, whatever trimming of white space the reader does."""
    if not text:
        return ""
    for plain, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return f"{{{{- '{text}' }}}}"


def _go(text: str) -> str:
    """Return `text` with what the template or the Modelfile would read as its own in an action."""
    quoted = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    if not text or not ({'"', "{", "}"} & set(text) or text != text.strip(" ")):
        return text
    quoted = "".join(f"\\u{ord(character):04x}" if character in '"{}`' else character for character in quoted)
    return f'{{{{ "{quoted}" }}}}'
