"""Whether a written result, loaded again as chat loads it, is the model that was trained."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from medchat.errors import MedchatError
from medchat.language import say

#: The reloaded model's token losses may differ from the trained one's by this: the order of sums, no more.
#: In bfloat16 a sum in another order differs by its rounding.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def refuse_other_result(
    same_facts: bool, losses: Tensor, expected: Tensor, dtype: torch.dtype, folder: Path
) -> None:
    """Raise MedchatError unless the result states what was trained and gives some tokens the same losses.

    `losses` and `expected` [N] are of the reloaded and of the trained model, which compute in `dtype`.
    """
    tolerance = _TOLERANCE.get(dtype, 1e-4)
    if same_facts and torch.allclose(losses, expected, rtol=tolerance, atol=tolerance):
        return
    difference = float((losses - expected).abs().max())
    raise MedchatError(
        say(
            f"写出的结果重新载入后不同（损失最多相差 {difference:.2g}），没有保留",
            f"the written result differs when loaded again (by up to {difference:.2g} in loss); it is not kept",
        ),
        say("这是程序的缺陷，请反馈", "this is a defect of MedChat, please report it"),
        where=str(folder),
    )
