"""Jinja for chat templates that come with weights from anywhere: no files, no Python, bounded work.

The environment follows transformers (`trim_blocks`, `lstrip_blocks`, `raise_exception`, `tojson`, loop
controls, `generation` blocks), so that published templates mean here what they mean there. Two differences:
a name that nobody set may be tested but not printed, and there is no clock (`strftime_now`), with which the
same question would give another prompt tomorrow.

Nothing is folded while the template is compiled, and every operation of the language whose cost depends on
its operands becomes a call that counts it (`jinja_operators`, `jinja_functions`) against the rendering's budget
(`jinja_budget`). What is left of the generated code costs the same each time; it is paid for as a whole, at
each turn of a loop and each call of a macro, by the number of nodes in there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from jinja2 import Template, TemplateRuntimeError, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace, missing
from jinja2.visitor import NodeTransformer

from medchat.language import say
from medchat.templates import jinja_operators as operators
from medchat.templates.jinja_budget import budget, current
from medchat.templates.jinja_functions import allowed_filters, allowed_tests, check_method

#: The longest published template has some 40,000 characters.
MOST_SOURCE = 128 * 1024
#: Nodes of the parsed template: to compile so many takes half a second.
MOST_NODES = 12_000
#: What a turn of a loop or a call costs with nothing in it.
_TURN = 4
_FOREIGN = (
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Extends,
    nodes.Block,
    nodes.EvalContextModifier,
)


class Unprintable(Undefined):
    """What nobody set: false and empty if tested.

    Printed, it is nothing where a message lacks a field or the vocabulary a token, as in transformers, and
    an error where it is a name that nobody knows or an attribute that nobody may read.
    """

    def __str__(self) -> str:
        name, unsafe = self._undefined_name, self._undefined_exception is SecurityError
        lacking = isinstance(name, str) and not name.endswith("_token") and self._undefined_obj is missing
        return str(self._fail_with_undefined_error()) if unsafe or lacking else ""


def compile_template(source: str, filename: str) -> Template:
    """Return the template in its sandbox. Raises jinja2.TemplateSyntaxError, RecursionError, SyntaxError."""
    if len(source) > MOST_SOURCE:
        raise TemplateSyntaxError(say(f"超过 {MOST_SOURCE} 个字符", f"more than {MOST_SOURCE} characters"), 1)
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=Unprintable,
        extensions=[LoopControlExtension, _Generation],
        finalize=_printed,
        optimized=False,
    )
    for names, allowed in (
        (environment.globals, _GLOBALS),
        (environment.filters, allowed_filters()),
        (environment.tests, allowed_tests()),
    ):
        names.clear()
        names.update(allowed)
    tree = environment.parse(source, filename=filename)
    _check(tree)
    tree = _Counting().visit(tree)
    tree.set_environment(environment)
    code = environment.compile(tree, filename=filename)
    return Template.from_code(environment, code, environment.globals)


def render(template: Template, variables: dict[str, Any]) -> str:
    """Return the text. Raises whatever the template's own mistakes raise, TooMuch among it."""
    with budget(len(variables.get("messages", ()))):
        return template.render(variables)


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRuntimeError(operators.printed(message))


@pass_context  # with a context there is no folding of constants
def _printed(context: Context, value: Any) -> str:
    return operators.printed(value)


def _concat(parts: Iterable[str]) -> str:
    kept, left = [], current()
    for part in parts:
        left.spend(1 + len(part))
        kept.append(part)
    return "".join(kept)


