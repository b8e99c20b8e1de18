"""`/stats` names each figure that a model gives of itself in the interface language."""

from __future__ import annotations

from pathlib import Path

import pytest
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_llama.backbone import LlamaBackbone
from pseudo_terminal import terminal
from switching_chat import ask, switching_chat

from medchat.api import Backbone, LoadOptions
from medchat.api.option import declared_options
from medchat.repl.context_commands import FACT_NAMES


def names_of_options(backbone: Backbone) -> set[str]:
    """The backbone's own options that state what they are called."""
    declared = declared_options(backbone.load_keys)
    return {name for name, option in declared.items() if {"zh", "en"} <= option.summary.keys()}


@pytest.mark.torch
@pytest.mark.parametrize("family", [ChatGLMBackbone, LlamaBackbone, BloomBackbone, HuoziBackbone])
def test_no_figure_of_a_shipped_family_is_shown_by_its_key(family: type[Backbone], tmp_path: Path) -> None:
    backbone = family()
    backbone.tiny(tmp_path / "model", corpus=["头痛怎么办？", "多休息。"] * 9)
    model = backbone.load(LoadOptions(tmp_path / "model", device="cpu", dtype="float32"))
    assert model.describe().keys() <= FACT_NAMES.keys() | names_of_options(backbone)
    model.close()


@pytest.mark.terminal
def test_the_last_answer_of_a_session_that_goes_on_is_there_with_what_it_was_said_with(
    tmp_path: Path,
) -> None:
    with switching_chat(tmp_path, "--template", "bare", "--temperature", "0.3", "--seed", "7") as screen:
        ask(screen, "头痛", "one：头痛")
        screen.type("\x04")
        assert screen.exit_code() == 0
    with switching_chat(tmp_path, "-c", "--model", "two", columns=120, rows=50) as screen:
        screen.enter("/统计")
        screen.wait_for(
            "上一个回答：", "回答者：switching one", "模板：bare", "temperature 0.3", "seed 7", "正常结束"
        )


@pytest.mark.terminal
def test_the_names_are_those_of_the_interface(tmp_path: Path) -> None:
    names = ("模型家族", "计算精度", "计算设备", "适配器", "说明", "轮数")
    with terminal(tmp_path, rows=40) as screen:
        screen.enter("/stats")
        screen.wait(
            lambda: all(any(row.strip().startswith(name) for row in screen.shown()) for name in names)
        )
