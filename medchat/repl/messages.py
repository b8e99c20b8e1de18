"""The messages around an answer, in the interface language."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medchat.api import ChatModel, Finish
from medchat.chat.demo_mode import UnknownToDemo
from medchat.chat.events import (
    AnswerFinished,
    AnswerShortened,
    HistoryDropped,
    OldAnswerKept,
    SettingsRejected,
    SingleTurnTemplate,
    TurnStats,
)
from medchat.chat.loading import Loading
from medchat.chat.saved_sessions import SavedSessions
from medchat.chat.session import ChatSession
from medchat.chat.setup import ChatSetup
from medchat.cli.output import MovingLine
from medchat.errors import MedchatError
from medchat.language import say
from medchat.repl.rows import excerpt
from medchat.sanitize import sanitize_line
from medchat.units import amount

#: The number of turns shown of a session that is continued.
SHOWN = 2


def dropped(event: HistoryDropped) -> str:
    """Return the message that old turns are not in the prompt: the context is full, or the template leaves them out."""
    if not event.by_template:
        return say(
            f"上下文已满，最早的 {event.turns} 轮未发送（重新开始：/新建）",
            f"the context is full: the oldest {event.turns} turns were not sent to the model (/new starts over)",
        )
    if not event.kept:
        return say(
            "此模板每次只发送当前问题，模型看不到之前的对话",
            "this template sends the present question alone: the model does not see what was said before",
        )
    return say(
        f"此模板每次只发送最近 {event.kept} 轮，更早的 {event.turns} 轮未发送",
        f"this template sends the latest {event.kept} turns only; the {event.turns} before them were not sent",
    )


def what_clear_means(word: str) -> str:
    """Return the question what a `clear` without a slash was meant to do."""
    return say(
        f"没有发送。开始新会话：/新建；只清空屏幕：/清屏；要把 {word} 这个词发给模型，请再输入一次",
        f"not sent. A new conversation: /new; the screen alone: /clear; to send the word {word}, type it again",
    )


def shortened(event: AnswerShortened) -> str:
    """Return the message that the context leaves less room than asked for."""
    return say(
        f"上下文剩余空间只够回答约 {event.tokens} 个词元",
        f"the context leaves room for about {event.tokens} tokens of answer",
    )


def single_turn(event: SingleTurnTemplate) -> str:
    """Return the message that the weights saw single turns."""
    name = sanitize_line(event.template, 60)
    return say(
        f"模板 {name} 的权重只用单轮对话训练过，多轮效果可能变差（--history none 可逐题单独发送）",
        f"the weights for template {name} saw single turns only; several may work worse"
        " (--history none sends each question alone)",
    )


def loop_stopped() -> str:
    """Return the message that an endless repetition was cut off."""
    return say("模型陷入重复，已自动停止", "the model kept repeating itself and was stopped")


def does_not_stop() -> str:
    """Return the message that the model was asked to stop and has not, and how to leave it."""
    return say(
        "模型还没有停下；再按一次 Ctrl-C，保存已有的内容并退出",
        "the model has not stopped; Ctrl-C again saves what has come and leaves",
    )


def left_running(command: str, plugin: str) -> str:
    """Return the message that the command of a plugin was left before it ended."""
    name, whose = sanitize_line(command), sanitize_line(plugin)
    return say(
        f"不再等待插件 {whose} 的 /{name}；对话没有变化",
        f"/{name} of the plugin {whose} is no longer waited for; the conversation is as it was",
    )


def ending(finish: Finish, tokens: int) -> str:
    """Return why the answer ended, or "" where it simply was complete."""
    if finish is Finish.CANCELLED:
        return say("（已停止，保留部分回答）", "(stopped; the partial answer is kept)")
    if finish is Finish.LENGTH:
        more = max(2, 2 * tokens)
        return say(
            f"回答达到长度上限（{tokens} 个词元），可能没有说完：/续写 接着写，"
            f"或 /设置 max-new-tokens {more} 后用 /重答",
            f"the answer reached the limit ({tokens} tokens) and may be incomplete: /continue goes on with it; or"
            f" /set max-new-tokens {more}, then /regen",
        )
    if finish is Finish.ERROR:
        return say("（回答中途出错，保留部分回答）", "(the answer failed part-way; what had come is kept)")
    return ""


def old_kept(event: OldAnswerKept) -> str:
    """Return the message that the new answer did not take the old one's place."""
    if event.finish is Finish.ERROR:
        return say(
            "（重答中途出错，保留原来的回答）", "(the new answer failed part-way; the earlier answer is kept)"
        )
    return say("（已停止，保留原来的回答）", "(stopped; the earlier answer is kept)")


def empty(answered: AnswerFinished) -> str:
    """Return the message that the model ended without an answer; "" where it gave one."""
    if answered.turn.answer.strip():
        return ""
    if not answered.reasoning.strip():
        return say("（模型没有写出任何文字）", "(the model wrote no text)")
    if answered.turn.finish is Finish.LENGTH:
        return say(
            "（模型只有思考，没有给出回答：词元在思考中用完了，请调高 max-new-tokens）",
            "(the model reasoned and gave no answer: its tokens were used up; raise max-new-tokens)",
        )
    return say(
        "（模型只有思考，没有给出回答：再问一次，或在服务端关闭思考）",
        "(the model reasoned and gave no answer: ask again, or turn reasoning off at the server)",
    )


