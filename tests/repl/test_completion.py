"""Tab behind a command's name: sessions, weights, templates, settings and paths."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from chat_on_disk import converse
from cli_program import Scripted, copy_of
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from medchat.paths import config_file, models_dir
from medchat.repl.completion import SlashCompleter
from medchat.repl.offers import paths
from medchat.repl.slash import Offer, ReplCommand
from medchat.store import SessionStore

pytest_plugins = ("cli_program",)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "files"
    (place / "化验").mkdir(parents=True)
    hostile = ("\x1b[2J\x1b]0;假标题\x07.txt", "两\n行.txt", "\u202e倒.txt")
    for name in ("病历.txt", "病 历二.txt", ".隐藏", "it's.md", *hostile):
        (place / name).touch()
    (place / "化验" / "血.csv").touch()
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("", ["化验/", "病历.txt", "'病 历二.txt'", "'it'\"'\"'s.md'"]),
        ("病", ["病历.txt", "'病 历二.txt'"]),
        ("'病 ", ["'病 历二.txt'"]),
        (".", [".隐藏"]),
        ("化验", ["化验/"]),
        ("化验/", ["化验/血.csv"]),
        ("./化", ["./化验/"]),
        ("没有/", []),
        ("病历.txt", []),
        ("\0", []),
        ("a" * 5000 + "/", []),
    ],
)
def test_paths_go_on_and_no_hostile_name_is_offered(folder: Path, typed: str, offered: list[str]) -> None:
    assert sorted(offer.text for offer in paths(typed)) == sorted(offered)
    assert all(offer.length == len(typed) for offer in paths(typed))


def test_a_path_that_is_offered_is_read_back_as_the_file(folder: Path) -> None:
    for offer in paths(""):
        (word,) = shlex.split(offer.text)
        assert (folder / word).exists()
    assert [offer.text for offer in paths("病 ", quoted=False)] == [
        "病 历二.txt"
    ]  # of commands that read one path
    assert [offer.text for offer in paths(f"{folder}/化")] == [f"{folder}/化验/"]
    assert [offer.text for offer in paths("", folders_alone=True)] == ["化验/"]


class OneCommand:
    """A chat with one command, which offers what it is given."""

    def __init__(self, *offers: Offer) -> None:
        self.commands = [ReplCommand("go", "走", "", "", "", print, complete=lambda chat, words: offers)]


def test_what_is_offered_beside_a_name_cannot_obey_itself() -> None:
    hostile = Offer("▌系统", 0, "\x1b]0;x\x07\u202e标题")
    completer = SlashCompleter(OneCommand(hostile))  # type: ignore[arg-type]
    (found,) = completer.get_completions(Document("/走 "), CompleteEvent(completion_requested=True))
    assert "▌" not in found.display_text
    assert not set("\x1b\x07\u202e") & set(found.display_meta_text)


def test_nothing_is_looked_up_while_words_are_typed() -> None:
    completer = SlashCompleter(OneCommand(Offer("名", 0)))  # type: ignore[arg-type]
    assert not [*completer.get_completions(Document("/走 "), CompleteEvent(text_inserted=True))]


@pytest.mark.terminal
@pytest.mark.parametrize("columns", [40, 80, 120])
def test_tab_completes_what_stands_behind_each_command(
    scripted: Scripted, tmp_path: Path, columns: int
) -> None:
    copy_of(scripted.model, models_dir() / "本地模型")
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text('[preset]\n"病历" = "总结：{内容}"\n', encoding="utf-8")
    (tmp_path / "case.txt").touch()
    scripted.run("chat", "--session", "头痛复诊", stdin="甲\n")
    with scripted.on_terminal(columns=columns, rows=30) as screen:
        converse(screen, "乙")
        with SessionStore.open() as store:
            (unnamed,) = (one.id for one in store.list() if one.name is None)
        for typed, whole in (
            ("/载入 头", "/载入 头痛复诊"),
            ("/load 头", "/load 头痛复诊"),
            (f"/load {unnamed[9:12]}", f"/load {unnamed}"),
            ("/model 本", "/model 本地模型"),
            ("/模型 本", "/模型 本地模型"),
            ("/adapter no", "/adapter none"),
            ("/模板 bloom", "/模板 bloom_deploy"),
            ("/设置 gre", "/设置 greedy"),
            ("/set greedy o", "/set greedy o"),  # two begin so: both are listed
            ("/set history n", "/set history none"),
            ("/theme br", "/theme bright"),
            ("/lang en s", "/lang en save"),
            ("/帮助 撤", "/帮助 撤销"),
            ("/预设 病", "/预设 病历"),
            ("/对比 模型 本", "/对比 模型 本地模型"),
            (f"/文件 {tmp_path}/cas", f"/文件 {tmp_path}/case.txt"),
            (f"/导出 {tmp_path}/cas", f"/导出 {tmp_path}/case.txt"),
        ):
            screen.wait_for_prompt()
            screen.type(typed + "\t")
            shown = f"› {whole}"
            screen.wait(
                lambda shown=shown: shown in "".join(row.removeprefix("  ") for row in screen.shown()), whole
            )
            screen.type("\x03")
