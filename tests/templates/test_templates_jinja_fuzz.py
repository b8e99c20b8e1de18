"""Chat templates put together at random, of everything that can grow: each is rendered or refused, and at once."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medchat.api import SpecialTokens, Turn
from medchat.errors import UsageError
from medchat.templates.jinja_template import parse_jinja

#: Seconds of CPU for reading a template and rendering it three times.
MOST_SECONDS = 3.0
NAMES = st.sampled_from(["x", "y", "n.x", "n.y", "messages", "m", "loop", "f", "nobody"])
CONSTANTS = st.sampled_from(
    [
        "0",
        "1",
        "-1",
        "3",
        "99999",
        "10 ** 9",
        "'ab'",
        "'%s%s'",
        "'{0}{0}'",
        "' '",
        "''",
        "[]",
        "(1,)",
        "{}",
        "none",
    ]
)
FILTERS = st.sampled_from(
    [
        "join", "list", "string", "upper", "trim", "replace('a','bb')", "indent(9)", "tojson",
        "tojson(indent=4)", "sort", "unique", "length", "first", "last", "reverse", "map('upper')",
        "map(attribute='a')", "select", "selectattr('role')", "default('x')", "int", "float", "abs", "items",
        "dictsort", "title", "capitalize", "escape", "safe", "format(1)", "center(99)", "batch(3)", "round",
        "sum",
    ]
)  # fmt: skip
METHODS = st.sampled_from(
    [
        "split()", "split('a')", "strip()", "join(x)", "replace('a',y)", "upper()", "format(x,y)", "find('a')",
        "items()", "get(x)", "keys()", "index(x)", "splitlines()", "count('a')", "startswith('a')",
        "cycle(x,y)", "changed(x)", "append(1)", "__class__", "zfill(9999)",
    ]
)  # fmt: skip
TESTS = st.sampled_from(["string", "mapping", "defined", "none", "in x", "iterable", "sequence", "number"])
BINARY = st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "not in", "and", "or"])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions one step larger than `inner`."""
    return st.one_of(
        st.tuples(inner, BINARY, inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        st.tuples(inner, FILTERS).map(lambda parts: f"({parts[0]} | {parts[1]})"),
        st.tuples(inner, METHODS).map(lambda parts: f"({parts[0]}).{parts[1]}"),
        st.tuples(inner, TESTS).map(lambda parts: f"({parts[0]} is {parts[1]})"),
        st.tuples(inner, inner).map(lambda parts: f"[{parts[0]}, {parts[1]}]"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]}, {parts[1]})"),
        st.tuples(inner, inner).map(lambda parts: f"{{{parts[0]}: {parts[1]}}}"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]})[{parts[1]}]"),
        inner.map(lambda part: f"({part})[::-1]"),
        inner.map(lambda part: f"range({part})"),
        st.tuples(inner, inner).map(lambda parts: f"namespace(a={parts[0]}, b={parts[1]})"),
        inner.map(lambda part: f"f({part})"),
    )


EXPRESSIONS = st.recursive(st.one_of(NAMES, CONSTANTS), grown, max_leaves=6)


def blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Statements around `inner`."""
    return st.one_of(
        st.tuples(EXPRESSIONS, inner).map(
            lambda parts: f"{{% for m in {parts[0]} %}}{parts[1]}{{% endfor %}}"
        ),
        inner.map(lambda part: f"{{% for m in range(9999) %}}{part}{{% endfor %}}"),
        st.tuples(EXPRESSIONS, inner).map(lambda parts: f"{{% if {parts[0]} %}}{parts[1]}{{% endif %}}"),
        inner.map(lambda part: f"{{% set n.x %}}{part}{{% endset %}}"),
        inner.map(lambda part: f"{{% macro f(m) %}}{part}{{{{ f(m) }}}}{{% endmacro %}}"),
        inner.map(lambda part: f"{{% call f(x) %}}{part}{{% endcall %}}"),
        st.tuples(FILTERS, inner).map(lambda parts: f"{{% filter {parts[0]} %}}{parts[1]}{{% endfilter %}}"),
        st.lists(inner, min_size=2, max_size=3).map("".join),
    )


STATEMENTS = st.recursive(
    st.one_of(
        EXPRESSIONS.map(lambda expression: f"{{{{ {expression} }}}}"),
        EXPRESSIONS.map(lambda expression: f"{{% set n.x = {expression} %}}"),
        EXPRESSIONS.map(lambda expression: f"{{% set y = {expression} %}}"),
    ),
    blocks,
    max_leaves=5,
)
START = (
    "{{ messages[-1].content }}{% set n = namespace(x='ab', y=['a']) %}{% set x = 'ab' %}{% set y = ['a'] %}"
    "{% macro f(m) %}{{ m }}{{ m }}{% endmacro %}"
)
SPECIALS = SpecialTokens(("<s>",), {"bos_token": "<s>"})


def rendered_or_refused(source: str) -> None:
    began = time.process_time()
    try:
        parse_jinja(START + source, name="f", where="f.jinja", specials=SPECIALS).render(
            [Turn("a", "b")] * 20, "?"
        )
    except UsageError as error:
        assert error.remedy
    assert time.process_time() - began < MOST_SECONDS, source


@given(STATEMENTS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_a_template_made_at_random_is_rendered_or_refused_at_once(source: str) -> None:
    rendered_or_refused(source)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(STATEMENTS)
@settings(max_examples=10_000, suppress_health_check=[HealthCheck.too_slow])
def test_ten_thousand_templates_made_at_random_are_rendered_or_refused_at_once(source: str) -> None:
    rendered_or_refused(source)
