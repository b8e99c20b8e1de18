"""What fine-tuning writes, read by the libraries it is the layout of; and the form it was trained in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_checkpoints import grow
from medchat_bloom.huozi.prompts import END, HUOZI
from medchat_chatglm.prompts import MED_CHATGLM
from medchat_llama.backbone import LlamaBackbone
from medchat_llama.prompts import MED_ALLDATA
from method_runs import (
    BACKBONES,
    EXAMPLES,
    base,
    load,
    loading,
    options,
    plain_base,
    prompt_logits,
    recipe,
    run,
)
from peft import PeftModel
from safetensors.torch import load_file
from sft_watcher import Watcher
from transformers import AutoModelForCausalLM

from medchat.api import Control, Example, LoadOptions, PromptTemplate, SFTData, Text
from medchat.checkpoints.stated_template import FILE_NAME
from medchat.cli.program import run as program
from medchat.errors import MedchatError
from medchat.templates import load_template, same_template

pytestmark = pytest.mark.torch

slow = pytest.mark.slow

JSON_FORM = (
    '{"prompt_no_input": "病人：{instruction}\\n医生：", '
    '"prompt_input": "{input}|{instruction}", "stop": ["病人"]}'
)
JINJA_FORM = "{% for m in messages %}{{ m.role }}>{{ m.content }}\n{% endfor %}assistant>"


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("llama", "lora"),
        ("bloom", "ptuning"),
        pytest.param("llama", "ptuning", marks=slow),
        pytest.param("bloom", "lora", marks=slow),
    ],
)
def test_peft_loads_the_adapter_and_answers_the_same(family: str, method: str, tmp_path: Path) -> None:
    base(family, tmp_path)
    report, _ = run(family, tmp_path, method, prefix_projection=method == "ptuning" and family == "bloom")
    ours = prompt_logits(load(family, loading(tmp_path, report)))
    theirs = plain_base(family, tmp_path)
    wrapped = PeftModel.from_pretrained(theirs.model, report.output).eval()
    ids = theirs.tokenizer.build_prompt([Text("头痛怎么办？")])
    with torch.inference_mode():
        logits = wrapped(input_ids=torch.tensor([ids])).logits[0]
    assert torch.allclose(ours, logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", pytest.param("bloom", marks=slow)])
def test_transformers_loads_the_whole_model_with_the_right_ids(family: str, tmp_path: Path) -> None:
    base(family, tmp_path)
    report, _ = run(family, tmp_path, "full")
    ours = load(family, loading(tmp_path, report))
    theirs, found = AutoModelForCausalLM.from_pretrained(report.output, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    ids = ours.tokenizer.build_prompt([Text("头痛怎么办？")])
    with torch.inference_mode():
        logits = theirs.eval()(input_ids=torch.tensor([ids])).logits[0]
    assert torch.allclose(prompt_logits(ours), logits, atol=1e-5, rtol=1e-5)
    config = json.loads((report.output / "config.json").read_text())
    pad = {"llama": 0, "bloom": 3}[family]
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, pad)
    stated = json.loads((report.output / "generation_config.json").read_text())
    assert stated == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": pad}
    # The published base of LLaMA states empty special tokens, which made every special id 0.
    tokenizer = json.loads((report.output / "tokenizer_config.json").read_text())
    assert (tokenizer["bos_token"], tokenizer["eos_token"], tokenizer["unk_token"]) == (
        "<s>",
        "</s>",
        "<unk>",
    )


# ---------------------------------------------------------------- the form


def given(folder: Path, name: str) -> PromptTemplate:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(JSON_FORM if name.endswith(".json") else JINJA_FORM, encoding="utf-8")
    return load_template(path)


@pytest.mark.parametrize(
    ("family", "method", "name"),
    [
        ("llama", "lora", "clinic.json"),
        ("chatglm", "full", "clinic.jinja"),
        pytest.param("llama", "full", "clinic.jinja", marks=slow),
        pytest.param("chatglm", "ptuning", "clinic.jinja", marks=slow),
        pytest.param("bloom", "adapter", "clinic.json", marks=slow),
        pytest.param("huozi", "full", "clinic.json", marks=slow),
    ],
)
def test_a_template_file_goes_with_the_result_and_chat_asks_in_it(
    family: str, method: str, name: str, tmp_path: Path
) -> None:
    base(family, tmp_path)
    form = given(tmp_path / "forms", name)
    report, watcher = run(family, tmp_path, method, template=form)
    (tmp_path / "forms" / name).unlink()
    found = BACKBONES[family].template(loading(tmp_path, report))
    assert (found.name, found.stop, found.multi_turn) == (form.name, form.stop, form.multi_turn)
    for example in EXAMPLES:
        expected = form.render(example.turns, example.question)
        assert found.render(example.turns, example.question) == expected
    assert not [event for event in watcher.events if "--template" in str(event)]


@pytest.mark.parametrize("family", ["chatglm", "llama"])
@pytest.mark.parametrize("name", ["clinic.json", "med_template.json", "clinic.jinja"])
def test_a_form_of_ones_own_goes_on_from_result_to_result_with_its_every_part(
    family: str, name: str, tmp_path: Path
) -> None:
    """What is trained over a result in such a form is in that form again, records with an `input` included."""
    base(family, tmp_path)
    form, few = given(tmp_path / "forms", name), {"num_epochs": 1, "warmup_ratio": 0.0}
    first, _ = run(family, tmp_path, "full", template=form, **few)
    second, watcher = run(family, tmp_path, "full", model=first.output, output=tmp_path / "two", **few)
    found = BACKBONES[family].template(loading(tmp_path, second))
    assert same_template(found, form) and found.name == form.name == second.template
    assert not [event for event in watcher.events if "--template" in str(event)]


def test_the_special_tokens_of_a_jinja_form_stay_control_tokens_in_what_is_trained_on(tmp_path: Path) -> None:
    base("bloom", tmp_path)
    path = tmp_path / "form.jinja"
    path.write_text("{% for m in messages %}{{ m.content }}</s>{% endfor %}", encoding="utf-8")
    form = load_template(
        path, specials=lambda: BACKBONES["bloom"].special_tokens(LoadOptions(tmp_path / "base"))
    )
    report, _ = run("bloom", tmp_path, "full", template=form, num_epochs=1, warmup_ratio=0.0)
    wanted = options("bloom", tmp_path, "full", model=report.output)
    assert Control("</s>") in form.render((), "?")
    assert recipe("bloom", "full").template(wanted).render((), "?") == form.render((), "?")


@pytest.mark.parametrize("family", ["chatglm", "llama"])
def test_a_form_that_nothing_can_hold_costs_no_trained_weights(family: str, tmp_path: Path) -> None:
    """It is code of another plugin: chat asks in the family's own, and the run says what to type."""
    base(family, tmp_path)
    few = {"num_epochs": 1, "warmup_ratio": 0.0}
    first, _ = run(family, tmp_path, "full", template=given(tmp_path / "forms", "clinic.json"), **few)
    foreign = MED_ALLDATA if family == "chatglm" else MED_CHATGLM
    more = {**few, "model": first.output, "output": tmp_path / "two"}
    report, watcher = run(family, tmp_path, "full", template=foreign, **more)
    assert load(family, loading(tmp_path, report))
    assert [event for event in watcher.events if f"--template {foreign.name}" in str(event)]


