"""A chat model of transformers as a backbone of a few lines, held against transformers itself."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from method_runs import RATES, hashes
from peft import LoraConfig, get_peft_model
from sft_watcher import Watcher
from transformers import AutoModelForCausalLM, AutoTokenizer

from medchat.api import Example, Finish, GenerationConfig, LoadOptions, SFTData, SFTOptions, Text, Turn
from medchat.errors import CheckpointError, UsageError
from medchat.hf import TransformersBackbone
from medchat.inference.adapters.linears import linear_sizes
from medchat.inference.chat_model import TokenChatModel

pytestmark = pytest.mark.torch

#: SmolLM2 is of LLaMA's architecture, with a tied head.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "qwen2": {},
    "gpt2": {},
    "llama": {"tie_word_embeddings": True},
    "gemma3_text": {"head_dim": 16, "sliding_window": 8},
}
GREEDY = GenerationConfig(greedy=True, max_new_tokens=12)
TALK = (Turn("头痛怎么办？", "多休息，不行就看医生。"), Turn("  How long? ", "three days\n"))


class Tiny(TransformersBackbone):
    name = "tiny-hf"
    summary: ClassVar[Mapping[str, str]] = {"zh": "", "en": ""}
    model_types = tuple(KINDS)


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hf") / request.param
    kind = type("Kind", (Tiny,), {"model_types": (request.param,)})
    kind().tiny(path, **KINDS[request.param])
    # As the library itself saves it: with its own way of cutting text for this architecture, and its files.
    AutoTokenizer.from_pretrained(path).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> TokenChatModel:
    loaded = Tiny().load(options(folder))
    assert isinstance(loaded, TokenChatModel)
    return loaded


def options(folder: Path, *adapters: Path, **changes: Any) -> LoadOptions:
    return LoadOptions(folder, adapters=adapters, device="cpu", **{"dtype": "float32", **changes})


def messages(question: str, system: str = "") -> list[dict[str, str]]:
    found = [{"role": "system", "content": system}] if system else []
    for turn in TALK:
        found += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
    return [*found, {"role": "user", "content": question}]


def said(model: TokenChatModel, question: str, config: GenerationConfig = GREEDY) -> str:
    prompt = [Text(question)]
    return "".join(delta.text for delta in model.stream(prompt, config, threading.Event()))


@pytest.mark.parametrize("question", ["头痛怎么办？", "a  b\n\n\nc ", "🙂👨‍👩‍👧 ¿qué?", "ï'll 12345"])
def test_a_prompt_has_the_ids_of_apply_chat_template(
    folder: Path, model: TokenChatModel, question: str
) -> None:
    ids = model.prompt_ids(Tiny().template(options(folder)).render(TALK, question, "be brief"))
    library = AutoTokenizer.from_pretrained(folder)
    wanted = library.apply_chat_template(messages(question, "be brief"), add_generation_prompt=True)
    assert list(ids) == wanted["input_ids"]


def test_words_of_a_conversation_never_become_a_control_token(folder: Path, model: TokenChatModel) -> None:
    template, controls = Tiny().template(options(folder)), frozenset(model.tokenizer.special_ids.values())

    def used(question: str) -> list[int]:
        return [number for number in model.prompt_ids(template.render((), question)) if number in controls]

    plain = used("?")
    for token in model.tokenizer.special_ids:
        for question in (token, f"a{token}b", f"{token} {token}", token[:-1] + token):
            assert used(question) == plain


def test_the_logits_are_those_of_transformers(folder: Path, model: TokenChatModel) -> None:
    library = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode():
        assert torch.equal(model.model(ids).logits, library(ids).logits)


@pytest.mark.parametrize("question", ["头痛怎么办？", "🙂"])
def test_an_answer_never_ends_in_half_a_character(model: TokenChatModel, question: str) -> None:
    cut = 0
    for length in range(1, 9):
        config = replace(GREEDY, max_new_tokens=length)
        *_, last = deltas = list(model.stream([Text(question)], config, threading.Event()))
        answer = "".join(delta.text for delta in deltas)
        assert not answer.endswith("\ufffd")
        cut += last.completion_tokens == length
        assert model.generate_batch([[Text(question)]], config)[0].text == answer
        cancel, pieces = threading.Event(), []
        for delta in model.stream([Text(question)], replace(GREEDY, max_new_tokens=9), cancel):
            pieces.append(delta.text)
            if delta.completion_tokens >= length:
                cancel.set()
        assert not "".join(pieces).endswith("\ufffd")
    assert cut


def test_an_answer_over_the_kept_cache_is_the_one_from_afresh(folder: Path, model: TokenChatModel) -> None:
    template = Tiny().template(options(folder))
    first = template.render((), "头痛怎么办？")
    answer = "".join(delta.text for delta in model.stream(first, GREEDY, threading.Event()))
    second = template.render((Turn("头痛怎么办？", answer),), "要吃药吗？")
    kept = list(model.stream(second, GREEDY, threading.Event()))
    if "gemma" not in folder.name:  # a sliding window forgets what it would need
        assert kept[-1].reused_tokens > 10
    fresh = list(Tiny().load(options(folder)).stream(second, GREEDY, threading.Event()))
    assert fresh[-1].reused_tokens == 0
    assert [delta.text for delta in kept] == [delta.text for delta in fresh]


@pytest.mark.parametrize("window", [12, 512])
def test_a_sliding_window_keeps_the_cache_until_the_talk_is_longer(tmp_path: Path, window: int) -> None:
    kind = type("Kind", (Tiny,), {"model_types": ("gemma3_text",)})()
    kind.tiny(tmp_path / "tiny", head_dim=16, sliding_window=window)
    asked, fresh = (kind.load(options(tmp_path / "tiny")) for _ in range(2))
    first, second = ([Text(question)] for question in ("头痛怎么办？", "头痛怎么办？要吃药吗？"))
    list(asked.stream(first, GREEDY, threading.Event()))
    kept = list(asked.stream(second, GREEDY, threading.Event()))
    assert kept[-1].prompt_tokens > 12
    assert kept[-1].reused_tokens == (10 if window == 512 else 0)
    assert [delta.text for delta in kept] == [
        delta.text for delta in fresh.stream(second, GREEDY, threading.Event())
    ]


def test_batches_answer_as_streams_do(model: TokenChatModel) -> None:
    questions = ["头", "what should I do about a headache", "胃不舒服的时候，饮食要清淡"]
    together = model.generate_batch([[Text(question)] for question in questions], GREEDY)
    assert [one.text for one in together] == [said(model, question) for question in questions]


def test_the_score_is_that_of_the_logits(folder: Path, model: TokenChatModel) -> None:
    prompt, target = (
        model.prompt_ids([Text("头痛")]),
        [*model.tokenizer.encode("休息"), model.tokenizer.eos_token_id],
    )
    with torch.inference_mode():
        logits = model.model(torch.tensor([[*prompt, *target]])).logits[0].log_softmax(-1)
    wanted = [logits[len(prompt) + at - 1, token].item() for at, token in enumerate(target)]
    assert model.score([Text("头痛")], "休息") == pytest.approx(wanted, abs=1e-4)


def test_the_folder_is_recognised_from_small_files(folder: Path) -> None:
    card = Tiny().inspect(folder)
    assert card is not None
    assert (card.backbone, card.family, card.template) == ("tiny-hf", folder.name, folder.name)
    library = AutoModelForCausalLM.from_pretrained(folder)
    assert card.parameters == library.num_parameters()


@pytest.mark.parametrize("content", ['{"model_type": "bert"}', "{", "[]", '{"model_type": ["qwen2"]}', ""])
def test_a_strange_folder_is_none_of_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert Tiny().inspect(tmp_path) is None


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    path = tmp_path / "copy"
    Tiny().tiny(path)
    return path


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 3},
        {"num_hidden_layers": 10**9},
        {"hidden_size": 32},
        {"vocab_size": 10},
        {"num_key_value_heads": 10**8},
        {"hidden_act": "no such thing"},
        {"max_position_embeddings": "many"},
        {"model_type": "mamba"},
    ],
)
def test_a_config_that_does_not_fit_is_refused_before_weights_are_read(
    copy: Path, changes: dict[str, Any]
) -> None:
    edit(copy / "config.json", **changes)
    with pytest.raises(CheckpointError):
        Tiny().check(options(copy))


def test_keys_that_choose_code_have_no_effect(copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit(9)")
    edit(
        copy / "config.json",
        auto_map={"AutoConfig": "evil.X", "AutoModelForCausalLM": "evil.Y"},
        attn_implementation="kernels-community/evil",
        _attn_implementation="kernels-community/evil",
        dtype="float16",
    )
    loaded = Tiny().load(options(copy))
    assert loaded.describe()["dtype"] == "float32"
    assert "evil" not in sys.modules


def test_an_answer_ends_where_generation_config_says_so(copy: Path) -> None:
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(3, 600))}))
    loaded = Tiny().load(options(copy))
    last = list(loaded.stream([Text("?")], GREEDY, threading.Event()))[-1]
    assert (last.finish, last.completion_tokens) == (Finish.STOP, 0)


def test_rows_without_a_token_are_never_chosen(copy: Path, tmp_path: Path) -> None:
    taught = json.loads((copy / "tokenizer.json").read_text())
    merges = taught["model"]["merges"]
    taught["model"]["merges"] = merges[:20]
    taught["model"]["vocab"] = {token: at for token, at in taught["model"]["vocab"].items() if at < 259 + 20}
    (copy / "tokenizer.json").write_text(json.dumps(taught))
    loaded = Tiny().load(options(copy))
    assert isinstance(loaded, TokenChatModel)
    config = GenerationConfig(max_new_tokens=40, temperature=2.0, top_p=1.0, seed=1)
    seen = list(loaded.stream([Text("?")], config, threading.Event()))
    assert seen[-1].completion_tokens > 5
    assert loaded.limits.token_count == 279


def test_a_template_file_goes_before_the_key(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    assert Tiny().template(options(copy)).render((), "x") == (Text("x"),)


def test_weights_without_a_template_are_asked_in_the_plain_one(copy: Path) -> None:
    edit(copy / "tokenizer_config.json", chat_template=None)
    assert Tiny().template(options(copy)).name == "bare"


def test_files_of_the_inner_model_load_too(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "gpt2"
    type("GPT2", (Tiny,), {"model_types": ("gpt2",)})().tiny(path)
    before = said(Tiny().load(options(path)), "头痛")
    stored = load_file(path / "model.safetensors")
    mask = {f"h.{layer}.attn.bias": torch.ones(1, 1, 8, 8) for layer in range(2)}
    inner = {name.removeprefix("transformer."): value for name, value in stored.items()}
    assert all("transformer" not in name for name in inner)
    save_file({**inner, **mask}, path / "model.safetensors")
    assert said(Tiny().load(options(path)), "头痛") == before


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_quantised_weights_take_less_and_answer(copy: Path, quantize: str) -> None:
    loaded = Tiny().load(options(copy, quantize=quantize, engine="torch"))
    assert isinstance(loaded, TokenChatModel)
    layer = loaded.model.get_submodule("model.layers.0.self_attn.q_proj")
    assert layer.weight.dtype == torch.int8
    assert said(loaded, "头痛")


def test_an_architecture_without_plain_linears_is_not_quantised(tmp_path: Path) -> None:
    type("GPT2", (Tiny,), {"model_types": ("gpt2",)})().tiny(tmp_path / "gpt2")
    with pytest.raises(UsageError) as caught:
        Tiny().check(options(tmp_path / "gpt2", quantize="int8"))
    assert "--quantize" in caught.value.remedy


def test_a_lora_that_peft_saved_over_conv1d_gives_its_logits(tmp_path: Path) -> None:
    base, saved = tmp_path / "gpt2", tmp_path / "lora"
    backbone = type("GPT2", (Tiny,), {"model_types": ("gpt2",)})()
    backbone.tiny(base)
    library = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = get_peft_model(library, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    torch.manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(saved)
    ids = torch.arange(3, 23)[None]
    with torch.inference_mode():
        wanted = tuned.eval()(ids).logits
        found = backbone.load(options(base, saved)).model(ids).logits
    torch.testing.assert_close(found, wanted)
    assert not torch.equal(found, AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)(ids).logits)


def test_an_estimate_counts_the_parameters_that_there_are(folder: Path, model: TokenChatModel) -> None:
    targets = ("c_attn",) if folder.name == "gpt2" else ("q_proj", "v_proj")
    chosen = SFTOptions(
        model=folder, output=folder / "out", method="lora", lora_targets=targets, device="cpu"
    )
    recipe = Tiny().recipes["lora"]
    counted = recipe.estimate(chosen, None)
    assert counted is not None
    sizes = [linear_sizes(model.model.get_submodule(name)) for name in _called(model, targets)]
    added = chosen.lora_r * sum(sum(both) for both in sizes if both)
    assert (counted.parameters, counted.trainable) == (model.model.num_parameters() + added, added)
    assert added > 0


def _called(model: TokenChatModel, targets: tuple[str, ...]) -> list[str]:
    return [name for name, _ in model.model.named_modules() if name.rpartition(".")[2] in targets]


@pytest.mark.parametrize(
    "method",
    [
        "lora",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "qlora", "adapter", "ptuning")),
    ],
)
def test_every_method_teaches_it_an_answer(copy: Path, tmp_path: Path, method: str) -> None:
    backbone, before = Tiny(), hashes(copy)
    recipe = backbone.recipes[method]
    chosen = SFTOptions(model=copy, output=tmp_path / "out", method=method, device="cpu", samples=0)
    chosen = replace(chosen, **recipe.defaults)
    chosen = replace(
        chosen, learning_rate=RATES[method], num_epochs=12, batch_size=4, micro_batch_size=4,
        precision="float32", pre_seq_len=4, eval_steps=0, save_steps=-1, max_length=256,
    )  # fmt: skip
    examples = [Example("头痛怎么办？", "多休息")] * 4
    watcher = Watcher()
    report = recipe.run(SFTData(examples), chosen, watcher)
    assert watcher.progress[-1].loss < watcher.progress[0].loss
    assert report.template == copy.name
    assert hashes(copy) == before
    trained = options(report.output) if method == "full" else options(copy, report.output)
    prompt = backbone.template(trained).render((), "头痛怎么办？")
    answer = backbone.load(trained).generate_batch([prompt], GREEDY)[0]
    if method != "ptuning":  # four vectors before a random network do not make it say anything
        # It has learned the end of a turn as well.
        assert (answer.text, answer.finish) == ("多休息", Finish.STOP)
    if method != "full":
        assert_its_base_is_known(backbone, copy, report.output)


def assert_its_base_is_known(backbone: Tiny, base: Path, adapter: Path) -> None:
    """Hold the notes of an adapter just trained against its base as it is, renamed, and changed as well."""

    def notes(model: Path) -> str:
        return " ".join(backbone.load(options(model, adapter)).describe()["notes"])

    assert f"写明是在 {base.name} 上训练的" in notes(base) and "！" not in notes(base)
    renamed = base.rename(base.with_name("renamed"))
    assert f"写明是在 {base.name} 上训练的" in notes(renamed) and "！" not in notes(renamed)
    (renamed / "note.txt").touch()
    assert f"！适配器 {adapter.name} 写明是在 {base.name} 上训练的，现在的模型是 renamed" in notes(renamed)
