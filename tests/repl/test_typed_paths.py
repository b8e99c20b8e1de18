"""Paths behind commands, with blanks and quotation marks in them and a question behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_program import Scripted

from medchat.errors import UsageError
from medchat.repl.typed_paths import last_word, path_and_rest, paths_in

pytest_plugins = ("cli_program",)


@pytest.mark.parametrize(
    ("words", "last"),
    [
        ("", ""),
        ("a b", "b"),
        ("a ", ""),
        ("'a b", "'a b"),
        ("'a b' c", "c"),
        ('x "中 文" "未', '"未'),
        ("a'b c'd", "a'b c'd"),
        ("it's", "it's"),
    ],
)
def test_the_last_word_is_the_one_a_shell_would_read(words: str, last: str) -> None:
    assert last_word(words) == last


@pytest.mark.parametrize(
    ("words", "path", "rest"),
    [
        ("case.txt", "case.txt", ""),
        ("case.txt  请总结  这个", "case.txt", "请总结  这个"),
        ("'my case.txt' what's wrong?", "my case.txt", "what's wrong?"),
        ("case.txt what's wrong?", "case.txt", "what's wrong?"),
        ('"病 历".txt "引用" 是什么', "病 历.txt", '"引用" 是什么'),
        ("", "", ""),
    ],
)
def test_a_path_is_parted_from_the_question_behind_it(words: str, path: str, rest: str) -> None:
    assert path_and_rest(words) == (path, rest)


def test_a_path_with_blanks_that_is_there_needs_no_quotation_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my case.txt").touch()
    assert path_and_rest("my case.txt") == ("my case.txt", "") and paths_in("my case.txt") == ["my case.txt"]
    assert paths_in("a 'b c' d") == ["a", "b c", "d"]


def test_a_quotation_without_an_end_is_refused() -> None:
    for read in (paths_in, path_and_rest):
        with pytest.raises(UsageError, match="引号没有成对"):
            read("'my case.txt")


def test_a_question_behind_a_file_keeps_its_quotation_marks(scripted: Scripted, tmp_path: Path) -> None:
    (tmp_path / "my case.txt").write_text("发热", encoding="utf-8")
    done = scripted.run("chat", stdin="/file 'my case.txt' what's  \"wrong\"?\n", cwd=tmp_path)
    assert done.out == '你问的是what\'s  "wrong"?\n\n发热\n', done.err