class _Namespace(Namespace):
    """Jinja's own, without names that begin with an underscore."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(say(f"namespace 里不能有 {name}", f"a namespace may not hold {name}"))
        super().__setitem__(name, value)


#: What a template may call by name.
_GLOBALS: dict[str, Any] = {
    "raise_exception": _raise_exception,
    "range": safe_range,
    "dict": dict,
    "namespace": _Namespace,
}


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own sandbox, in which every operation is counted and only what is listed can be called."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "**", "%"])
    concat = staticmethod(_concat)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        operators.binary(operator, left, right)
        result = operators.spent(super().call_binop(context, operator, left, right))
        current().number(result)
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(__obj, Macro):
            with current().inside(__obj):
                return super().call(__context, __obj, *args, **kwargs)
        args = tuple(operators.settled(argument) for argument in args)
        ours = any(__obj is known for known in _GLOBALS.values())
        current().spend_all(*args, *kwargs.values(), to_print=not ours)
        if not ours and not isinstance(__obj, Undefined):
            check_method(__obj, args, kwargs)
        return operators.spent(super().call(__context, __obj, *args, **kwargs))

    def getitem(self, obj: Any, argument: Any) -> Any:
        current().spend_all(argument)
        return super().getitem(obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        current().spend(1)
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> None:
        """`format` is looked into where it is called, like every other method."""

    def call_filter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return super().call_filter(_listed(name), *args, **kwargs)

    def call_test(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return super().call_test(_listed(name), *args, **kwargs)


def _listed(name: str) -> str:
    """A name that `map` or `select` was given as a text: never one of the compiler's own."""
    if name.startswith("<") and name not in ("<", "<="):
        raise TemplateRuntimeError(f"No filter named {name!r}.")
    return name


def _check(tree: nodes.Template) -> None:
    """Raise TemplateSyntaxError for a template that is too large, or has statements that no chat template needs."""
    waiting: list[nodes.Node] = [tree]
    seen = 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > MOST_NODES:
            raise TemplateSyntaxError(
                say(f"超过 {MOST_NODES} 个组成部分", f"more than {MOST_NODES} parts"), node.lineno
            )
        if isinstance(node, _FOREIGN):
            kind = type(node).__name__.lower()
            raise TemplateSyntaxError(
                say(f"对话模板不能用 {kind}", f"{kind} is not for chat templates"), node.lineno
            )
        if isinstance(node, nodes.For) and node.recursive:
            raise TemplateSyntaxError(
                say("对话模板不能用递归循环", "a recursive loop is not for chat templates"), node.lineno
            )
        waiting += node.iter_child_nodes()


def _cost(*parts: nodes.Node) -> int:
    """How many nodes one run through `parts` executes at most, apart from what pays for itself."""
    waiting, cost = list(parts), _TURN
    while waiting:
        node = waiting.pop()
        cost += 1
        if isinstance(node, nodes.For):
            waiting += [node.iter, *node.else_]
        elif isinstance(node, nodes.Macro):
            pass
        elif isinstance(node, nodes.CallBlock):
            waiting.append(node.call)
        else:
            waiting += node.iter_child_nodes()
    return cost


def _counted(name: str, first: nodes.Node, *more: nodes.Node) -> nodes.Filter:
    return nodes.Filter(first, name, list(more), [], None, None, lineno=first.lineno)


_Body = TypeVar("_Body", nodes.Template, nodes.Macro, nodes.CallBlock)


class _Counting(NodeTransformer):
    """Has the work of loops, macros and operators counted, as the module's docstring says."""

    def visit_Template(self, node: _Body) -> _Body:
        cost = nodes.Const(_cost(*node.body), lineno=node.lineno)
        self.generic_visit(node)
        step = _counted(operators.STEP, nodes.Const(None, lineno=node.lineno), cost)
        node.body = [nodes.ExprStmt(step, lineno=node.lineno), *node.body]
        return node

    visit_Macro = visit_CallBlock = visit_Template

    def visit_For(self, node: nodes.For) -> nodes.For:
        cost = nodes.Const(_cost(*node.body, *([node.test] if node.test else [])), lineno=node.lineno)
        self.generic_visit(node)
        node.iter = _counted(operators.LOOP, node.iter, cost)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _counted(operators.CONCAT, nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Filter:
        self.generic_visit(node)
        chain: list[nodes.Node] = []
        for operand in node.ops:
            chain += [nodes.Const(operand.op, lineno=node.lineno), operand.expr]
        return _counted(operators.COMPARE, node.expr, *chain)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        none = nodes.Const(None, lineno=node.lineno)
        borders = [border or none for border in (node.arg.start, node.arg.stop, node.arg.step)]
        return _counted(operators.SLICE, node.node, *borders)

    def visit_Pair(self, node: nodes.Pair) -> nodes.Pair:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _counted(operators.KEY, node.key)
        return node


class _Generation(Extension):
    """`{% generation %}` marks what a trainer learns; a prompt is the same without the marks."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
