"""What can be wrong with stored weights: names and shapes that are not the model's, values that are no numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from medchat.checkpoints.weight_files import Checkpoint, names
from medchat.errors import CheckpointError
from medchat.inference.shards import StoredTensor
from medchat.language import say


def weights_mismatch(
    checkpoint: Checkpoint,
    missing: list[str] | None = None,
    unexpected: list[str] | None = None,
    misfits: list[str] | None = None,
    config_file: str = "config.json",
) -> CheckpointError:
    """Return the error for tensors that a model lacks, has not, or has in other shapes, each by its name."""
    found = []
    if missing:
        found.append(say(f"缺少 {names(missing)}", f"missing {names(missing)}"))
    if unexpected:
        found.append(say(f"多出 {names(unexpected)}", f"unexpected {names(unexpected)}"))
    if misfits:
        found.append(
            say(
                f"与 {config_file} 不符（文件，应为）：{names(misfits)}",
                f"not what {config_file} states (file, expected): {names(misfits)}",
            )
        )
    where = checkpoint.index or (checkpoint.files[0] if len(checkpoint.files) == 1 else checkpoint.folder)
    return CheckpointError(
        say("权重与模型不匹配：", "the weights do not fit the model: ") + say("；", "; ").join(found),
        say(
            "请确认 config.json 与权重来自同一模型，且下载完整",
            "check that config.json and the weights belong together and are complete",
        ),
        where=str(where),
    )


def is_finite(values: Tensor) -> bool:
    """Say whether no value is NaN or infinite. Any shape and dtype."""
    if not values.is_floating_point() or not values.numel():
        return True
    # NaN and infinity both survive a minimum and maximum, which is ten times faster than isfinite.
    low, high = torch.aminmax(values)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def not_finite(tensor: StoredTensor, piece: Tensor, dtype: torch.dtype) -> CheckpointError:
    """Return the error for a piece of a tensor that is not finite, or cannot be so in `dtype`."""
    if is_finite(piece):
        short = str(dtype).removeprefix("torch.")
        return CheckpointError(
            say(
                f"张量 {tensor.name} 的数值超出 {short} 的范围",
                f"tensor {tensor.name} holds values outside the range of {short}",
            ),
            say("请加上 --dtype bfloat16 或 --dtype float32", "use --dtype bfloat16 or --dtype float32"),
            where=str(tensor.file),
        )
    return CheckpointError(
        say(f"张量 {tensor.name} 含有 NaN 或无穷大", f"tensor {tensor.name} holds NaN or infinity"),
        say(
            "权重已损坏（常见于训练发散）；请换用别的检查点",
            "the weights are broken (often because training diverged): use another checkpoint",
        ),
        where=str(tensor.file),
    )
