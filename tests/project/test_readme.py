"""The READMEs and the pages under docs: their commands run, their flags, commands and files exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from accelerate.commands.launch import launch_command_parser
from cli_program import PAIRS, Call
from command_tree import tree_of_commands
from locations import ROOT
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_llama.prompts import MED_ALLDATA
from torch.distributed.run import get_args_parser

from medchat.builtin import PLUGIN_VARIABLES
from medchat.inference.cpu_engine.library import VARIABLE as INSTRUCTIONS_VARIABLE
from medchat.language import set_language
from medchat.launcher import MACHINE_VARIABLE, PATIENCE_VARIABLE
from medchat.registry import Registry
from medchat.repl.commands import COMMANDS as SLASH_COMMANDS
from medchat.settings.keys import KEYS
from medchat.weights.catalogue import Catalogue
from medchat.weights.common_questions import citations, common_questions

pytest_plugins = ("cli_program",)

READMES = ("README.md", "README_EN.md")
DOORS = ("CONTRIBUTING.md", "CONTRIBUTING_EN.md", "SECURITY.md")
PAGES = [*READMES, *DOORS, *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]

#: Folders whose own folders the tree of the READMEs lists too.
DIVIDED = ("medchat", "plugins")
#: Everything these need is fetched from the network; a test of their own runs them.
SET_UP = (
    "sh scripts/quickstart.sh",
    "sh scripts/test.sh",
    ". .venv/bin/activate",
    "pip install -c constraints.txt -e .",
)
#: A server runs until it is stopped: tests/serve/test_serve_readme.py runs this part.
SERVING = ("medchat serve ", "medchat ask 头痛怎么办？ --server ", 'medchat ask "头痛怎么办？" --server ')
#: What stands for a model folder and for a session's id.
MODEL_PLACEHOLDERS = ("/path/to/ChatGLM-6B-Med", "/path/to/folder", "目录", "FOLDER")
ID_PLACEHOLDERS = ("编号", "ID")
#: What stands for a file of training data.
DATA_PLACEHOLDER = "/path/to/train.json"
#: What stands for a base and its adapter: recorded ones, if they are available.
BENTSAO: dict[str, Callable[[], str]] = {
    "/path/to/llama-7b": lambda: str(seed_stack() / "llama" / "base"),
    "/path/to/lora-llama-med": lambda: str(seed_stack() / "llama" / "adapter"),
}
#: Options of a backbone's own, as flags: ChatGLM's, and one that docs/plugins.md makes up.
OPTIONS_OF_BACKBONES = {*(f"--{key}" for key in ChatGLMBackbone.load_keys), "--depth"}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]*[a-z0-9]")


def seed_stack() -> Path:
    shared = Path(os.environ.get("MEDCHAT_SHARED", ROOT.parent / "shared"))
    return Path(os.environ.get("MEDCHAT_GOLDENS", shared / "goldens")) / "seed-stack"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def shell_lines(page: str) -> list[str]:
    """Return the commands in the ```sh blocks of a page, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [shlex.join(shlex.split(line, comments=True)) if " #" in line else line for line in lines if line]


def code_spans(page: str) -> list[str]:
    """Return the inline code of a page."""
    without_blocks = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", without_blocks)


# ---------------------------------------------------------------- the commands run


@pytest.mark.torch
@pytest.mark.parametrize("readme", [READMES[0], pytest.param(READMES[1], marks=pytest.mark.slow)])
def test_every_command_of_the_readme_runs(
    call: Call, talker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readme: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": question, "input": "", "output": answer} for question, answer in PAIRS.items()]
    Path("train.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    ran = 0
    for line in shell_lines(readme):
        if (
            line in SET_UP
            or line.startswith(SERVING)
            or (any(place in line for place in BENTSAO) and not seed_stack().is_dir())
        ):
            continue
        words, stdin = _parsed(line)
        latest = ""
        if any(word in ID_PLACEHOLDERS for word in words):
            latest = call("sessions", "list", "--json").one()[0]["id"]
        replaced = [
            BENTSAO[word]()
            if word in BENTSAO
            else str(talker)
            if word in MODEL_PLACEHOLDERS
            else latest
            if word in ID_PLACEHOLDERS
            else "train.json"
            if word == DATA_PLACEHOLDER
            else word
            for word in words
        ]
        outcome = call(*replaced, stdin=stdin)
        assert outcome.code == 0, f"{line}: {outcome.err}"
        assert outcome.out.strip(), line
        if "--json" in words:
            outcome.one()
        ran += 1
    assert ran >= 10


def _parsed(line: str) -> tuple[list[str], str]:
    """Return a line's arguments to medchat and what is piped into it: chat gets one question."""
    piped, bar, rest = line.rpartition(" | ")
    rest, redirected, _ = rest.partition(" < ")
    words = shlex.split(rest)
    assert words[0] == "medchat", f"a command this test cannot run: {line}"
    if bar:
        printf, text = shlex.split(piped)
        assert printf == "printf", line
        return words[1:], text.replace("\\n", "\n")
    if redirected:
        return words[1:], "血红蛋白 120 g/L\n"
    return words[1:], "头痛怎么办？\n" if words[1] == "chat" else ""


@pytest.mark.parametrize("readme", READMES)
def test_the_readme_has_exactly_the_set_up_commands_that_are_not_run_here(readme: str) -> None:
    outside = [line for line in shell_lines(readme) if "medchat " not in line]
    assert outside == list(SET_UP)
    for line in outside[:2]:
        assert (ROOT / line.split()[1]).is_file()


def test_both_readmes_have_the_same_commands_and_sections() -> None:
    def shape(page: str) -> list[str]:
        lines = [_parsed(line)[0] for line in shell_lines(page) if line not in SET_UP]
        flags = [
            " ".join(word for word in words if word.isascii() and word not in ("ID", "FOLDER"))
            for words in lines
        ]
        levels = [match.group(1) for match in re.finditer(r"^(#+) ", text_of(page), re.MULTILINE)]
        return [*flags, *levels]

    assert shape(READMES[0]) == shape(READMES[1])


# ---------------------------------------------------------------- what they name exists


def known_flags() -> set[str]:
    """Return every flag of every command, benchmark and script, and of the launchers of several processes."""
    flags = {"--help", "--version", "--lang", "--debug", *OPTIONS_OF_BACKBONES}
    for command in tree_of_commands().values():
        for parameter in command.params:
            flags |= {option for option in parameter.opts if option.startswith("--")}
    for launcher in (get_args_parser(), launch_command_parser()):
        flags |= {option for action in launcher._actions for option in action.option_strings}
    programs = [path for folder in ("benchmarks", "scripts") for path in (ROOT / folder).glob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in programs)
    return flags | set(re.findall(r'"(--[a-z0-9-]+)"', sources))


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_a_page_names_exists(page: str) -> None:
    named = {flag for text in [*code_spans(page), *shell_lines(page)] for flag in FLAG.findall(text)}
    assert named <= known_flags()


@pytest.mark.parametrize("page", PAGES)
def test_every_command_a_page_names_exists(page: str) -> None:
    commands = tree_of_commands()
    for text in [*code_spans(page), *shell_lines(page)]:
        for words in re.findall(r"(?:^|[|\s])medchat((?: [a-z]+(?:-[a-z]+)*)*)", text):
            name, *rest = words.split() or [""]
            if not name:
                continue
            assert (name,) in commands, f"{page}: {text}"
            if isinstance(commands[(name,)], click.Group) and rest:
                assert (name, rest[0]) in commands, f"{page}: {text}"


@pytest.mark.parametrize("page", PAGES)
def test_every_slash_command_a_page_names_exists(page: str) -> None:
    names = {f"/{name}" for command in SLASH_COMMANDS for name in (command.name, command.zh_name)}
    spans = [span for span in code_spans(page) if re.fullmatch(r"/\w[\w ]*(/\w.*)?", span)]
    named = {word for span in spans for word in re.findall(r"(?:^|\s)(/\w+)", span)}
    # Of the demo alone, and folders of the system.
    elsewhere = {"/path", "/题目", "/questions", "/insist", "/硬答", "/proc", "/sys", "/etc"}
    elsewhere |= {"/name", "/zh_name"}  # what stands for a plugin's own
    assert named <= names | elsewhere


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_a_page_names_is_read(page: str) -> None:
    known = {key.variable for key in KEYS.values()}
    names = ("HOME", "STRICT", "SHARED", "GOLDENS", "OPENAI_JS", "AXE", "VENV", "PLUGINS")
    known |= {f"MEDCHAT_{name}" for name in names}
    known |= {*PLUGIN_VARIABLES, PATIENCE_VARIABLE, MACHINE_VARIABLE, INSTRUCTIONS_VARIABLE}
    assert set(re.findall(r"MEDCHAT_[A-Z_]*[A-Z]", text_of(page))) <= known


@pytest.mark.parametrize("page", PAGES)
def test_every_file_a_page_links_to_exists(page: str) -> None:
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(page)):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (folder / target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_every_script_benchmark_and_source_file_a_page_names_exists(page: str) -> None:
    named = {
        path
        for text in [*code_spans(page), *shell_lines(page)]
        for path in re.findall(
            r"(?:scripts|benchmarks|tests|docs|templates|examples|medchat|plugins)/[\w./*-]*[\w*]", text
        )
    }
    missing = {path for path in named if not any(ROOT.glob(path.rstrip("/")))}
    assert not missing


@pytest.mark.parametrize("readme", READMES)
def test_the_decoding_defaults_the_readme_states_are_those_of_chatglm(readme: str) -> None:
    from medchat_chatglm.backbone import ChatGLMBackbone

    temperature, top_p = re.findall(r"temperature (\d\.\d+)\D+top-p (\d\.\d+)", text_of(readme))[0]
    assert (float(temperature), float(top_p)) == (
        ChatGLMBackbone.generation.temperature,
        ChatGLMBackbone.generation.top_p,
    )


def test_no_page_names_the_machine_it_was_written_on() -> None:
    for page in PAGES:
        assert os.fspath(ROOT) not in text_of(page)


# ---------------------------------------------------------------- the tree of folders


def listed_folders(page: str) -> list[str]:
    """Return the folders in the page's tree, by their paths: a line indented by two is below the one before."""
    (block,) = re.findall(r"^```text\n(benchmarks/.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)
    found, parent = [], ""
    for indent, name, _ in re.findall(r"^( *)([\w-]+)/ +(\S.*)$", block, re.MULTILINE):
        parent = parent if indent else name
        found.append(f"{parent}/{name}" if indent else name)
    assert len(found) == len(block.splitlines()), "every line is a folder and what is in it"
    return found


