"""A Jinja chat template, as weights of other families bring one, rendered to segments and never to a string.

The template never sees a word of the conversation: in place of each text it gets a mark that nobody can
guess, and of each special token too. What it writes is then cut at the marks: the user's and the model's
words come back as `Text` of their own, a special token as `Control`. What the template itself writes is
`Text` as well, but for the special tokens of the vocabulary (`SpecialTokens.tokens`), which are `Control`.

So no text can forge a control token, and which control tokens are in a prompt never depends on the words. The
price: a template that looks into a text sees the mark. Trimming is honoured (each mark stands between two
blanks, and where those are gone the text is trimmed); a template that cuts or rewrites texts otherwise is
refused.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateSyntaxError

from medchat.api import Control, Segment, SpecialTokens, Text, Turn
from medchat.errors import UsageError
from medchat.language import say
from medchat.templates.jinja_sandbox import compile_template, render

#: The key of tokenizer_config.json and chat_template.json.
KEY = "chat_template"
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
_OPEN, _CLOSE = "\ue000", "\ue001"
#: A blank that templates do not write themselves and that every way of trimming takes off.
_BLANK = "\u2005"
#: Something in each mark for every way of rewriting a text: case, white space, quotes, what HTML escapes.
_TOUCHY = "aB\n\x1c '\"<&"


@dataclass(frozen=True, slots=True)
class JinjaTemplate:
    """One template. `multi_turn` says whether an earlier turn reaches its prompt, the only sign there is."""

    name: str
    where: str
    compiled: Template
    specials: SpecialTokens
    multi_turn: bool = False
    stop: tuple[str, ...] = ()
    jinja: str = field(default="", repr=False, compare=False)

    @property
    def source(self) -> str:
        """A JSON file's text that gives this template again: the template and the tokens it names by role."""
        return json.dumps({KEY: self.jinja, **self.specials.roles}, ensure_ascii=False, indent=2) + "\n"

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return the prompt for `question` after `turns`, oldest first.

        Raises UsageError: the template fails, refuses the conversation (its `raise_exception`), leaves
        the question or the system text out, rewrites a text, or uses a token that the vocabulary lacks.
        """
        try:
            return self._segments(turns, question, system)
        except UsageError as error:
            if system:
                self._segments(turns, question, "")  # raises where the system text is not what it refuses
                raise _without_system(error) from None
            raise

    def _segments(self, turns: Sequence[Turn], question: str, system: str) -> tuple[Segment, ...]:
        marks = _Marks()
        messages = [_message(marks, "system", system)] if system else []
        for turn in turns:
            messages += [_message(marks, "user", turn.question), _message(marks, "assistant", turn.answer)]
        messages.append(_message(marks, "user", question))
        last = len(marks.values) - 1
        variables: dict[str, Any] = {"tools": None, "documents": None, "add_generation_prompt": True}
        variables |= {role: marks.of(Control(token)) for role, token in self.specials.roles.items()}
        segments, used = marks.cut(self._written(messages, variables, marks), self.specials.tokens)
        if segments is None:
            raise _bad(self.where, "改写或截断了文字", "cuts or rewrites the words of the conversation")
        if last not in used:
            raise _bad(self.where, "丢掉了问题", "leaves the question out")
        if system and 0 not in used:
            raise _bad(self.where, "没有用到系统提示（--system）", "leaves the system text (--system) out")
        self._check_vocabulary(segments)
        return segments

    def _written(self, messages: list[dict[str, str]], variables: dict[str, Any], marks: _Marks) -> str:
        try:
            return render(self.compiled, {"messages": messages, **variables})
        except Exception as error:  # whatever a template does wrong surfaces as any exception of Python's
            reason = marks.without(str(error) or type(error).__name__)
            raise _bad(_place(self.where, error), f"无法套用：{reason}", f"fails: {reason}") from None

    def _check_vocabulary(self, segments: tuple[Segment, ...]) -> None:
        known = self.specials.tokens
        for segment in segments:
            if isinstance(segment, Control) and known and segment.token not in known:
                raise _bad(
                    self.where,
                    f"用了词表里没有的特殊标记 {segment.token}",
                    f"uses {segment.token}, which the vocabulary lacks",
                )


@dataclass(frozen=True, slots=True)
class _Marks:
    """What stands in for texts and tokens while a template runs."""

    secret: str = field(default_factory=lambda: str(secrets.randbits(128)))
    values: list[Segment] = field(default_factory=list)

    def of(self, value: Segment) -> str:
        """Return the mark for a text or a token: whatever changes more than its ends damages it."""
        self.values.append(value)
        mark = f"{_OPEN}{_TOUCHY}{self.secret}:{len(self.values) - 1}{_CLOSE}"
        return f"{_BLANK}{mark}{_BLANK}" if isinstance(value, Text) else mark

    def cut(
        self, written: str, specials: Sequence[str]
    ) -> tuple[tuple[Segment, ...], set[int]] | tuple[None, set[int]]:
        """Return the segments and the numbers of the marks used; None if a mark was damaged."""
        segments: list[Segment] = []
        used: set[int] = set()
        end = 0
        for found in self._pattern().finditer(written):
            segments += _literal(written[end : found.start()], specials)
            number, end = int(found["number"]), found.end()
            used.add(number)
            segments += self._value(number, found["before"], found["after"])
        segments += _literal(written[end:], specials)
        if any(trace in self._pattern().sub("", written) for trace in (_OPEN, _CLOSE, _BLANK, self.secret)):
            return None, used
        return tuple(segments), used

    def without(self, message: str) -> str:
        """Return a message with the marks out of it."""
        return self._pattern().sub("…", message)

    def _value(self, number: int, before: str, after: str) -> Iterator[Segment]:
        value = self.values[number]
        if isinstance(value, Control):
            yield value
            return
        text = value.text if before else value.text.lstrip()
        text = text if after else text.rstrip()
        if text:
            yield Text(text)

    def _pattern(self) -> re.Pattern[str]:
        mark = f"{_OPEN}{re.escape(_TOUCHY)}{self.secret}:(?P<number>[0-9]+){_CLOSE}"
        return re.compile(f"(?P<before>{_BLANK}?){mark}(?P<after>{_BLANK}?)")


def _message(marks: _Marks, role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": marks.of(Text(text))}


def _literal(text: str, specials: Sequence[str]) -> Iterator[Segment]:
    """What the template wrote itself; where one special token begins another, the longer one counts."""
    if not specials:
        parts = [text]
    else:
        longest_first = sorted(specials, key=len, reverse=True)
        parts = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
    for number, part in enumerate(parts):
        if part:
            yield Control(part) if number % 2 else Text(part)


def parse_jinja(source: str, *, name: str, where: str, specials: SpecialTokens) -> JinjaTemplate:
    """Return the chat template in `source`, tried out once. Raises UsageError with `where` and the line."""
    try:
        compiled = compile_template(source, where)
    except TemplateSyntaxError as error:
        reason = error.message or ""
        place = f"{where}:{error.lineno}"
        raise _bad(place, f"不是有效的 Jinja（{reason}）", f"is not valid Jinja ({reason})") from None
    except ValueError:
        raise _bad(
            where, "不是有效的 Jinja（数字过长）", "is not valid Jinja (a number is too long)"
        ) from None
    except (RecursionError, SyntaxError, MemoryError):  # nested too deeply for Python's own compiler
        raise _bad(where, "不是有效的 Jinja（嵌套过深）", "is not valid Jinja (nested too deeply)") from None
    template = JinjaTemplate(name, where, compiled, specials, jinja=source)
    template.render((), "?")
    earlier = Text(secrets.token_hex(16))
    try:
        several = earlier in template.render((Turn(earlier.text, "!"),), "?")
    except UsageError:  # its author wants single turns: said again where there are several
        several = False
    return replace(template, multi_turn=several)


def jinja_in(text: str) -> tuple[str, Mapping[str, str]] | None:
    """Return the chat template that a tokenizer_config.json holds, and the tokens that it names by role.

    None for any other text. Of several templates the one named `default` is taken.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "prompt_no_input" in content:
        return None
    source = content.get(KEY)
    if isinstance(source, list):
        named = [item for item in source if isinstance(item, dict) and item.get("name") == "default"]
        source = named[0].get("template") if named else None
    if not isinstance(source, str):
        return None
    stated = {role: _token(content.get(role)) for role in _ROLES}
    return source, {role: token for role, token in stated.items() if token}


