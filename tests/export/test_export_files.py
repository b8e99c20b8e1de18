"""Modelfiles and model cards: no name or text can leave its field. Outputs: whole or not there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from medchat_bloom.backbone import BloomBackbone
from medchat_export.conversation_pattern import pattern_of
from medchat_export.licences import Part, joined_licence, parts_of
from medchat_export.model_card import exported_card
from medchat_export.ollama import Modelfile
from medchat_export.staging import check_space, check_target, staged

from medchat.api import GenerationConfig, LoadOptions
from medchat.asking import ResolvedModel
from medchat.errors import MedchatError, UsageError
from medchat.templates import load_template

EVIL = 'x"\n---\nlicense: mit\n# <script>alert(1)</script> [a](javascript:1) """'
TEMPLATE = load_template("med_template")


def resolved(model: Path, *adapters: Path) -> ResolvedModel:
    options = LoadOptions(model, adapters=adapters)
    return ResolvedModel(BloomBackbone(), options, TEMPLATE, GenerationConfig())


def modelfile(**changes: Any) -> Modelfile:
    pattern = pattern_of(TEMPLATE)
    assert pattern is not None
    chosen = {"stops": (), "system": "", "licence": "", **changes}
    return Modelfile("model.gguf", pattern, GenerationConfig(), **chosen)


def test_a_name_cannot_leave_the_front_matter_or_the_text(tmp_path: Path) -> None:
    parts = [Part(EVIL, EVIL, False), Part("lora", "", True)]
    text = exported_card(EVIL, resolved(tmp_path), parts, remarks=[])
    _, front, body = text.split("---\n", 2)
    stated = yaml.safe_load(front)
    assert set(stated) == {"language", "license", "library_name", "base_model", "tags"}
    assert stated["license"] == "other" and stated["base_model"] == [EVIL]
    assert "<script>" not in body and "](javascript" not in body
    assert not re.search(r"(?m)^(---|license:)", body)


@pytest.mark.parametrize("field", ["system", "stops", "licence"])
@pytest.mark.parametrize("text", ['"""\nFROM /etc/passwd', 'ends with "'])
def test_a_text_that_would_end_its_field_is_refused(field: str, text: str) -> None:
    with pytest.raises(UsageError):
        modelfile(**{field: [text] if field == "stops" else text}).text()


def test_other_texts_stand_in_their_fields_as_they_are() -> None:
    text = modelfile(system='你是"医生"。\nFROM x', stops=["</s>", '"\n'], licence="Apache-2.0").text()
    fields = re.findall(r'(?ms)^(FROM|TEMPLATE|SYSTEM|LICENSE|PARAMETER \w+) (?:"""(.*?)"""|(\S+))$', text)
    found = [(name, quoted or plain) for name, quoted, plain in fields]
    assert [name for name, _ in found[:2]] == ["FROM", "TEMPLATE"]
    assert ("SYSTEM", '你是"医生"。\nFROM x') in found and ("LICENSE", "Apache-2.0") in found
    assert [value for name, value in found if name == "PARAMETER stop"] == ["</s>", '"\n']
    rest = re.sub(r'(?s)""".*?"""', "", text)
    assert sum(line.startswith("FROM") for line in rest.splitlines()) == 1


def test_licences_come_from_cards_then_from_what_is_known_and_a_gap_is_said(tmp_path: Path) -> None:
    base, adapter = tmp_path / "bloomz-7b1", tmp_path / "mine"
    for folder in (base, adapter):
        folder.mkdir()
    assert [part.licence for part in parts_of(resolved(base, adapter))] == ["bigscience-bloom-rail-1.0", ""]
    assert joined_licence(parts_of(resolved(base, adapter))) == ""
    (adapter / "README.md").write_text(
        "---\nlicense: other\nlicense_name: cc-by-4.0\n---\n", encoding="utf-8"
    )
    (base / "README.md").write_text("license: mit\n", encoding="utf-8")  # no front matter
    parts = parts_of(resolved(base, adapter))
    assert joined_licence(parts) == "bigscience-bloom-rail-1.0 AND cc-by-4.0"
    stated = yaml.safe_load(exported_card("x", resolved(base, adapter), parts, remarks=[]).split("---\n")[1])
    assert (stated["license"], stated["license_name"]) == ("other", joined_licence(parts))


@pytest.mark.parametrize("folder", [True, False])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path, folder: bool) -> None:
    output = tmp_path / "out"
    output.mkdir() if folder else output.write_text("before", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(MedchatError, match="No space"),
        staged(output, folder=folder, overwrite=True) as beside,
    ):
        (beside / "part" if folder else beside).write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")
    assert sorted(tmp_path.rglob("*")) == before
    with staged(output, folder=folder, overwrite=True) as beside:
        (beside / "whole" if folder else beside).write_text("after", encoding="utf-8")
    assert (output / "whole" if folder else output).read_text(encoding="utf-8") == "after"
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_is_overwritten_unasked_and_the_source_never(tmp_path: Path) -> None:
    model, output = tmp_path / "family" / "model", tmp_path / "out"
    model.mkdir(parents=True)
    output.mkdir()
    check_target(output, LoadOptions(model), overwrite=False)
    (output / "kept").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="--output"):
        check_target(output, LoadOptions(model), overwrite=False)
    check_target(output, LoadOptions(model), overwrite=True)
    for place in (model, model.parent):
        with pytest.raises(UsageError):
            check_target(place, LoadOptions(model), overwrite=True)


def test_too_little_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: type("Usage", (), {"free": 10**9})())
    check_space(tmp_path / "a" / "b", 10**8)
    with pytest.raises(MedchatError, match=r"1\.1 GB"):
        check_space(tmp_path / "a" / "b", 10**9)
