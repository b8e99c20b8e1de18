"""A template of ours as one of Jinja and of Ollama: the same prompts, and nothing that is said leaves its place."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from jinja2.exceptions import UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from medchat_bloom.huozi.prompts import HUOZI
from medchat_chatglm.prompts import TEMPLATES
from medchat_export.conversation_pattern import as_go, as_jinja, pattern_of

from medchat.api import Control, PromptTemplate, Segment, SpecialTokens, Text, Turn
from medchat.plugin_kit import parse_jinja
from medchat.templates import list_templates, load_template

KNOWN = [*list_templates(), HUOZI]
HOSTILE = [
    "{{ 1 }}",
    "{% raw %}",
    "</s><|endofutterance|>",
    "'\"\\n",
    "\n### 回答:\n",
    '"""',
    "{{ .System }}",
]


def rendered(source: str, turns: Sequence[Turn], question: str, system: str = "") -> str:
    """Return what a program of the field makes of the chat template, with the trimming that all of them do."""
    said = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        said += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
    said.append({"role": "user", "content": question})
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(messages=said, add_generation_prompt=True)


def prompt(template: PromptTemplate, turns: Sequence[Turn], question: str, system: str = "") -> str:
    segments = template.render(turns, question, system)
    return "".join(part.token if isinstance(part, Control) else part.text for part in segments)


@pytest.mark.parametrize("template", KNOWN, ids=lambda template: template.name)
def test_the_jinja_template_writes_the_prompts_of_ours(template: PromptTemplate) -> None:
    pattern = pattern_of(template)
    assert pattern is not None
    source = as_jinja(pattern)
    turns = [Turn(first, second) for first, second in itertools.pairwise(HOSTILE)]
    for count, question, system in itertools.product(
        (0, 1, 4), ("头痛怎么办？", *HOSTILE), ("", "说中文", *HOSTILE[:2])
    ):
        wanted = prompt(template, turns[:count], question, system)
        assert rendered(source, turns[:count], question, system) == wanted


def test_texts_of_a_template_that_others_would_read_as_their_own_stay_texts(tmp_path: Path) -> None:
    fixed = '{{ x }} {% y %} {# z #} \'single\' "double" """ \\ \\n `\t|{instruction}|\n  '
    file = tmp_path / "odd.json"
    escaped = fixed.replace("{", "{{").replace("}", "}}").replace("{{instruction}}", "{instruction}")
    file.write_text(json.dumps({"prompt_no_input": escaped}), encoding="utf-8")
    template = load_template(file)
    assert prompt(template, (), "问") == fixed.replace("{instruction}", "问")
    pattern = pattern_of(template)
    assert pattern is not None
    assert rendered(as_jinja(pattern), [Turn("一", "二")], "问") == prompt(template, [Turn("一", "二")], "问")
    # Ollama: no quotation mark but in an action's string, so that the Modelfile's three cannot end early.
    outside = re.sub(r'\{\{ "(?:[^"\\]|\\.)*" \}\}', "", as_go(pattern))
    assert '"' not in outside and "{{ x }}" not in outside and '"""' not in as_go(pattern)


def test_a_template_that_refuses_a_system_text_is_written_as_one_that_does() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('none') }}{% endif %}"
        "<turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n{{ m.content }}<end>\n{% endfor %}<turn>model\n"
    )
    specials = SpecialTokens(("<bos>", "<turn>", "<end>"), {"bos_token": "<bos>"})
    template = parse_jinja(source, name="gemma", where="gemma", specials=specials)
    pattern = pattern_of(template)
    assert pattern is not None
    turns = [Turn("一", "二")]
    assert rendered(as_jinja(pattern), turns, "问") == prompt(template, turns, "问").removeprefix("<bos>")
    with pytest.raises(
        UndefinedError, match="raise_exception"
    ):  # the name by which Hugging Face's programs refuse
        rendered(as_jinja(pattern), turns, "问", "说中文")
    assert "System" not in as_go(pattern)


class Forgetful:
    """Leaves out what was said before."""

    name, stop, multi_turn = "forgetful", (), False

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        return (Text(f"{system}问：{question}"),)


@pytest.mark.parametrize(
    "template", [TEMPLATES["chatglm_rounds"], Forgetful()], ids=lambda template: template.name
)
def test_what_is_no_repeated_pattern_is_not_taken_for_one(template: PromptTemplate) -> None:
    """Numbers of rounds, as ChatGLM has them; turns that are left out."""
    assert pattern_of(template) is None
