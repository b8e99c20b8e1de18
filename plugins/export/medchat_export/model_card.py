"""The model card of what is exported, Chinese first, with the front matter that model hubs read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from medchat.plugin_kit import ResolvedModel, disclaimer, in_language, say
from medchat_export.licences import Part, joined_licence


def exported_card(
    name: str, resolved: ResolvedModel, parts: Sequence[Part], *, remarks: Sequence[tuple[str, str]]
) -> str:
    """Return the card of what is called `name`. `remarks` are pairs, Chinese and English, on how it was made."""
    licence = joined_licence(parts)
    metadata = {
        "language": ["zh"],
        "license": licence.lower() if licence and " AND " not in licence else "other",
        **({"license_name": licence} if " AND " in licence else {}),
        "library_name": "medchat",
        "base_model": [part.name for part in parts if not part.is_adapter],
        "tags": ["medical", resolved.backbone.name],
    }
    # JSON is YAML: a name cannot leave its place, whatever it holds.
    head = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata.items()]
    pages = []
    for language in ("zh", "en"):
        with in_language(language):
            pages.append("\n\n".join(_page(name, resolved, parts, [say(zh, en) for zh, en in remarks])))
    return "\n".join(["---", *head, "---", "", "\n\n".join(pages), ""])


def _page(name: str, resolved: ResolvedModel, parts: Sequence[Part], remarks: Sequence[str]) -> list[str]:
    points = [" ".join(point.split()) for point in re.split(r"\n(?=\d\.)", disclaimer())]
    return [
        f"# {_plain(name)}",
        say("## 声明", "## Please read"),
        *points,
        say("## 来源与许可", "## Origin and licence"),
        "\n".join(_origins(parts)),
        say(
            "合并或转换后的权重受上述各许可约束；发布之前请逐一核对。",
            "Merged or converted weights are bound by each of these licences; check them before you publish.",
        ),
        say("## 制作方法", "## How it was made"),
        "\n".join(f"- {remark}" for remark in (*remarks, _template(resolved))),
    ]


def _origins(parts: Sequence[Part]) -> list[str]:
    unknown = say("未写明，请查明后再发布", "not stated: find out before you publish")
    lines = []
    for part in parts:
        kind = say("适配器", "adapter") if part.is_adapter else say("底座", "base")
        licence = _plain(part.licence) if part.licence else unknown
        lines.append(
            say(f"- {kind}：{_plain(part.name)}（{licence}）", f"- {kind}: {_plain(part.name)} ({licence})")
        )
    return lines


def _template(resolved: ResolvedModel) -> str:
    name = _plain(resolved.template.name)
    return say(f"提问模板：{name}", f"prompt template: {name}")


def _plain(text: str) -> str:
    """Return text with what Markdown or HTML would read as its own escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|])", r"\\\1", " ".join(text.split()))
