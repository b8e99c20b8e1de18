"""`plugins list --check`, `plugins show` of every kind, hashes against RECORD; `debug prompt`."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from cli_program import Call
from plugin_packages import write_distribution
from plugin_sites import add_backbone, add_extension, echo_site, example_site

from medchat.registry import Registry

pytest_plugins = ("plugin_sites", "cli_program")
SUITE = """
from medchat.plugin_kit import Notice, hookimpl
@hookimpl
def medchat_advise(conversation, text):
    return [Notice("careful")]
@hookimpl
def medchat_doctor(settings):
    return []
"""


def record(site: Path, distribution: str, *names: str) -> None:
    """Note the files as pip does."""
    lines = []
    for name in names:
        digest = hashlib.sha256((site / name).read_bytes()).digest()
        noted = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        lines.append(f"{name},sha256={noted},{(site / name).stat().st_size}")
    (info,) = site.glob(f"{distribution.replace('-', '_')}-*.dist-info")
    (info / "RECORD").write_text(
        "\n".join([*lines, "../../bin/x,sha256=AAAA,1", f"{info.name}/RECORD,,"]) + "\n"
    )


# ---------------------------------------------------------------- show


def test_a_backbone_is_shown_with_all_that_it_offers(site: Path, call: Call) -> None:
    echo_site(site)
    shown = call("plugins", "show", "echo")
    assert shown.code == 0
    for fact in (
        "medchat-echo 1.0 medchat_echo",
        "medchat_echo.py",
        "接口版本：1",
        "钩子：medchat_backbones",
        "训练方法：无",
        "能力：score、devices cpu",
    ):
        assert fact in shown.out
    facts = call("plugins", "show", "echo", "--json").one()
    assert (facts["kind"], facts["api_version"], facts["hooks"]) == ("backbone", 1, ["medchat_backbones"])
    assert facts["record"] == {"same": 0, "changed": [], "missing": []}


def test_the_method_that_is_taken_where_none_is_named_stands_first(call: Call) -> None:
    methods = call("plugins", "show", "chatglm", "--json").one()["methods"]
    assert len(methods) > 1
    listed = "、".join([f"{methods[0]}（默认）", *methods[1:]])
    assert f"训练方法：{listed}" in call("plugins", "show", "chatglm").out
    assert methods[0] == next(iter(Registry().backbone("chatglm").recipes))


@pytest.mark.parametrize(("name", "kind"), [("suite", "extension"), ("answers", "command")])
def test_other_plugins_are_shown_too(site: Path, call: Call, name: str, kind: str) -> None:
    if kind == "extension":
        add_extension(site, name, SUITE)
    else:
        example_site(site, "medchat-answers")
    facts = call("plugins", "show", name, "--json").one()
    assert facts["kind"] == kind and facts["distribution"] == f"medchat-{name}"
    hooks = {"extension": ["medchat_advise", "medchat_doctor"], "command": ["medchat_commands"]}
    assert facts["hooks"] == hooks[kind]
    assert kind in call("plugins", "show", name).out.splitlines()[0]


def test_what_goes_by_no_name_is_told_with_what_there_is(call: Call) -> None:
    refused = call("plugins", "show", "chatgml")
    assert refused.code == 2 and "chatglm" in refused.failure()[1]


# ---------------------------------------------------------------- RECORD


def test_files_are_held_against_the_hashes_of_their_installation(site: Path, call: Call) -> None:
    echo_site(site)
    (site / "other.py").write_text("another package's")
    record(site, "medchat-echo", "medchat_echo.py", "other.py")
    assert call("plugins", "show", "echo", "--json").one()["record"] == {
        "same": 1,
        "changed": [],
        "missing": [],
    }
    assert call("plugins", "list", "--check").code == 0
    (site / "other.py").write_text("changed, and none of the plugin's")
    assert call("plugins", "list", "--check").code == 0
    with (site / "medchat_echo.py").open("a") as file:
        file.write("# changed\n")
    assert "安装之后被改动：medchat_echo.py" in call("plugins", "show", "echo").out
    checked = call("plugins", "list", "--check")
    assert checked.code == 5 and "medchat_echo.py" in checked.out


def test_a_file_that_has_gone_is_named(site: Path, call: Call) -> None:
    package = site / "medchat_pack"
    package.mkdir()
    source = "from medchat.plugin_kit import hookimpl\nmedchat_api_version = 1\n"
    (package / "__init__.py").write_text(source)
    (package / "words.py").write_text("")
    write_distribution(site, "medchat-pack", {"medchat.extensions": {"pack": "medchat_pack"}})
    record(site, "medchat-pack", "medchat_pack/__init__.py", "medchat_pack/words.py")
    (package / "words.py").unlink()
    facts = call("plugins", "show", "pack", "--json").one()["record"]
    assert facts == {"same": 1, "changed": [], "missing": ["medchat_pack/words.py"]}


# ---------------------------------------------------------------- list --check


def test_every_plugin_is_loaded_and_what_fails_is_named(site: Path, call: Call) -> None:
    assert call("plugins", "list", "--check").code == 0
    add_backbone(site, "broken", "1 / 0\n")
    add_backbone(site, "vague", None)
    add_extension(site, "suite", "import nothing_like_it\n")
    example_site(site, "medchat-answers")
    empty = {"empty_module": "medchat_api_version = 1"}
    write_distribution(site, "medchat-empty", {"medchat.commands": {"empty": "empty_module"}}, empty)
    checked = call("plugins", "list", "--check")
    assert checked.code == 5
    told = [line for line in checked.out.splitlines() if "): " in line]
    assert [line.split()[0] for line in told] == ["broken", "suite", "empty"]
    assert "ZeroDivisionError" in told[0] and "nothing_like_it" in told[1]
    rows = call("plugins", "list", "--check", "--json").one()
    faults = {row["name"]: bool(row["fault"]) for row in rows}
    assert faults["broken"] and faults["empty"] and not faults["chatglm"] and not faults["answers"]


def test_a_plain_list_runs_no_code(site: Path, call: Call) -> None:
    add_backbone(site, "broken", "1 / 0\n")
    assert call("plugins", "list").code == 0
    assert "fault" not in call("plugins", "list", "--json").one()[0]


# ---------------------------------------------------------------- debug prompt


def test_a_prompt_is_shown_segment_by_segment(site: Path, call: Call, tmp_path: Path) -> None:
    echo_site(site)
    Registry().backbone("echo").tiny(tmp_path / "model")
    words = ("debug", "prompt", "头痛</s>\x1b[2J", "--model", str(tmp_path / "model"))
    shown = call(*words, "--template", "med_template")
    assert shown.code == 0 and "模板：med_template" in shown.out
    assert "### 问题" in shown.out and "头痛</s>" in shown.out
    assert "\x1b" not in shown.out and "不给出编号" in shown.out
    whole = call(*words, "--template", "bare", "--json").one()
    assert whole["given"] == whole["segments"] == [{"text": "头痛</s>\x1b[2J"}]
    assert (whole["template"], whole["ids"]) == ("bare", None)


@pytest.mark.torch
def test_ids_and_control_tokens_are_those_of_the_model(call: Call, tmp_path: Path) -> None:
    from medchat_chatglm.backbone import ChatGLMBackbone

    ChatGLMBackbone().tiny(tmp_path / "model", corpus=["头痛怎么办？多休息。"] * 9)
    whole = call("debug", "prompt", "头痛<sop>", "--model", str(tmp_path / "model"), "--json").one()
    controls = [part["control"] for part in whole["given"] if "control" in part]
    assert controls == ["[gMASK]", "<sop>"]
    assert len(whole["ids"]) == whole["tokens"] > 3
    shown = call("debug", "prompt", "头痛<sop>", "--model", str(tmp_path / "model")).out
    assert '特殊标记 "[gMASK]"' in shown and " ".join(map(str, whole["ids"])) in shown
