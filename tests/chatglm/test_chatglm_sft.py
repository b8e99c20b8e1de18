"""Full fine-tuning of ChatGLM, from a miniature in the published layout to a folder that chats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from built_features import build_features
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_chatglm.recipes import ChatGLMFamily
from medchat_chatglm.tiny import write_tiny_chatglm
from medchat_chatglm.tokenizer import ChatGLMTokenizer
from safetensors.torch import load_file
from sft_watcher import Watcher

from medchat.api import (
    Example,
    GenerationConfig,
    LoadOptions,
    SFTData,
    SFTOptions,
    SFTProgress,
    SFTReport,
    Turn,
)
from medchat.checkpoints.manifest import verify_manifest
from medchat.errors import CheckpointError, DataError, MedchatError, UsageError
from medchat.training.family import FamilyEncoder

pytestmark = pytest.mark.torch

EXAMPLES = (
    Example("头痛怎么办？", "多休息，多喝水。"),
    Example("感冒了要吃药吗？", "先看医生。", (Turn("你好", "你好！"),)),
    Example("晚上睡不好。", "白天走走路，晚上早点睡。"),
    Example("血压怎么量？", "安静的时候量。"),
)
CORPUS = [text for example in EXAMPLES for text in (example.question, example.answer)]


def base(folder: Path, generation: str = "v11") -> Path:
    write_tiny_chatglm(folder / "base", corpus=CORPUS, generation=generation, hidden_size=32, num_layers=2)
    return folder / "base"


def options(folder: Path, **changes: Any) -> SFTOptions:
    plain = SFTOptions(
        model=folder / "base",
        output=folder / "out",
        learning_rate=5e-3,
        num_epochs=2,
        batch_size=2,
        micro_batch_size=2,
        logging_steps=1,
        samples=0,
        device="cpu",
    )
    return replace(plain, **changes)


def run(wanted: SFTOptions, examples: tuple[Example, ...] = EXAMPLES) -> tuple[SFTReport, list[SFTProgress]]:
    watcher = Watcher()
    report = ChatGLMBackbone().recipes["full"].run(SFTData(examples), wanted, watcher)
    return report, watcher.progress


def config_of(folder: Path) -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize(
    ("generation", "rule", "template"), [("v11", "v11", "chatglm_rounds"), ("v0", "med", "med_chatglm")]
)
def test_the_output_is_a_checkpoint_that_knows_how_it_was_trained(
    tmp_path: Path, generation: str, rule: str, template: str
) -> None:
    source = base(tmp_path, generation)
    report, progress = run(options(tmp_path))
    output = tmp_path / "out"
    assert report.output == output
    assert (report.steps, report.examples) == (4, len(EXAMPLES))
    assert [row.step for row in progress] == [1, 2, 3, 4]
    assert sorted(path.name for path in output.iterdir()) == [
        ".lock",
        "config.json",
        "ice_text.model",
        "manifest.json",
        "metrics.jsonl",
        "model.safetensors",
        "run.json",
        "tokenizer_config.json",
        "watched.txt",
    ]
    config = config_of(output)
    assert config["medchat_position_rule"] == rule
    assert config["medchat_template"] == template
    assert config["torch_dtype"] == "float32"
    kept = {key: value for key, value in config_of(source).items() if key != "torch_dtype"}
    assert kept.items() <= config.items()
    assert (output / "ice_text.model").read_bytes() == (source / "ice_text.model").read_bytes()
    manifest = verify_manifest(output)
    assert (manifest["backbone"], manifest["method"], manifest["report"]["steps"]) == ("chatglm", "full", 4)
    assert "watched.txt" in manifest["files"]
    lines = (output / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [row.loss for row in progress]

    backbone = ChatGLMBackbone()
    load = LoadOptions(output, device="cpu", dtype="float32")
    model = backbone.load(load)
    assert backbone.template(load).name == template
    assert model.describe()["rule"] == rule
    (completion,) = model.generate_batch(
        [backbone.template(load).render((), "头痛怎么办？")], GenerationConfig(greedy=True, max_new_tokens=4)
    )
    assert completion.completion_tokens <= 4


def test_every_weight_was_trained(tmp_path: Path) -> None:
    base(tmp_path)
    run(options(tmp_path))
    before: dict[str, torch.Tensor] = {}
    for shard in (tmp_path / "base").glob("*.bin"):
        before |= torch.load(shard, weights_only=True)
    after = load_file(tmp_path / "out" / "model.safetensors")
    stored_once = {name for name in before if not name.endswith("inv_freq")} - {"lm_head.weight"}
    assert set(after) == stored_once
    unmoved = [name for name in after if torch.equal(after[name], before[name].float())]
    assert unmoved == []


def test_training_prompts_are_the_ids_that_chat_makes(tmp_path: Path) -> None:
    """For every template: with turns and without, against the loaded model's own count and tokenizer."""
    for generation in ("v11", "v0"):
        folder = tmp_path / generation
        load = LoadOptions(base(folder, generation))
        backbone = ChatGLMBackbone()
        template, tokenizer = backbone.template(load), ChatGLMTokenizer.from_folder(load.model)
        made = build_features(EXAMPLES, template, FamilyEncoder(tokenizer, tokenizer.eos_token_id), 256)
        for feature, example in zip(made.features, EXAMPLES, strict=True):
            chat = tokenizer.build_prompt(template.render(example.turns, example.question))
            assert list(feature.prompt_ids) == chat
            assert tokenizer.decode(feature.answer_ids).strip() == example.answer
            assert feature.answer_ids[-1] == tokenizer.eos_token_id