def test_a_shipped_form_is_named_and_not_copied(tmp_path: Path) -> None:
    base("chatglm", tmp_path)
    report, _ = run("chatglm", tmp_path, "lora", template=load_template("literature_template"))
    assert not (report.output / FILE_NAME).exists()
    assert BACKBONES["chatglm"].template(loading(tmp_path, report)) is load_template("literature_template")


def test_a_form_that_is_another_plugins_code_is_told_of(tmp_path: Path) -> None:
    base("llama", tmp_path)
    _, watcher = run("llama", tmp_path, "lora", template=MED_CHATGLM)
    assert [event for event in watcher.events if "--template med_chatglm" in str(event)]


@pytest.mark.parametrize(
    "method", ["lora", pytest.param("ptuning", marks=slow), pytest.param("adapter", marks=slow)]
)
def test_the_position_rule_of_an_adapter_is_found_by_chat(method: str, tmp_path: Path) -> None:
    base("chatglm", tmp_path, generation="v0")
    report, _ = run("chatglm", tmp_path, method, extra={"rule": "v11"}, num_epochs=1, warmup_ratio=0.0)
    assert load("chatglm", loading(tmp_path, report)).describe()["rule"] == "v11"
    assert plain_base("chatglm", tmp_path).describe()["rule"] == "med"


def test_huozi_learns_its_own_end_in_its_own_form_and_the_texts_end_in_bentsaos(tmp_path: Path) -> None:
    base("huozi", tmp_path)
    for method, form, end in (("full", "huozi", END.token), ("lora", "bloom_deploy", "</s>")):
        wanted = options("huozi", tmp_path, method)
        shown = recipe("huozi", method).survey(SFTData(EXAMPLES), wanted)
        assert shown.template == form
        assert (shown.preview[-1].text, shown.preview[-1].learned) == (end, True)
    report, _ = run("huozi", tmp_path, "full", num_epochs=1, warmup_ratio=0.0)
    chat = BACKBONES["huozi"].template(loading(tmp_path, report))
    assert chat is HUOZI
    assert Control(END.token) in chat.render((), "?")


