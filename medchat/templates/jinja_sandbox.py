"""Jinja for chat templates that come with weights from anywhere: no files, no Python, bounded work.

The environment follows transformers (`trim_blocks`, `lstrip_blocks`, `raise_exception`, loop controls,
`generation` blocks), so that published templates mean here what they mean there. Two differences: a
variable that nobody set may be tested but not printed, and there is no clock (`strftime_now`), with which
the same question would give another prompt tomorrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from jinja2 import Template, TemplateRuntimeError, Undefined, nodes, pass_eval_context
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import do_join
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

#: Characters of any one text and items of any one list: some hundred times the longest context.
MOST_CHARACTERS = 1 << 20
#: Turns of all loops of one rendering together.
MOST_STEPS = 100_000
_LONGEST_NUMBER_BITS = 4096
#: The name each loop calls. A template that takes it for a variable of its own only breaks itself.
_STEP = "medchat_step_of_a_loop"


class TooMuch(TemplateRuntimeError):
    """The template asks for more work or text than any prompt needs."""


class Unprintable(Undefined):
    """A variable that nobody set: false and empty where tested, an error where printed."""

    def __str__(self) -> str:
        return str(self._fail_with_undefined_error())


def compile_template(source: str, filename: str) -> Template:
    """Return the template in its sandbox. Raises jinja2.TemplateSyntaxError, RecursionError, SyntaxError."""
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=Unprintable,
        extensions=[LoopControlExtension, _Generation],
    )
    environment.globals["raise_exception"] = _raise_exception
    environment.filters["join"] = _join
    tree = _Counting().visit(environment.parse(source, filename=filename))
    tree.set_environment(environment)
    code = environment.compile(tree, filename=filename)
    return Template.from_code(environment, code, environment.globals)


def render(template: Template, variables: dict[str, Any]) -> str:
    """Return the text. Raises whatever the template's own mistakes raise, TooMuch among it."""
    return template.render({**variables, _STEP: _counter()})


def _counter() -> Callable[[], None]:
    steps = iter(range(MOST_STEPS))

    def step() -> None:
        if next(steps, None) is None:
            raise TooMuch(f"loops of more than {MOST_STEPS} steps")

    return step


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRuntimeError(str(message))


def _bounded(size: int) -> None:
    if size > MOST_CHARACTERS:
        raise TooMuch(f"a text or list of more than {MOST_CHARACTERS}")


def _concat(parts: Iterable[str]) -> str:
    kept, size = [], 0
    for part in parts:
        size += len(part)
        _bounded(size)
        kept.append(part)
    return "".join(kept)


@pass_eval_context
def _join(
    context: nodes.EvalContext, value: Iterable[Any], separator: str = "", attribute: str | int | None = None
) -> str:
    items = list(value)
    _bounded(sum(len(item) for item in items if isinstance(item, str)) + len(items) * len(str(separator)))
    return str(do_join(context, items, separator, attribute))


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own sandbox, with a bound on every operation that makes texts longer."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])
    concat = staticmethod(_concat)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * right > _LONGEST_NUMBER_BITS:
                raise TooMuch("a number of thousands of digits")
        elif operator == "*" and (_length(left) is None) != (_length(right) is None):
            text, count = (left, right) if _length(left) is not None else (right, left)
            _bounded((_length(text) or 0) * count if isinstance(count, int) else 0)
        elif operator == "+":
            _bounded((_length(left) or 0) + (_length(right) or 0))
        result = super().call_binop(context, operator, left, right)
        _bounded(_length(result) or 0)
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        for argument in (*args, *kwargs.values()):  # 'x'.center(10**9)
            _bounded(argument if isinstance(argument, int) else 0)
        result = super().call(__context, __obj, *args, **kwargs)
        _bounded(_length(result) or 0)
        return result


def _length(value: object) -> int | None:
    return len(value) if isinstance(value, (str, list, tuple)) else None


class _Counting(NodeTransformer):
    """Puts a step into each loop, and has `~` join its operands by our bounded filter."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        step = nodes.Call(nodes.Name(_STEP, "load"), [], [], None, None)
        node.body = [nodes.ExprStmt(step).set_lineno(node.lineno), *node.body]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        operands = nodes.List(node.nodes)
        joined = nodes.Filter(operands, "join", [], [], None, None)
        joined.set_lineno(node.lineno)
        return joined


class _Generation(Extension):
    """`{% generation %}` marks what a trainer learns; a prompt is the same without the marks."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
