"""The pages for users exist in Chinese and English, and an edit of one side alone is told."""

from __future__ import annotations

import re

import pytest
from locations import ROOT
from page_pairs import differences
from wording import VALUE, faults_of_chinese

#: Pages for users; the others under docs are for developers.
USER_PAGES = (
    "data.md",
    "eval.md",
    "export.md",
    "first-minute.md",
    "infer.md",
    "models.md",
    "remote.md",
    "safety.md",
    "serve.md",
    "scale.md",
    "sft.md",
    "terminal.md",
)

#: The Chinese pages beside docs.
CHINESE_DOORS = ("README.md", "CONTRIBUTING.md", "SECURITY.md")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_every_page_for_users_is_there_in_both_languages_and_no_other() -> None:
    assert {path.name for path in (ROOT / "docs" / "zh").iterdir()} == set(USER_PAGES)


@pytest.mark.parametrize("page", USER_PAGES)
def test_both_languages_of_a_page_say_the_same(page: str) -> None:
    found = differences(text_of(f"docs/{page}"), text_of(f"docs/zh/{page}"))
    assert not found, f"docs/{page} and docs/zh/{page}: change both.\n" + "\n".join(found)


@pytest.mark.parametrize("page", USER_PAGES)
def test_each_language_of_a_page_links_to_the_other(page: str) -> None:
    assert f"[中文](zh/{page})" in text_of(f"docs/{page}").partition("\n\n## ")[0]
    assert f"[English](../{page})" in text_of(f"docs/zh/{page}").partition("\n\n## ")[0]


@pytest.mark.parametrize("page", ["README.md", *(f"docs/zh/{page}" for page in USER_PAGES)])
def test_a_chinese_page_leads_to_chinese_pages(page: str) -> None:
    targets = [
        target
        for label, target in re.findall(r"\[([^\]]*)\]\(([^)#\s]+)", text_of(page))
        if label != "English"
    ]
    into_english = [
        target for target in targets if target.removeprefix("docs/").removeprefix("../") in USER_PAGES
    ]
    assert not [target for target in into_english if page == "README.md" or target.startswith("../")]


@pytest.mark.parametrize("page", [*CHINESE_DOORS, *(f"docs/zh/{page}" for page in USER_PAGES)])
def test_a_chinese_page_is_set_as_chinese_is(page: str) -> None:
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"``.+?``|`[^`\n]+`|\]\([^)\n]*\)", VALUE, prose).replace("**", "").replace("[", "")
    faults = [(what, line) for line in prose.splitlines() for what in faults_of_chinese(line)]
    assert not faults, faults


ENGLISH = """# Runs

[中文](zh/runs.md)

It takes `--limit` of 5,000 records, 1.5 GiB. See [models](models.md#sizes).

```sh
medchat infer --limit 5   # only five
```

## Files

- one
- two

| flag | |
|---|---|
| `--data` | the data |
| `--output` | the results |

Type `/regen`, or `/help undo`.
"""
CHINESE = """# 运行

[English](../runs.md)

用 `--limit` 取 5,000 条记录，占 1.5 GiB。见[模型](models.md#大小)。

```sh
medchat infer --limit 5   # 只取五条
```

## 文件

- 一
- 二

| 选项 | |
|---|---|
| `--data` | 数据 |
| `--output` | 结果 |

输入 `/重答`，或 `/帮助 撤销`。
"""


def test_a_translation_differs_in_nothing_that_counts() -> None:
    assert differences(ENGLISH, CHINESE) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("## 文件\n", "", "headings"),
        ("## 文件", "### 文件", "headings"),
        ("--limit 5 ", "--limit 6 ", "code blocks"),
        ("medchat infer", "medchat ask", "code blocks"),
        ("| `--output` | 结果 |\n", "", "tables"),
        ("| `--data` | 数据 |", "| `--data` | 数据 | 多 |", "tables"),
        ("| `--data` | 数据 |", "| `--date` | 数据 |", "tables"),
        ("5,000", "500", "figures"),
        ("1.5 GiB", "1.6 GiB", "figures"),
        ("用 `--limit` 取", "取", "code"),
        ("- 二\n", "", "items of lists"),
        ("见[模型](models.md#大小)。", "", "links"),
        ("/重答", "/历史", "code"),
        ("/帮助 撤销", "/帮助 历史", "code"),
    ],
)
def test_an_edit_of_one_language_alone_is_told_with_its_section(old: str, new: str, told: str) -> None:
    assert CHINESE.count(old) == 1
    found = differences(ENGLISH, CHINESE.replace(old, new))
    assert any(told in line and ("Runs" in line or "Files" in line or "文件" in line) for line in found), (
        found
    )
    found = differences(CHINESE.replace(old, new), CHINESE)
    assert any(told in line for line in found), found
