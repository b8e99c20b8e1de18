"""A small fine-tuning run, to be stopped, killed and continued.

It uses dropout, accumulation, grouping by length, evaluation, and loader processes. As a program it is a fork
server of such runs: for each line `KIND OUTPUT [--resume]` on its input it forks a process that runs, and
prints its pid and then its status. Torch is thus imported only once.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sft_watcher import Watcher
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from medchat.api import Example, SFTData, SFTOptions, SFTReport
from medchat.training.features import Feature
from medchat.training.run_folder import open_run_folder
from medchat.training.train import fingerprint_of, train
from medchat.training.train_result import TrainResult

# Freeze the objects of torch's import: examining them takes most of the time of each run's collections.
gc.freeze()

VOCABULARY = 64
KINDS = ("full", "lora")
#: 45 examples in steps of 8: five whole ones and a rest in an epoch, 24 steps in all.
OPTIONS = SFTOptions(
    model=Path("unused"),
    output=Path("unused"),
    learning_rate=1e-2,
    num_epochs=4,
    batch_size=8,
    micro_batch_size=4,
    # Not a multiple of the checkpoints' interval, so that a resumed run starts within a logging interval.
    logging_steps=2,
    save_steps=1,
    eval_steps=2,
    save_total=2,
    workers=2,
    precision="float32",
    lora_dropout=0.1,
    seed=5,
)


def tiny_llama(dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """The same weights each time."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        attention_dropout=dropout,
    )
    return LlamaForCausalLM(config).to(dtype)


def trainable(kind: str, options: SFTOptions) -> Any:
    """A model with dropout: all of it to be trained, or a LoRA over it."""
    if kind == "full":
        return tiny_llama(0.1, torch.bfloat16 if options.precision == "bfloat16" else torch.float32)
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=options.lora_dropout, target_modules=["q_proj", "v_proj"]
    )
    return get_peft_model(tiny_llama(), config)


def some_features(count: int = 45, seed: int = 0) -> list[Feature]:
    """Examples of different lengths, in which some tokens are more common than others: that carries over."""
    random = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (), generator=random))
        rarity = torch.rand(length, generator=random) ** 3
        return tuple((1 + (VOCABULARY - 1) * rarity).long().tolist())

    return [
        Feature(ids(2, 12), ids(1, 9), record, where=f"data.json:{record}") for record in range(1, count + 1)
    ]


def collate(features: Sequence[Feature]) -> Mapping[str, Tensor]:
    """Right-padded causal batches."""
    length = max(feature.length for feature in features)
    ids = torch.zeros(len(features), length, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for row, feature in enumerate(features):
        ids[row, : feature.length] = torch.tensor([*feature.prompt_ids, *feature.answer_ids])
        mask[row, : feature.length] = 1
        labels[row, len(feature.prompt_ids) : feature.length] = torch.tensor(feature.answer_ids)
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def run(kind: str, output: Path, watcher: Watcher | None = None, **changes: Any) -> tuple[TrainResult, str]:
    """Train, or continue training, in `output`. Returns what was done and the hash of the weights."""
    options = replace(OPTIONS, output=output, **changes)
    features, held_out = some_features(), some_features(8, seed=1)
    model = trainable(kind, options)
    with open_run_folder(options, fingerprint_of(features, held_out)) as folder:
        trained = train(model, features, held_out, collate, options, folder, watcher or Watcher())
    return trained, weights_hash(model)


def run_recipe(output: Path, watcher: Watcher | None = None, **changes: Any) -> tuple[SFTReport, str]:
    """Fine-tune a miniature ChatGLM from its folder to the result's, held out and all. Returns its hash too."""
    from medchat_chatglm.backbone import ChatGLMBackbone
    from medchat_chatglm.tiny import write_tiny_chatglm

    examples = [
        Example(f"第{number}题：{'头痛' * number}？", f"多休息{number}天。") for number in range(1, 17)
    ]
    base = output.parent / "base"
    if not base.exists():
        corpus = [text for example in examples for text in (example.question, example.answer)]
        write_tiny_chatglm(base, corpus=corpus, hidden_size=32, num_layers=2)
    options = replace(
        OPTIONS,
        model=base,
        output=output,
        micro_batch_size=2,
        batch_size=4,
        device="cpu",
        samples=1,
        **changes,
    )
    data = SFTData(examples[:12], examples[12:])
    report = ChatGLMBackbone().recipes["full"].run(data, options, watcher or Watcher())
    return report, hashlib.sha256((output / "model.safetensors").read_bytes()).hexdigest()


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over every tensor of a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(
            name.encode() + tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def logged_losses(output: Path) -> list[tuple[int, str, float]]:
    """The content of metrics.jsonl without times and speeds."""
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    kinds = [(row, "eval_loss" if "eval_loss" in row else "loss") for row in rows]
    return [(row["step"], kind, row[kind]) for row, kind in kinds]


def main() -> None:
    """Run the fork server. Nothing is computed in this process, so that its children may use threads."""
    for line in sys.stdin:
        kind, output, *flags = line.split()
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            try:
                resume = "--resume" in flags
                trained, digest = (
                    run_recipe(Path(output), resume=resume)
                    if kind == "recipe"
                    else run(kind, Path(output), resume=resume)
                )
                imported = sorted({"tensorboard", "wandb", "swanlab"} & set(sys.modules))
                told = {"steps": trained.steps, "hash": digest, "trackers": imported}
                Path(f"{output}.json").write_text(json.dumps(told))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
