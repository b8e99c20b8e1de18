"""The slash commands about the last answer: its figures, its reasoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from medchat.chat.events import TurnStats
from medchat.chat.session import ChatSession
from medchat.chat.session_lines import ending_mark, said_with
from medchat.language import say
from medchat.repl import messages
from medchat.repl.rows import two_columns
from medchat.repl.screen import untrusted, untrusted_line
from medchat.repl.slash import ReplCommand
from medchat.store import SavedTurn

if TYPE_CHECKING:
    from medchat.repl.chat import Chat

#: The labels of facts that models describe; a backbone's own options state their names.
FACT_NAMES = {
    "accepted_tokens": ("采纳的草稿词元数", "draft tokens accepted"),
    "adapters": ("适配器", "adapters"),
    "backbone": ("模型家族", "model family"),
    "context_length": ("上下文长度", "context length"),
    "device": ("计算设备", "device"),
    "drafted_tokens": ("草稿词元数", "draft tokens"),
    "dtype": ("计算精度", "precision"),
    "engine": ("计算引擎", "engine"),
    "exact_counts": ("词元数是否精确", "exact token counts"),
    "model": ("模型", "model"),
    "notes": ("说明", "notes"),
    "parameters": ("参数量", "parameters"),
    "prices": ("每百万词元价格", "price of a million tokens"),
    "quantization": ("量化", "quantisation"),
    "served_model": ("服务端的模型名", "model at the server"),
    "threads": ("线程数", "threads"),
    "tokens": ("词元数", "tokens"),
    "vocab_size": ("词表大小", "vocabulary size"),
    "weight_bytes": ("每个词元要读的权重（字节）", "bytes of weights read per token"),
}


def _stats(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        sessions, width, control = chat.startup.sessions, chat.screen.width, chat.startup.control
        own = control.option_names if control else {}
        chat.screen.show(
            chat.exchange.call(
                lambda session: _statistics(session, sessions.last_turns(1) if sessions else (), width, own)
            )
        )


def _statistics(session: ChatSession, last: Sequence[SavedTurn], width: int, own: Mapping[str, str]) -> str:
    facts = [
        (key, value) for key, value in session.model.describe().items() if value not in ((), [], "", None)
    ]
    names = {**own, **{key: say(*name) for key, name in FACT_NAMES.items()}}
    rows = [(untrusted_line(names.get(key, key)), untrusted_line(_fact_text(value))) for key, value in facts]
    rows.append((say("轮数", "turns"), str(len(session.conversation.turns))))
    shown = two_columns(rows, width)
    stats = session.last_stats
    for saved in last:
        if stats is None or stats.seconds != saved.seconds:  # for example those of an answer that was undone
            stats = _figures(saved)
    if stats is not None:
        reused = say(f"复用 {stats.reused_tokens} 个词元", f"{stats.reused_tokens} tokens reused")
        seconds = say(f"用时 {stats.seconds:.1f} 秒", f"{stats.seconds:.1f} s")
        heading = say("上一个回答：", "Last answer: ")
        shown += f"\n{heading}{messages.footer(stats, session.model.context_length)} · {reused} · {seconds}"
    for saved in last:
        ending = ending_mark(saved.turn.finish).strip() or say("正常结束", "ended by itself")
        shown += "\n" + "\n".join(untrusted(line) for line in (*said_with(saved), ending))
    return shown


def _figures(saved: SavedTurn) -> TurnStats | None:
    """Return the cost of a saved answer, None if it was not recorded."""
    if not saved.completion_tokens:
        return None
    return TurnStats(
        saved.prompt_tokens,
        saved.reused_tokens,
        saved.completion_tokens,
        saved.first_token_seconds,
        saved.seconds,
    )


def _fact_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return say("；", "; ").join(map(str, value))
    if isinstance(value, bool):
        return say("是", "yes") if value else say("否", "no")
    return f"{value:,}" if isinstance(value, int) else say("无", "none") if value == "none" else str(value)


def _reasoning(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        text = chat.exchange.call(lambda session: session.last_reasoning)
        chat.screen.show(untrusted(text.strip()) or say("上一个回答没有思考。", "No reasoning came with it."))


CONTEXT_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "stats",
        "统计",
        "",
        "模型与上一个回答的数据",
        "figures of the model and the last answer",
        _stats,
        more=(
            "词元数、速度、首词元时间，以及模型的参数。",
            "Tokens, speed, time to the first token, and the model's own figures.",
        ),
    ),
    ReplCommand(
        "thinking",
        "思考",
        "",
        "上一个回答之前的思考全文",
        "what the model reasoned before its answer",
        _reasoning,
        more=(
            "思考不属于回答，不保存，也不会再发给模型。",
            "Reasoning is no part of the answer: it is not saved, and not sent to the model again.",
        ),
    ),
)
