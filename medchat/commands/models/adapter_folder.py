"""Describes an adapter folder, from its `adapter_config.json` and the published ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.api import AdapterCard
from medchat.checkpoints.elsewhere import ADAPTER_CONFIG
from medchat.checkpoints.json_object import read_json_object
from medchat.commands.models.format import note_line, table
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.units import amount
from medchat.weights.catalogue import Catalogue, Entry

_WEIGHTS = (".safetensors", ".bin")
#: The key in which our fine-tuning states the template it trained with.
_TEMPLATE = "medchat_template"


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """An adapter folder. `config` is its untrusted configuration; `entry` the published adapter that it is.

    `card` is a backbone's description, None if there is none: then `entry` is found by the folder's name.
    """

    path: Path
    config: dict[str, Any]
    weight_bytes: int
    entry: Entry | None
    card: AdapterCard | None

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
            "stated_base": self.config.get("base_model_name_or_path") or None,
            "weight_bytes": self.weight_bytes,
            "known_as": known.name if known else (self.card.known_as if self.card else "") or None,
            "backbone": self.entry.backbone if self.entry else None,
            "template": known.template if known else self._stated_template() or None,
            "fits": list(known.fits) if known else [],
            "notes": list(self.card.notes) if self.card else [],
            "fault": (self.card.fault if self.card else "") or None,
        }

    def as_text(self) -> str:
        """Return a line for each fact and note, and one for what is wrong with the folder."""
        lines = [table(self._rows()), *(note_line(note) for note in (self.card.notes if self.card else ()))]
        if self.card and self.card.fault:
            fault = sanitize_line(self.card.fault, 300)
            lines.append(say(f"！不能使用：{fault}", f"! it cannot be used: {fault}"))
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, str]]:
        facts = self.as_json()
        targets = facts["target_modules"]
        unknown = say("未知", "unknown")
        known = self.entry.known if self.entry else None
        title = known.title if known else facts["known_as"]
        rows = [
            (say("内容", "what"), say("适配器", "adapter") + (say("：", ": ") + title if title else "")),
            (say("目录", "folder"), str(self.path)),
            (say("方法", "method"), self._method()),
        ]
        if targets:
            stated = say("、", ", ").join(map(str, targets)) if isinstance(targets, list) else str(targets)
            rows.append((say("修改的矩阵", "changes"), stated))
        rows += [
            (say("权重大小", "weights"), amount(self.weight_bytes)),
            (say("适用的模型", "fits"), say("、", ", ").join(known.fits) if known else unknown),
            (say("模板", "template"), facts["template"] or unknown),
        ]
        if facts["stated_base"]:
            label = say("文件中注明的底座（未经核实）", "base stated in the file (not trusted)")
            rows.append((label, str(facts["stated_base"])))
        return rows

    def _stated_template(self) -> str:
        name = self.config.get(_TEMPLATE)
        return sanitize_line(name, 80) if isinstance(name, str) else ""

    def _method(self) -> str:
        words = [str(self.config.get("peft_type") or say("未注明", "not stated"))]
        for key, label in (("r", "r"), ("lora_alpha", "alpha")):
            if self.config.get(key) is not None:
                words.append(f"{label}={self.config[key]}")
        return " ".join(words)


def read_adapter(folder: Path, catalogue: Catalogue, card: AdapterCard | None) -> AdapterFolder:
    """Describe the folder; `card` is a backbone's description of it.

    Raises CheckpointError if its configuration cannot be read.
    """
    config = read_json_object(folder / ADAPTER_CONFIG)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in _WEIGHTS and file.is_file())
    name = card.known_as if card else folder.resolve().name
    return AdapterFolder(folder, config, size, catalogue.find(name) if name else None, card)
