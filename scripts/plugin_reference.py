"""Write docs/plugins/reference.md: every public name for plugins, from its docstring and the comments of its fields.

python scripts/plugin_reference.py           writes the page
python scripts/plugin_reference.py --check   fails where the page is not what would be written
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from medchat import plugin_kit
from medchat.api import Example, KnownFile, QuantizedCache, option_facts
from medchat.batch.questions import InvalidQuestion, QuestionFile
from medchat.calls.stored import CallEstimate
from medchat.chat.events import TurnStats
from medchat.chat.session import ChatSession
from medchat.datafiles.data_file import DataFile
from medchat.datafiles.json_values import Item
from medchat.datafiles.tally import FieldTally
from medchat.hf import HFTokenizer, NetBackbone, NetTokenizer, TransformersBackbone
from medchat.hookspecs import Hooks
from medchat.redaction import PersonalSpan
from medchat.sft_job.data import InvalidExample, TrainingFile
from medchat.templates import Fitted
from medchat.whole_answer import Answer, TokenCount

PAGE = Path(__file__).resolve().parent.parent / "docs" / "plugins" / "reference.md"
HEAD = """# Reference: `medchat.plugin_kit`

Made by `python scripts/plugin_reference.py` from the docstrings: correct those, not this page. What may change, and
how: [versions.md](versions.md). How a plugin is written: [plugins.md](../plugins.md).

What a plugin's module states beside: `medchat_api_version = 1`. Whoever calls a plugin looks at what it returns
against the types below.
"""
#: Every name once, in the order of reading.
SECTIONS: Mapping[str, str] = {
    "A model family": "Backbone KnownWeights ModelCard AdapterCard LoadOptions Option Capabilities read_gguf_header "
    "GGUFHeader with_template",
    "A loaded model": "ChatModel ContinuingModel BatchScoringModel BatchStreamingModel LibraryModel "
    "GenerationConfig Delta Completion Finish",
    "Prompts": "PromptTemplate Segment Text Control SpecialTokens load_template parse_jinja",
    "Conversations, and what hooks give": "hookimpl Conversation Turn Notice SlashCommand Finding "
    "ReferencedAnswer AnswerScores",
    "Fine-tuning": "SFTRecipe SFTOptions SFTData SFTSurvey PreviewPiece MemoryEstimate DiskEstimate SFTWatcher "
    "SFTStatus SFTProgress SFTEvaluation SFTSaved SFTNote SFTReport SFTSample",
    "Errors and texts": "MedchatError UsageError CheckpointError MemoryShortageError DataError GateError say "
    "in_language sanitize "
    "StreamSanitizer sanitize_line Document Section Paragraph Table Quotation Picture "
    "as_markdown as_html",
    "Commands": "model_flags generation_flags open_model OpenedModel resolve_model ResolvedModel Advice "
    "HistoryDropped ReasoningPiece AnswerPiece AnswerRestarted AnswerReviewed AnswerFinished "
    "open_results Results call_flags SavedConversations CallLimits open_calls "
    "StoredCalls StoredAnswer read_questions Question read_training_data "
    "parse_record QuestionRecord RecordError field_flags FieldChoice open_data_file "
    "guess_tokens plugin_settings Group LocalizedCommand require_extra write_out write_whole_file "
    "read_regular read_json sha256_of as_line check_output_file staged_output free_space output_error user_path",
    "Medical duties": "redact find_personal urgent_notices notice_texts disclaimer aigc_metadata",
}
#: The members of a class that plugins may use, where it has others too.
PUBLIC_MEMBERS: Mapping[type, tuple[str, ...]] = {
    ChatSession: (
        "conversation",
        "template",
        "config",
        "last_stats",
        "said_early",
        "ask",
        "regenerate",
        "undo",
        "set_system",
    )
}
#: What the above give, which no plugin needs to import.
GIVEN = (
    Example,
    KnownFile,
    QuantizedCache,
    Answer,
    TokenCount,
    Fitted,
    ChatSession,
    TurnStats,
    CallEstimate,
    QuestionFile,
    InvalidQuestion,
    FieldTally,
    TrainingFile,
    InvalidExample,
    DataFile,
    Item,
    PersonalSpan,
)


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        parts += [entry(name, inspect.unwrap(getattr(plugin_kit, name))) for name in names.split()]
    parts.append(
        "## Hooks\n\nFunctions of the plugin's module, marked with `@hookimpl`. Arguments may be left out.\n"
    )
    parts += [hook_entry(name, hook) for name, hook in methods(Hooks)]
    parts.append("## `medchat.hf`: chat models of transformers, and nets of one's own\n")
    public = (TransformersBackbone, HFTokenizer, NetBackbone, NetTokenizer)
    parts += [entry(kind.__name__, kind) for kind in public]
    parts.append("## What these give and hold\n\nNo plugin imports these by name.\n")
    parts += [entry(kind.__name__, kind) for kind in GIVEN]
    return "\n".join(parts)


def entry(name: str, thing: Any) -> str:
    """Return what the page says of one name."""
    lines = [f"### `{name}{signature(thing) if inspect.isfunction(thing) else ''}`\n", described(thing), ""]
    if inspect.isclass(thing):
        lines += members(thing)
    return "\n".join(lines)


def hook_entry(name: str, hook: Any) -> str:
    """Return what the page says of one hook."""
    return f"### `{name}{signature(hook)}`\n\n{as_markdown(inspect.getdoc(hook) or '')}\n"


def described(thing: Any) -> str:
    """Return the docstring; of what has none (a union, a marker) what it is."""
    if thing in PUBLIC_MEMBERS:
        summary = (inspect.getdoc(thing) or "").partition("\n\n")[0]
        return f"{summary}\n\nPublic are these members; the others may change with any version."
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return as_markdown(inspect.getdoc(thing) or "")
    if thing is plugin_kit.hookimpl:
        return "Marks a function of the plugin's module as its implementation of the hook of that name."
    return f"`{' | '.join(kind.__name__ for kind in thing.__args__)}`"


def as_markdown(text: str) -> str:
    """Return a docstring with its indented examples as blocks of code."""
    return re.sub(
        r"(?m)(?:^ {4}.*\n?)+", lambda found: f"```\n{textwrap.dedent(found[0]).rstrip()}\n```\n", text
    )


def members(kind: type) -> list[str]:
    """Return the rows of the fields of `kind`, then an item for each method."""
    rows = [f"| `{name}` | {shown} | {meaning} |" for name, shown, meaning in attributes(kind)]
    lines = ["| field | type and default | |", "|---|---|---|", *rows, ""] if rows else []
    for name, method in methods(kind):
        lines.append(f"- `{name}{signature(method)}`: {' '.join((inspect.getdoc(method) or '').split())}")
    return [*lines, ""] if lines else []


def attributes(kind: type) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and default, and meaning of each public field, and of what `__init__` explains by `#:`."""
    facts = option_facts() if kind is plugin_kit.SFTOptions else {}
    defaults = {field.name: field.default for field in fields(kind)} if is_dataclass(kind) else {}
    for name, (hint, comment) in commented(kind).items():
        default = defaults.get(name, MISSING)
        shown = f"`{hint}`" if default is MISSING else f"`{hint}` = `{default!r}`"
        meaning = comment
        if name in facts:
            allowed = facts[name].allowed or " ".join(facts[name].choices)
            meaning = facts[name].en + (f" ({allowed})" if allowed else "")
        yield name, shown.replace("|", "\\|"), meaning.replace("|", "\\|")
    for name, member in vars(kind).items():
        if isinstance(member, property) and is_public(kind, name):
            hint = str(member.fget.__annotations__.get("return", ""))
            yield name, f"`{hint}`".replace("|", "\\|"), " ".join((inspect.getdoc(member) or "").split())


