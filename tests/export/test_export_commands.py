"""`medchat export` from the command line, and what a real llama.cpp makes of the files."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import xllamacpp
from bloom_adapters import write_adapter
from cli_program import Call
from limited_files import files_no_larger_than
from locations import DATA
from medchat_export import gguf_tensors
from medchat_export.gguf_file import Labels, write_gguf
from safetensors.torch import load_file, save_file
from talking_miniatures import FAMILIES, corpus
from transformers import AutoTokenizer

from medchat.api import LoadOptions, Text

pytestmark = pytest.mark.torch
pytest_plugins = ("cli_program",)


def written_records(most: int) -> list[dict[str, Any]]:
    lines = (DATA / "red_flags" / "written.jsonl").read_text(encoding="utf-8").splitlines()[:most]
    assert len(lines) == most
    return [json.loads(line) for line in lines]


def words(*arguments: object) -> list[str]:
    return [str(argument) for argument in arguments]


Post = Callable[[str, Mapping[str, Any]], Any]
#: llama.cpp multiplies in half precision, whatever the file holds.
ALLOWED = 1e-2
#: Texts that tokenizers take apart in ways of their own.
ODD_TEXTS = [
    *("</s><s>头痛<unk>", "[PAD]<pad>[gMASK]", "  两个空格  ", "\u3000全角", "\n\n换行\r\n", "\t制表"),
    *(
        "👨‍👩‍👧‍👦🩺",
        "é e\u0301",
        "①②㎎",
        "３８.５℃",
        "\u200b\ufeff",
        "𠮷野家",
        "ａｂｃ ABC",
        "don't I'LL",
        "1234567890",
        "…——",
    ),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures whose answers vary, with weights of the size that trained ones have."""
    folder = tmp_path_factory.mktemp("export")
    for name in ("llama", "bloom", "huozi"):
        FAMILIES[name].tiny(folder / name, corpus=corpus(), vocabulary_size=3000, layout="safetensors")
        weights = load_file(folder / name / "model.safetensors")
        random = torch.Generator().manual_seed(5)
        drawn = {
            key: torch.randn(value.shape, generator=random).mul(0.12).half() if value.dim() > 1 else value
            for key, value in weights.items()
        }
        for key in drawn:  # a head that is stored beside the equal embedding
            if name != "llama" and key.endswith("word_embeddings.weight") and "lm_head.weight" in drawn:
                drawn["lm_head.weight"] = drawn[key].clone()
        save_file(drawn, folder / name / "model.safetensors", {"format": "pt"})
    return folder


def started(file: Path) -> tuple[xllamacpp.Server, Post]:
    """Start llama.cpp on a file, on loopback; it ends with the object."""
    chosen = xllamacpp.CommonParams()
    chosen.model.path = str(file)
    chosen.n_ctx, chosen.n_parallel, chosen.n_gpu_layers, chosen.warmup = 512, 1, 0, False
    chosen.cpuparams.n_threads, chosen.verbosity = 1, 0
    chosen.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    chosen.cache_type_k = chosen.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(chosen)

    def post(place: str, body: Mapping[str, Any]) -> Any:
        asked = urllib.request.Request(
            server.listening_address + place, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)

    return server, post


def differences(post: Post, loaded: Any, sentences: list[str], steps: int) -> Iterator[float]:
    """Yield for each token the largest difference of log-probabilities among llama.cpp's ten likeliest."""
    for sentence in sentences:
        ids = loaded.tokenizer.build_prompt([Text(sentence)])
        for _ in range(steps):
            body = {"prompt": ids, "n_predict": 1, "n_probs": 10, "temperature": 0.0, "cache_prompt": False}
            found = post("/completion", body).get("completion_probabilities")
            if not found:  # the end of the answer
                break
            with torch.no_grad():
                logits = loaded.model(torch.tensor([ids])).logits[0, -1].float()
            ours = torch.log_softmax(logits, -1)
            top = found[0]["top_logprobs"]
            yield max(abs(float(ours[each["id"]]) - each["logprob"]) for each in top)
            ids = [*ids, found[0]["id"]]


def assert_same_tokens(post: Post, loaded: Any, sentences: list[str]) -> None:
    encode = getattr(loaded.tokenizer, "encode_whole", loaded.tokenizer.encode)
    for sentence in sentences:
        body = {"content": sentence, "add_special": False, "parse_special": False}
        assert post("/tokenize", body)["tokens"] == encode(sentence), sentence


@pytest.mark.parametrize("family", ["llama", "bloom", pytest.param("huozi", marks=pytest.mark.slow)])
def test_llama_cpp_reads_the_file_and_computes_the_same(
    family: str, models: Path, call: Call, tmp_path: Path
) -> None:
    file = tmp_path / "model.gguf"
    made = call(*words("export", "gguf", "--model", models / family, "--type", "F16", "--output", file))
    assert made.code == 0, made.err
    loaded: Any = FAMILIES[family].load(LoadOptions(models / family, device="cpu", dtype="float32"))
    server, post = started(file)
    sentences = corpus()
    assert_same_tokens(post, loaded, sentences[::3] if family == "bloom" else sentences)
    found = list(differences(post, loaded, sentences[20:44:2], 6))
    assert len(found) >= 60 and max(found) < ALLOWED
    del server
    facts = gguf.GGUFReader(file).fields
    assert facts["tokenizer.ggml.bos_token_id"].contents() == 1
    assert facts["tokenizer.ggml.eos_token_id"].contents() == 2
    assert "messages" in facts["tokenizer.chat_template"].contents()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "bloom", "huozi"])
