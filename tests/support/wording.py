"""Finds the texts for users in the syntax trees of modules, and their mechanical faults."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

#: Stands for a value in a text: no punctuation, no letter, no Chinese character.
VALUE = "\0"
_CHINESE = "\u3400-\u9fff"

#: What a Chinese text must not hold, by what is wrong with it.
_FAULTS_OF_CHINESE = {
    "half-width punctuation beside Chinese": rf"[{_CHINESE}][,;:!?]|[,;!?][{_CHINESE}]|[{_CHINESE}]\.(?![.\w])",
    "half-width brackets beside Chinese": rf"[{_CHINESE}][()]|[()][{_CHINESE}]",
    "straight quotes beside Chinese": rf"[{_CHINESE}][\"']|[\"'][{_CHINESE}]",
    "a blank beside full-width punctuation": rf"[{_CHINESE}{VALUE}] [，。；：？！、）”]|[（“] ",
    "two marks in a row": r"[，。；：？、]{2}",
    "dots in place of an ellipsis": rf"[{_CHINESE}]\.\.|\.\.[{_CHINESE}]|。。",
    "no blank between Chinese and Latin": rf"[{_CHINESE}][A-Za-z0-9]|[A-Za-z0-9%][{_CHINESE}]",
    "another form of address": "你",
    "quotes of another kind": "[「」『』]",
    "quotes that are not in pairs": "“[^”]*(?:“|$)|(?:^|”)[^“]*”",
}

#: Deprecated terms, and the one that all texts use.
TERMS = {
    "文件夹": "目录",
    "遍数": "训练轮数",
    "集束": "束搜索",
    "JSON 行": "JSONL",
    "后端": "模型家族",
    "基础模型": "底座",
    "最可能的词元": "概率最高的词元",
    "坏记录": "格式有误的记录",
    "对不上": "不匹配",
    "接着做": "继续",
    "从头来": "重新开始",
    "放不下了": "上下文已满",
    "不配套": "不匹配",
    "连不上": "无法连接",
    "控制符": "特殊标记",
    "结束符": "结束标记",
    "系统文本": "系统提示",
    "抽样": "采样",
}

#: Inside a text: commands to type, addresses, JSON, lines of TOML.
_CODE = re.compile(r"\S+ = \"[^\"]*\"|medchat [^；。（）”]*|https?://\S+?(?=；|$)|\{\".*\}|printf .*")
#: A text that is a pattern.
_PATTERN = re.compile(rf"\(\?|\\[dsSwWb]|[{_CHINESE}]\|[{_CHINESE}]")
#: A text of fewer Chinese characters may be a name.
_SENTENCE = 6


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a text, and the line where it begins."""

    line: int
    what: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}: {self.text.replace(VALUE, '{}')}"


def faults_in(source: str, *, elsewhere: bool = True) -> list[Fault]:
    """Return what is wrong with the texts of `say` in a module and, if `elsewhere`, with its Chinese ones outside."""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if _is_say(node)]
    found = [fault for call in calls for fault in _of_call(call)]
    found += [fault for node in ast.walk(tree) for fault in _of_marks_around(node)]
    if elsewhere:
        said = {id(node) for call in calls for node in ast.walk(call)}
        parents = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for node in _texts_outside(tree, said):
            found += _of_text_outside(node, parents)
    return sorted(found, key=lambda fault: fault.line)


def texts_of_say(source: str) -> int:
    """Return how many calls of `say` a module holds."""
    return sum(_is_say(node) for node in ast.walk(ast.parse(source)))


