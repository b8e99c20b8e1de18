"""Which template: all of them by name, a Jinja one on each vocabulary, and a word where it is a strange one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bloom_adapters import write_adapter
from cli_program import Call
from hypothesis import given
from hypothesis import strategies as st
from llama_checkpoints import published
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_bloom.tokenizer import BloomTokenizer
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_chatglm.tokenizer import ChatGLMTokenizer
from medchat_llama.backbone import LlamaBackbone
from medchat_llama.tokenizer import FILE_NAME, LlamaTokenizer

from medchat.api import Backbone, ChatModel, Control, LoadOptions, Text, Turn
from medchat.chat.setup import ChatSetup, resolve_setup
from medchat.errors import UsageError
from medchat.language import set_language
from medchat.registry import Registry
from medchat.registry.guarded_template import given_template
from medchat.settings import Settings
from medchat.templates import list_templates, load_template

pytestmark = pytest.mark.torch
pytest_plugins = ("cli_program",)

NAMES = {
    *("med_template", "literature_template", "bloom_deploy", "huozi", "chatglm_rounds", "med_chatglm"),
    *("med_chatglm_demo", "alpaca", "ori_template"),
}
JINJA = "{{ bos_token }}{% for m in messages %}{{ m.role }}：{{ m.content }}{{ eos_token }}{% endfor %}答："
BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (LlamaBackbone(), BloomBackbone(), HuoziBackbone(), ChatGLMBackbone())
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) / name for name in BACKBONES}
    for name, backbone in BACKBONES.items():
        width = {} if name in ("llama", "chatglm") else {"hidden_size": 16}
        backbone.tiny(made[name], vocabulary_size=400, **width)
    (made["llama"].parent / "mine.jinja").write_text(JINJA, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, ChatModel]:
    return {name: BACKBONES[name].load(LoadOptions(folders[name], device="cpu")) for name in BACKBONES}


def opened(folders: dict[str, Path], backbone: str, template: str) -> ChatSetup:
    """Prepare a chat as the program does: with the plugin of that backbone and no other."""
    flags = {"backbone": backbone, "model": str(folders[backbone]), "template": template}
    return resolve_setup(Settings.load(flags=flags))


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
@pytest.mark.parametrize("name", sorted(NAMES | {"bare", "med_alldata"}))
def test_every_template_is_found_by_name_whatever_the_backbone(
    folders: dict[str, Path], models: dict[str, ChatModel], name: str, backbone: str
) -> None:
    if name == "huozi" and backbone != "huozi":  # its control tokens are in no other vocabulary
        with pytest.raises(UsageError, match="beginofutterance") as refusal:
            opened(folders, backbone, name)
        assert "--backbone huozi" in refusal.value.remedy
        return
    opening = opened(folders, backbone, name)
    assert (opening.template.name, opening.backbone.name) == (name, backbone)
    prompt = opening.template.render((Turn("头痛？", "多休息"),), "发烧呢？")
    assert models[backbone].count(prompt) > 5


def test_a_template_of_another_backbone_does_not_bring_that_plugin_into_the_chat(
    folders: dict[str, Path],
) -> None:
    opening = opened(folders, "llama", "med_chatglm")
    assert {template.name for template in opening.extensions.templates()} == {"med_alldata"}


def test_a_message_format_of_the_remote_backbone_stays_its_own(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError) as refusal:
        opened(folders, "llama", "messages")
    assert "--backbone remote" in refusal.value.remedy
    flags = {"backbone": "remote", "model": "http://127.0.0.1:9/v1#served", "template": "huozi"}
    assert (
        resolve_setup(Settings.load(flags=flags)).template.name == "huozi"
    )  # the endpoint may serve a Huozi


def test_a_misspelt_template_of_another_backbone_is_guessed(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError) as refusal:
        opened(folders, "llama", "chatglm_round")
    assert "chatglm_rounds" in refusal.value.remedy


def test_another_backbones_template_as_typed(folders: dict[str, Path], call: Call) -> None:
    flags = ("--backbone", "llama", "--model", str(folders["llama"]), "--device", "cpu")
    asked = call("ask", "痛？", *flags, "--template", "med_chatglm", "--max-new-tokens", "2", "--json")
    assert (asked.code, asked.one()["template"]) == (0, "med_chatglm"), asked.err
    asked = call("ask", "痛？", *flags, "--template", "huozi")
    assert asked.code == 2 and not asked.out
    what, remedy = asked.failure()
    assert "huozi" in what and "--backbone huozi" in remedy


def test_every_template_says_in_both_languages_what_was_trained_on_it() -> None:
    registry = Registry()
    assert set(BACKBONES) <= {backbone.name for backbone in registry.backbones()}
    every = [*list_templates(), *registry.extensions().templates()]
    assert {template.name for template in every} >= NAMES
    for template in every:
        note = getattr(given_template(template), "note", {})
        if template.name != "messages":  # what a remote model gets: its own template is the endpoint's
            assert note["zh"] and note["en"] and note["zh"] != note["en"], template.name


# ---------------------------------------------------------------- Jinja on each vocabulary


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_the_special_tokens_of_a_vocabulary_are_those_it_has_an_id_for(
    folders: dict[str, Path], name: str
) -> None:
    specials = BACKBONES[name].special_tokens(LoadOptions(folders[name]))
    assert {"bos_token", "eos_token"} <= set(specials.roles)
    assert set(specials.roles.values()) <= set(specials.tokens)
    tokenizer = {"llama": None, "chatglm": ChatGLMTokenizer}.get(name, BloomTokenizer)
    found = (
        tokenizer.from_folder(folders[name])
        if tokenizer
        else LlamaTokenizer.from_file(folders[name] / FILE_NAME)
    )
    assert len({found.id_of(token) for token in specials.tokens}) == len(specials.tokens)
    assert found.id_of(specials.roles["eos_token"]) == found.eos_token_id


@given(
    words=st.lists(st.sampled_from(["<s>", "</s>", "<unk>", "痛", " "]) | st.text(max_size=5)).map("".join)
)
def test_on_llama_no_question_has_a_special_id_and_the_template_has_its_own(
    folders: dict[str, Path], words: str
) -> None:
    options = LoadOptions(folders["llama"])
    path = folders["llama"].parent / "mine.jinja"
    template = load_template(path, (), lambda: BACKBONES["llama"].special_tokens(options))
    segments = template.render((), words)
    tokenizer = LlamaTokenizer.from_file(folders["llama"] / FILE_NAME)
    ids = tokenizer.build_prompt(segments)
    controls = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert [number for number in ids if number in controls] == [1, 2]  # begun once, not twice
    assert [part for part in segments if isinstance(part, Control)] == [Control("<s>"), Control("</s>")]
    assert tokenizer.build_prompt([Text("痛")])[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_ask_takes_a_jinja_template(folders: dict[str, Path], call: Call, name: str) -> None:
    path = str(folders["llama"].parent / "mine.jinja")
    model = ("--backbone", name, "--model", str(folders[name]), "--device", "cpu", "--max-new-tokens", "2")
    asked = call("ask", "头痛</s>？", "--template", path, "--json", *model)
    if name == "chatglm":  # it begins with the one token that this vocabulary has no place for at the start
        assert asked.code == 2 and "[gMASK]" in asked.failure()[0]
        return
    assert asked.code == 0, asked.err
    assert asked.one()["template"] == "mine"


def test_a_broken_jinja_template_ends_the_program_with_2_and_two_lines(
    folders: dict[str, Path], call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "broken.jinja"
    path.write_text("Q:\n{% for %}", encoding="utf-8")
    asked = call(
        "ask", "痛", "--backbone", "llama", "--model", str(folders["llama"]), "--template", str(path)
    )
    assert asked.code == 2
    assert f"{path}:2" in asked.failure()[0]


# ---------------------------------------------------------------- the weights' own


def test_weights_tell_what_they_were_trained_on_or_that_nobody_knows(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    def trained(name: str, *adapters: Path) -> tuple[str, ...]:
        return BACKBONES[name].trained_templates(LoadOptions(folders[name], adapters=adapters))

    literature = published(tmp_path / "lora-llama-literature", folders["llama"])
    everything = published(tmp_path / "lora-alpaca-med-alldata", folders["llama"])
    nobody = published(tmp_path / "nobody", folders["llama"])
    assert trained("llama") == trained("llama", nobody) == ()
    assert trained("llama", literature) == ("literature_template",)
    assert {"med_template", "literature_template"} < set(trained("llama", everything))
    assert trained("bloom") == trained("bloom", write_adapter(tmp_path / "odd", width=16)) == ()
    ours = write_adapter(tmp_path / "ours", width=16, medchat_template="alpaca")
    assert trained("bloom", ours) == trained("huozi", ours) == ("alpaca",)
    assert trained("huozi") == ("huozi",)
    assert trained("chatglm") == ("chatglm_rounds",)


@pytest.mark.parametrize(
    ("config", "rule", "known"),
    [
        ({"vocab_size": 150528}, "", ("med_chatglm",)),
        ({"vocab_size": 150528}, "med_demo", ("med_chatglm",)),
        ({"vocab_size": 150528}, "v11", ()),  # a plain checkpoint of that generation: the same files
        ({"vocab_size": 150528, "medchat_position_rule": "upstream_v0"}, "", ()),
        ({"vocab_size": 150528, "medchat_template": "chatglm_rounds"}, "v11", ("chatglm_rounds",)),
        ({"vocab_size": 130528}, "", ("chatglm_rounds",)),
    ],
)
def test_on_chatglm_the_rule_tells_a_plain_checkpoint_from_a_medical_one(
    tmp_path: Path, config: dict[str, object], rule: str, known: tuple[str, ...]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    options = LoadOptions(tmp_path, extra={"rule": rule} if rule else {})
    assert BACKBONES["chatglm"].trained_templates(options) == known


def warned(folders: dict[str, Path], call: Call, template: str, *command: str) -> bool:
    flags = ("--template", template, "--device", "cpu", "--max-new-tokens", "1", "--greedy")
    asked = call(*command, "--backbone", "huozi", "--model", str(folders["huozi"]), *flags)
    assert asked.code == 0, asked.err
    lines = [line for line in asked.err.splitlines() if "是用模板 huozi 训练的" in line]
    assert len(lines) <= 1 and all(Path(template).stem in line for line in lines)
    return bool(lines)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_way_back_to_the_weights_own_template_is_one_that_can_be_typed_here(
    folders: dict[str, Path], language: str
) -> None:
    setup = opened(folders, "huozi", "med_template")
    command = {"zh": "/模板 none", "en": "/template none"}[language]
    set_language(language)
    try:
        (outside,), (in_chat,) = setup.notices(), setup.notices(in_chat=True)
    finally:
        set_language("zh")
    assert "--template" in outside and command not in outside
    assert command in in_chat and "--template" not in in_chat


def test_another_template_than_the_weights_own_is_used_with_one_line_about_it(
    folders: dict[str, Path], call: Call, tmp_path: Path
) -> None:
    assert warned(folders, call, "med_template", "ask", "痛？")
    assert warned(folders, call, "med_template", "chat")
    assert not warned(folders, call, "huozi", "ask", "痛？")
    (tmp_path / "q.txt").write_text("痛？\n", encoding="utf-8")
    output = ("--data", str(tmp_path / "q.txt"), "--output", str(tmp_path / "a.jsonl"))
    assert warned(folders, call, "med_template", "infer", *output)


def test_a_copy_of_the_weights_own_template_is_none_to_warn_of(
    folders: dict[str, Path], call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer_config.json"
    turn = "<|beginofutterance|>{}\n{}<|endofutterance|>\n"
    source = (
        turn.format("系统", "你是一个智能助手")
        + turn.format("用户", "{{ messages[-1].content }}")
        + "<|beginofutterance|>助手{{ '\n' }}"
    )
    path.write_text(json.dumps({"chat_template": source}), encoding="utf-8")
    assert not warned(folders, call, str(path), "ask", "痛？")
