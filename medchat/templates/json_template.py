"""Templates in the JSON form of alpaca-lora and BenTsao.

Keys of the published form: `description`, `prompt_no_input` (needed), `prompt_input`,
`response_split` (accepted; answers are cut by token count, so nothing is ever split on it).
Keys of ours: `note` (text, or one text per language: which weights were trained on it), `stop` (list
of texts that end an answer), and `dialogue_question` with `dialogue_answer` for weights trained on
several turns inside one `{instruction}`. Other keys are left alone.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medchat.api import Segment, Text, Turn
from medchat.errors import UsageError
from medchat.language import say
from medchat.regular_files import TooLargeError, read_regular
from medchat.templates.form import INPUT, INSTRUCTION, FormatString, FormatStringError

#: A template is a few hundred characters; a file over this many bytes is something else.
MAX_FILE_BYTES = 1 << 20
QUESTION, ANSWER = "question", "answer"
_PUBLISHED_TEXTS = ("description", "prompt_input", "prompt_no_input", "response_split")
_TEXT_KEYS = (*_PUBLISHED_TEXTS, "dialogue_question", "dialogue_answer")
KNOWN_KEYS = (*_TEXT_KEYS, "stop", "note")


@dataclass(frozen=True, slots=True)
class JsonTemplate:
    """One template. `render` is its one renderer for chat, batch inference, training and evaluation.

    A single-turn form in a longer chat repeats its block for each turn: block, answer, newline. A dialogue
    form puts all turns into one block; a question that is such a dialogue already, as records of the data
    are, stays as it is. A system text, which none of these weights were trained with, is once before
    everything, on lines of its own.
    """

    name: str
    no_input: FormatString
    with_input: FormatString | None = None
    dialogue: tuple[FormatString, FormatString] | None = None
    stop: tuple[str, ...] = ()
    note: Mapping[str, str] = field(default_factory=dict)
    #: The file's text: fine-tuning writes it beside what it trained.
    source: str = field(default="", repr=False, compare=False)

    @property
    def multi_turn(self) -> bool:
        """Whether the weights were trained on several turns in this form."""
        return self.dialogue is not None

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return the prompt for `question` after `turns`, oldest first, as ordinary text alone."""
        lead = (Text(f"{system}\n"),) if system else ()
        if self.dialogue:
            return (*lead, *self._block(self._dialogue(turns, question)))
        earlier: list[Text] = []
        for turn in turns:
            earlier += [*self._block((Text(turn.question),)), Text(f"{turn.answer}\n")]
        return (*lead, *earlier, *self._block((Text(question),)))

    def render_with_input(self, instruction: str, input_text: str) -> tuple[Segment, ...]:
        """Return the prompt of a training record that has an `input` beside its `instruction`.

        Without a `prompt_input` of its own the two are joined by a newline.
        """
        if not input_text:
            return self.render((), instruction)
        if self.with_input is None:
            return self.render((), f"{instruction}\n{input_text}")
        return self.with_input.fill({INSTRUCTION: instruction, INPUT: input_text})

    def _dialogue(self, turns: Sequence[Turn], question: str) -> tuple[Text, ...]:
        assert self.dialogue is not None
        asked, answered = self.dialogue
        mark = asked.pieces[0][0].strip()
        if mark and not turns and question.lstrip().startswith(mark):
            return (Text(question),)  # a record of such data, which holds the whole dialogue already
        parts: list[Text] = []
        for turn in turns:
            parts += asked.fill({QUESTION: turn.question}) + answered.fill({ANSWER: turn.answer})
        return (*parts, *asked.fill({QUESTION: question}))

    def _block(self, instruction: tuple[Text, ...]) -> tuple[Text, ...]:
        parts: list[Text] = []
        for literal, name in self.no_input.pieces:
            parts += [Text(literal), *(instruction if name else ())]
        return tuple(part for part in parts if part.text)


def read_template(path: Path) -> JsonTemplate:
    """Read one template file. Raises UsageError naming the file, and the line where there is one."""
    return parse_template(read_template_text(path), name=path.stem, where=str(path))


