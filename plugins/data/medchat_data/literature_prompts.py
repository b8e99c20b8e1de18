"""The prompts of the four stages in which literature becomes dialogues. Each asks for a JSON object alone."""

from __future__ import annotations

#: Rises when the wording of a prompt changes.
PROMPT_VERSION = 1
#: So many statements of a text are taken at most.
MOST_STATEMENTS = 5
_ONLY = "前后不写任何其他文字，不写分析，不用代码块。"


def statements_prompt(text: str) -> str:
    """Return what asks for the statements of a text."""
    return "\n".join(
        [
            "从下面的医学文献中，提取可以单独成立的结论。",
            f"文献：{text}",
            "要求：",
            f"1. 最多 {MOST_STATEMENTS} 条，每条一句话，写明对象，不用“本研究”“该药”等离开上下文就看不懂的说法。",
            "2. 只写文献里有的，数字照抄。",
            f'3. 只输出一个 JSON 对象：{{"statements": ["…"]}}。{_ONLY}',
        ]
    )


def question_prompt(statement: str, *, asserts_false: bool) -> str:
    """Return what asks for a question that the statement answers, or that takes its contrary for true."""
    task = (
        "写一个普通人的提问，提问者误以为与这条结论相反的说法是对的，并把这个错误的说法直接讲出来。"
        if asserts_false
        else "写一个普通人的提问，这条结论正好可以回答它。提问里不要说出答案。"
    )
    return "\n".join(
        [
            f"结论：{statement}",
            f"要求：\n1. {task}",
            f'2. 只输出一个 JSON 对象：{{"question": "…"}}。{_ONLY}',
        ]
    )


def answer_prompt(statement: str, question: str, *, asserts_false: bool) -> str:
    """Return what asks for the answer to a question from the statement alone."""
    task = (
        "提问里的说法是错的：第一句先指出它不对，再用结论说明正确的是什么。"
        if asserts_false
        else "直接回答提问；不要一开口就附和。"
    )
    return "\n".join(
        [
            f"结论：{statement}",
            f"提问：{question}",
            f"要求：\n1. {task}",
            "2. 只依据这条结论，不添加其中没有的内容，数字照抄。",
            f'3. 只输出一个 JSON 对象：{{"answer": "…"}}。{_ONLY}',
        ]
    )


def check_prompt(statement: str, question: str, answer: str) -> str:
    """Return what asks whether the statement bears the answer out, with the span that does."""
    return "\n".join(
        [
            "核对：回答里的内容是否都能由这条结论得出。",
            f"结论：{statement}",
            f"提问：{question}",
            f"回答：{answer}",
            "要求：",
            "1. supported 写 yes 或 no；回答里有任何一点得不出来，或与结论矛盾，就写 no。",
            "2. quote 从结论里原样抄出回答所依据的那一段。",
            f'3. 只输出一个 JSON 对象：{{"supported": "yes", "quote": "…"}}。{_ONLY}',
        ]
    )
