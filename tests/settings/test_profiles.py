"""Profiles and presets: what they may hold, whose counts, and how they are written."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from medchat.errors import UsageError
from medchat.settings import Layer, Settings
from medchat.settings.writing import save_profile, save_setting

OWN = """
device = "cpu"

[profile.med]
model = "./weights"
adapter = ["./lora"]
system = "你是医生"
temperature = 0.3

[profile.med.generation]
top_k = 5
"""


def load(folder: Path, own: str = "", project: str = "", profile: str = "", **flags: Any) -> Settings:
    (folder / "config.toml").write_text(own, encoding="utf-8")
    (folder / "medchat.toml").write_text(project, encoding="utf-8")
    return reload(folder, profile, **flags)


def reload(folder: Path, profile: str = "", **flags: Any) -> Settings:
    return Settings.load(
        flags,
        profile=profile,
        environment={},
        user_file=folder / "config.toml",
        project_file=folder / "medchat.toml",
    )


def test_a_profile_brings_a_model_with_all_that_goes_with_it(tmp_path: Path) -> None:
    settings = load(tmp_path, OWN, profile="med")
    assert settings.value("model") == str(tmp_path / "weights")
    assert settings.value("adapter") == (str(tmp_path / "lora"),)
    assert (settings.value("temperature"), settings.value("top_k")) == (0.3, 5)
    assert settings.value("device") == "cpu"
    origin = settings.origin("system")
    assert origin.layer is Layer.PROFILE and origin.profile == "med"
    assert str(origin) == f"配置方案 med（{tmp_path / 'config.toml'}:7）"


def test_without_being_named_a_profile_sets_nothing(tmp_path: Path) -> None:
    settings = load(tmp_path, OWN)
    assert settings.value("model") is None and settings.profiles == ("med",)


def test_flags_go_over_the_profile(tmp_path: Path) -> None:
    assert load(tmp_path, OWN, profile="med", temperature=0.9).value("temperature") == 0.9


@pytest.mark.parametrize("name", ["mod", "", "[31m"])
def test_an_unknown_profile_is_refused_with_those_there_are(tmp_path: Path, name: str) -> None:
    if not name:
        assert load(tmp_path, OWN, profile=name).profile == ""
        return
    with pytest.raises(UsageError) as caught:
        load(tmp_path, OWN, profile=name)
    assert "med" in caught.value.remedy


@pytest.mark.parametrize(
    "line", ['lang = "en"', "save = false", 'plugins = ["x"]', "offline = false", "model_key = 1"]
)
def test_a_profile_holds_only_what_says_who_answers_and_how(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, f"\n[profile.med]\n{line}")
    assert caught.value.where == f"{tmp_path / 'config.toml'}:3"


@pytest.mark.parametrize(
    "line",
    [
        'backbone = "llama"',
        'template = "bare"',
        'system = "x"',
        'model = "https://example.org"',
        'adapter = ["a://b"]',
    ],
)
def test_a_folders_profile_names_no_backbone_address_template_or_system_text(
    tmp_path: Path, line: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, "", f"[profile.med]\n{line}")
    assert caught.value.where == f"{tmp_path / 'medchat.toml'}:2"
    load(tmp_path, f"[profile.med]\n{line}")


def test_a_folder_cannot_change_what_a_users_own_profile_stands_for(tmp_path: Path) -> None:
    other = '[profile.med]\nmodel = "/somebody/elses"\n[profile.theirs]\nmodel = "/theirs"'
    settings = load(tmp_path, OWN, other, "med")
    assert settings.value("model") == str(tmp_path / "weights") and not settings.folder_notice()
    theirs = reload(tmp_path, "theirs")
    assert theirs.value("model") == "/theirs" and "/theirs" in theirs.folder_notice()


def test_presets_are_the_users_own_alone(tmp_path: Path) -> None:
    text = '[preset]\n"病历" = "请总结：{病历}"'
    assert load(tmp_path, text).presets == {"病历": "请总结：{病历}"}
    for own, project in (("", text), ("[preset]\nx = 3", "")):
        with pytest.raises(UsageError):
            load(tmp_path, own, project)


def test_a_command_goes_over_everything_and_can_unset(tmp_path: Path) -> None:
    settings = load(tmp_path, OWN, profile="med", system="旗")
    changed = settings.changed({"system": None, "top_k": 9}, "/设置")
    assert (changed.value("system"), changed.value("top_k")) == (None, 9)
    assert str(changed.origin("top_k")) == "/设置" and changed.origin("top_k").layer is Layer.COMMAND
    assert settings.value("system") == "旗"


# ---------------------------------------------------------------- writing


def test_saving_leaves_the_rest_of_the_file_as_it_is(tmp_path: Path) -> None:
    load(tmp_path, "# 我的配置\n" + OWN + '\n[preset]\nx = "y"  # 问\n')
    file = tmp_path / "config.toml"
    before = file.read_text(encoding="utf-8").splitlines()
    save_setting(file, "theme", "bright")
    save_profile(file, "新", {"model": "/m", "adapter": ["/a"], "temperature": 0.5, "greedy": True})
    after = file.read_text(encoding="utf-8").splitlines()
    assert [line for line in after if line and line in before] == [line for line in before if line]
    assert reload(tmp_path).value("theme") == "bright"
    settings = reload(tmp_path, "新")
    assert (settings.value("adapter"), settings.value("greedy")) == (("/a",), True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_saving_again_replaces_what_was_saved_before(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    for number in range(3):
        save_setting(file, "theme", ("mono", "bright", "mono")[number])
        save_profile(file, "a", {"top_k": number})
        save_profile(file, "b", {"seed": number})
    assert file.read_text(encoding="utf-8").count("theme") == 1
    assert reload(tmp_path, "a").value("top_k") == reload(tmp_path, "b").value("seed") == 2


@pytest.mark.parametrize(
    "text",
    [
        "profile = {med = {top_k = 1}}",
        'x = """\n[profile.med]\n"""',
        "[profile.med.generation]\ntop_k = 1\n[profile.med]\nseed = 1",
        'theme = "mono"\ntheme = "mono"',
        "[profile.med]\ntop_k = 99999999999",
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        save_profile(file, "med", {"seed": 3})
    assert caught.value.where.startswith(str(file)) and file.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", ["", "a.b", "a b", '"', "a" * 41, "x\n[generation]"])
def test_an_impossible_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        save_profile(tmp_path / "config.toml", name, {"seed": 3})
    assert not (tmp_path / "config.toml").exists()


@given(st.text(st.characters(codec="utf-8"), max_size=30))
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_system_text_is_read_back_as_it_was(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    save_profile(file, "p", {"system": text})
    assert reload(tmp_path, "p").value("system") == text