def reasoned(characters: int, seconds: float) -> str:
    """Say, in one line in place of the text, that the model reasoned before its answer."""
    return say(
        f"（思考了 {seconds:.0f} 秒，{characters} 字；看全文：/思考）",
        f"(reasoned for {seconds:.0f} s, {characters} characters; /thinking shows them)",
    )


def reasoned_unmarked(characters: int) -> str:
    """Return the message that what was shown as the answer so far was reasoning."""
    return say(
        f"（以上 {characters} 字是模型的思考，不是回答，也不会再发给模型）",
        f"(the {characters} characters above are the model's reasoning: no answer, and not sent to it again)",
    )


def rejected(event: SettingsRejected) -> str:
    """Return the message naming the settings that the server did not take."""
    spelled = (
        name + say("（--greedy 即 temperature 0）", " (which --greedy sets to 0)") * (name == "temperature")
        for name in event.names
    )
    names = say("、", ", ").join(spelled)
    return say(
        f"服务端不接受 {names}，已去掉后重新发送", f"the server does not take {names}: asked again without"
    )


def nothing_said() -> str:
    """Return the message that the question was stopped before anything came."""
    return say(
        "（已停止，还没有任何回答；问题已放回输入行）",
        "(stopped before any answer; the question is back in the prompt)",
    )


def footer(stats: TurnStats, context_length: int) -> str:
    """Return the line of figures under an answer."""
    used = stats.prompt_tokens + stats.completion_tokens
    about = say("约 ", "~") if stats.estimated else ""
    given, written = f"{about}{stats.prompt_tokens}", f"{about}{stats.completion_tokens}"
    return say(
        f"输入 {given} · 输出 {written} 词元 · {stats.tokens_per_second:.1f} 词元/秒"
        f" · 首词元 {stats.first_token_seconds:.1f} 秒 · 上下文 {used}/{context_length}",
        f"in {given} · out {written} tokens · {stats.tokens_per_second:.1f} tokens/s"
        f" · first token {stats.first_token_seconds:.1f} s · context {used}/{context_length}",
    )


def unknown_to_demo(unknown: UnknownToDemo) -> str:
    """Return the message that the demo's miniature has not learned the question, and offer those that it has."""
    lines = [say("演示模型没有学过这个问题，不作回答。", "The demo model has not learned this: no answer.")]
    if unknown.nearest:
        lines.append(say("它学过相近的（输入编号即可提问）：", "It has learned (type a number to ask):"))
        lines += [f"  {number}  {question}" for number, question in enumerate(unknown.nearest, 1)]
    lines.append(
        say(
            "/题目 列出它学过的问题；/硬答 让它照样回答，但内容没有意义",
            "/questions lists what it knows; /insist makes it write anyway, but the text will mean nothing",
        )
    )
    return "\n".join(lines)


#: The width in cells of the loading progress bar.
_BAR = 12


def loading_bar(loading: Loading) -> str:
    """Return the loading progress and the total bytes; "" if unknown."""
    if not loading.total:
        return ""
    filled = min(_BAR, _BAR * loading.read // loading.total)
    bar = "█" * filled + "░" * (_BAR - filled)
    return f"{bar} {amount(loading.read)} / {amount(loading.total)}"


def out_of_memory() -> str:
    """Return what happened to an answer that ran out of memory, and what takes less memory."""
    return say(
        "对话已保留，可以继续提问。减少内存：/设置 max-new-tokens 调低，/设置 num-beams 1，"
        "/设置 history none 或 /新建 缩短上下文",
        "the conversation is kept and goes on. What takes less memory: lower /set max-new-tokens,"
        " /set num-beams 1, /set history none, or a shorter context with /new",
    )


def loading_stopped() -> str:
    """Return the message that no model is there, because the user would not wait."""
    return say(
        "已取消加载，问题已放回输入行；再次发送会重新加载",
        "loading was cancelled, and the question is back in the prompt; sending it again loads the model",
    )


def failure(error: BaseException) -> str:
    """Return the one or two lines that say what failed and what to do."""
    if isinstance(error, UnknownToDemo):
        return unknown_to_demo(error)
    if not isinstance(error, MedchatError):
        return say("程序内部错误：", "internal error: ") + sanitize_line(
            f"{type(error).__name__}: {error}", 300
        )
    place = f"（{sanitize_line(error.where)}）" if error.where else ""
    lines = [say("错误：", "error: ") + sanitize_line(error.what, 600) + place]
    if error.remedy:
        lines.append(say("下一步：", "next: ") + sanitize_line(error.remedy, 600))
    return "\n".join(lines)


def resumed_lines(sessions: SavedSessions, session: ChatSession) -> list[str]:
    """Return the lines for a conversation that continues; where another model answers from now on, they say so."""
    title, count = excerpt(sessions.label(session)), len(session.conversation.turns)
    lines = [say(f"继续会话 {title}（{count} 轮）", f"continuing session {title} ({count} turns)")]
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


def load_with_line(opening: ChatSetup) -> ChatModel:
    """Load the model; show the progress if stderr can redraw a line. Raises what loading raises."""
    with MovingLine() as line:
        if not line.moves:
            return opening.load()
        loading = Loading()

        def watch(read: int, total: int) -> None:
            loading.watch(read, total)
            line.show(f"{say('模型加载中', 'loading the model')} {loading_bar(loading)}")

        return replace(opening, options=replace(opening.options, watch=watch)).load()