# ---------------------------------------------------------------- Chinese-Alpaca, not merged


def test_a_lora_over_an_unmerged_chinese_alpaca_is_its_own_and_needs_it(tmp_path: Path) -> None:
    LlamaBackbone().tiny(tmp_path / "base")
    grow(tmp_path / "base", tmp_path / "alpaca")
    before = {path.name: path.read_bytes() for path in (tmp_path / "alpaca").iterdir()}
    report, _ = run("llama", tmp_path, "lora", adapters=(tmp_path / "alpaca",))
    assert {path.name: path.read_bytes() for path in (tmp_path / "alpaca").iterdir()} == before
    wanted = loading(tmp_path, report, tmp_path / "alpaca")
    both = load("llama", wanted)
    assert BACKBONES["llama"].template(wanted).name == report.template == "med_template"
    below = load("llama", replace(wanted, adapters=wanted.adapters[:1]))
    assert both.model.config.vocab_size == below.model.config.vocab_size
    assert not torch.equal(prompt_logits(both), prompt_logits(below))
    stored = load_file(report.output / "adapter_model.safetensors")
    assert all(".lora_" in name for name in stored)


@slow
def test_full_training_over_an_unmerged_chinese_alpaca_needs_neither_again(tmp_path: Path) -> None:
    LlamaBackbone().tiny(tmp_path / "base")
    grow(tmp_path / "base", tmp_path / "alpaca")
    report, _ = run("llama", tmp_path, "full", adapters=(tmp_path / "alpaca",))
    loaded = load("llama", loading(tmp_path, report))
    grown = (tmp_path / "alpaca" / "tokenizer.model").read_bytes()
    assert (report.output / "tokenizer.model").read_bytes() == grown
    assert (
        loaded.model.config.vocab_size
        == load_file(report.output / "model.safetensors")["lm_head.weight"].shape[0]
    )


def test_a_result_that_chat_would_answer_otherwise_is_not_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classic: a file that loads and holds something else."""
    from medchat.training.methods import lora

    base("llama", tmp_path)
    write = lora.write_adapter

    def halved(tensors: dict[str, torch.Tensor], *others: Any) -> None:
        write({name: tensor / 2 for name, tensor in tensors.items()}, *others)

    monkeypatch.setattr(lora, "write_adapter", halved)
    with pytest.raises(MedchatError):
        run("llama", tmp_path, "lora")
    left = {path.name for path in (tmp_path / "out").iterdir()} if (tmp_path / "out").exists() else set()
    assert not left & {"adapter_config.json", "adapter_model.safetensors", "manifest.json"}


@slow
def test_examples_with_input_and_a_system_text_are_answered_before_and_after(tmp_path: Path) -> None:
    base("llama", tmp_path)
    # One that fills the model's context by itself: it is learned from cut short, and not asked.
    asked = (Example("咳" * 2100, "略。"), Example("总结", "略。", input="患者五十岁"), *EXAMPLES)
    wanted = replace(options("llama", tmp_path, "lora"), samples=2, max_length=4096)
    report = recipe("llama", "lora").run(SFTData(asked), wanted, Watcher())
    assert [sample.question for sample in report.samples] == ["总结", EXAMPLES[0].question]
    assert any(sample.before != sample.after for sample in report.samples)


@pytest.mark.parametrize(
    ("family", "method", "kind"),
    [
        ("chatglm", "ptuning", "CHATGLM_P_TUNING_V2"),
        pytest.param("llama", "ptuning", "PREFIX_TUNING", marks=slow),
        pytest.param("bloom", "adapter", "MEDCHAT_HOULSBY", marks=slow),
        pytest.param("llama", "lora", "LORA", marks=slow),
    ],
)
def test_models_show_tells_what_was_written_and_in_which_form(
    family: str, method: str, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base(family, tmp_path)
    report, _ = run(family, tmp_path, method, precision="float32")
    capfd.readouterr()
    assert program(["models", "show", str(report.output), "--json"], language="en", debug=False) == 0
    shown = json.loads(capfd.readouterr().out)
    assert (shown["kind"], shown["method"], shown["template"]) == ("adapter", kind, report.template)
    assert shown["fault"] is None
    assert shown["weight_bytes"] > 0
