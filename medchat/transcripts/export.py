"""Sessions as Markdown, JSON, JSON lines (what `medchat sft` learns from) or one HTML page.

The JSON form holds every branch, the others the conversation as it stands. Each form carries the mark that
an AI wrote the answers, and the implicit label (GB 45438-2025).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

from medchat import medical_safety
from medchat.api import Finish
from medchat.chat.demo_mode import says_it_means_nothing
from medchat.chat.session_lines import ending_mark, notice_heading
from medchat.document import Document, Paragraph, Quotation, Section, as_html
from medchat.errors import UsageError
from medchat.language import say
from medchat.redaction import redact
from medchat.sanitize import escape_cell, sanitize, sanitize_line
from medchat.store import AnswerOrigin, SavedTurn, SessionRecord, Transcript

#: The value of `schema` in the JSON form: which fields there are.
SCHEMA = "medchat-session/1"

_Answering = TypeVar("_Answering", SessionRecord, AnswerOrigin)


def redacted(transcript: Transcript) -> Transcript:
    """Return the session with ID numbers, telephone numbers and names of people masked (`medchat.redaction`).

    Of a path only the last part stays: the folders before it are often named after people.
    """
    record = transcript.record
    turns = tuple(map(_redacted, transcript.turns))
    others = tuple(replace(other, saved=_redacted(other.saved)) for other in transcript.others)
    name = redact(record.name) if record.name else None
    first = turns[0].turn.question if turns else ""
    masked = replace(_without_folders(record), name=name, system=redact(record.system), first_question=first)
    return Transcript(masked, turns, others)


def _redacted(saved: SavedTurn) -> SavedTurn:
    turn = replace(saved.turn, question=redact(saved.turn.question), answer=redact(saved.turn.answer))
    ours = medical_safety.notice_texts()
    notices = tuple(text if text in ours else redact(text) for text in saved.origin.notices)
    origin = replace(_without_folders(saved.origin), system=redact(saved.origin.system), notices=notices)
    return replace(saved, turn=turn, origin=origin)


def _without_folders(of: _Answering) -> _Answering:
    """Return who answered with each path cut to its last part; an address stays."""
    model, template = _last_part(of.model), _last_part(of.template)
    return replace(of, model=model, adapters=tuple(map(_last_part, of.adapters)), template=template)


def _last_part(path: str) -> str:
    return path if "://" in path else PureWindowsPath(path).name  # either kind of slash


def export_suffix(path: Path) -> str:
    """Return the form that a file's suffix names. Raises UsageError for any other suffix."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(
            say(
                f"不认识的后缀 {sanitize_line(suffix, 20) or '（无）'}",
                f"unknown suffix {sanitize_line(suffix, 20)!r}",
            ),
            say(f"可用：{'、'.join(FORMATS)}", f"use one of {', '.join(FORMATS)}"),
        )
    return suffix


def export(transcripts: Sequence[Transcript], suffix: str) -> str:
    """Return the text of the file for a suffix of `FORMATS`."""
    return FORMATS[suffix](transcripts)


# ---------------------------------------------------------------- JSON: everything that is known


def session_json(transcript: Transcript) -> dict[str, Any]:
    """Return a session as `sessions show --json` and the JSON form have it."""
    record = transcript.record
    return {
        "schema": SCHEMA,
        "id": record.id,
        "name": record.name,
        "created": record.created.isoformat(),
        "updated": record.updated.isoformat(),
        "backbone": record.backbone,
        "model": record.model,
        "adapters": list(record.adapters),
        "template": record.template,
        "system": record.system,
        "log": [turn_json(saved) for saved in transcript.turns],
        "branches": [{**turn_json(other.saved), "after": other.after} for other in transcript.others],
        "disclaimer": medical_safety.AI_MARK_ZH,
        "AIGC": _label(transcript),
    }


def turn_json(saved: SavedTurn) -> dict[str, Any]:
    """Return a turn as `sessions show --json` and the JSON form have it."""
    return {
        "position": saved.position,
        "question": saved.turn.question,
        "answer": saved.turn.answer,
        "finish": str(saved.turn.finish),
        "created": saved.created.isoformat(),
        "prompt_tokens": saved.prompt_tokens,
        "reused_tokens": saved.reused_tokens,
        "completion_tokens": saved.completion_tokens,
        "first_token_seconds": saved.first_token_seconds,
        "seconds": saved.seconds,
        "origin": asdict(saved.origin),
    }


def _json(transcripts: Sequence[Transcript]) -> str:
    sessions = [session_json(transcript) for transcript in transcripts]
    return json.dumps(sessions[0] if len(sessions) == 1 else sessions, ensure_ascii=False, indent=2) + "\n"


def _label(transcript: Transcript) -> dict[str, str]:
    said = "\n".join(saved.turn.answer for saved in transcript.turns)
    return medical_safety.aigc_metadata(said, transcript.record.id)


# ---------------------------------------------------------------- JSON lines: training data


