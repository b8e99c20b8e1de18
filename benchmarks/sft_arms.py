"""The two ways of fine-tuning that `sft_throughput.py` holds against each other; runs in a process of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from loading_figures import memory_field
from medchat_chatglm.collators import AnswerCollator, TrainingSample
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from peft import LoraConfig, get_peft_model
from sft_data import records, token_efficiency
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from medchat.api import SFTEvent, SFTOptions, SFTReport
from medchat.training.data_loader import Collator
from medchat.training.features import Feature
from medchat.training.run_folder import open_run_folder
from medchat.training.train import fingerprint_of, train

MICRO_BATCH, BATCH = 8, 16


class Clock:
    """Tokens and times of a run, seen from outside: batches as they are made, steps as they end."""

    def __init__(self, collate: Collator) -> None:
        self._collate = collate
        self.batches: list[list[Feature]] = []
        self.asked: tuple[float, float] | None = None
        self.steps: list[tuple[float, float]] = []
        self._hook = register_optimizer_step_post_hook(lambda *_: self.steps.append(_now()))

    def collate(self, features: Sequence[Feature]) -> Mapping[str, Tensor]:
        """Make a batch, and remember it."""
        self.asked = self.asked or _now()
        self.batches.append(list(features))
        return self._collate(features)

    def close(self) -> None:
        """Stop listening to optimizers."""
        self._hook.remove()


def _now() -> tuple[float, float]:
    """The time, and the time that all threads of this process have computed."""
    return time.perf_counter(), time.process_time()


class Quiet:
    """Somebody who watches a run and does nothing."""

    def __init__(self) -> None:
        self.cancel = threading.Event()

    def on_event(self, event: SFTEvent) -> None:
        """Be told."""

    def finish(self, folder: Path, report: SFTReport) -> None:
        """Add nothing."""


def run_arm(
    arm: str, family: str, *, seed: int, hidden: int, layers: int, records: int, threads: int
) -> dict[str, Any]:
    """Train one epoch of `records` records in this process and return what it took."""
    torch.set_num_threads(threads)
    source, features = features_of(family, records, seed)
    idle = memory_field("VmRSS")
    # Starts the kernel's record of the highest resident size again, which no sampling can miss.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    model = build_model(family, hidden, layers)
    clock = Clock(collator_of(family, model))
    try:
        RUNS[arm](model, features, clock.collate, BATCH, group=True)
    finally:
        clock.close()
    lengths = [feature.length for feature in features]
    # Ours first asks for a batch of one record, to look at the model.
    batches = [batch for batch in clock.batches if len(batch) == MICRO_BATCH]
    tokens = sum(lengths)
    assert sum(map(len, batches)) == len(features) and len(clock.steps) == len(features) // BATCH
    assert clock.asked is not None
    seconds, cpu_seconds = (
        after - before for before, after in zip(clock.asked, clock.steps[-1], strict=True)
    )
    return {
        "data": source,
        "tokens": tokens,
        "steps": len(clock.steps),
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "tokens_per_cpu_second": tokens / cpu_seconds,
        "token_efficiency": token_efficiency(
            lengths, [[feature.record - 1 for feature in batch] for batch in batches]
        ),
        "label_share": sum(len(feature.answer_ids) for feature in features) / sum(lengths),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "idle_bytes": idle,
        "peak_bytes": memory_field("VmHWM") - idle,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def compare_losses(family: str, *, hidden: int, layers: int, records: int) -> dict[str, Any]:
    """Train in float64 by both arms on the same batches; return the loss of each micro batch, and the difference."""
    source, features = features_of(family, records, 0)
    losses: dict[str, list[float]] = {}
    order: list[Feature] = []
    for arm in ("ours", "seeds"):
        model = build_model(family, hidden, layers, torch.float64, dropout=0.0)
        clock = Clock(collator_of(family, model))
        try:
            with _losses_noted() as noted:
                # The seeds' arm is given the records in the order our sampler chose.
                RUNS[arm](model, order or features, clock.collate, BATCH, group=arm == "ours")
        finally:
            clock.close()
        order = [feature for batch in clock.batches if len(batch) == MICRO_BATCH for feature in batch]
        losses[arm] = noted
    pairs = list(zip(losses["ours"], losses["seeds"], strict=True))
    return {
        "data": source,
        **losses,
        "largest_difference": max(abs(ours - seeds) for ours, seeds in pairs),
    }


def features_of(family: str, count: int, seed: int) -> tuple[str, list[Feature]]:
    """Return where the records come from, and them."""
    source, pairs = records(family, count, seed)
    numbered = enumerate(pairs, start=1)
    return source, [Feature(tuple(prompt), tuple(answer), number) for number, (prompt, answer) in numbered]


def build_model(
    family: str, hidden: int, layers: int, dtype: torch.dtype = torch.float32, dropout: float = 0.05
) -> Any:
    """Return a random model of the family: a LLaMA with LoRA of BenTsao's size, or a whole ChatGLM."""
    torch.manual_seed(1)
    heads = max(1, hidden // 64)
    if family == "chatglm":
        config = ChatGLMConfig(
            vocab_size=130_528,
            hidden_size=hidden,
            num_layers=layers,
            num_attention_heads=heads,
            inner_hidden_size=4 * hidden,
        )
        return ChatGLMForConditionalGeneration(config).to(dtype)
    llama = LlamaConfig(
        vocab_size=151_936,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    lora = LoraConfig(
        r=8, lora_alpha=16, lora_dropout=dropout, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    return get_peft_model(LlamaForCausalLM(llama).to(dtype), lora, autocast_adapter_dtype=False)


def collator_of(family: str, model: Any) -> Collator:
    """Return what pads a batch to its longest record."""
    if family == "llama":
        return _pad_right
    collate = AnswerCollator(model.config)
    return lambda features: collate(
        [TrainingSample((*one.prompt_ids, *one.answer_ids), len(one.prompt_ids)) for one in features]
    )


def _pad_right(features: Sequence[Feature]) -> Mapping[str, Tensor]:
    length = max(feature.length for feature in features)
    ids = torch.zeros(len(features), length, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, feature in enumerate(features):
        ids[row, : feature.length] = torch.tensor([*feature.prompt_ids, *feature.answer_ids])
        labels[row, len(feature.prompt_ids) : feature.length] = torch.tensor(feature.answer_ids)
        mask[row, : feature.length] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def run_as_the_seeds(
    model: Any, features: Sequence[Feature], collate: Collator, batch: int, *, group: bool
) -> None:
    """Train with the Trainer as it comes. Without `group` the records keep their order."""

    class InOrder(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> torch.utils.data.Sampler[int]:
            return torch.utils.data.SequentialSampler(features)

    arguments = TrainingArguments(
        output_dir="seeds",
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=batch // MICRO_BATCH,
        num_train_epochs=1,
        learning_rate=5e-4,
        warmup_steps=0.1,
        seed=2023,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=True,
    )
    kind = Trainer if group else InOrder
    trainer = kind(model=model, args=arguments, train_dataset=list(features), data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def run_ours(model: Any, features: Sequence[Feature], collate: Collator, batch: int, *, group: bool) -> None:
    """Train as `medchat sft` does."""
    options = SFTOptions(
        model=Path("model"),
        output=Path("ours"),
        learning_rate=5e-4,
        num_epochs=1,
        batch_size=batch,
        micro_batch_size=MICRO_BATCH,
        group_by_length=group,
        logging_steps=1,
        precision="float32",
        device="cpu",
        save_steps=-1,
        eval_steps=-1,
    )
    with open_run_folder(options, fingerprint_of(features)) as folder:
        train(model, features, (), collate, options, folder, Quiet())


RUNS = {"seeds": run_as_the_seeds, "ours": run_ours}


@contextmanager
def _losses_noted() -> Iterator[list[float]]:
    """Within this block every loss a backward pass starts from is noted, whoever computed it."""
    noted: list[float] = []
    backward = Tensor.backward

    def noting(self: Tensor, *arguments: Any, **named: Any) -> None:
        noted.append(float(self.detach()))
        backward(self, *arguments, **named)

    Tensor.backward = noting  # type: ignore[method-assign, assignment]
    try:
        yield noted
    finally:
        Tensor.backward = backward  # type: ignore[method-assign]
