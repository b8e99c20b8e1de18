"""The slash commands that change the conversation: answer again, continue, edit, undo, other branches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from medchat.api import Turn
from medchat.chat.revising import go_on, redo, switch, turn_numbered
from medchat.errors import UsageError
from medchat.language import say
from medchat.medical_safety import ai_mark
from medchat.repl.editing import begin_edit
from medchat.repl.rows import excerpt, two_columns
from medchat.repl.screen import untrusted, untrusted_line
from medchat.repl.slash import ReplCommand
from medchat.sanitize import sanitize
from medchat.store import BranchPoint, SavedTurn

if TYPE_CHECKING:
    from medchat.repl.chat import Chat

#: How many places with branches are listed at once, the last ones.
_PLACES_LISTED = 10


def _regenerate(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        chat.show_answer(lambda session, cancel: session.regenerate(cancel))


def _go_on(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    turns = chat.exchange.call(lambda session: session.conversation.turns)
    view = chat.show_answer(go_on)
    if view.stopped_early:
        chat.screen.tell(say("（已停止，回答没有变化）", "(stopped; the answer is as it was)"))
    elif view.answered is not None and turns:
        chat.screen.tell(
            say("全文：/历史 ", "the whole answer: /history ") + str(len(turns)),
        )


def _undo(chat: Chat, words: str) -> None:
    count = _count(words, "撤销", "undo")
    if not chat.exchange.ready():
        return
    taken = chat.exchange.call(lambda session: session.undo(count))
    undone = "\n".join(f"  {excerpt(turn.question)}" for turn in taken)
    chat.screen.show(say(f"已撤销 {count} 轮（/重做 恢复）：", f"Took back {count} (/redo):") + "\n" + undone)


def _redo(chat: Chat, words: str) -> None:
    count = _count(words, "重做", "redo")
    if chat.exchange.ready():
        _show_where(chat, chat.exchange.call(lambda session: redo(session, count)))


def _count(words: str, zh_name: str, name: str) -> int:
    """Return the number of turns that was typed, 1 for none. Raises UsageError for anything else."""
    try:
        return int(words or "1")
    except ValueError:
        raise UsageError(
            say(
                f"/{zh_name} 后面要写轮数，不是 {untrusted(words[:40])}",
                f"/{name} takes a number of turns, not {untrusted(words[:40])}",
            ),
            say(f"例如：/{zh_name} 2", f"for example: /{name} 2"),
        ) from None


def _copy(chat: Chat, words: str) -> None:
    parts = words.split()
    to_file = bool(parts) and parts[-1].lower() in ("file", "文件")
    number = "".join(parts[:-1] if to_file else parts)
    if number and not (number.isascii() and number.isdecimal()):
        raise UsageError(
            say(f"没有第 {untrusted(number[:20])} 轮", f"there is no turn {untrusted(number[:20])}"),
            say("例如：/复制、/复制 2、/复制 文件", "for example: /copy, /copy 2, /copy file"),
        )
    if not chat.exchange.ready():
        return
    turns = chat.exchange.call(lambda session: session.conversation.turns)
    turn = chat.exchange.call(lambda session: turn_numbered(session, int(number or max(1, len(turns)))))
    text = f"{sanitize(turn.answer)}\n\n{ai_mark()}\n"
    if not to_file and chat.screen.copy(text):
        chat.screen.show(
            say(
                f"已交给终端的剪贴板（{len(turn.answer)} 字）。终端不支持时：/复制 文件",
                f"Sent to the terminal's clipboard ({len(turn.answer)} characters)."
                " If the terminal does not support that: /copy file",
            )
        )
        return
    sessions = chat.startup.sessions
    if sessions is None:
        raise UsageError(say("这里不能复制", "there is nothing to copy to here"))
    place = untrusted_line(str(chat.exchange.call(lambda _: sessions.keep_copy(text))))
    chat.screen.show(
        say(
            f"已写入文件，仅本人可读；删除任何会话时一并删除：{place}",
            f"Written to a private file, which is removed when any session is deleted: {place}",
        )
    )


def _branch(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    numbers = [int(word) for word in words.split() if word.isascii() and word.isdecimal()]
    if len(numbers) != len(words.split()) or len(numbers) > 2:
        raise UsageError(
            say(
                "请写轮号和分支号，或只写轮号",
                "give the numbers of a turn and of a branch, or of a turn alone",
            ),
            say("例如：/分支 2 1", "for example: /branch 2 1"),
        )
    if len(numbers) == 2:
        position, way = numbers
        _show_where(chat, chat.exchange.call(lambda session: switch(session, position, way - 1)))
    else:
        _show_branches(chat, *numbers)


def _show_branches(chat: Chat, position: int | None = None) -> None:
    """List the alternatives at one place of the conversation, else at the last ones with branches."""
    points = [
        point
        for point in chat.exchange.call(lambda session: session.recorder.branches())
        if position in (None, point.position)
    ]
    if not points:
        chat.screen.show(
            say("这个会话没有别的分支。", "This conversation has no other branch.")
            if position is None
            else say(f"第 {position} 轮没有别的分支。", f"Turn {position} has no other branch.")
        )
        return
    last = points[-_PLACES_LISTED:]
    said = chat.exchange.call(lambda session: [session.recorder.turns_at(point) for point in last])
    width = chat.screen.width
    listed = (line for point, turns in zip(last, said, strict=True) for line in _ways(point, turns, width))
    chat.screen.show("\n".join(listed))
    if earlier := len(points) - len(last):
        first = points[0].position
        chat.screen.show(
            say(
                f"前面还有 {earlier} 处有分支。列出某一处：/分支 {first}",
                f"{earlier} earlier turns have branches too. To list those of one: /branch {first}",
            )
        )
    example = f"{last[-1].position} 1"
    chat.screen.show(say(f"换到某个分支：/分支 {example}", f"To go to one of them: /branch {example}"))


def _ways(point: BranchPoint, turns: Sequence[SavedTurn], width: int) -> Iterator[str]:
    """Yield the lines that list the alternatives at one place of the conversation."""
    yield say(f"第 {point.position} 轮：", f"Turn {point.position}:")
    for number, (way, saved) in enumerate(zip(point.alternatives, turns, strict=False), 1):
        mark = "*" if number - 1 == point.current else " "
        after = say(f"（之后 {way.following} 轮）", f" (+{way.following})") if way.following else ""
        yield f" {mark}{number}  {excerpt(saved.turn.question, max(20, width - 20))}{after}"
        yield f"      {excerpt(saved.turn.answer, max(20, width - 8))}"


def _show_where(chat: Chat, turns: Sequence[Turn]) -> None:
    """Say which turns were added to the conversation, and show its end."""
    have = chat.exchange.call(lambda session: session.conversation.turns)
    first = len(have) - len(turns) + 1
    rows = [
        (str(number), f"{excerpt(turn.question)}\n     {excerpt(turn.answer)}")
        for number, turn in enumerate(turns, first)
    ]
    heading = say(
        f"对话现在有 {len(have)} 轮，从第 {first} 轮起：", f"{len(have)} turns now; from turn {first} on:"
    )
    chat.screen.show("\n".join([heading, two_columns(rows, chat.screen.width)] if rows else [heading]))


TURN_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "regen",
        "重答",
        "",
        "重新回答上一个问题",
        "answer the last question again",
        _regenerate,
        more=(
            "新回答写完后取代原来的，原来的留在另一分支（/重做 换回）；中途停止或出错则什么都不变。",
            "The new answer takes the place of the old one once it is complete, and the old one stays on another branch"
            " (/redo goes back to it); if it is stopped or fails, nothing changes.",
        ),
    ),
    ReplCommand(
        "continue",
        "续写",
        "",
        "续写未完成的回答",
        "go on with an answer that was cut off",
        _go_on,
        more=(
            "用于达到长度上限、被停止或中途出错的回答。远程模型不支持，会说明怎么办。",
            "For an answer that reached its limit, was stopped or failed. A remote model cannot, and says what to do.",
        ),
    ),
    ReplCommand(
        "edit",
        "编辑",
        "[n] [q|a] [text]",
        "改第 n 轮的问或答，从那里继续",
        "change a question or an answer, go on from there",
        begin_edit,
        more=(
            "默认是最后一轮的问题。原文放进输入行，回车发送，Ctrl-G 用 $EDITOR 编辑，Ctrl-C 放弃。"
            "q 或“问”是问题，a 或“答”是回答；后面写上新的文字则立即修改。原来的和之后的各轮留在另一分支。",
            "By default the last question. The text goes into the prompt: Enter sends it, Ctrl-G opens $EDITOR, Ctrl-C"
            " leaves it. q is the question, a the answer. With the new text behind them it is changed at once. What was"
            " there and all after it stay on another branch.",
        ),
        examples=("/编辑 2 答", "/edit 2 a"),
    ),
    ReplCommand(
        "undo",
        "撤销",
        "[n]",
        "撤销最近 n 轮（默认 1）",
        "take back the last n turns (1)",
        _undo,
        more=(
            "模型不再看到撤销的问答。/重做 恢复；问了别的以后，它们留在另一分支（/分支）。",
            "The model no longer sees them. /redo brings them back; once something else is asked they stay on another"
            " branch (/branch).",
        ),
        examples=("/撤销 2", "/undo 2"),
    ),
    ReplCommand(
        "redo",
        "重做",
        "[n]",
        "恢复撤销的 n 轮，否则换到下一个分支",
        "bring back n turns, else go to the next branch",
        _redo,
        more=(
            "反复输入会在最后一处的各个分支之间依次切换，包括每次重答的回答。",
            "Again and again it goes through the branches at the last place that has any, such as answers given again.",
        ),
        examples=("/重做", "/redo"),
    ),
    ReplCommand(
        "copy",
        "复制",
        "[n] [file]",
        "把上一个（或第 n 轮的）回答复制到剪贴板",
        "copy the last answer, or that of turn n",
        _copy,
        more=(
            "经终端的剪贴板（OSC 52），带上人工智能生成标识。终端不支持或太长时写入仅本人可读的文件；"
            "--no-save 时不写。",
            "Through the terminal's clipboard (OSC 52), with the mark that an AI wrote it; else, and for what is too"
            " long, to a file for you alone, but none under --no-save.",
        ),
        examples=("/复制 2", "/copy 2"),
    ),
    ReplCommand(
        "branch",
        "分支",
        "[n] [k]",
        "列出各处的分支；换到第 n 轮的第 k 个",
        "list the branches; go to branch k at turn n",
        _branch,
        more=(
            "编辑、重答和撤销后另问，都会留下分支。只写轮号时列出那一轮的；不写时列出最近十处。"
            "换回去时，那个分支之后的各轮也一起回来。",
            "Edits, answers given again and other questions after /undo leave branches. The number of a turn lists"
            " those of that turn, no number those of the last ten that have any. Going back to one brings the turns"
            " after it along.",
        ),
        examples=("/分支 2 1", "/branch 2 1"),
    ),
)
