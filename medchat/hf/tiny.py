"""Writes a miniature chat model with random weights, as transformers saves one, with a vocabulary and a template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from medchat.hf.token_names import CONFIG, TOKENIZER_CONFIG
from medchat.hf.vocabulary import FILE_NAME
from medchat.inference.write_checkpoint import begin_folder, impossible_shape, write_json, write_weights

#: What a vocabulary is trained on when no corpus is given.
TINY_CORPUS = (
    "下面是一个问题，运用医学知识来正确回答提问.",
    "最近总是咳嗽，喉咙有点痛，需要去医院看看吗？",
    "先观察体温，多喝温水，注意休息；如果超过三天没有好转，请去看医生。",
    "胃不舒服的时候，饮食要清淡，少吃辛辣和油腻的食物。",
    "高血压患者要按时测量血压，不要自己随便停药。",
    "突然胸痛、呼吸困难，或者一侧手脚无力，请马上拨打120。",
    "孩子发烧时要看精神状态，能喝水、能玩，可以先在家观察。",
    "每天走路半小时，晒晒太阳，对身体和心情都有好处！",
    "检查结果要结合症状来看，请把报告带给医生。",
    "这个问题我不能确定，建议到医院做进一步检查。",
    "系统 用户 助手：你好，请问有什么可以帮你？",
    "How are you today? I have a question about my health.",
    "### 问题 ### 回答：0 1 2 3 4 5 6 7 8 9",
)


END, BEGIN_TURN, END_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
#: ChatML, the form of Qwen and SmolLM2.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
#: Large, or a model with a tied head would only ever repeat the last token it read.
_SPREAD = 0.3
_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 2048,
}


def train_byte_level(
    corpus: Iterable[str],
    size: int,
    cut: pre_tokenizers.PreTokenizer,
    specials: Sequence[str],
    more: Sequence[str] = (),
) -> Tokenizer:
    """Return a byte-level BPE vocabulary of at most `size` tokens before `more`, its text cut by `cut`.

    Every string can be encoded: all 256 bytes are in it. `specials` come first, `more` of them last.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_special(token) for token in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Lone surrogates cannot be encoded, and no file holds them.
    tokenizer.train_from_iterator((text.encode("utf-8", "ignore").decode() for text in corpus), trainer)
    tokenizer.add_special_tokens([_special(token) for token in more])
    return tokenizer


#: What its tokenizer_config.json states.
_TOKENIZER = {
    "eos_token": END_TURN,
    "pad_token": END,
    "bos_token": END,
    "tokenizer_class": "PreTrainedTokenizerFast",
    "chat_template": CHATML,
}


def write_tiny_transformer(
    path: Path,
    *,
    model_type: str,
    corpus: Iterable[str] = (),
    seed: int = 0,
    vocabulary_size: int = 600,
    **shape: int,
) -> None:
    """Write a checkpoint folder of that architecture: config, safetensors, vocabulary and a ChatML template.

    The vocabulary is trained on `corpus` (a few sentences of our own if it is empty); `shape` are keys of the
    configuration. The same arguments give the same files. Raises UsageError for an impossible shape or a
    folder that is not empty.
    """
    begin_folder(path)
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = (END, BEGIN_TURN, END_TURN)
    tokenizer = train_byte_level(tuple(corpus) or TINY_CORPUS, vocabulary_size, cut, specials)
    ids = {"eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 0}
    # Some architectures have no key for a size: what is not theirs is left out.
    kind = CONFIG_MAPPING[model_type]
    known = {*kind().to_dict(), *kind.attribute_map}
    sizes: dict[str, Any] = {key: value for key, value in _SIZES.items() if key in known} | shape
    try:
        config = kind(**sizes, **ids, vocab_size=tokenizer.get_vocab_size(), initializer_range=_SPREAD)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # whatever the library makes of sizes that do not fit each other
        raise impossible_shape(sizes, str(error), str(error)) from None
    tied = model.all_tied_weights_keys
    tensors = {name: value for name, value in model.state_dict().items() if name not in tied}
    write_weights(path, tensors, "safetensors")
    write_json(path / CONFIG, {**config.to_diff_dict(), "architectures": [type(model).__name__]})
    (path / FILE_NAME).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    write_json(path / TOKENIZER_CONFIG, _TOKENIZER)


def _special(token: str) -> AddedToken:
    return AddedToken(token, normalized=False, special=True)