def template_name(path: Path) -> str:
    """Return what to call the template: its folder's name where the file is called as in every folder."""
    general = path.stem in (KEY, "tokenizer_config")
    return path.resolve().parent.name or path.stem if general else path.stem


def _token(value: object) -> str:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""


def _place(where: str, error: BaseException) -> str:
    """The file and the line that was being rendered: the innermost of the template's own."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == where:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{where}:{line}" if line else where


def _without_system(error: UsageError) -> UsageError:
    """Return the error of a template that takes the conversation, but not the system text before it."""
    return UsageError(
        error.what,
        say(
            "这个模板不接受系统提示：去掉 --system（对话里用 /系统 -），或换一个模板：--template 名称或文件",
            "it takes no system text: leave --system out (in a chat: /system -), or choose another template: "
            "--template NAME|FILE",
        ),
        where=error.where,
    )


def _bad(where: str, zh: str, en: str) -> UsageError:
    return UsageError(
        say(f"对话模板（Jinja）{zh}", f"bad chat template (Jinja): it {en}"),
        say(
            "换一个模板：--template 名称或文件（不写则用权重自带的模板）；模板须写出 messages 里每条的 content",
            "choose another: --template NAME|FILE (without it the weights' own); it writes each message's content",
        ),
        where=where,
    )
