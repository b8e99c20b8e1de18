"""The settings of a fine-tuning run: where each comes from, what is refused, and that they can be read again."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from locations import ROOT

from medchat.api import (
    SCHEDULERS,
    TRACKERS,
    SFTData,
    SFTOptions,
    SFTRecipe,
    SFTReport,
    SFTWatcher,
    option_facts,
)
from medchat.commands.sft.command import command
from medchat.commands.sft.overview import settings_lines
from medchat.errors import CheckpointError, PluginError, UsageError
from medchat.settings.keys import Kind
from medchat.sft_job.batches import batch_layout
from medchat.sft_job.facts import settings_rows
from medchat.sft_job.keys import EXTRA, KEYS, flag_of
from medchat.sft_job.legacy_names import RENAMED, REPLACED, instead_of
from medchat.sft_job.run_file import as_toml, read_run_file, toml_value
from medchat.sft_job.settings import Given, checked_value, choose_recipe, resolve_settings

#: Flags that have to stay, whatever the fields are called.
PROMISED = """--learning-rate --num-epochs --batch-size --micro-batch-size --gradient-accumulation --max-length
--warmup-ratio --scheduler --weight-decay --adam-epsilon --logging-steps --save-steps --eval-steps --save-total
--val-size --seed --method --collator --optimizer --lora-r --lora-alpha --lora-dropout --lora-targets
--gradient-checkpointing --report-to --backbone --model --data --output --resume --dry-run --config"""


class Recipe(SFTRecipe):
    method = "lora"
    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 3e-4, "batch_size": 128}
    collators = ("default", "med")

    def run(self, data: SFTData, options: SFTOptions, watch: SFTWatcher) -> SFTReport:
        raise AssertionError("settings alone train nothing")


def resolved(*layers: Given, processes: int = 1) -> SFTOptions:
    settings = resolve_settings(layers, Recipe(), processes=processes)
    return settings.options(model=Path("m"), output=Path("o"))


# ---------------------------------------------------------------- the table


def test_every_option_of_a_run_is_a_setting_and_every_promised_flag_exists() -> None:
    decided_by_the_command = {"resume", "extra"}
    assert {field.name for field in fields(SFTOptions)} - decided_by_the_command <= set(KEYS)
    flags = {option for parameter in command.params for option in parameter.opts}
    assert set(PROMISED.split()) <= flags
    assert {flag_of(name) for name in KEYS} <= flags


def test_every_default_passes_its_own_check() -> None:
    from medchat.sft_job.settings import checked_value

    for field in fields(SFTOptions):
        if field.name in KEYS and not KEYS[field.name].is_path:
            value = checked_value(field.name, field.default, field.name)
            assert value == field.default and type(value) is type(field.default)


def test_flags_go_over_the_file_over_the_recipe_over_the_built_in() -> None:
    assert (resolved().learning_rate, resolved().seed) == (3e-4, 2023)
    file = {"learning_rate": (1e-3, "a.toml:1"), "seed": (1, "a.toml:2")}
    assert (resolved(file).learning_rate, resolved(file).seed, resolved(file).adam_epsilon) == (1e-3, 1, 1e-8)
    typed = {"learning_rate": (1e-2, "--learning-rate")}
    settings = resolve_settings([typed, file], Recipe()).settings
    assert settings["learning_rate"].value == 1e-2 and settings["seed"].value == 1
    told = {name: settings[name].origin for name in ("learning_rate", "seed", "batch_size", "scheduler")}
    assert told == {
        "learning_rate": "--learning-rate",
        "seed": "a.toml:2",
        "batch_size": "方法 lora",
        "scheduler": "内置",
    }


def test_a_recipe_that_names_an_unknown_setting_is_a_broken_plugin() -> None:
    class Broken(Recipe):
        defaults: ClassVar[Mapping[str, Any]] = {"lerning_rate": 1}

    with pytest.raises(PluginError, match="lerning_rate"):
        resolve_settings([], Broken())


def test_an_unknown_method_or_collator_is_answered_with_those_there_are() -> None:
    recipes = {"lora": Recipe()}
    assert choose_recipe(recipes, "llama", None) is recipes["lora"]
    with pytest.raises(UsageError) as refused:
        choose_recipe(recipes, "llama", "loar", "--method")
    assert "--method lora" in refused.value.remedy
    with pytest.raises(UsageError) as refused:
        resolved({"collator": ("mad", "--collator")})
    assert "default, med" in refused.value.remedy
    with pytest.raises(UsageError, match="没有微调方法"):
        choose_recipe({}, "remote", None)


# ---------------------------------------------------------------- the batch


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 16), st.integers(1, 8))
def test_a_batch_is_its_parts_multiplied(batch: int, micro: int, accumulation: int, processes: int) -> None:
    given_parts = batch_layout(None, micro, accumulation, processes)
    assert given_parts == (micro * accumulation * processes, micro, accumulation)
    alone = batch_layout(batch * processes, None, None, processes, default=(16, micro))
    assert alone[0] == alone[1] * alone[2] * processes == batch * processes and alone[1] <= micro
    for layout in (
        batch_layout(None, micro, None, processes),
        batch_layout(None, None, accumulation, processes),
    ):
        assert layout[0] == layout[1] * layout[2] * processes


@pytest.mark.parametrize(
    ("asked", "processes", "near"),
    [
        ((10, None, None), 4, "--batch-size 8 | --batch-size 12"),
        ((10, 4, None), 1, "--batch-size 8 | --batch-size 12"),
        ((10, None, 4), 1, "--batch-size 8 | --batch-size 12"),
        ((2, None, None), 4, "--batch-size 4"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_do(
    asked: tuple[int | None, int | None, int | None], processes: int, near: str
) -> None:
    with pytest.raises(UsageError) as refused:
        batch_layout(*asked, processes)
    assert refused.value.remedy.endswith(near)


def test_three_parts_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="--gradient-accumulation 3"):
        batch_layout(16, 4, 3)
    assert batch_layout(16, 4, 4) == (16, 4, 4)
    assert batch_layout(4, 8, None) == (4, 4, 1)  # no more than the batch fits into one pass


# ---------------------------------------------------------------- the file


def test_what_is_written_beside_a_result_can_be_read_again(tmp_path: Path) -> None:
    layer: dict[str, tuple[Any, str]] = {
        "learning_rate": (1e-05, "--learning-rate"),
        "lora_targets": (("q_proj", 'o"d\\d'), "--lora-targets"),
        "data": ((str(tmp_path / "数 据.json"),), "--data"),
        "gradient_checkpointing": (True, "--gradient-checkpointing"),
        f"{EXTRA}rule": ("med", "--rule"),
    }
    settings = resolve_settings([layer], Recipe())
    path = tmp_path / "sft.toml"
    path.write_text(as_toml(settings), encoding="utf-8")
    again = resolve_settings([read_run_file(path)], Recipe())
    values = {name: row.value for name, row in settings.settings.items()}
    assert {name: row.value for name, row in again.settings.items()} == values
    # The parts of a batch that follow from others would contradict them on another number of processes.
    assert "gradient_accumulation" not in tomllib.loads(path.read_text(encoding="utf-8"))
    assert resolve_settings([read_run_file(path)], Recipe(), processes=4).value("gradient_accumulation") == 4


@given(
    st.text(),
    st.lists(st.text(), max_size=3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(),
)
def test_every_value_is_written_as_toml_reads_it(
    text: str, several: list[str], number: float, whole: int
) -> None:
    line = [f"a = {toml_value(text)}", f"b = {toml_value(several)}", f"c = {toml_value(number)}"]
    small = whole % 2**63
    read = tomllib.loads("\n".join([*line, f"d = {toml_value(small)}", f"e = {toml_value(True)}"]))
    assert read == {"a": text, "b": several, "c": number, "d": small, "e": True}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("seed = 1\nlerning_rate = 1", 2, "learning_rate"),
        ("seed = 1\n\ncutoff_len = 256", 3, "cutoff_len → max_length"),
        ("resume_from_checkpoint = 'a'", 1, "--resume"),
        ("learning_rate = 'fast'", 1, "数字"),
        ("learning_rate = 0", 1, "(0, 10]"),
        ("num_epochs = true", 1, "数字"),
        ("seed = 1.5", 1, "整数"),
        ("lora_targets = 3", 1, "列表"),
        ("report_to = ['mlflow']", 1, "tensorboard | wandb | swanlab"),
        ("optimizer = 'sgd'", 1, "adamw | adamw8bit | adafactor"),
        ("[extra]\nrule = [3]", 2, "文本"),
        ("seed = ", 1, "device"),
    ],
)
def test_a_wrong_line_of_a_file_is_named_with_what_would_be_right(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        read_run_file(path)
    assert refused.value.where == f"{path}:{line}"
    assert said in refused.value.remedy


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        read_run_file(tmp_path / "none.toml")


def test_paths_in_a_file_are_seen_from_it(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("model = './m'\ndata = ['../d.json', 'plain.json']\nadapters = '~/a'", encoding="utf-8")
    read = {name: value for name, (value, _) in read_run_file(path).items()}
    assert read["model"] == str(tmp_path / "m")
    assert read["data"] == (str(tmp_path.parent / "d.json"), "plain.json")
    assert read["adapters"] == (str(Path.home() / "a"),)


# ---------------------------------------------------------------- the originals' names


def test_what_the_originals_called_a_setting_is_one_of_ours_or_has_an_answer() -> None:
    assert set(RENAMED.values()) <= set(KEYS)
    assert not set(RENAMED) & set(REPLACED)
    flags = {option for parameter in command.params for option in parameter.opts}
    for original in (*RENAMED, *REPLACED):
        told = instead_of("--" + original)
        assert told
        assert set(re.findall(r"--[a-z][a-z0-9-]*[a-z0-9]", told.partition("→")[2])) <= flags, told
    assert instead_of("--learning_rate=3") == "--learning_rate → --learning-rate"
    assert instead_of("--frobnicate") is None


def test_flags_take_the_kind_of_their_key() -> None:
    for parameter in command.params:
        key = KEYS.get(str(parameter.name))
        if key is None:
            continue
        assert isinstance(parameter, click.Option)
        assert parameter.is_flag == (key.kind is Kind.FLAG)
        assert parameter.multiple == (key.kind is Kind.LIST)


# ---------------------------------------------------------------- the page


def rows_of(page: str, section: str) -> dict[str, list[str]]:
    """Return the rows of the tables in one section of a page by their first cell, without its code marks."""
    found = {}
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    for line in text.splitlines():
        if line.startswith("| `"):
            first, *cells = (cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|")))
            found |= {name.strip("` "): cells for name in re.split("[,、]", first)}
    return found


@pytest.mark.parametrize(
    ("page", "section", "language"), [("docs/sft.md", "Settings", 1), ("docs/zh/sft.md", "设置", 0)]
)
def test_the_page_lists_every_flag_with_its_default_and_every_name_of_the_originals(
    page: str, section: str, language: int
) -> None:
    rows = rows_of(page, section)
    defaults = {field.name: field.default for field in fields(SFTOptions)}
    for name, key in KEYS.items():
        stated = rows[flag_of(name)][0].strip("`")
        default = defaults.get(name)
        if not key.is_path and default not in (None, ()):
            assert stated == toml_value(default), name
        assert rows[flag_of(name)][1].replace("\\|", "|").startswith((key.zh, key.en)[language]), name
    for original, name in RENAMED.items():
        if original != name:
            assert rows[original] == [f"`{flag_of(name)}`"]
    for original, words in REPLACED.items():
        assert rows[original] == [words[language] or ("不需要", "not needed")[language]]


@pytest.mark.torch
def test_schedules_and_trackers_are_those_that_the_trainer_takes() -> None:
    from transformers import SchedulerType
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert set(SCHEDULERS) <= {kind.value for kind in SchedulerType}
    assert set(TRACKERS) <= set(INTEGRATION_TO_CALLBACK)


@pytest.mark.torch
def test_what_a_family_decides_stands_in_the_settings() -> None:
    from medchat_bloom.backbone import BloomBackbone
    from medchat_chatglm.backbone import ChatGLMBackbone
    from medchat_llama.backbone import LlamaBackbone

    usual = {"chatglm": ("query_key_value",), "llama": ("q_proj", "v_proj"), "bloom": ("query_key_value",)}
    for backbone in (ChatGLMBackbone(), LlamaBackbone(), BloomBackbone()):
        for method in ("lora", "qlora"):
            settings = resolve_settings([], backbone.recipes[method])
            assert settings.value("lora_targets") == usual[backbone.name]
            told = {name: (value, origin) for name, value, origin in settings_rows(settings)}
            value, origin = told["lora_targets"]
            assert method in origin and f"\nlora_targets = {value}  # {origin}" in as_toml(settings)
            shown = [line.split() for line in settings_lines(settings)]
            assert any(line[:1] == ["lora_targets"] and method in line[-1] for line in shown)
        assert resolve_settings([], backbone.recipes["adapter"]).value("lora_targets") == ()
    typed = {"lora_targets": (("o_proj",), "--lora-targets")}
    assert resolve_settings([typed], LlamaBackbone().recipes["lora"]).value("lora_targets") == ("o_proj",)


@pytest.mark.torch
def test_without_a_method_each_backbone_does_what_its_original_did() -> None:
    from medchat_bloom.backbone import BloomBackbone
    from medchat_bloom.huozi.backbone import HuoziBackbone
    from medchat_chatglm.backbone import ChatGLMBackbone
    from medchat_llama.backbone import LlamaBackbone

    usual = {
        backbone.name: choose_recipe(backbone.recipes, backbone.name, None).method
        for backbone in (ChatGLMBackbone(), LlamaBackbone(), BloomBackbone(), HuoziBackbone())
    }
    assert usual == {"chatglm": "full", "llama": "lora", "bloom": "lora", "huozi": "lora"}


@pytest.mark.torch
@pytest.mark.parametrize("name", sorted(option_facts()))
def test_what_a_field_states_is_its_flag_its_key_and_what_every_run_refuses(name: str) -> None:
    from medchat.training.options import check_options

    facts, key = option_facts()[name], KEYS[name]
    assert (key.zh, key.en, key.allowed, key.choices) == (facts.zh, facts.en, facts.allowed, facts.choices)
    wrong: object = None
    if facts.allowed is not None:
        wrong = facts.allowed.low - (0 if facts.allowed.open_low else 1)
    elif facts.choices:
        wrong = ("nonsense",) if key.kind is Kind.LIST else "nonsense"
    if wrong is None:
        return
    options = SFTOptions(Path("model"), Path("output"))
    check_options(options)
    with pytest.raises(UsageError) as caught:
        check_options(replace(options, **{name: wrong}))
    assert caught.value.what.startswith(flag_of(name))
    with pytest.raises(UsageError):
        checked_value(name, list(wrong) if isinstance(wrong, tuple) else wrong, flag_of(name))
