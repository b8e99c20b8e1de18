"""A miniature to evaluate, made once. A test module states `pytest_plugins = ("evaluated_models",)`."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a miniature LLaMA with random weights."""
    from medchat_llama.backbone import LlamaBackbone

    folder = tmp_path_factory.mktemp("eval") / "tiny"
    LlamaBackbone().tiny(folder, corpus=["下面是一道单项选择题，请选出正确的选项。ABCDE"] * 3, seed=2)
    return folder
