"""The published forms of records, by the fields that make them: what people call the data they have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from medchat.language import say


@dataclass(frozen=True, slots=True)
class RecordForm:
    """A form of records. `fields` are those, by lower-case name, that a record of it was read from at least."""

    name: str
    zh: str
    en: str
    fields: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """What people call it, in the interface language."""
        return say(self.zh, self.en)


LITERATURE = RecordForm("literature", "BenTsao 文献对话", "BenTsao literature dialogues")
CONVERSATION = RecordForm("conversation", "对话", "conversations")
PAIRS = RecordForm("pairs", "问答对", "questions and answers")
_ALPACA = RecordForm("alpaca", "Alpaca 格式", "Alpaca", frozenset(("instruction", "output")))
#: The first whose fields a record was read from is its form; `PAIRS` where none is.
_BY_FIELDS = (
    RecordForm("messages", "OpenAI 消息", "OpenAI messages", frozenset(("messages",))),
    RecordForm("sharegpt", "ShareGPT 对话", "ShareGPT conversations", frozenset(("conversations",))),
    RecordForm("med-chatglm", "Med-ChatGLM 格式", "Med-ChatGLM", frozenset(("context", "target"))),
    RecordForm("cmb-clin", "CMB-Clin 病例", "CMB-Clin cases", frozenset(("qa_pairs",))),
    RecordForm("promptcblue", "PromptCBLUE", "PromptCBLUE", frozenset(("input", "target", "sample_id"))),
    RecordForm("ptuning", "ChatGLM P-tuning 格式", "ChatGLM P-tuning", frozenset(("content", "summary"))),
    _ALPACA,
    RecordForm(
        "wordings", "一问多种问法", "questions in several wordings", frozenset(("questions", "answers"))
    ),
)
#: The published data puts one space on each side of a mark; the published demo does not always.
_MARKS = re.compile(r" ?<(user|bot)>: ?")
#: The prompt that a form writes around its question, by the field that holds both.
_PROMPTS = {
    "context": re.compile(r"问题：(?P<question>.*)\n回答[:：] ?", re.DOTALL),  # Med-ChatGLM
    "input": re.compile(r"(?P<question>.*?)\s*\n答[:：]\s*", re.DOTALL),  # PromptCBLUE
}
_BY_NAME = {form.name: form for form in (LITERATURE, CONVERSATION, PAIRS, *_BY_FIELDS)}


def form_of(names: Iterable[str], *, is_conversation: bool, is_dialogue: bool) -> str:
    """Return the name of the form of a record that was read from fields of these names."""
    folded = {name.strip().casefold() for name in names}
    found = next(
        (form for form in _BY_FIELDS if form.fields <= folded), CONVERSATION if is_conversation else PAIRS
    )
    return LITERATURE.name if found is _ALPACA and is_dialogue else found.name


def without_prompt(field: str, text: str) -> str:
    """Return the question in the text of a field, without the prompt that a published form writes around it."""
    prompt = _PROMPTS.get(field.strip().casefold())
    framed = prompt.fullmatch(text) if prompt else None
    return framed["question"] if framed else text


def split_dialogue(text: str) -> tuple[str, ...]:
    """Return what was said by turns in a text of the literature data's form, nothing if it is not of that form.

    It begins with the user's mark and ends with a question of the user.
    """
    before, *rest = _MARKS.split(text)
    speakers, said = rest[::2], rest[1::2]
    by_turns = [("user", "bot")[number % 2] for number in range(len(speakers))]
    return () if before or len(speakers) % 2 == 0 or speakers != by_turns else tuple(said)


def form_name(form: str) -> str:
    """Return what people call a form of records, in the interface language."""
    return _BY_NAME[form].title
