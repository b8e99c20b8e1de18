"""Files of knowledge records, and what `medchat data build kg` makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Records that differ in all that the prompt forms look at.
RECORDS: tuple[dict[str, Any], ...] = (
    {
        "中心词": "甲病",
        "临床表现": ["左膝红肿", "夜间盗汗", "指尖发麻"],
        "检查": ["甲项检查", "乙项检查"],
        "治疗": ["静养", "理疗"],
        "就医提示": ["喘不上气，立即拨打120"],
        "来源": "某处",
    },
    {"中心词": "乙病", "临床表现": ["右耳流脓", "视物成双"], "检查": ["丙项检查"], "并发症": ["失聪"]},
    {"中心词": "丙病", "临床表现": ["足底溃烂", "舌尖发黑"], "治疗": ["手术"], "并发症": ["截肢"]},
    {"中心词": "丁药", "适应症": ["甲病"], "不良反应": ["口干", "嗜睡"], "禁忌": ["孕妇"]},
)


def write_lines(path: Path, records: Any) -> Path:
    """Write records as JSON lines and return the path."""
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), encoding="utf-8")
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