def _json_lines(transcripts: Sequence[Transcript]) -> str:
    records = [record for record in map(_record, transcripts) if record["messages"]]
    if not records:
        raise UsageError(
            say("会话里没有可以训练的问答", "no session holds a question with its answer"),
            say(
                "换一种格式（.json 含全部分支），或换一个会话",
                "take another form (.json has every branch) or session",
            ),
        )
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _record(transcript: Transcript) -> dict[str, Any]:
    """Return a session as OpenAI's `messages`; answers not to be learned from have weight 0: context alone.

    No message may be empty: a turn without an answer is left out, and one without a question but where the answerer
    begins.
    """
    system, learned = transcript.record.system, _with_words(transcript.turns)
    messages: list[Mapping[str, Any]] = [{"role": "system", "content": system}] if system.strip() else []
    for saved in learned:
        if saved.turn.question.strip():
            messages.append({"role": "user", "content": saved.turn.question})
        weight = {} if _worth_learning(saved) else {"weight": 0}
        messages.append({"role": "assistant", "content": saved.turn.answer, **weight})
    label = _label(replace(transcript, turns=learned))
    return {"messages": messages if learned else [], "disclaimer": medical_safety.AI_MARK_ZH, "AIGC": label}


def _with_words(turns: Sequence[SavedTurn]) -> tuple[SavedTurn, ...]:
    """Return the turns with an answer and, behind the first of them, with a question."""
    answered = [saved for saved in turns if saved.turn.answer.strip()]
    return tuple(saved for at, saved in enumerate(answered) if not at or saved.turn.question.strip())


def _worth_learning(saved: SavedTurn) -> bool:
    """Whether the answer came to its own end, and was not said to mean nothing."""
    return saved.turn.finish is Finish.STOP and not any(map(says_it_means_nothing, saved.origin.notices))


# ---------------------------------------------------------------- Markdown and HTML: for people


def _markdown(transcripts: Sequence[Transcript]) -> str:
    labels = {transcript.record.id: _label(transcript) for transcript in transcripts}
    label = next(iter(labels.values())) if len(labels) == 1 else labels
    lines = [
        "---",
        f"AIGC: {json.dumps(label, ensure_ascii=False)}",
        "---",
        "",
        f"> {medical_safety.ai_mark()}",
    ]
    for transcript in transcripts:
        lines += [
            "",
            f"# {escape_cell(_title(transcript.record))}",
            "",
            escape_cell(_about(transcript.record)),
        ]
        for saved in transcript.turns:
            lines += ["", f"## {_heading(saved)}", "", *_quoted(saved.turn.question)]
            for notice in saved.origin.notices:
                lines += ["", f"**{notice_heading()}**", "", *_quoted(notice)]
            lines += ["", f"**{_answerer(saved)}**", "", *_quoted(saved.turn.answer)]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> list[str]:
    """Return somebody's Markdown as a quotation: it stays Markdown, but no HTML, and fetches no picture."""
    safe = sanitize(text).replace("<", "&lt;").replace("![", "!\\[")
    return [f"> {line}".rstrip() for line in safe.split("\n")]


def _html(transcripts: Sequence[Transcript]) -> str:
    sections = []
    for transcript in transcripts:
        sections.append(Section(_title(transcript.record), [Paragraph(_about(transcript.record))]))
        for saved in transcript.turns:
            said = [
                Quotation(say("问", "Question"), saved.turn.question),
                *(Quotation(notice_heading(), notice) for notice in saved.origin.notices),
                Quotation(_answerer(saved), saved.turn.answer),
            ]
            sections.append(Section(_heading(saved), said))
    title = _title(transcripts[0].record) if len(transcripts) == 1 else say("会话", "Sessions")
    labels = [_label(transcript) for transcript in transcripts]
    mark = Section(say("说明", "Note"), [Paragraph(medical_safety.ai_mark())])
    metadata = {"AIGC": labels[0] if len(labels) == 1 else labels}
    return as_html(Document(title, [mark, *sections], metadata))


def _title(record: SessionRecord) -> str:
    return sanitize_line(record.title, 80) or record.id


def _about(record: SessionRecord) -> str:
    when = record.created.astimezone().strftime("%Y-%m-%d %H:%M")
    return "  ".join(part for part in (record.id, when, record.backbone, Path(record.model).name) if part)


def _heading(saved: SavedTurn) -> str:
    when = saved.created.astimezone().strftime("%H:%M")
    return say(f"第 {saved.position} 轮（{when}）", f"Turn {saved.position} ({when})")


def _answerer(saved: SavedTurn) -> str:
    model = sanitize_line(Path(saved.origin.model).name, 60)
    ending = ending_mark(saved.turn.finish)
    edited = say("，已由用户修改", ", edited by the user") if saved.origin.edited else ""
    return say("答", "Answer") + (say(f"（{model}）", f" ({model})") if model else "") + edited + ending


#: What makes the text of a file, by the file's suffix.
FORMATS: Mapping[str, Callable[[Sequence[Transcript]], str]] = {
    ".md": _markdown,
    ".json": _json,
    ".jsonl": _json_lines,
    ".html": _html,
}
