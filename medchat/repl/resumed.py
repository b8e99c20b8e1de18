"""What is said where a saved session goes on: its last turns, and which models said them."""

from __future__ import annotations

from pathlib import Path

from medchat.chat.saved_sessions import SavedSessions
from medchat.chat.session import ChatSession
from medchat.language import say
from medchat.repl.rows import excerpt
from medchat.sanitize import sanitize_line

#: How many turns are shown.
SHOWN = 2


def resumed_lines(sessions: SavedSessions, session: ChatSession) -> list[str]:
    """Return the lines for a conversation that goes on; where another model answers from now on, they say so."""
    title, count = excerpt(sessions.label(session)), len(session.conversation.turns)
    lines = [say(f"接着会话 {title}（{count} 轮）", f"continuing session {title} ({count} turns)")]
    last = sessions.last_turns(SHOWN)
    for saved in last:
        who = _short(saved.origin.model)
        edited = say("，已修改", ", edited") if saved.origin.edited else ""
        lines.append(say("问：", "Q: ") + excerpt(saved.turn.question))
        lines.append(say(f"答（{who}{edited}）：", f"A ({who}{edited}): ") + excerpt(saved.turn.answer))
    before, now = last[-1].origin if last else None, sessions.answering
    if before and before.backbone and (before.backbone, before.model) != now:
        then, name = f"{before.backbone} {_short(before.model)}", f"{now[0]} {_short(now[1])}"
        lines.append(
            say(
                f"上一个回答来自 {then}，现在由 {name} 回答",
                f"the last answer is by {then}; now {name} answers",
            )
        )
    return lines


def _short(model: str) -> str:
    return sanitize_line(Path(model).name, 40) or "?"