def test_scores_of_the_trained_answers_rise_by_what_the_loss_fell(tmp_path: Path) -> None:
    """The loss is the mean of the very log-probabilities that `score` gives: same prompt, mask and rule."""
    base(tmp_path)
    # A vanishing learning rate: the first logged loss is that of the untouched model on all examples.
    report, _ = run(options(tmp_path, learning_rate=1e-9, num_epochs=1, batch_size=4, micro_batch_size=4))
    backbone, load = ChatGLMBackbone(), LoadOptions(tmp_path / "base", device="cpu", dtype="float32")
    model, template = backbone.load(load), backbone.template(load)
    scores = [
        score
        for example in EXAMPLES
        for score in model.score(template.render(example.turns, example.question), example.answer)
    ]
    assert len(scores) == report.label_tokens
    assert report.first_loss == pytest.approx(-sum(scores) / len(scores), rel=1e-4)


def test_one_seed_is_one_checkpoint(tmp_path: Path) -> None:
    base(tmp_path)
    for name in ("one", "two"):
        run(options(tmp_path, output=tmp_path / name))
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_the_original_med_recipe_trains_and_states_its_rule(tmp_path: Path) -> None:
    path = base(tmp_path, "v0") / "config.json"
    path.write_text(json.dumps(config_of(path.parent) | {"medchat_position_rule": "v11"}), encoding="utf-8")
    report, _ = run(options(tmp_path, collator="med"))
    assert config_of(tmp_path / "out")["medchat_position_rule"] == "med"
    assert report.last_loss > 0


def test_another_rule_is_trained_and_stated(tmp_path: Path) -> None:
    base(tmp_path, "v0")
    run(options(tmp_path, extra={"rule": "v11"}))
    assert config_of(tmp_path / "out")["medchat_position_rule"] == "v11"


def test_an_untied_head_is_trained_and_stored(tmp_path: Path) -> None:
    source = base(tmp_path)
    config = {**config_of(source), "tie_word_embeddings": False}
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    run(options(tmp_path))
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert not torch.equal(after["lm_head.weight"], after["transformer.word_embeddings.weight"])


# ---------------------------------------------------------------- what goes wrong leaves nothing


def assert_nothing_left(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["base"]


def test_an_existing_output_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    monkeypatch.setattr(ChatGLMFamily, "load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UsageError) as caught:
        run(options(tmp_path))
    assert "--output" in caught.value.remedy
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    base(tmp_path)
    watcher = Watcher(react=lambda event: isinstance(event, SFTProgress) and watcher.cancel.set())
    recipe = ChatGLMBackbone().recipes["full"]
    with pytest.raises(MedchatError) as caught:
        recipe.run(SFTData(EXAMPLES), options(tmp_path), watcher)
    assert "--resume" in caught.value.remedy
    assert not (tmp_path / "out" / "config.json").exists()
    report, _ = run(options(tmp_path, resume=True))
    assert 0 < report.resumed_from < report.steps
    run(options(tmp_path, output=tmp_path / "at once"))
    stopped, at_once = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "at once"))
    assert stopped == at_once


def test_a_diverged_run_leaves_its_log_alone_and_names_its_batch(tmp_path: Path) -> None:
    base(tmp_path)
    with pytest.raises(MedchatError) as caught:
        run(options(tmp_path, learning_rate=1e38, warmup_ratio=0.0, num_epochs=9))
    assert "--learning-rate" in caught.value.remedy
    assert (
        not list((tmp_path / "out").glob("*.safetensors")) and (tmp_path / "out" / "metrics.jsonl").is_file()
    )


def test_a_checkpoint_that_reloads_as_another_model_is_not_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base(tmp_path)
    written = ChatGLMFamily.write_small_files

    def other_norm(*arguments: Any) -> dict[str, Any]:
        return {**written(*arguments), "layernorm_epsilon": 0.5}

    monkeypatch.setattr(ChatGLMFamily, "write_small_files", other_norm)
    with pytest.raises(MedchatError):
        run(options(tmp_path))
    assert not {"config.json", "model.safetensors", "manifest.json"} & {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    source = base(tmp_path)
    config = {**config_of(source), "quantization_bit": 4}
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UsageError):
        run(options(tmp_path))
    assert_nothing_left(tmp_path)


def test_unknown_collators_and_missing_models_are_told(tmp_path: Path) -> None:
    base(tmp_path)
    with pytest.raises(UsageError) as caught:
        run(options(tmp_path, collator="modern"))
    assert "med" in caught.value.remedy
    with pytest.raises(CheckpointError):
        run(options(tmp_path, model=tmp_path / "nowhere"))
    with pytest.raises(DataError):
        run(options(tmp_path, max_length=8))
    assert_nothing_left(tmp_path)
