"""Evaluation: held-out loss, the reloaded result compared with the trained model, sample answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from medchat.api import (
    Example,
    Finish,
    GenerationConfig,
    PromptTemplate,
    SFTData,
    SFTNote,
    SFTStatus,
    SFTWatcher,
)
from medchat.errors import MedchatError
from medchat.inference.chat_model import TokenChatModel
from medchat.inference.device import device_of
from medchat.language import say
from medchat.training.data_loader import Collator, shifted
from medchat.training.features import Feature, prompt_of
from medchat.training.fused_loss import NO_LABEL, label_loss, logits_at
from medchat.training.single_process import ProcessGroup


@torch.no_grad()
def label_losses(model: nn.Module, features: Sequence[Feature], collate: Collator) -> Tensor:
    """Return the loss of every label token of some features, float32 on the CPU, without gradients.

    One feature at a time: the logits of several could take more memory than training did.
    """
    losses = []
    with _at_rest(model):
        for feature in features:
            batch, shift_labels = _inputs(model, [feature], collate)
            keep = shift_labels != NO_LABEL
            logits = logits_at(model, batch, keep)
            found = nn.functional.cross_entropy(logits.float(), shift_labels[keep], reduction="none")
            losses.append(found.cpu())
    return torch.cat(losses)


@torch.no_grad()
def mean_loss(
    model: nn.Module,
    head: nn.Linear | None,
    features: Sequence[Feature],
    collate: Collator,
    at_once: int,
    processes: ProcessGroup,
) -> float:
    """Return the mean loss per label token over all features, computed `at_once` examples at a time.

    `head` is that of `label_loss`. Uses no random numbers. Each process computes its share of the batches,
    and all return the same mean.
    """
    longest_first = sorted(features, key=lambda feature: -feature.length)
    batches = [longest_first[start : start + at_once] for start in range(0, len(features), at_once)]
    rounds = -(-len(batches) // processes.count) * processes.count
    total, count = 0.0, 0
    with _at_rest(model):
        for number in range(processes.rank, rounds, processes.count):
            # Collective operations need every process: one without a batch of its own computes any, and adds
            # 0.
            batch, shift_labels = _inputs(model, batches[min(number, len(batches) - 1)], collate)
            loss = float(label_loss(model, head, batch, shift_labels, 1))
            if number < len(batches):
                total, count = total + loss, count + int((shift_labels != NO_LABEL).sum())
    sums = processes.all_gather((total, count))
    mean: float = sum(part for part, _ in sums) / sum(part for _, part in sums)
    return mean


def _inputs(
    model: nn.Module, features: Sequence[Feature], collate: Collator
) -> tuple[Mapping[str, Tensor], Tensor]:
    batch = {name: tensor.to(device_of(model)) for name, tensor in collate(features).items()}
    return batch, shifted(batch.pop("labels"))


@contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """Evaluation mode: no dropout within this block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


# Round trip: whether the written result, reloaded as chat loads it, is the trained model.

#: The tolerance of the reloaded model's token losses: a different order of summation and no more. In bfloat16
#: a different order of summation differs by the rounding.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def check_round_trip(
    same_facts: bool, losses: Tensor, expected: Tensor, dtype: torch.dtype, folder: Path
) -> None:
    """Raise MedchatError unless the result's metadata and its token losses match the trained model.

    `losses` and `expected` [N] are of the reloaded and of the trained model, which compute in `dtype`.
    """
    tolerance = _TOLERANCE.get(dtype, 1e-4)
    if same_facts and torch.allclose(losses, expected, rtol=tolerance, atol=tolerance):
        return
    difference = float((losses - expected).abs().max())
    raise MedchatError(
        say(
            f"写出的结果重新加载后不同（损失最多相差 {difference:.2g}），没有保留",
            f"the written result differs when loaded again (by up to {difference:.2g} in loss); it is not kept",
        ),
        say("这是程序的缺陷，请反馈", "this is a defect of MedChat, please report it"),
        where=str(folder),
    )


# Sample answers before and after training.

#: The longest sample answer in tokens.
MOST_TOKENS = 128


def sample_questions(
    loaded: TokenChatModel, data: SFTData, template: PromptTemplate, count: int
) -> tuple[Example, ...]:
    """Return the first `count` held-out examples, else the first learned ones, that leave room for an answer.

    An answer may take half of the context at most: a trained prefix can leave it little.
    """
    room = loaded.context_length - min(MOST_TOKENS, loaded.context_length // 2)
    fitting = (
        example
        for example in data.held_out or data.train
        if loaded.count(prompt_of(example, template)) <= room
    )
    return tuple(islice(fitting, count))


def generate_answers(
    loaded: TokenChatModel, asked: Sequence[Example], template: PromptTemplate, cancel: threading.Event
) -> list[str]:
    """Return the model's greedy answers to the questions; restores training or evaluation mode.

    Once `cancel` is set the current answer is dropped, and no further question is asked.
    """
    config = GenerationConfig(greedy=True, max_new_tokens=MOST_TOKENS, stop=template.stop)
    was_training = loaded.model.training
    loaded.model.eval()
    texts: list[str] = []
    try:
        for one in asked:
            (completion,) = loaded.generate_batch([prompt_of(one, template)], config, cancel)
            if completion.finish is Finish.CANCELLED:
                break
            texts.append(completion.text)
    finally:
        loaded.model.train(was_training)
    return texts


def answer_again(
    loaded: TokenChatModel, asked: Sequence[Example], template: PromptTemplate, watch: SFTWatcher
) -> list[str]:
    """Return what `generate_answers` does, and nothing if it fails, which is noted.

    The trained weights are not written yet, and a failed sample must not lose them.
    """
    if asked:
        count = len(asked)
        watch.on_event(SFTStatus(say(f"训练后再答 {count} 题", f"answering the {count} questions again")))
    try:
        return generate_answers(loaded, asked, template, watch.cancel)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    watch.on_event(
        SFTNote(
            say(
                f"训练后的样例回答失败，已略过（{reason}）；训练结果照常写出",
                f"the sample answers after training failed and are left out ({reason}); "
                "the result is written all the same",
            )
        )
    )
    return []
