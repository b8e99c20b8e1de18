"""The three prompt templates of ChatGLM-6B and ChatGLM-6B-Med, and which one a checkpoint was trained with.

All yield text only: the tokenizer's `build_prompt` appends [gMASK] `<sop>`. See docs/specs/models.md,
"ChatGLM-6B prompts and generation".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medchat.checkpoints.layout import read_config
from medchat.checkpoints.stated_template import stated_facts, stated_template
from medchat.plugin_kit import (
    CheckpointError,
    LoadOptions,
    PromptTemplate,
    Segment,
    SpecialTokens,
    Text,
    Turn,
    say,
)
from medchat_chatglm.config_file import generation_of

#: The config.json key that names the template; our own fine-tuning writes it.
TEMPLATE_KEY = "medchat_template"
#: The key of the position rule, which distinguishes a plain checkpoint of v0 from a Med one.
RULE_KEY = "medchat_position_rule"


@dataclass(frozen=True, slots=True)
class RoundsTemplate:
    """`[Round n]` blocks as in the original chat function; a single first question has none."""

    name: str = "chatglm_rounds"
    stop: tuple[str, ...] = ()
    multi_turn: bool = True
    note: Mapping[str, str] = field(
        default_factory=lambda: {
            "zh": "训练所用权重：原版 ChatGLM-6B（第一代），多轮",
            "en": "trained on it: the plain ChatGLM-6B of the first generation, several turns",
        }
    )

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return the prompt. Rounds count from 0; `system`, which the model never saw, goes in front."""
        if not turns:
            return (Text(_lead(system) + question),)
        rounds = [
            f"[Round {number}]\n问：{turn.question}\n答：{turn.answer}\n" for number, turn in enumerate(turns)
        ]
        last = f"[Round {len(turns)}]\n问：{question}\n答："
        return (Text(_lead(system) + "".join(rounds) + last),)


@dataclass(frozen=True, slots=True)
class QuestionTemplate:
    """A single-turn template for one question; in a longer chat the block is repeated for each turn."""

    name: str
    before: str
    after: str
    stop: tuple[str, ...] = ()
    multi_turn: bool = False
    note: Mapping[str, str] = field(default_factory=dict)

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return the prompt; `system`, which the model never saw, goes in front."""
        earlier = [f"{self._block(turn.question)}{turn.answer}\n" for turn in turns]
        return (Text(_lead(system) + "".join(earlier) + self._block(question)),)

    def _block(self, question: str) -> str:
        return f"{self.before}{question}{self.after}"


CHATGLM_ROUNDS = RoundsTemplate()
#: The template of ChatGLM-6B-Med's training data: an ASCII colon and a space at the end.
MED_CHATGLM = QuestionTemplate(
    "med_chatglm",
    before="问题：",
    after="\n回答: ",
    note={
        "zh": "训练所用权重：ChatGLM-6B-Med（单轮），及本程序微调的 ChatGLM",
        "en": "trained on it: ChatGLM-6B-Med (single turns), and ChatGLMs fine-tuned by MedChat",
    },
)
#: The template of its demo, which the weights were not trained with.
MED_CHATGLM_DEMO = QuestionTemplate(
    "med_chatglm_demo",
    before="问题：",
    after="\n答案：",
    note={
        "zh": "ChatGLM-6B-Med 的演示程序用它；没有权重是用它训练的",
        "en": "what the demo of ChatGLM-6B-Med asks with; no weights were trained on it",
    },
)

TEMPLATES: Mapping[str, PromptTemplate] = {
    template.name: template for template in (CHATGLM_ROUNDS, MED_CHATGLM, MED_CHATGLM_DEMO)
}


def rule_template(
    options: LoadOptions, specials: Callable[[], SpecialTokens] = SpecialTokens
) -> PromptTemplate:
    """Return the template for these weights: the one that the last adapter states, else the checkpoint's.

    `specials` is called if a folder has a Jinja template. Raises CheckpointError (see `template_for`).
    """
    for folder in reversed(options.adapters):
        if found := stated_template(folder, TEMPLATES.values(), specials):
            return found
    return chatglm_template(options.model, specials)


def chatglm_template(folder: Path, specials: Callable[[], SpecialTokens] = SpecialTokens) -> PromptTemplate:
    """Return the template the checkpoint in `folder` was trained with, from its small files.

    The key `medchat_template` names it; else v0 takes the trained Med template, v1.1 the rounds. Raises
    CheckpointError if config.json is missing, unreadable or names an unknown template.
    """
    config = read_config(folder)
    name = config.get(TEMPLATE_KEY)
    if name is None:
        return MED_CHATGLM if generation_of(config) == "v0" else CHATGLM_ROUNDS
    found = stated_template(folder, TEMPLATES.values(), specials)
    if found is None:
        known = ", ".join(TEMPLATES)
        raise CheckpointError(
            say(
                f"{TEMPLATE_KEY} 的值“{name}”不是已知的提示模板",
                f"{TEMPLATE_KEY} {name!r} is no known template",
            ),
            say(f"可用的模板：{known}；或用 --template 另行指定", f"use one of {known}, or pass --template"),
            where=str(folder / "config.json"),
        )
    return found


def chatglm_trained_templates(options: LoadOptions) -> tuple[str, ...]:
    """Return the name of the template, or nothing for v0 with a rule other than Med's.

    The plain model of that generation has the same files; only a rule, in `options` or config.json,
    identifies it.
    """
    if any(stated_facts(folder).get(TEMPLATE_KEY) for folder in options.adapters):
        return (rule_template(options).name,)
    config = read_config(options.model)
    rule = options.extra.get("rule") or config.get(RULE_KEY, "med")
    foreign = generation_of(config) == "v0" and rule not in ("med", "med_demo")
    return () if foreign and TEMPLATE_KEY not in config else (chatglm_template(options.model).name,)


def _lead(system: str) -> str:
    return f"{system}\n" if system else ""
