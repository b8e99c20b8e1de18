"""What an adapter folder is, from its `adapter_config.json` and what is known of published ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.errors import CheckpointError
from medchat.language import say
from medchat.weights.catalogue import Catalogue, Entry
from medchat.weights.sizes import amount

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_LARGEST_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """An adapter folder. `config` is what its file states, trusted in nothing; `entry` goes by the folder's name."""

    path: Path
    config: dict[str, Any]
    weight_bytes: int
    entry: Entry | None

    def as_json(self) -> dict[str, Any]:
        """Return the facts for `--json`."""
        known = self.entry.known if self.entry else None
        return {
            "kind": "adapter",
            "path": str(self.path),
            "method": self.config.get("peft_type"),
            "rank": self.config.get("r"),
            "alpha": self.config.get("lora_alpha"),
            "target_modules": self.config.get("target_modules"),
            "stated_base": self.config.get("base_model_name_or_path"),
            "weight_bytes": self.weight_bytes,
            "known_as": known.name if known else None,
            "backbone": self.entry.backbone if self.entry else None,
            "template": known.template if known else None,
            "fits": list(known.fits) if known else [],
        }

    def rows(self) -> list[tuple[str, str]]:
        """Return label and value of each fact."""
        facts = self.as_json()
        targets = facts["target_modules"]
        unknown = say("未知", "unknown")
        known = self.entry.known if self.entry else None
        return [
            (say("内容", "what"), say("适配器", "adapter") + (f": {known.title}" if known else "")),
            (say("目录", "folder"), str(self.path)),
            (say("方法", "method"), f"{facts['method']} r={facts['rank']} alpha={facts['alpha']}"),
            (
                say("修改的矩阵", "changes"),
                ", ".join(map(str, targets)) if isinstance(targets, list) else str(targets),
            ),
            (say("权重大小", "weights"), amount(self.weight_bytes)),
            (say("配哪个模型", "fits"), ", ".join(known.fits) if known else unknown),
            (say("模板", "template"), known.template if known else unknown),
            (
                say("文件中写的底座（不可信）", "base stated in the file (not trusted)"),
                str(facts["stated_base"]),
            ),
        ]


def is_adapter(folder: Path) -> bool:
    """Say whether the folder holds an adapter and no model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").exists()


def read_adapter(folder: Path, catalogue: Catalogue) -> AdapterFolder:
    """Describe the folder. Raises CheckpointError if its configuration cannot be read."""
    path = folder / CONFIG
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError("too large")
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            say(f"适配器的配置无法读取：{error}", f"the adapter's configuration cannot be read: {error}"),
            say("重新下载这个适配器", "fetch the adapter again"),
            where=str(path),
        ) from error
    size = sum((folder / name).stat().st_size for name in _WEIGHTS if (folder / name).is_file())
    return AdapterFolder(folder, config, size, catalogue.find(folder.resolve().name))
