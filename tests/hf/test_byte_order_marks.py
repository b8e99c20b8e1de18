"""A byte order mark, which editors on Windows put before a text, changes nothing in any small file of any family."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from method_runs import BACKBONES

from medchat.api import LoadOptions, Text
from medchat.hf import TransformersBackbone
from medchat.hf.tiny import write_tiny_transformer

pytestmark = pytest.mark.torch


class Qwen(TransformersBackbone):
    """A chat model of transformers."""

    name = "qwen"
    model_types = ("qwen2",)

    def tiny(self, path: Path, **shape: object) -> None:
        write_tiny_transformer(path, model_type="qwen2")


FAMILIES = {**BACKBONES, "transformers": Qwen()}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mark_before_any_json_file_of_a_folder_changes_nothing(tmp_path: Path, family: str) -> None:
    backbone, folder = FAMILIES[family], tmp_path / "model"
    backbone.tiny(folder, corpus=["头痛怎么办？多休息。"] * 9, vocabulary_size=300, layout="sharded_bin")

    def read() -> tuple[object, ...]:
        model = backbone.load(LoadOptions(folder))
        try:
            return model.describe(), model.count((Text("头痛怎么办？"),)), backbone.inspect(folder)
        finally:
            model.close()

    plain = read()
    files = list(folder.glob("*.json"))
    assert folder / "config.json" in files
    for file in files:
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    assert read() == plain