def read_template_text(path: Path) -> str:
    """Return the text of a template file of any kind. Raises UsageError: missing, too big, not UTF-8."""
    where = str(path)
    try:
        if not path.exists():
            raise UsageError(
                say("没有这个模板文件", "there is no such template file"),
                say("检查路径，或用 --template 指定模板名称", "check the path, or give --template a name"),
                where=where,
            )
        raw = read_regular(path, MAX_FILE_BYTES)
    except TooLargeError:
        raise _bad(where, f"超过 {MAX_FILE_BYTES} 字节", f"is over {MAX_FILE_BYTES} bytes") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise _bad(where, f"无法读取：{reason}", f"cannot be read: {reason}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _bad(f"{where}:{line}", "不是 UTF-8 文本", "is not UTF-8 text") from None


def parse_template(text: str, *, name: str, where: str) -> JsonTemplate:
    """Return the template that the JSON `text` describes. Raises UsageError with `where` and the line."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}"
        raise _bad(place, f"不是有效的 JSON（{error.msg}）", f"is not valid JSON ({error.msg})") from None
    except (RecursionError, ValueError):  # nested too deeply, a number of thousands of digits
        raise _bad(where, "不是有效的 JSON", "is not valid JSON") from None
    if not isinstance(content, dict):
        raise _bad(where, "应当是一个 JSON 对象", "must be a JSON object")
    return _Reader(content, text, where).template(name)


def _bad(where: str, zh: str, en: str) -> UsageError:
    return UsageError(
        say(f"模板文件有误：{zh}", f"bad template: it {en}"),
        say(
            '最简单的模板：{"prompt_no_input": "问题：{instruction}\\n回答："}',
            'the least a template needs: {"prompt_no_input": "Q: {instruction}\\nA: "}',
        ),
        where=where,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Checks one file's content, and knows on which line each key stands."""

    content: Mapping[str, Any]
    source: str
    where: str

    def template(self, name: str) -> JsonTemplate:
        for key in _TEXT_KEYS:
            if not isinstance(self.content.get(key, ""), str):
                raise self.bad(key, f"{key} 应当是文本", f"has a {key} that is not text")
        no_input = self.form("prompt_no_input", (INSTRUCTION,), must_hold=INSTRUCTION)
        if no_input is None:
            raise self.missing("prompt_no_input")
        return JsonTemplate(
            name=name,
            no_input=no_input,
            with_input=self.form("prompt_input", (INSTRUCTION, INPUT), must_hold=INSTRUCTION),
            dialogue=self.dialogue(),
            stop=self.stop(),
            note=self.note(),
            source=self.source,
        )

    def form(self, key: str, allowed: tuple[str, ...], *, must_hold: str) -> FormatString | None:
        text = self.content.get(key)
        if not text:
            return None
        try:
            form = FormatString.parse(text, allowed)
        except FormatStringError as error:
            names = " ".join("{" + name + "}" for name in allowed)
            raise self.bad(
                key,
                f"{key} 中的 {error} 无效；可用的占位符：{names}，花括号本身写作 {{{{ 和 }}}}",
                f"has {error} in {key}; placeholders are {names}, a brace itself is written {{{{ or }}}}",
            ) from None
        if not form.holds(must_hold):
            raise self.bad(
                key, f"{key} 中没有 {{{must_hold}}}", f"has no {{{must_hold}}} in {key}, so it would be lost"
            )
        return form

    def dialogue(self) -> tuple[FormatString, FormatString] | None:
        asked = self.form("dialogue_question", (QUESTION,), must_hold=QUESTION)
        answered = self.form("dialogue_answer", (ANSWER,), must_hold=ANSWER)
        if asked and answered:
            return asked, answered
        if asked or answered:
            raise self.missing("dialogue_answer" if asked else "dialogue_question")
        return None

    def stop(self) -> tuple[str, ...]:
        stop = self.content.get("stop", [])
        if not isinstance(stop, list) or not all(isinstance(text, str) and text for text in stop):
            raise self.bad("stop", "stop 应当是文本列表", "has a stop that is not a list of texts")
        return tuple(stop)

    def note(self) -> Mapping[str, str]:
        note = self.content.get("note", {})
        if isinstance(note, str):
            return {"zh": note, "en": note}
        if not isinstance(note, dict) or not all(isinstance(text, str) for text in note.values()):
            raise self.bad("note", "note 应当是文本", "has a note that is not text")
        return note

    def missing(self, key: str) -> UsageError:
        near = difflib.get_close_matches(key, set(self.content) - set(KNOWN_KEYS), n=1)
        if near:
            return self.bad(
                near[0],
                f"缺少 {key}（是不是把它写成了 {near[0]}？）",
                f"lacks {key} (did {near[0]} mean that?)",
            )
        return _bad(self.where, f"缺少 {key}", f"lacks {key}")

    def bad(self, key: str, zh: str, en: str) -> UsageError:
        at = self.source.find(json.dumps(key, ensure_ascii=False))
        line = self.source.count("\n", 0, max(0, at)) + 1
        return _bad(f"{self.where}:{line}", zh, en)