def commented(kind: type) -> dict[str, tuple[str, str]]:
    """Return the type and the `#:` comment of each annotated name and each member of an enumeration."""
    source = textwrap.dedent(inspect.getsource(kind))
    lines, found = source.splitlines(), {}
    for name, node in annotated(ast.parse(source).body[0].body):  # type: ignore[attr-defined]
        above, comment = node.lineno - 2, list[str]()
        while lines[above].strip().startswith("#:"):
            comment.insert(0, lines[above].strip().removeprefix("#:").strip())
            above -= 1
        of_class = isinstance(node, ast.Assign) or isinstance(node.target, ast.Name)
        if is_public(kind, name) and (comment or of_class):
            typed = node.value if isinstance(node, ast.Assign) else node.annotation
            found[name] = ast.unparse(typed), " ".join(comment)
    return found


def annotated(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.AnnAssign | ast.Assign]]:
    """Yield the annotated fields of a class, members of an enumeration, and the annotated attributes of `__init__`."""
    for node in body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id.isupper()
        ):
            yield node.targets[0].id, node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
            for inner in ast.walk(node):
                if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Attribute):
                    yield inner.target.attr, inner


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods that `kind` itself defines."""
    for name, member in vars(kind).items():
        function = member.__func__ if isinstance(member, classmethod) else member
        if inspect.isfunction(function) and is_public(kind, name):
            yield name, function


def is_public(kind: type, name: str) -> bool:
    """Say whether plugins may use the member `name` of `kind`."""
    return name in PUBLIC_MEMBERS[kind] if kind in PUBLIC_MEMBERS else not name.startswith("_")


def signature(function: Any) -> str:
    """Return the arguments and the result as the source writes them, without `self`."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(node, ast.FunctionDef)
    node.args.args = [argument for argument in node.args.args if argument.arg not in ("self", "cls")]
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){result}"


def main(arguments: list[str]) -> int:
    """Write the page, or hold it against what would be written."""
    if arguments == ["--check"]:
        return 0 if PAGE.read_text(encoding="utf-8") == page() else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
