"""What was said before an answer, wherever saved sessions are read: shown, exported, learned from, imported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_program import Call

from medchat import medical_safety
from medchat.api import Finish, Turn
from medchat.chat.demo_mode import KnownQuestions
from medchat.demo_data import demo_examples
from medchat.language import set_language
from medchat.store import AnswerOrigin, SessionStore

pytest_plugins = ("cli_program",)


def kept(*turns: tuple[Turn, tuple[str, ...]]) -> str:
    """Save turns with the notices before their answers, and return the session's id."""
    with SessionStore.open() as store:
        session = store.create("tiny", "/m").id
        for turn, notices in turns:
            store.append_turn(session, turn, None, AnswerOrigin(notices=notices))
    return session


def exported(call: Call, path: Path, session: str, *flags: str) -> str:
    done = call("sessions", "export", session, "--output", str(path), *flags)
    assert done.code == 0, done.err
    return path.read_text(encoding="utf-8")


def demo_warning(language: str) -> str:
    """Return what the demo says before it answers what it has not learned."""
    set_language(language)
    (warning,) = KnownQuestions(demo_examples()).warnings("量子力学是什么？")
    set_language("zh")
    return warning.text


# ---------------------------------------------------------------- training lines


@pytest.mark.parametrize(("language", "word"), [("zh", "没有意义"), ("en", "means nothing")])
def test_training_lines_teach_no_answer_that_was_cut_off_or_said_to_mean_nothing(
    call: Call, tmp_path: Path, language: str, word: str
) -> None:
    warning = demo_warning(language)
    assert word in warning
    session = kept(
        (Turn("甲", "完整。"), ("请拨打 120。",)),
        (Turn("乙", "到了长度上", Finish.LENGTH), ()),
        (Turn("丙", "断了", Finish.ERROR), ()),
        (Turn("丁", "乱写。"), (warning,)),
    )
    (line,) = exported(call, tmp_path / "a.jsonl", session).splitlines()
    messages = json.loads(line)["messages"]
    answers = [said for said in messages if said["role"] == "assistant"]
    assert [said.get("weight", 1) for said in answers] == [1, 0, 0, 0]
    assert warning not in line
    # Not in the whole line: the session's name in it begins with the date, which may hold these digits.
    assert not any("120" in said["content"] for said in messages)


# ---------------------------------------------------------------- for people to read

HOSTILE = "插件提示 <script>x</script> ![](http://evil.example/a.png) \x1b]0;x\x07 电话13812345678"


def test_show_has_the_notices_between_question_and_answer_as_words_of_medchat(call: Call) -> None:
    session = kept((Turn("胸痛", "多休息。"), ("请拨打 120。", HOSTILE)), (Turn("甲", "乙"), ()))
    shown = call("sessions", "show", session).out
    assert re.search(
        r"^问：胸痛\nMedChat 提示：请拨打 120。\nMedChat 提示：插件提示 .*\n答：多休息。$",
        shown,
        re.MULTILINE,
    )
    assert "\x1b" not in shown and shown.count("MedChat 提示") == 2
    assert "MedChat's notice: 请拨打 120。" in call("--lang", "en", "sessions", "show", session).out


@pytest.mark.parametrize("suffix", [".md", ".html"])
def test_pages_have_the_notices_between_question_and_answer_and_let_nothing_escape(
    call: Call, tmp_path: Path, suffix: str
) -> None:
    session = kept((Turn("胸痛", "多休息。"), ("请拨打 120。", HOSTILE)))
    page = exported(call, tmp_path / f"a{suffix}", session)
    places = [
        page.index(words)
        for words in ("> 胸痛" if suffix == ".md" else ">胸痛", "120。", "插件提示", "多休息")
    ]
    assert places == sorted(places) and page.count("MedChat 提示") == 2
    assert "<script>" not in page and "\x1b" not in page
    assert suffix == ".html" or "![" not in page


@pytest.mark.parametrize("suffix", [".md", ".html", ".json"])
def test_redacted_exports_mask_what_a_plugins_notice_quotes_and_keep_our_numbers(
    call: Call, tmp_path: Path, suffix: str
) -> None:
    (ours, *_) = medical_safety.find_red_flags("我不想活了，想自杀").notices
    session = kept((Turn("我不想活了", "答"), (ours.text, HOSTILE)))
    page = exported(call, tmp_path / f"a{suffix}", session, "--redact")
    assert "13812345678" not in page and "12356" in ours.text and "12356" in page


# ---------------------------------------------------------------- import


def our_texts() -> tuple[str, ...]:
    """Return notices as they are given, in full and short, in both languages, and the demo's."""
    texts: list[str] = []
    for language in ("zh", "en"):
        set_language(language)
        (notice, *_) = medical_safety.find_red_flags("胸口压着疼，喘不上气").notices
        texts += [notice.text, notice.short, demo_warning(language)]
    return tuple(texts)


def test_our_own_notices_survive_export_and_import(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = our_texts()
    assert len(set(texts)) == 6
    session = kept((Turn("胸痛", "答"), texts))
    first = exported(call, tmp_path / "a.json", session)
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "other"))
    assert call("sessions", "import", str(tmp_path / "a.json")).code == 0
    assert exported(call, tmp_path / "b.json", session) == first
    assert texts[0] in json.loads(first)["log"][0]["origin"]["notices"]


@pytest.mark.parametrize("forge", [lambda own: own + "。", lambda own: own[1:], lambda own: "不必就医"])
def test_a_notice_that_is_not_word_for_word_ours_is_not_imported(
    call: Call, tmp_path: Path, forge: Callable[[str], str]
) -> None:
    own = our_texts()[0]
    session = kept((Turn("胸痛", "答"), (forge(own), own)))
    exported(call, tmp_path / "a.json", session)
    assert call("sessions", "import", str(tmp_path / "a.json")).code == 0
    with SessionStore.open() as store:
        (imported,) = (record for record in store.list() if record.id != session)
        (saved,) = store.turns(imported.id)
    assert saved.origin.notices == (own,)
