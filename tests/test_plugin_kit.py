"""The surface for plugins: what is there, that it is explained, that it is enough, and for how long it holds."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from cli_program import Call
from locations import ROOT
from plugin_sites import add_backbone, echo_site, example_site

from medchat import plugin_kit
from medchat.commands.new_plugin import FAMILIES, distribution_files
from medchat.hf import TransformersBackbone
from medchat.hookspecs import Hooks
from medchat.registry import Registry

pytest_plugins = ("plugin_sites", "cli_program")

NAMES = [
    "AdapterCard",
    "Advice",
    "AnswerFinished",
    "AnswerPiece",
    "AnswerRestarted",
    "AnswerReviewed",
    "AnswerScores",
    "Backbone",
    "BatchScoringModel",
    "BatchStreamingModel",
    "CallLimits",
    "Capabilities",
    "ChatModel",
    "CheckpointError",
    "Completion",
    "ContinuingModel",
    "Control",
    "Conversation",
    "DataError",
    "Delta",
    "DiskEstimate",
    "Document",
    "FieldChoice",
    "Finding",
    "Finish",
    "GGUFHeader",
    "GateError",
    "GenerationConfig",
    "Group",
    "HistoryDropped",
    "KnownWeights",
    "LibraryModel",
    "LoadOptions",
    "LocalizedCommand",
    "MedchatError",
    "MemoryEstimate",
    "MemoryShortageError",
    "ModelCard",
    "Notice",
    "OpenedModel",
    "Option",
    "Paragraph",
    "Picture",
    "PreviewPiece",
    "PromptTemplate",
    "Question",
    "QuestionRecord",
    "Quotation",
    "ReasoningPiece",
    "RecordError",
    "ReferencedAnswer",
    "ResolvedModel",
    "Results",
    "SFTData",
    "SFTEvaluation",
    "SFTNote",
    "SFTOptions",
    "SFTProgress",
    "SFTRecipe",
    "SFTReport",
    "SFTSample",
    "SFTSaved",
    "SFTStatus",
    "SFTSurvey",
    "SFTWatcher",
    "SavedConversations",
    "Section",
    "Segment",
    "SlashCommand",
    "SpecialTokens",
    "StoredAnswer",
    "StoredCalls",
    "StreamSanitizer",
    "Table",
    "Text",
    "Turn",
    "UsageError",
    "aigc_metadata",
    "as_html",
    "as_line",
    "as_markdown",
    "call_flags",
    "check_output_file",
    "disclaimer",
    "field_flags",
    "find_personal",
    "free_space",
    "generation_flags",
    "guess_tokens",
    "hookimpl",
    "in_language",
    "load_template",
    "model_flags",
    "notice_texts",
    "open_calls",
    "open_data_file",
    "open_model",
    "open_results",
    "output_error",
    "parse_jinja",
    "parse_record",
    "plugin_settings",
    "read_gguf_header",
    "read_json",
    "read_questions",
    "read_regular",
    "read_training_data",
    "redact",
    "require_extra",
    "resolve_model",
    "sanitize",
    "sanitize_line",
    "say",
    "sha256_of",
    "staged_output",
    "urgent_notices",
    "user_path",
    "with_template",
    "write_out",
    "write_whole_file",
]
#: The classes whose every field a plugin's author reads or sets.
EXPLAINED = ("GenerationConfig", "LoadOptions", "Delta", "ModelCard", "Completion", "SFTOptions", "Backbone")
#: The dataclasses that a later version may give a field in the middle: docs/plugins/versions.md.
GROWING = {"Completion", "Delta", "ModelCard"}
PUBLIC = ("medchat.plugin_kit", "medchat.hf", "medchat.testing")


def reference() -> dict[str, object]:
    return runpy.run_path(str(ROOT / "scripts" / "plugin_reference.py"))


def test_the_public_names_are_these_and_each_can_be_imported() -> None:
    assert sorted(plugin_kit.__all__) == sorted(NAMES)
    assert all(getattr(plugin_kit, name) is not None for name in NAMES)
    with pytest.raises(AttributeError):
        plugin_kit.ChatSetup  # noqa: B018


def test_the_reference_is_what_the_docstrings_say_and_has_every_name() -> None:
    script = reference()
    assert script["main"](["--check"]) == 0, "run: python scripts/plugin_reference.py"  # type: ignore[operator]
    listed = " ".join(script["SECTIONS"].values()).split()  # type: ignore[attr-defined]
    assert sorted(listed) == sorted(NAMES)


#: Types of Python and of click.
FOREIGN = (
    r"Any|Callable|ClassVar|Collection|Counter|F|Generator|Iterable|Iterator|Literal|Mapping(ProxyType)?|None|"
    r"Path(Like)?|Self|Sequence|True|False|Command|Context|Event|HelpFormatter|Module|OSError"
)
#: Unions of what is explained, and types that no plugin looks into.
OPAQUE = (
    r"Block|Layout|Personal|SFTEvent|Use|FolderTemplates|JinjaTemplate|StreamText|"
    r"(Net|Transformers)(Family|Loading)"
)


def test_the_reference_explains_each_type_that_a_field_or_a_signature_names() -> None:
    page = (ROOT / "docs" / "plugins" / "reference.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^### `(\w+)", page, re.MULTILINE))
    typed = re.findall(r"^\| `\w+` \| `([^`]+)`|^(?:- |### )`\w+(\([^`]+)`", page, re.MULTILINE)
    named = {word for pair in typed for word in re.findall(r"(?<![\w.'])[A-Z][A-Za-z]+\b", "".join(pair))}
    assert len(named & explained) > 30
    assert [word for word in named - explained if not re.fullmatch(f"{FOREIGN}|{OPAQUE}", word)] == []


def test_a_plugins_author_reads_of_what_init_sets_and_of_the_members_that_are_public() -> None:
    script = reference()
    opened = {field for field, _, _ in script["attributes"](plugin_kit.OpenedModel)}  # type: ignore[operator]
    assert opened == {
        "model",
        "spent",
        "backbone",
        "is_concurrent",
        "exact_in_batch",
        "provenance",
        "mark",
    }
    (session,) = script["PUBLIC_MEMBERS"]  # type: ignore[misc]
    shown = script["entry"]("ChatSession", session)  # type: ignore[operator]
    assert all(f"`{name}" in shown for name in script["PUBLIC_MEMBERS"][session])  # type: ignore[index]
    assert "`recorder`" not in shown and "`rewrite(" not in shown


def test_every_hook_stands_in_the_reference_with_its_arguments() -> None:
    page = (ROOT / "docs" / "plugins" / "reference.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(Hooks) if name.startswith("medchat_")]
    assert len(hooks) >= 8 and [name for name in hooks if f"### `{name}(" not in page] == []
    assert "### `medchat_advise(conversation: Conversation, text: str)" in page


def test_the_pages_send_a_plugins_author_to_nothing_private() -> None:
    pages = [ROOT / "docs" / "plugins.md"]
    pages += [ROOT / "docs" / "plugins" / f"{name}.md" for name in ("porting", "testing", "tutorial")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"\bmedchat[./][a-z_]+(?:[./][a-z_]+)*|(?<![\w/.-])tests/[\w/]+\.py", text))
    groups = ("medchat.extensions", "medchat.commands")
    assert {"medchat.plugin_kit", "medchat.testing"} <= named
    assert {name for name in named if not name.startswith((*PUBLIC, *groups))} == set()


def test_what_a_class_for_transformers_may_state_is_explained() -> None:
    rows = {field: meaning for field, _, meaning in reference()["attributes"](TransformersBackbone)}  # type: ignore[operator]
    assert rows.keys() >= {
        "model_types",
        "lora_targets",
        "bottleneck_targets",
        "first_method",
        "plain_template",
    }
    assert all(len(meaning) > 10 for meaning in rows.values())


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_field_is_explained(name: str) -> None:
    rows = list(reference()["attributes"](getattr(plugin_kit, name)))  # type: ignore[operator]
    assert len(rows) >= 5
    assert [field for field, _, meaning in rows if len(meaning) < 4] == []


def test_a_backbone_pays_neither_for_torch_nor_for_click() -> None:
    seen = "import sys, medchat.plugin_kit, medchat.hf; "
    seen += "print([name for name in ('torch', 'click', 'rich', 'tokenizers') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stdout == "[]\n"


def imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (f"medchat.{alias.name}" for alias in node.names) if module == "medchat" else (module,)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_examples_stand_on_what_is_public_and_on_no_other_plugin() -> None:
    folders = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())
    assert len(folders) >= 3
    for folder in folders:
        for module in folder.rglob("*.py"):
            own = module.relative_to(folder).parts[0].removesuffix(".py")
            names = [
                name for name in imported(module.read_text(encoding="utf-8")) if name.startswith("medchat")
            ]
            private = [name for name in names if not name.startswith((*PUBLIC, own))]
            assert private == [], module


def test_examples_and_new_plugins_make_with_keywords_what_may_get_new_fields() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "examples").rglob("*.py")]
    for family in FAMILIES:
        sources += [
            text for place, text in distribution_files("own", family).items() if place.endswith(".py")
        ]
    calls = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    made = [call for call in calls if ast.unparse(call.func).removeprefix("kit.") in GROWING]
    assert {ast.unparse(call.func).removeprefix("kit.") for call in made} == GROWING
    assert [ast.unparse(call) for call in made if call.args] == []


# ---------------------------------------------------------------- versions


def test_the_example_of_before_this_surface_still_answers(site: Path, call: Call, tmp_path: Path) -> None:
    echo_site(site)
    (site / "medchat_echo.py").write_bytes(
        (ROOT / "tests" / "data" / "api1" / "medchat_echo.py").read_bytes()
    )
    Registry().backbone("echo").tiny(tmp_path / "model")
    asked = call("ask", "头痛", "--backbone", "echo", "--model", str(tmp_path / "model"))
    assert (asked.code, asked.out.splitlines()[0]) == (0, "头痛")


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("medchat_api_version = 0", "medchat_api_version"),
        ("medchat_api_version = 7", "7"),
        ("from medchat.session import ChatModel", "medchat.session"),
        ("from medchat.api import Backbone, TextModel", "TextModel"),
        ("import medchat.core.hooks", "medchat.core"),
    ],
)
def test_a_plugin_for_another_version_is_refused_with_what_to_import_instead(
    site: Path, call: Call, source: str, named: str
) -> None:
    add_backbone(site, "other", source + "\n")
    refused = call("plugins", "show", "other")
    what, remedy = refused.failure()
    assert refused.code == 5
    assert named in what and "medchat-other" in what
    assert "medchat.plugin_kit" in what + remedy


def test_a_plugin_that_lacks_a_library_of_its_own_is_not_told_of_ours(site: Path, call: Call) -> None:
    add_backbone(site, "other", "import library_that_is_not_there\n")
    what, remedy = call("plugins", "show", "other").failure()
    assert "library_that_is_not_there" in what and "plugin_kit" not in remedy


# ---------------------------------------------------------------- a command on the surface


def module_of(site: Path, name: str) -> ModuleType:
    example_site(site, f"medchat-{name}")
    return __import__(f"medchat_{name}")


def test_the_example_command_is_short_and_needs_nothing_else(site: Path) -> None:
    source = Path(str(module_of(site, "answers").__file__)).read_text(encoding="utf-8")
    assert len(source.splitlines()) < 70
    assert [name for name in imported(source) if name.startswith("medchat")] == ["medchat.plugin_kit"]