def _is_say(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say"


def _of_call(call: ast.AST) -> Iterator[Fault]:
    assert isinstance(call, ast.Call)
    if any(isinstance(argument, ast.Starred) for argument in call.args):
        return
    if len(call.args) != 2 or call.keywords:
        yield Fault(call.lineno, "a missing language", ast.unparse(call)[:80])
        return
    chinese, english = call.args
    zh, en = _as_text(chinese), _as_text(english)
    if re.search("[a-z]{2} [a-z]{2}", en) and not re.search(f"[{_CHINESE}]", zh) and zh.strip(VALUE):
        yield Fault(call.lineno, "a missing language: no Chinese", zh)
    if re.search(f"[{_CHINESE}]", zh) and not en.strip():
        yield Fault(call.lineno, "a missing language: no English", zh)
    # A question that may be typed, in quotes, is Chinese in either language.
    if re.search(f"[{_CHINESE}，。；：？！、（）]", re.sub('"[^"]*"|“[^”]*”', "", en)):
        yield Fault(call.lineno, "Chinese in the English text", en)
    yield from _of_chinese(chinese)
    for node in ast.walk(chinese):
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r"):
            yield Fault(node.lineno, "a value in Python's quotes", zh)
        if isinstance(node, ast.Constant) and node.value in (", ", "; ", ": "):
            yield Fault(node.lineno, "names joined by a half-width mark", zh)


def _of_marks_around(node: ast.AST) -> Iterator[Fault]:
    """Yield where a text of `say` is put between half-width marks: `f"{name} ({say(…)})"`."""
    match node:
        case ast.JoinedStr(values=values):
            parts: list[ast.expr] = values
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = [left, right]
        case _:
            return
    for before, behind in pairwise(parts):
        marks = (_says_chinese(before) and re.match(r"[(),:;!?]", _as_text(behind))) or (
            _says_chinese(behind) and re.search(r"[(,:;!?] ?$", _as_text(before))
        )
        if marks:
            yield Fault(before.lineno, "half-width marks around a text of say", ast.unparse(node)[:80])


def _says_chinese(node: ast.expr) -> bool:
    call = node.value if isinstance(node, ast.FormattedValue) else node
    return _is_say(call) and re.search(f"[{_CHINESE}]", ast.unparse(call)) is not None


def _of_chinese(node: ast.expr) -> Iterator[Fault]:
    text = _as_text(node)
    for what in faults_of_chinese(text):
        yield Fault(node.lineno, what, text)


def faults_of_chinese(text: str) -> list[str]:
    """Return what is wrong with a Chinese text, nothing for one without Chinese characters."""
    if not re.search(f"[{_CHINESE}]", text):
        return []
    words = _CODE.sub(VALUE, text)
    found = [what for what, pattern in _FAULTS_OF_CHINESE.items() if re.search(pattern, words)]
    return found + [
        f"{word}, where the other texts say {wanted}" for word, wanted in TERMS.items() if word in text
    ]


def _of_text_outside(node: ast.expr, parents: dict[int, ast.AST]) -> Iterator[Fault]:
    text = _as_text(node)
    length = len(re.findall(f"[{_CHINESE}]", text))
    if _PATTERN.search(text) or length < len(re.findall("[A-Za-z]+", text)):
        return
    yield from _of_chinese(node)
    if length >= _SENTENCE and not any(_is_english(other) for other in _beside(node, parents)):
        yield Fault(node.lineno, "a missing language: no English beside it", text)


def _beside(node: ast.AST, parents: dict[int, ast.AST]) -> list[ast.expr]:
    """Return the neighbour of a text in a call, a tuple or a table."""
    parent = parents[id(node)]
    while isinstance(parent, ast.BinOp | ast.IfExp):
        node, parent = parent, parents[id(parent)]
    match parent:
        case ast.Call(args=args):
            return [*args, *(keyword.value for keyword in parent.keywords)]
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return elements
        case ast.Dict(keys=keys, values=values):
            return [each for each in (*keys, *values) if each is not None]
        case ast.Assign(targets=[ast.Name(id=name)]) if name.endswith("_ZH"):
            return _assigned_to(f"{name.removesuffix('ZH')}EN", parents[id(parent)])
    return []


def _assigned_to(name: str, module: ast.AST) -> list[ast.expr]:
    statements = module.body if isinstance(module, ast.Module) else []
    return [
        each.value for each in statements if isinstance(each, ast.Assign) and _named(each.targets[0], name)
    ]


def _named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_english(node: ast.expr) -> bool:
    text = _as_text(node)
    return len(re.findall("[A-Za-z]{2,}", text)) > len(re.findall(f"[{_CHINESE}]", text))


def _as_text(node: ast.expr) -> str:
    """Return a text with `VALUE` for each of its values."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_as_text(value) for value in values)
        case ast.BinOp(left=left, right=right):
            return _as_text(left) + _as_text(right)
        case ast.IfExp(body=body):
            return _as_text(body)
    return VALUE


def _texts_outside(tree: ast.Module, said: set[int]) -> Iterator[ast.expr]:
    """Yield the texts that are neither of `said` nor docstrings."""
    skipped = set(said)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = next(iter(node.body), None)
            skipped |= {id(first.value)} if isinstance(first, ast.Expr) else set()
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(each) for each in ast.walk(node)}
            yield node
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node
