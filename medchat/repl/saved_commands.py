"""The slash commands about saved sessions: saving, finding, opening, copying and exporting them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from medchat.chat.saved_sessions import SavedSessions
from medchat.chat.session_lines import hit_lines, indexing, session_line
from medchat.errors import UsageError
from medchat.language import say
from medchat.repl import offers
from medchat.repl.messages import resumed_lines
from medchat.repl.rows import excerpt
from medchat.repl.screen import unforgeable, untrusted_line
from medchat.repl.slash import ReplCommand
from medchat.store import SessionRecord
from medchat.user_paths import user_path

if TYPE_CHECKING:
    from medchat.repl.chat import Chat

Result = TypeVar("Result")

#: The number of sessions offered, and of search hits shown.
OFFERED, _HITS = 200, 20
#: The number of sessions listed if the terminal has no picker.
_LISTED = 20
_OPTIONS = {"--redact": "redact", "--脱敏": "redact", "--overwrite": "overwrite", "--覆盖": "overwrite"}


def _sessions_of(chat: Chat) -> SavedSessions:
    if chat.startup.sessions is None:
        raise UsageError(say("这里没有保存的会话", "there are no saved sessions here"))
    return chat.startup.sessions


def _call(chat: Chat, work: Callable[[SavedSessions], Result]) -> Result:
    """Run `work` in the thread that owns the sessions."""
    sessions = _sessions_of(chat)
    return chat.exchange.call(lambda _: work(sessions))


def _save(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    if words.split()[:1] == ["profile"]:
        _save_profile(chat, words.removeprefix("profile").strip())
        return
    sessions, name = _sessions_of(chat), words or None
    on_disk, saved = _call(chat, lambda s: (s.on_disk, s.saved() is not None))
    said = chat.exchange.call(lambda session: bool(session.conversation.turns))
    if on_disk and (saved or not said):
        if name:
            _rename(chat, words)
        elif saved:
            chat.screen.show(say("每一轮都已保存。", "Every turn is saved already."))
        else:
            chat.screen.show(say("第一轮问答之后自动保存。", "It is saved with its first turn."))
    elif not on_disk and not chat.confirmed("save"):
        chat.screen.tell(
            say(
                "本次对话没有写入磁盘。确定要保存全部内容（含各分支），请再输入一次 /保存",
                "nothing of this chat is on disk. To save all of it, branches included, type /save once more",
            )
        )
    else:
        chat.exchange.change(lambda session: sessions.save(session, name))
        chat.screen.show(say("已保存，之后的每一轮也会保存。", "Saved; so is every turn from now on."))


def _save_profile(chat: Chat, name: str) -> None:
    control = chat.startup.control
    if control is None:
        raise UsageError(say("这里没有配置方案", "there are no profiles here"))
    place, shown = untrusted_line(str(control.save_profile(name))), untrusted_line(name)
    chat.screen.show(
        say(
            f"已存为配置方案“{shown}”：{place}。下次：medchat chat --profile {shown}",
            f"Saved as profile {shown}: {place}. Next time: medchat chat --profile {shown}",
        )
    )


def _load(chat: Chat, words: str) -> None:
    if not words:
        _pick(chat, words)
    elif chat.exchange.ready():
        sessions = _sessions_of(chat)
        chat.exchange.change(lambda session: sessions.load(session, words))
        for line in chat.exchange.call(lambda session: resumed_lines(sessions, session)):
            chat.screen.tell(line)


def _pick(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    records = _call(chat, lambda sessions: sessions.recent(OFFERED))
    if not records:
        chat.screen.show(say("还没有保存的会话。", "No session is saved yet."))
        return
    if chat.pick is not None:
        lines = [session_offer(record, chat.screen.width) for record in records]
        chosen = chat.pick(say("会话", "session"), lines)
        if chosen is not None:
            _load(chat, records[chosen].id)
        return
    chat.screen.show("\n".join(unforgeable(session_line(record)) for record in records[:_LISTED]))
    chat.screen.show(say("打开其中一个：/载入 编号", "To open one of them: /load ID"))


def session_offer(record: SessionRecord, width: int) -> str:
    """Return a session on one line, the most important first: at 40 cells title, time and turns."""
    title = excerpt(record.title, max(16, width - 50))
    when = record.updated.astimezone().strftime("%m-%d %H:%M")
    turns = say(f"{record.turns} 轮", f"{record.turns} turns")
    return f"{title}  {when}  {turns}  {untrusted_line(record.backbone[:12])}  {record.id}"


def _search(chat: Chat, words: str) -> None:
    terms = words.split()
    if not terms:
        raise UsageError(
            say("要搜索的文字是空的", "the text to search for is empty"),
            say("例如：/搜索 头痛", "for example: /search fever"),
        )
    if not chat.exchange.ready():
        return
    sessions = _sessions_of(chat)
    left: deque[int] = deque(maxlen=1)  # written by the thread that searches
    hits = chat.exchange.call_visibly(
        say("搜索中", "searching"),
        lambda session, stop: sessions.search(terms, _HITS, stop, left.append),
        lambda: indexing(left[0]) if left else "",
    )
    if hits is None:
        chat.screen.tell(say("（已停止搜索）", "(the search was stopped)"))
    elif not hits:
        chat.screen.show(say("没有找到。", "Nothing found."))
    else:
        chat.screen.show("\n".join(unforgeable(hit_lines(found, record)) for found, record in hits))
        chat.screen.show(say("打开其中一个：/载入 编号", "To open one of them: /load ID"))


def _rename(chat: Chat, words: str) -> None:
    if chat.exchange.ready():
        name = _call(chat, lambda sessions: sessions.rename(words))
        chat.exchange.change(lambda session: session)  # the status line shows the name
        chat.screen.show(
            say(f"会话名为：{untrusted_line(name)}", f"The session's name: {untrusted_line(name)}")
        )


def _fork(chat: Chat, words: str) -> None:
    if not chat.exchange.ready():
        return
    sessions = _sessions_of(chat)
    before = chat.exchange.session_label
    chat.exchange.change(lambda session: sessions.fork(session, words or None))
    chat.screen.show(
        say(
            f"对话已复制为新的会话，从这里起写入新会话；原会话不变：{excerpt(before) or '（未保存）'}",
            f"The conversation is copied into a session of its own and goes on there; unchanged:"
            f" {excerpt(before) or '(not saved)'}",
        )
    )


def _export(chat: Chat, words: str) -> None:
    parts, options = words.split(), dict[str, bool]()
    while parts and parts[-1] in _OPTIONS:
        options[_OPTIONS[parts.pop()]] = True
    place = words
    for word in words.split()[len(parts) :]:
        place = place[: place.rindex(word)].rstrip()
    if not place:
        raise UsageError(
            say("请写文件名", "name a file"),
            say(
                "例如：/导出 头痛.md（或 .html .json .jsonl）",
                "for example: /export fever.md (.html .json .jsonl)",
            ),
        )
    if not chat.exchange.ready():
        return
    from medchat.transcripts import (  # compiling its patterns would delay the first prompt
        left_out,
        write_export,
    )

    transcript = _call(chat, lambda sessions: sessions.transcript())
    path = user_path(place.strip("\"'“”")).absolute()
    write_export(path, [transcript], **options)
    shown = say(f"已导出：{untrusted_line(str(path))}", f"Exported: {untrusted_line(str(path))}")
    chat.screen.show(shown + left_out([transcript], path.suffix.lower()))


SAVED_COMMANDS: tuple[ReplCommand[Chat], ...] = (
    ReplCommand(
        "save",
        "保存",
        "[name|profile name]",
        "给会话取名；--no-save 的对话写入磁盘",
        "name the session; write one of --no-save to the disk",
        _save,
        more=(
            "每一轮本来就会保存。用了 --no-save 时要输入两次才会写入磁盘。"
            "/保存 profile 名称 把当前的模型、适配器、模板和生成参数存为配置方案（--profile）。",
            "Every turn is saved anyway. Under --no-save nothing is written before it was typed twice."
            " /save profile NAME saves the model, adapters, template and decoding settings as a profile (--profile).",
        ),
        examples=("/保存 复诊", "/save check-up"),
    ),
    ReplCommand(
        "load",
        "载入",
        "[id]",
        "用当前模型接着另一个会话",
        "go on with another session and the present model",
        _load,
        more=(
            "写编号、编号的后四位或会话名；不写则从列表里选。",
            "By id, its last four characters, or a name; without one a list is shown to pick from.",
        ),
        examples=("/载入 复诊", "/load check-up"),
        complete=offers.sessions,
    ),
    ReplCommand(
        "sessions",
        "会话",
        "",
        "从列表里选一个会话打开",
        "pick a session from the list and open it",
        _pick,
        more=(
            "输入几个字筛选，方向键选择，回车打开，Esc 返回。",
            "Type to narrow the list, arrows choose, Enter opens, Esc goes back.",
        ),
    ),
    ReplCommand(
        "search",
        "搜索",
        "text",
        "在全部会话里搜索",
        "search all sessions",
        _search,
        more=(
            "几个词都要出现；别的分支里的也能找到，会注明。",
            "Every word must occur. Turns on other branches are found too, and said to be there.",
        ),
        examples=("/搜索 头痛", "/search fever"),
    ),
    ReplCommand(
        "rename",
        "改名",
        "name",
        "给当前会话改名",
        "give this session another name",
        _rename,
        more=("没有名字的会话以第一个问题为标题。", "Without one the first question is the title."),
        examples=("/改名 头痛复诊", "/rename headache"),
    ),
    ReplCommand(
        "fork",
        "分叉",
        "[name]",
        "把当前对话复制成新会话，从那里继续",
        "copy the conversation into a new session and go on there",
        _fork,
        more=("其他分支留在原会话。", "Other branches stay in the former session."),
        examples=("/分叉 另一种问法", "/fork another way"),
    ),
    ReplCommand(
        "export",
        "导出",
        "file",
        "把对话写成 .md .html .json .jsonl",
        "write the conversation as .md .html .json .jsonl",
        _export,
        more=(
            "后缀决定格式：.md、.html 供阅读，.json 含全部分支，.jsonl 可用于微调。"
            "--redact（--脱敏）遮去姓名、证件号和电话；已有的文件不覆盖，除非加上 --overwrite（--覆盖）。",
            "The suffix chooses the form: .md and .html to read, .json with every branch, .jsonl for fine-tuning."
            " --redact masks names, ID and telephone numbers; a file that is there is replaced only with --overwrite.",
        ),
        examples=("/导出 头痛.md --redact", "/export fever.md --redact"),
        complete=offers.exports,
    ),
)
