"""An extension: a notice about long fevers, `/triage` in a chat, `medchat triage TEXT`, and a line of `doctor`.

What it says is beside MedChat's own emergency notices; it can take none of them away.
"""

import re
from collections.abc import Mapping, Sequence

import click

from medchat import plugin_kit as kit

medchat_api_version = 1
OPTIONS = {
    "days": kit.Option(
        kind=int,
        low=1,
        high=30,
        default=3,
        summary={"zh": "发热几天后提示", "en": "days of fever until a notice"},
    )
}
FEVER = re.compile(r"发热|发烧|高烧|fever", re.I)
DAYS = re.compile(r"(\d{1,3}|[一二两三四五六七八九十])\s*(?:天|日|days?)", re.I)
DIGITS = {**{digit: n for n, digit in enumerate("一二三四五六七八九十", start=1)}, "两": 2}


def days_of_fever(text: str) -> int:
    """Return for how many days somebody has had a fever, as far as the text says; 0 where it says nothing."""
    if not FEVER.search(text):
        return 0
    return max((DIGITS.get(found) or int(found) for found in DAYS.findall(text)), default=0)


def advice(text: str) -> str:
    """Return what to say of the text, "" if there is nothing."""
    days, limit = days_of_fever(text), kit.plugin_settings("triage", OPTIONS)["days"]
    if days < limit:
        return ""
    return kit.say(
        f"发热已 {days} 天：请到医院就诊，查明原因。", f"Fever for {days} days: have a doctor find the cause."
    )


@kit.hookimpl
def medchat_advise(conversation: kit.Conversation, text: str) -> Sequence[kit.Notice]:
    said = advice(text)
    return [kit.Notice(said, key="triage-fever", short=said)] if said else []


@kit.hookimpl
def medchat_slash_commands() -> Sequence[kit.SlashCommand]:
    def run(conversation: kit.Conversation, words: str) -> str:
        texts = [words] if words else [turn.question for turn in conversation.turns]
        return "\n".join(filter(None, map(advice, texts))) or kit.say("没有发现", "nothing found")

    summary = {"zh": "检查问过的话里有没有持续发热", "en": "look for long fevers in what was asked"}
    return [kit.SlashCommand("triage", "分诊", summary, run)]


@click.command("triage", cls=kit.LocalizedCommand, help=kit.say("检查一句话。", "Look at a text."))
@click.argument("text")
def triage(text: str) -> int:
    """Print the advice; the exit code is 0 either way."""
    return kit.write_out((advice(text) or kit.say("没有发现", "nothing found")) + "\n")


@kit.hookimpl
def medchat_commands() -> Sequence[click.Command]:
    return [triage]


@kit.hookimpl
def medchat_doctor(settings: Mapping[str, object]) -> Sequence[kit.Finding]:
    days = kit.plugin_settings("triage", OPTIONS)["days"]
    return [
        kit.Finding(
            True, kit.say(f"分诊：发热 {days} 天起提示", f"triage: notices from {days} days of fever")
        )
    ]
