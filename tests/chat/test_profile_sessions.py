"""Profiles in a chat: who answers, what is saved, and what goes before what a session was held with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted_session import ask
from switching_chat import lay_out

from medchat.chat.conversation import PreparedChat, prepare_conversation
from medchat.chat.loading import Loading
from medchat.chat.model_control import ModelControl
from medchat.chat.session_choice import SessionChoice
from medchat.errors import UsageError
from medchat.settings import Layer

pytest_plugins = ("plugin_sites",)


@pytest.fixture
def folder(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two models and two adapters, in which the chat is started; the configuration is empty."""
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, site)
    (tmp_path / "home").mkdir()
    return tmp_path


def configure(folder: Path, text: str) -> None:
    (folder / "home" / "config.toml").write_text(text, encoding="utf-8")


def prepared(choice: SessionChoice | None = None, **flags: Any) -> PreparedChat:
    return prepare_conversation(flags, choice or SessionChoice(), pytest.fail)


PROFILE = """
[profile.med]
model = "./../two"
adapter = ["./../lora"]
template = "ori_template"
system = "你是医生"
temperature = 0.2
history = "none"
"""


def test_a_profile_chooses_model_adapter_template_system_and_decoding(folder: Path) -> None:
    configure(folder, PROFILE)
    chat = prepared(profile="med")
    session = chat.begin(chat.opening.load())
    assert chat.opening.options.model.name == "two"
    assert [path.name for path in chat.opening.options.adapters] == ["lora"]
    assert session.template.name == "ori_template" and session.conversation.system == "你是医生"
    assert session.config.temperature == 0.2 and session.remember_history is False
    chat.store.close()


def test_a_profile_goes_before_what_the_session_was_held_with_and_flags_before_both(folder: Path) -> None:
    configure(folder, PROFILE + '\n[profile.words]\nsystem = "简短"\n')
    chat = prepared(model=str(folder / "one"), adapter=(str(folder / "other"),), system="原来的")
    ask(chat.begin(chat.opening.load()))
    chat.store.close()
    expected = {
        "": ("one", ["other"], "原来的"),
        "med": ("two", ["lora"], "你是医生"),
        "words": ("one", ["other"], "简短"),
    }
    for name, (model, adapters, system) in expected.items():
        again = prepared(SessionChoice(latest=True), profile=name or None)
        options = again.opening.options
        assert (options.model.name, [path.name for path in options.adapters]) == (model, adapters)
        assert again.settings.value("system") == system
        again.store.close()
    flagged = prepared(SessionChoice(latest=True), profile="med", system="旗")
    assert flagged.settings.value("system") == "旗"
    flagged.store.close()


def test_what_is_saved_as_a_profile_brings_the_same_chat_back(folder: Path) -> None:
    chat = prepared(model=str(folder / "one"), system="你是医生", temperature=0.3)
    session, control = chat.begin(chat.opening.load()), ModelControl(chat)
    control.switch(session, {"adapter": (str(folder / "lora"),)}, "/适配器", Loading())
    control.change({"top_k": 9}, "/设置")
    place = control.save_profile("我的")
    chat.store.close()
    again = prepared(profile="我的")
    options = again.opening.options
    assert (options.model, [path.name for path in options.adapters]) == (folder / "one", ["lora"])
    assert again.opening.backbone.name == "switching" and again.settings.value("system") == "你是医生"
    assert (again.opening.generation.temperature, again.opening.generation.top_k) == (0.3, 9)
    assert again.settings.origin("top_k").layer is Layer.PROFILE
    assert str(place) in str(again.settings.origin("top_k"))
    again.store.close()


def test_a_folders_profile_cannot_send_questions_away(folder: Path) -> None:
    (folder / "medchat.toml").write_text('[profile.x]\nmodel = "https://example.org"\n', encoding="utf-8")
    with pytest.raises(UsageError):
        prepared(profile="x")
