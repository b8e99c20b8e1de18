"""What a checkpoint holds, by name, and reading it back.

trained-*.safetensors     the trained weights
optimizer-*, .json        the optimizer's state
state-*, .json            scheduler, random generators, what the log goes on from
trainer_state.json        the Trainer's own record: step, epoch, best held-out loss
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerState

from medchat.torchside.sft.processes import Processes
from medchat.torchside.sft.progress import Counters
from medchat.torchside.sft.tensor_trees import load_tensors, load_tree

#: The Trainer reads the last one by itself.
WEIGHTS, OPTIMIZER, STATE, TRAINER_STATE = "trained", "optimizer", "state", "trainer_state.json"


def load_weights(model: Any, checkpoint: Path, processes: Processes) -> None:
    """Put a checkpoint's weights into a model."""
    for name, tensor in load_tensors(checkpoint, WEIGHTS):
        processes.load_weight(model, name, tensor)


def load_counters(checkpoint: Path) -> Counters:
    """Return what the log has to go on from."""
    return Counters(**load_tree(checkpoint, STATE)["log"])


def load_trainer_state(checkpoint: Path) -> TrainerState:
    """Return the Trainer's own record: step, epoch, best held-out loss."""
    return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
