"""What a model is asked, to write a sample in its own words.

The prompt holds the knowledge that may be used and the words of the prompt form as a draft, so that the model has to
write well, and not to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from medchat_data.prompt_forms import Sample

#: Rises when the wording of the prompts changes.
PROMPT_VERSION = 1
#: The numbers to call for help in China: an answer keeps those of its draft.
_HELP_NUMBERS = re.compile(r"(?<!\d)(?:110|119|120|12356)(?!\d)")
#: What a model is to do in each form.
_TASKS: Mapping[str, str] = {
    "direct": "围绕一种关系的直接提问",
    "compare": "比较两者的提问",
    "case": "患者讲述症状，询问可能的疾病",
    "treatment": "已经确诊，询问治疗",
    "check": "询问一种说法是否成立",
    "follow-up": "接着之前的对话追问",
}


def prompt_for(sample: Sample) -> str:
    """Return what a model is asked, to write the sample in its own words."""
    parts = [
        "请为中文医学问答数据写一组问答。只使用下面给出的知识，不添加其中没有的事实，不写剂量。",
        "知识：",
    ]
    for record in sample.sources:
        parts.append(f"〔{record.centre}〕")
        names = [name for name in sample.relations if name in record.relations]
        parts += [f"{name}：{'；'.join(record.relations[name])}" for name in names]
    for turn in sample.before:
        parts += ["之前的对话：", f"用户：{turn.question}", f"助手：{turn.answer}"]
    parts += [f"问法：{_TASKS[sample.form]}", f"底稿问题：{sample.question}", f"底稿回答：{sample.answer}"]
    parts.append("要求：")
    parts += [f"{number}. {rule}" for number, rule in enumerate(_rules(sample), start=1)]
    return "\n".join(parts)


def _rules(sample: Sample) -> Iterator[str]:
    yield "question 用普通患者的口吻改写底稿问题，意思不变。"
    yield f"answer 把底稿回答写得通顺完整，意思不变，并原样写出其中至少一项：{'；'.join(sample.values)}。"
    if sample.hidden:
        yield f"question 里不能出现“{sample.hidden}”。"
    if sample.verdict:
        yield f"answer 的第一句先说“{sample.verdict}”。"
    if numbers := help_numbers(sample.answer):
        yield f"answer 里保留求助电话 {'、'.join(numbers)}。"
    yield (
        '只输出一个 JSON 对象：{"question": "…", "answer": "…"}。前后不写任何其他文字，不写分析，不用代码块。'
    )


def help_numbers(text: str) -> list[str]:
    """Return the numbers to call for help that the text names, each once."""
    return list(dict.fromkeys(_HELP_NUMBERS.findall(text)))
