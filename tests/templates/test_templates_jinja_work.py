"""Whatever a chat template does, it ends at once: refused where it asks for more than any prompt needs.

And templates in the shape of the published ones write what transformers writes, at any length of chat.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from chat_templates import PUBLISHED_SHAPES

from medchat.api import Conversation, PromptTemplate, SpecialTokens, Text, Turn
from medchat.errors import UsageError
from medchat.templates import fit, load_template

# Time is measured, and tracing for coverage takes most of it.
pytestmark = pytest.mark.no_cover

SPECIALS = SpecialTokens(("<s>", "</s>"), {"bos_token": "<s>", "eos_token": "</s>"})
LAST = "{{ messages[-1].content }}"
#: Seconds of this process for one template, a hundred times what a published one takes.
MOST_SECONDS = 2.0


def made(folder: Path, source: str) -> PromptTemplate:
    path = folder / "mine.jinja"
    path.write_text(source, encoding="utf-8")
    return load_template(str(path), (), lambda: SPECIALS)


def doubling(change: str, start: str = "'ab'") -> str:
    """A template that sets a value to `change` of itself, written `n.x`, two hundred times."""
    return (
        f"{{% set n = namespace(x={start}, y={start}) %}}"
        f"{{% for a in range(200) %}}{{% set n.x = {change} %}}{{% set n.y = n.x %}}{{% endfor %}}"
    )


def repeated(body: str) -> str:
    return "{% set x = 'a' * 90000 %}{% for a in range(99999) %}" + body + "{% endfor %}"


NESTED = doubling("[n.x, n.x]", "[]")
TUPLES = doubling("(n.x, n.x)", "(1,)")
NAMESPACES = doubling("namespace(a=n.x, b=n.x)", "namespace()")
NEVER_ENDING = {
    "loops in loops": repeated(repeated("")),
    "a loop that skips everything": repeated("{% for b in range(99999) if false %}{% endfor %}"),
    "a loop that asks for its length": repeated("{% for b in range(9999) %}{{ loop.length }}{% endfor %}"),
    "a loop over characters": repeated("{% for b in x %}{% endfor %}"),
    "many loops deep": "{% for a in range(10) %}" * 15 + "x" + "{% endfor %}" * 15,
    "a long body without an operation": repeated("{% if 0 %}{% endif %}" * 3000),
    "a long body of text": repeated("x" * 90000),
    "lists of ranges": repeated("{% set y = range(99999) | list %}"),
    "a search in a range": repeated("{% if 'y' in range(99999) %}{% endif %}"),
    "a search in a text": repeated("{% if 'y' in x %}{% endif %}"),
    "a method's search": repeated("{% set y = x.find('ab') %}"),
    "a comparison of texts": repeated("{% if x == x ~ '' %}{% endif %}"),
    "slices of slices": repeated("{% set y = x[::-1][::-1] %}"),
    "splitting": repeated("{% set y = x.split('a') %}"),
    "sorting": repeated("{% set y = range(9999) | sort %}"),
    "what loop.changed compares": repeated("{% if loop.changed(x) %}{% endif %}"),
    "what loop.cycle is given": repeated("{{ loop.cycle(*range(99999)) }}"),
    "a text multiplied": "{{ 'ab' * 10 ** 9 }}",
    "a number times a text": "{{ 10 ** 9 * 'ab' }}",
    "a list multiplied": "{% set x = [0] * 10 ** 9 %}",
    "~ doubling": doubling("n.x ~ n.x"),
    "+ doubling": doubling("n.x + n.x"),
    "join doubling": doubling("[n.x, n.x] | join"),
    "replace doubling": doubling("n.x | replace('a', n.x)"),
    "the method replace doubling": doubling("n.x.replace('', n.x)"),
    "the method join doubling": doubling("n.x.join(n.x)"),
    "% doubling": doubling("'%s%s' % (n.x, n.x)"),
    "format doubling": doubling("'{0}{0}'.format(n.x)"),
    "a number doubling its digits": doubling("n.x * n.x", "3"),
    "a block doubling": "{% set n = namespace(x='ab') %}{% for a in range(99) %}{% set n.x %}{{ n.x }}{{ n.x }}"
    "{% endset %}{% endfor %}",
    "a join of one long text": "{% set x = 'a' * 90000 %}{{ range(99999) | map(attribute='q', default=x) | join }}",
    "a long separator": "{% set x = 'a' * 90000 %}{{ range(99999) | join(x) }}",
    "a long way to an attribute": "{{ range(99999) | map(attribute='"
    + "a." * 40000
    + "a', default=1) | list }}",
    "a width of %": "{{ '%1000000000d' % 1 }}",
    "a width of the filter format": "{{ '%.1000000000f' | format(1) }}",
    "a width of the method format": "{{ '{:1000000000}'.format(1) }}",
    "a width inside a width": "{{ '{:{}}'.format(1, 1000000000) }}",
    "a width of indent": "{{ ('\n' * 90000) | indent(4000) }}",
    "a width of tojson": "{{ [1] | tojson(indent=1000000000) }}",
    "a power": "{{ 10 ** (9 ** 9) }}",
    "printing nested lists": NESTED + "{{ n.x }}",
    "comparing nested lists": NESTED + doubling("[n.y, n.y]", "[]") + "{{ n.x == n.y }}",
    "nested lists as JSON": NESTED + "{{ n.x | tojson }}",
    "nested lists in an error": NESTED + "{{ raise_exception(n.x) }}",
    "calling nested lists": NESTED + "{{ n.x() }}",
    "hashing nested tuples": TUPLES + "{% set d = {n.x: 1} %}",
    "looking nested tuples up": TUPLES + "{% set d = messages[0][n.x] %}",
    "a dictionary of nested tuples": TUPLES + "{% set d = dict([(n.x, 1)]) %}",
    "printing nested namespaces": NAMESPACES + "{{ n.x }}",
    "nested namespaces as text": NAMESPACES + "{{ [n.x] | string }}",
    "a namespace in itself": "{% set n = namespace() %}{% set n.n = n %}{{ [n] }}",
    "generators on generators": "{% set n = namespace(x=messages) %}{% for a in range(9999) %}"
    "{% set n.x = n.x | map('default') %}{% endfor %}{{ n.x | list }}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "a macro given to itself": "{% macro m(f) %}{{ f(f) }}{{ f(f) }}{% endmacro %}{{ m(m) }}",
    "macros in a ring": "{% macro a() %}{{ b() }}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{{ a() }}"
    "{% endmacro %}{{ a() }}",
    "a tower of macros": "{% macro m0() %}x{% endmacro %}"
    + "".join(
        f"{{% macro m{i} () %}}{{{{ m{i - 1}() }}}}{{{{ m{i - 1}() }}}}{{% endmacro %}}" for i in range(1, 19)
    )
    + "{{ m18() }}",
    "a recursive loop": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "a block that shows itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "a filter of the compiler's own": "{{ range(9) | map('<step>', -10 ** 9) | list }}",
    "a number of many digits": "{{ " + "9" * 90000 + " }}",
    "a number of many hexadecimal digits": "{{ 0x" + "f" * 90000 + " * 2 }}",
    "brackets in brackets": "{{ " + "(" * 40000 + ")" * 40000 + " }}",
    "a long sum": "{{ 1" + "+1" * 30000 + " }}",
    "a long chain of filters": "{{ 1" + "|d" * 40000 + " }}",
    "statements in statements": "{% if 1 %}" * 4000 + "{% endif %}" * 4000,
    "many statements": "{{ messages }}" * 8000,
    "a long file": "x" * 200_000,
}


@pytest.mark.parametrize("source", NEVER_ENDING.values(), ids=NEVER_ENDING)
def test_a_template_that_would_never_end_is_refused_at_once(tmp_path: Path, source: str) -> None:
    began = time.process_time()
    with pytest.raises(UsageError) as caught:
        made(tmp_path, LAST + source)
    assert time.process_time() - began < MOST_SECONDS
    assert len(caught.value.what) < 300 and caught.value.remedy


def test_a_template_that_grows_with_the_chat_is_refused_when_it_does(tmp_path: Path) -> None:
    source = "{% for a in messages %}{% for b in messages %}{% for c in messages %}{% endfor %}{% endfor %}{% endfor %}"
    template = made(tmp_path, LAST + source)
    began = time.process_time()
    with pytest.raises(UsageError):
        template.render([Turn("a", "b")] * 200, "?")
    assert time.process_time() - began < MOST_SECONDS


# ---------------------------------------------------------------- published shapes


@pytest.mark.torch
@pytest.mark.parametrize("system", ["", "你是医生"])
@pytest.mark.parametrize("name", PUBLISHED_SHAPES)
def test_published_shapes_write_what_transformers_writes(tmp_path: Path, name: str, system: str) -> None:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    source = PUBLISHED_SHAPES[name]
    template = made(tmp_path, source)
    turns = [Turn("头痛 <b>？", "多喝水\n\n休息"), Turn("“还痛”？", "看医生")]
    for count in range(3):
        messages = [{"role": "system", "content": system}] if system else []
        for turn in turns[:count]:
            messages += [
                {"role": "user", "content": turn.question},
                {"role": "assistant", "content": turn.answer},
            ]
        messages.append({"role": "user", "content": "怎么办？"})
        try:
            theirs = render_jinja_template(
                [messages], chat_template=source, add_generation_prompt=True, **SPECIALS.roles
            )[0]
        except TemplateError:  # no system role
            with pytest.raises(UsageError):
                template.render(turns[:count], "怎么办？", system)
            continue
        parts = template.render(turns[:count], "怎么办？", system)
        assert ["".join(part.text if isinstance(part, Text) else part.token for part in parts)] == theirs


@pytest.mark.parametrize("name", PUBLISHED_SHAPES)
def test_a_chat_of_a_thousand_turns_still_has_its_prompt(tmp_path: Path, name: str) -> None:
    parts = made(tmp_path, PUBLISHED_SHAPES[name]).render([Turn("头痛？", "多喝水")] * 1000, "还痛？")
    assert parts.count(Text("多喝水")) == 1000


def test_a_template_of_the_question_alone_is_fitted_with_few_renderings(tmp_path: Path) -> None:
    template = made(tmp_path, LAST)
    rendered = []

    class Counted:
        name, stop, multi_turn = "counted", (), False

        def render(self, turns, question, system=""):  # type: ignore[no-untyped-def]
            rendered.append(len(turns))
            return template.render(turns, question, system)

    said = Conversation(turns=(Turn("头痛？", "多喝水"),) * 500)
    assert fit(Counted(), said, "还痛？", len, 100).dropped == 500
    assert len(rendered) < 20
