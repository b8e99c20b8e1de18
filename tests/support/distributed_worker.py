"""One of the processes that `test_sft_distributed` starts with torchrun: trains tiny models and reports.

torchrun --nproc-per-node 2 distributed_worker.py FOLDER         train, be stopped, continue
torchrun --nproc-per-node 2 distributed_worker.py FOLDER fail    fail in the second process alone
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from sft_watcher import Watcher
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from medchat.api import SFTEvent, SFTOptions, SFTProgress
from medchat.cli.program import show_failure
from medchat.cli.signals import cancel_on_signals
from medchat.errors import MedchatError
from medchat.training.features import Feature
from medchat.training.process_group import process_group
from medchat.training.run_folder import run_folder
from medchat.training.single_process import ProcessGroup
from medchat.training.train import fingerprint_of, train
from medchat.training.train_result import TrainResult

VOCABULARY, RECORDS = 64, 21
STOPPED_AT = 3
CPU = torch.device("cpu")


def options_for(output: Path, method: str) -> SFTOptions:
    """Steps of 8 records, in micro batches of 2; the last step of an epoch has 5."""
    return SFTOptions(
        model=output.parent / "model",
        output=output,
        method=method,
        learning_rate=5e-3,
        num_epochs=2,
        batch_size=8,
        micro_batch_size=2,
        max_grad_norm=0.5,
        adam_epsilon=1e-4,
        precision="float32",
        logging_steps=1,
        save_steps=1,
        eval_steps=2,
        device="cpu",
    )


def some_features(count: int = RECORDS, seed: int = 0) -> list[Feature]:
    """Records of random ids."""
    random = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (), generator=random))
        return tuple(torch.randint(1, VOCABULARY, (length,), generator=random).tolist())

    return [Feature(ids(2, 12), ids(1, 9), record) for record in range(1, count + 1)]


def collate(features: Sequence[Feature]) -> Mapping[str, Tensor]:
    """Right-padded causal batches."""
    length = max(feature.length for feature in features)
    ids = torch.zeros(len(features), length, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, feature in enumerate(features):
        ids[row, : feature.length] = torch.tensor([*feature.prompt_ids, *feature.answer_ids])
        labels[row, len(feature.prompt_ids) : feature.length] = torch.tensor(feature.answer_ids)
        mask[row, : feature.length] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def tiny_model(method: str) -> Any:
    """A fully trained LLaMA, or a LoRA; embedding and head are tied, rows do not divide evenly."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY - 1 if method == "full" else VOCABULARY,
        hidden_size=32,
        intermediate_size=50,
        num_hidden_layers=3,
        num_attention_heads=4,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    if method == "full":
        return model
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))


def run(
    output: Path,
    method: str,
    on_event: Callable[[SFTEvent, Watcher], None] | None = None,
    *,
    resume: bool = False,
    cancelled: bool = False,
) -> tuple[Any, TrainResult, Watcher]:
    """Train into `output`, in as many processes as there are."""
    processes, model = process_group(CPU), tiny_model(method)
    features = [replace(one, answer_ids=tuple(i % 60 + 1 for i in one.answer_ids)) for one in some_features()]
    features = [replace(one, prompt_ids=tuple(i % 60 + 1 for i in one.prompt_ids)) for one in features]
    held_out = features[:3]
    watch = Watcher()
    if cancelled:
        watch.cancel.set()
    if on_event:
        watch.react = lambda event: on_event(event, watch)
    options = replace(options_for(output, method), resume=resume)
    (output.parent / "model").mkdir(exist_ok=True)
    with run_folder(options, fingerprint_of(features, held_out), processes) as folder:
        trained = train(model, features, held_out, collate, options, folder, watch)
    return model, trained, watch


def stop_after_three(event: SFTEvent, watch: Watcher) -> None:
    """Press Ctrl-C in this process once the third step was logged: the fourth is the last."""
    if isinstance(event, SFTProgress) and event.step == STOPPED_AT:
        watch.cancel.set()


def losses_of(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's log without times and speeds."""
    rows = map(json.loads, (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        {name: row[name] for name in ("step", "loss", "eval_loss", "grad_norm") if name in row}
        for row in rows
    ]


class Seen:
    """What `prepare` did to a model in this process."""

    def __init__(self, processes: ProcessGroup) -> None:
        self.sharded = self.held = self.parameters = 0
        prepare = processes.prepare

        def noting(model: nn.Module) -> None:
            from torch.distributed.tensor import DTensor

            self.parameters = len(list(model.parameters()))
            whole = sum(parameter.numel() for parameter in model.parameters())
            prepare(model)
            self.sharded = sum(isinstance(parameter, DTensor) for parameter in model.parameters())
            local = [getattr(one, "to_local", lambda one=one: one)() for one in model.parameters()]
            self.held = sum(one.numel() for one in local) / whole

        processes.prepare = noting  # type: ignore[method-assign]


def main() -> int:
    """Run the scenario; the main process saves the final weights, every process its observations."""
    folder = Path(sys.argv[1])
    processes = process_group(CPU)
    if sys.argv[2:] == ["fail"]:
        return fail(folder, processes)
    seen, told = Seen(processes), {}
    for method in ("full", "lora"):
        model, trained, watch = run(folder / f"two-{method}", method)
        told[method] = {
            "sharded": seen.sharded,
            "parameters": seen.parameters,
            "held": seen.held,
            "processes": trained.processes,
            "events": len(watch.events),
            "tokens": trained.tokens,
        }
        if processes.is_main:
            torch.save(model.state_dict(), folder / f"two-{method}.pt")
        # One process is asked to stop, and both do: the main one in the middle, the second before it begins.
        try:
            if method == "full":
                run(folder / "stopped-full", method, stop_after_three)
            else:
                run(folder / "stopped-lora", method, cancelled=processes.rank == 1)
        except MedchatError as error:
            told[method] |= {"stopped": error.what, "stopped_at": STOPPED_AT + 1 if method == "full" else 1}
        model, trained, watch = run(folder / f"one-then-two-{method}", method, resume=True)
        told[method]["resumed_from"] = trained.resumed_from
        if processes.is_main:
            torch.save(model.state_dict(), folder / f"one-then-two-{method}.pt")
    (folder / f"rank-{processes.rank}.json").write_text(json.dumps(told), encoding="utf-8")
    return 0


def fail(folder: Path, processes: ProcessGroup) -> int:
    """Find something wrong in the second process, in the middle of training."""

    def broken(features: Sequence[Feature]) -> Mapping[str, Tensor]:
        calls.append(1)
        if processes.rank == 1 and len(calls) > 5:
            raise MedchatError("a record of the second process is broken")
        return collate(features)

    calls: list[int] = []
    options = replace(options_for(folder / "failed", "lora"), save_steps=-1)
    features, watch = some_features(), Watcher()
    (folder / "model").mkdir(exist_ok=True)
    try:
        # torchrun tells the others to end: as in the program, that is no reason to leave things lying.
        with (
            cancel_on_signals(watch.cancel),
            processes.single_reporter(),
            run_folder(options, "", processes) as opened,
        ):
            train(tiny_model("lora"), features, (), broken, options, opened, watch)
    except MedchatError as error:
        return show_failure(error, debug=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
