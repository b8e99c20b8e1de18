"""The remote backbone against a server that is not ours: `transformers serve` with a tiny model.

What comes through it is held against the same weights run here.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from child_process import child_environment
from cli_program import Call
from medchat_remote.backbone import RemoteBackbone
from medchat_remote.loading import load_remote_model
from medchat_remote.messages import MessagesTemplate
from openai_server import free_port

from medchat.api import Finish, GenerationConfig, LoadOptions, Text, Turn
from medchat.errors import MedchatError

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.torch

CORPUS = ["头痛怎么办？", "多喝水，多休息。", "还有呢？", "量体温，早点睡。", "用户：助手："] * 4
#: One question a line, for whoever asks with messages.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}：{{ message.content }}\n{% endfor %}assistant："
)


@dataclass(frozen=True)
class Served:
    """A running server and what it serves."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """What `--model` takes."""
        return f"{self.url}#{self.folder}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    write_model(folder)
    port = free_port()
    log = (folder.parent / "log").open("wb")
    environment = child_environment(HF_HUB_OFFLINE="1", HF_HOME=str(folder.parent / "hub"))
    script = "from transformers.cli.transformers import main; main()"
    words = [
        "serve",
        str(folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
        "--dtype",
        "float32",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words], stdout=log, stderr=log, env=environment
    )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", process, folder.parent / "log")
        yield Served(f"http://127.0.0.1:{port}/v1", folder, process)
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def write_model(folder: Path) -> None:
    """Write a random LLaMA of two thin layers with a character vocabulary and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    characters = sorted(
        {character for text in [*CORPUS, CHAT_TEMPLATE, "systemuserassistant：\n"] for character in text}
    )
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        initializer_range=0.5,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config.do_sample = True
    model.save_pretrained(folder)


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
        try:
            with urlopen(url, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.2)


@pytest.fixture(scope="module")
def here(served: Served) -> Any:
    """Answer with the same weights in this process: a function from ids, or messages, to text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(served.folder)
    model = AutoModelForCausalLM.from_pretrained(served.folder, dtype=torch.float32)

    def answer(prompt: str | list[dict[str, str]], tokens: int) -> tuple[str, int, int]:
        if isinstance(prompt, str):
            inputs = tokenizer(prompt, return_tensors="pt")
        else:
            inputs = tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        with torch.inference_mode():
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=tokens)[0]
        length = inputs["input_ids"].shape[1]
        return tokenizer.decode(ids[length:], skip_special_tokens=True), length, len(ids) - length

    return answer


def load(address: str) -> Any:
    return load_remote_model(LoadOptions(Path(address), address=address))


@pytest.fixture(scope="module")
def model(served: Served) -> Iterator[Any]:
    model = load(served.address)
    yield model
    model.close()


def ask(model: Any, prompt: Any, **settings: Any) -> Any:
    deltas = list(model.stream(prompt, GenerationConfig(greedy=True, **settings), threading.Event()))
    return "".join(delta.text for delta in deltas), deltas[-1]


def test_a_greedy_answer_is_what_the_same_weights_say_here(model: Any, here: Any) -> None:
    turns = [Turn("头痛怎么办？", "多喝水，多休息。")]
    messages = [
        {"role": "system", "content": "早点睡。"},
        {"role": "user", "content": "头痛怎么办？"},
        {"role": "assistant", "content": "多喝水，多休息。"},
        {"role": "user", "content": "还有呢？"},
    ]
    text, last = ask(model, MessagesTemplate().render(turns, "还有呢？", "早点睡。"), max_new_tokens=24)
    expected, prompt_tokens, tokens = here(messages, 24)
    assert text == expected and text
    assert (last.prompt_tokens, last.completion_tokens, last.estimated) == (prompt_tokens, tokens, False)
    assert last.finish is (Finish.LENGTH if tokens == 24 else Finish.STOP)


def test_a_named_template_reaches_the_weights_word_for_word(model: Any, here: Any) -> None:
    text, last = ask(model, [Text("用户：头痛怎么办？\n助手：")], max_new_tokens=16)
    expected, prompt_tokens, tokens = here("用户：头痛怎么办？\n助手：", 16)
    assert text == expected and text
    assert (last.prompt_tokens, last.completion_tokens) == (prompt_tokens, tokens)


def test_a_batch_equals_its_questions_asked_alone(model: Any) -> None:
    prompts = [MessagesTemplate().render((), question) for question in ("头痛怎么办？", "还有呢？", "多喝水")]
    config = GenerationConfig(greedy=True, max_new_tokens=12)
    completions = model.generate_batch(prompts, config)
    assert [completion.text for completion in completions] == [
        ask(model, p, max_new_tokens=12)[0] for p in prompts
    ]


def test_the_same_seed_samples_the_same_answer(model: Any) -> None:
    prompt = MessagesTemplate().render((), "头痛怎么办？")

    def sampled(seed: int) -> str:
        config = GenerationConfig(max_new_tokens=24, temperature=1.5, top_p=1.0, seed=seed)
        return "".join(delta.text for delta in model.stream(prompt, config, threading.Event()))

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(1, 6)}) > 1


def test_a_cancelled_answer_does_not_keep_the_next_one_waiting(model: Any) -> None:
    cancel, got = threading.Event(), ""
    prompt = MessagesTemplate().render((), "头痛怎么办？")
    config = GenerationConfig(max_new_tokens=400, temperature=2.0, top_p=1.0)
    for delta in model.stream(prompt, config, cancel):
        got += delta.text
        if got:
            cancel.set()
    assert delta.finish is Finish.CANCELLED
    started = time.monotonic()
    assert ask(model, prompt, max_new_tokens=4)[0]
    assert time.monotonic() - started < 20


def test_a_setting_the_server_does_not_know_is_left_out_and_named(model: Any) -> None:
    config = RemoteBackbone.generation.with_settings(top_k=5, max_new_tokens=4)
    deltas = list(model.stream(MessagesTemplate().render((), "？"), config, threading.Event()))
    assert deltas[-1].rejected == ("top_k",) and "".join(delta.text for delta in deltas)


def test_a_model_it_does_not_serve_is_refused_with_its_words(served: Served) -> None:
    other = load(f"{served.url}#other")
    with pytest.raises(MedchatError) as caught:
        ask(other, MessagesTemplate().render((), "？"))
    other.close()
    assert "other" in caught.value.what and caught.value.remedy


def test_a_user_chats_with_it(served: Served, here: Any, call: Call) -> None:
    flags = ("--backbone", "remote", "--model", served.address, "--greedy", "--max-new-tokens", "12")
    outcome = call("chat", *flags, stdin="头痛怎么办？\n还有呢？\n")
    assert outcome.code == 0, outcome.err
    first = here([{"role": "user", "content": "头痛怎么办？"}], 12)[0]
    roles = ("user", "assistant", "user")
    said = [
        {"role": role, "content": content}
        for role, content in zip(roles, ("头痛怎么办？", first, "还有呢？"), strict=True)
    ]
    assert outcome.out.split() == f"{first}\n{here(said, 12)[0]}".split()
    assert "127.0.0.1" in outcome.err