def folders_with_files() -> list[str]:
    """Return the folders of the repository, and those one level below medchat/ and plugins/."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a Git checkout")
    paths = [line.split("/") for line in listing.stdout.split("\0") if not line.startswith(".")]
    found = {path[0] for path in paths if len(path) > 1}
    return sorted(found | {"/".join(path[:2]) for path in paths if len(path) > 2 and path[0] in DIVIDED})


@pytest.mark.parametrize("readme", READMES)
def test_the_readme_lists_every_folder_and_no_other(readme: str) -> None:
    assert listed_folders(readme) == folders_with_files()


# ---------------------------------------------------------------- the originals


def bibtex(page: str) -> list[str]:
    """Return the entries of the page's BibTeX block."""
    (block,) = re.findall(r"^```bibtex\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)
    return re.findall(r"^@.*?^}", block, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "language"),
    [*zip(READMES, ("zh", "en"), strict=True), ("docs/models.md", "en"), ("docs/zh/models.md", "zh")],
)
def test_pages_answer_what_is_asked_most_and_say_how_to_cite(page: str, language: str) -> None:
    set_language(language)
    try:
        questions = [answered.question for answered in common_questions()]
    finally:
        set_language("zh")
    assert len(questions) >= 3
    for question in questions:
        assert f"**{question}**" in text_of(page)
    entries = bibtex(page)
    assert entries == bibtex(READMES[0])
    for citation, entry in zip(citations(), entries, strict=True):
        assert citation.title in entry and citation.where.removeprefix("arXiv:") in entry
        assert all(author in entry for author in citation.authors.split(", "))


@pytest.mark.parametrize("readme", READMES)
def test_the_readme_gives_every_medical_adapter_its_own_template(readme: str) -> None:
    rows = [line for line in text_of(readme).splitlines() if line.startswith("| ") and "`" in line]
    adapters = [
        entry.known for entry in Catalogue(Registry().backbones()) if entry.known.name.startswith("lora-")
    ]
    assert len(adapters) >= 6
    for known in adapters:
        (row,) = [row for row in rows if f"`{known.name}`" in row]
        forms = MED_ALLDATA.parts if known.template == MED_ALLDATA.name else (known.template,)
        assert re.findall(r"`(\w+)`", row.split("|")[2]) == list(forms)
