"""Published weights as text and as JSON, for `list` and `show`."""

from __future__ import annotations

from typing import Any

from medchat.checkpoints.kept_quantized import KeptWeights
from medchat.language import current_language, say
from medchat.sanitize import sanitize_line
from medchat.units import amount
from medchat.weights.catalogue import Entry
from medchat.weights.folders import State, folder_of, state_of


def as_json(entry: Entry) -> dict[str, Any]:
    """Return all facts about the weights, and whether they are here."""
    known = entry.known
    folder = folder_of(known.name)
    state = state_of(folder)
    return {
        "name": known.name,
        "title": known.title,
        "kind": known.kind,
        "backbone": entry.backbone,
        "template": known.template,
        "fits": list(known.fits),
        "size_bytes": known.size,
        "licence": known.licence,
        "source": known.source,
        "repository": known.repository,
        "revision": known.revision,
        "modelscope": known.modelscope,
        "by_hand": list(known.by_hand),
        "note": dict(known.note),
        "files": [{"name": file.name, "bytes": file.size, "sha256": file.sha256} for file in known.files],
        "state": state.value,
        "path": str(folder) if state is not State.ABSENT else None,
    }


def size_of(entry: Entry) -> str:
    """Return the size of the download as text."""
    return amount(entry.known.size) if entry.known.size else say("大小未知", "size unknown")


def state_in_words(entry: Entry) -> str:
    """Return whether the weights are here, else how to download them."""
    match state_of(folder_of(entry.known.name)):
        case State.HERE:
            return say("已在本机", "here")
        case State.UNFINISHED:
            return say("下载未完成", "download not finished")
        case State.ABSENT if not entry.known.repository:
            return say("需手动获取", "by hand")
    return say("可下载", "to pull")


def kind_in_words(entry: Entry) -> str:
    """Return what the weights are; for an adapter, which bases it fits."""
    known = entry.known
    if known.kind == "base":
        return say("模型", "model")
    fits = say("、", ", ").join(known.fits) or "?"
    return say(f"适配器，适用于 {fits}", f"adapter for {fits}")


def note_of(entry: Entry) -> str:
    """Return the note in the interface language, "" if there is none."""
    note = entry.known.note
    return note.get(current_language()) or next(iter(note.values()), "")


def rows(entry: Entry) -> list[tuple[str, str]]:
    """Return label and value of the main facts, for weights that are missing or incomplete."""
    known = entry.known
    folder = folder_of(known.name)
    facts = [
        (say("名称", "name"), known.name),
        (say("内容", "what"), known.title + say(f"（{kind_in_words(entry)}）", f" ({kind_in_words(entry)})")),
        (say("家族", "family"), f"--backbone {entry.backbone}"),
        (say("状态", "state"), state_in_words(entry)),
        (say("大小", "size"), size_of(entry)),
        (say("许可", "licence"), known.licence),
        (say("模板", "template"), known.template),
        (say("来源", "source"), known.source + (f" @ {known.revision}" if known.repository else "")),
    ]
    if known.modelscope:
        facts.append(("ModelScope", known.modelscope))
    facts += [(say("手动下载", "by hand"), link) for link in known.by_hand]
    facts.append((say("目录", "folder"), str(folder)))
    checked = sum(bool(file.sha256) for file in known.files)
    if checked:
        facts.append(
            (say("校验和", "checksums"), say(f"已知 {checked} 个文件的", f"published for {checked} files"))
        )
    if note := note_of(entry):
        facts.append((say("注意", "note"), note))
    return facts


def kept_line(kept: KeptWeights) -> str:
    """Return quantised weights that are kept as one line: how large, how wide, what of and where."""
    words = (amount(kept.size), kept.quantization, kept.source or "?", str(kept.folder))
    return "  " + "  ".join(sanitize_line(word, 200) for word in words)


def kept_as_json(kept: KeptWeights) -> dict[str, Any]:
    """Return all that is known of quantised weights that are kept."""
    return {
        "name": kept.folder.name,
        "kind": "quantized",
        "quantization": kept.quantization,
        "source": kept.source,
        "size_bytes": kept.size,
        "state": State.HERE.value,
        "path": str(kept.folder),
    }


def note_line(note: str) -> str:
    """Return a note on a folder as a sanitized line."""
    return say("！", "! ") + sanitize_line(note, 300)


def table(facts: list[tuple[str, str]]) -> str:
    """Return labelled lines, every value sanitized."""
    return "\n".join(f"{label}{say('：', ': ')}{sanitize_line(value, 300)}" for label, value in facts)