def test_two_thousand_sentences_and_two_hundred_tokens_agree(
    family: str, models: Path, call: Call, tmp_path: Path
) -> None:
    file, base = tmp_path / "model.gguf", models / family
    assert call(*words("export", "gguf", "--model", base, "--type", "F16", "--output", file)).code == 0
    loaded: Any = FAMILIES[family].load(LoadOptions(base, device="cpu", dtype="float32"))
    server, post = started(file)
    sentences = [record["text"] for record in written_records(2000)]
    assert_same_tokens(post, loaded, [*sentences, *ODD_TEXTS])
    found = list(differences(post, loaded, sentences[:90:2], 6))
    assert len(found) >= 200 and max(found) < ALLOWED
    del server


@pytest.mark.parametrize("family", ["llama", pytest.param("bloom", marks=pytest.mark.slow)])
def test_rows_in_another_order_would_be_seen(
    family: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_tensors, "ROW_ORDERS", {})
    merged, file = tmp_path / "merged", tmp_path / "wrong.gguf"
    merged.mkdir()
    FAMILIES[family].save_merged(LoadOptions(models / family), merged, "float16")
    write_gguf(merged, file, "F16", Labels("wrong", "", ""), lambda done, whole: None)
    loaded: Any = FAMILIES[family].load(LoadOptions(models / family, device="cpu", dtype="float32"))
    server, post = started(file)
    assert max(differences(post, loaded, corpus()[20:26:2], 3)) > 10 * ALLOWED
    del server


def test_no_text_leaves_its_field_of_the_file(tmp_path: Path) -> None:
    evil = 'x"\n---\0general.license\0{{ 1 }}</s>\u202e'
    merged, facts = tmp_path / "merged", []
    merged.mkdir()
    FAMILIES["bloom"].tiny(tmp_path / "base")
    FAMILIES["bloom"].save_merged(LoadOptions(tmp_path / "base"), merged, "float16")
    for name, text in (("plain", "x"), ("evil", evil)):
        write_gguf(merged, tmp_path / name, "F16", Labels(text, text, text), lambda done, whole: None)
        facts.append(gguf.GGUFReader(tmp_path / name).fields)
    plain, written = facts
    assert written.keys() == plain.keys()
    named = {key for key in plain if written[key].contents() != plain[key].contents()}
    assert named == {"general.name", "general.license", "tokenizer.chat_template"}
    assert {written[key].contents() for key in named} == {evil}


@pytest.mark.parametrize(("kind", "bits"), [("Q8_0", 8.5), ("Q4_0", 4.5)])
def test_quantised_files_hold_what_their_type_says(
    kind: str, bits: float, call: Call, tmp_path: Path
) -> None:
    model, file = tmp_path / "model", tmp_path / "model.gguf"
    FAMILIES["bloom"].tiny(model, hidden_size=64)
    assert call(*words("export", "gguf", "--model", model, "--type", kind, "--output", file)).code == 0
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    body = tensors["blk.0.ffn_up.weight"]
    assert body.n_bytes * 8 / body.n_elements == bits
    assert tensors["token_embd.weight"].tensor_type.name == "Q8_0"
    assert tensors["output_norm.weight"].tensor_type.name == "F32"


def test_chatglm_is_refused_with_the_reason(call: Call, tmp_path: Path) -> None:
    model = tmp_path / "model"
    FAMILIES["chatglm"].tiny(model)
    refused = call(*words("export", "gguf", "--model", model, "--output", tmp_path / "x.gguf"))
    assert refused.code == 2 and "GLM-4" in refused.err and "export merge" in refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_merged_weights_answer_as_base_and_adapter_and_ollama_gets_its_folder(
    call: Call, tmp_path: Path
) -> None:
    base, merged, folder = tmp_path / "base", tmp_path / "merged", tmp_path / "ollama"
    FAMILIES["bloom"].tiny(base, corpus=corpus(), vocabulary_size=3000)
    adapter = write_adapter(tmp_path / "lora")
    flags = ("--model", base, "--adapter", adapter)
    made = call(*words("export", "merge", *flags, "--dtype", "float32", "--output", merged))
    assert made.code == 0, made.err
    asking = ("--greedy", "--max-new-tokens", "8", "--dtype", "float32", "头痛怎么办？")
    answers = [
        call(*words("ask", *where, *asking)).out for where in (flags, ("--model", merged), ("--model", base))
    ]
    assert answers[0] == answers[1] != answers[2]
    said = [{"role": "user", "content": "头痛怎么办？"}]
    written = AutoTokenizer.from_pretrained(merged).apply_chat_template(
        said, tokenize=False, add_generation_prompt=True
    )
    segments = FAMILIES["bloom"].template(LoadOptions(merged)).render((), "头痛怎么办？")
    assert written == "".join(part.text for part in segments if isinstance(part, Text))
    assert "120" in (merged / "README.md").read_text(encoding="utf-8")

    again = call(*words("export", "merge", *flags, "--output", merged))
    assert again.code == 2 and "--overwrite" in again.err
    made = call(*words("export", "ollama", *flags, "--system", "只说中文", "--output", folder))
    assert made.code == 0, made.err
    assert sorted(path.name for path in folder.iterdir()) == ["Modelfile", "README.md", "model.gguf"]
    assert 'SYSTEM """只说中文"""' in (folder / "Modelfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["merge", "gguf"])
def test_a_full_disk_is_told_and_leaves_nothing(call: Call, models: Path, tmp_path: Path, form: str) -> None:
    with files_no_larger_than(100_000):
        refused = call(*words("export", form, "--model", models / "bloom", "--output", tmp_path / "out"))
    assert refused.code == 1 and "--output" in refused.err, refused.err
    assert list(tmp_path.iterdir()) == []
