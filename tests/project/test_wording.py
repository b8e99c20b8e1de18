"""Every text for users exists in both languages, and the Chinese ones are set as Chinese is."""

from __future__ import annotations

import pytest
from locations import ROOT
from wording import faults_in, texts_of_say

#: Modules whose Chinese outside `say` is nobody's message: only their calls of `say` are read.
OTHERS_WORDS = {
    "medchat/hf/tiny.py": "what a miniature's vocabulary is made from",
    "medchat/medical_safety/folding.py": "characters that are written alike",
    "medchat/medical_safety/harmful_first_aid.py": "patterns of what answers advise",
    "medchat/medical_safety/measures.py": "how numbers and units are written",
    "medchat/redaction.py": "surnames",
    "medchat/weights/common_questions.py": "the title of a paper",
    "plugins/bloom/medchat_bloom/huozi/prompts.py": "the prompt that the weights were trained with",
    "plugins/chatglm/medchat_chatglm/cleanup.py": "what the weights write in place of a date",
    "plugins/chatglm/medchat_chatglm/prompts.py": "the prompts that the weights were trained with",
    "plugins/chatglm/medchat_chatglm/tiny.py": "what a miniature's vocabulary is made from",
    "plugins/data/medchat_data/converting.py": "how Med-ChatGLM's data frames a question",
    "plugins/data/medchat_data/differences.py": "words that are looked for in questions",
    "plugins/data/medchat_data/literature_prompts.py": "what a model is asked to write",
    "plugins/data/medchat_data/prompt_forms.py": "questions and answers for training",
    "plugins/data/medchat_data/relations.py": "questions and answers for training",
    "plugins/data/medchat_data/sample_prompt.py": "what a model is asked to write",
    "plugins/eval/medchat_eval/choice_prompt.py": "how a question is put to a model",
    "plugins/bench/medchat_bench/measuring.py": "what a model is asked",
    "plugins/eval/medchat_eval/extraction.py": "how answers are worded",
    "plugins/eval/medchat_eval/judge_forms.py": "what a judge is asked",
    "plugins/llama/medchat_llama/tiny.py": "what a miniature's vocabulary is made from",
}


def sources() -> dict[str, str]:
    """Return the text of each module of the program by its path."""
    found = [*(ROOT / "medchat").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(found)}


def test_no_text_of_the_program_has_a_mechanical_fault() -> None:
    modules = sources()
    assert sum(map(texts_of_say, modules.values())) > 1000
    faults = [
        f"{path} {fault}"
        for path, source in modules.items()
        for fault in faults_in(source, elsewhere=path not in OTHERS_WORDS)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", OTHERS_WORDS)
def test_a_module_is_left_out_only_where_it_has_to_be(path: str) -> None:
    assert faults_in((ROOT / path).read_text(encoding="utf-8"))


FAULTY = {
    "a missing language": ['say("没有模型")', 'say("没有模型", "")', 'say("no model here", "no model here")'],
    "a missing language: no English beside it": [
        'TITLE = "这里没有可用的模型"',
        'f(1, "这里没有可用的模型")',
    ],
    "Chinese in the English text": ['say("没有模型", "no 模型")', 'say("没有模型：", "no model：")'],
    "half-width punctuation beside Chinese": [
        'say("没有模型,请检查", "none")',
        'say("选项:", "Options:")',
        'say("好了吗?", "done?")',
        'say("完成.", "done")',
        'Option("没有模型,请检查路径", "there is no such model")',
        'f"{name}: " + say("完成;继续", "done; go on")',
    ],
    "half-width brackets beside Chinese": ['say("模型(微型)", "model")', 'say(f"({n} 个)模型", "models")'],
    "straight quotes beside Chinese": ["""say("请写'模型'", "write it")""", """say('名为"甲"的', "named")"""],
    "quotes that are not in pairs": [
        'say("名为“甲", "named")',
        'say("名为“甲“的", "named")',
        'say("甲”", "named")',
    ],
    "quotes of another kind": ['say("名为「甲」的", "named")'],
    "a blank beside full-width punctuation": ['say("模型 ，请检查", "model")', 'say("（ 空）", "(empty)")'],
    "two marks in a row": ['say("没有模型。，", "none")'],
    "dots in place of an ellipsis": ['say("加载中...", "loading…")', 'say("加载中。。", "loading…")'],
    "no blank between Chinese and Latin": [
        'say("使用JSON 文件", "JSON")',
        'say("有3 个", "3")',
        'say("占 5%的", "5 %")',
    ],
    "another form of address": ['say("你的模型", "your model")'],
    "a value in Python's quotes": ['say(f"没有 {name!r} 这个模型", f"no {name!r}")'],
    "names joined by a half-width mark": ["""say(f"可选：{', '.join(names)}", "choose")"""],
    "half-width marks around a text of say": [
        'f\'{name} ({say("空", "empty")}\'',
        'say("内存不足", "no memory") + f": {reason}"',
        'f"a: " + say("空", "empty")',
    ],
    "遍数, where the other texts say 训练轮数": [
        'say("遍数", "epochs")',
        'Key("num_epochs", "遍数", "epochs")',
    ],
}


@pytest.mark.parametrize(("what", "source"), [(what, each) for what in FAULTY for each in FAULTY[what]])
def test_each_fault_is_found_where_it_is(what: str, source: str) -> None:
    found = faults_in(f"import x\n\n{source}\n")
    assert [fault.line for fault in found if fault.what.startswith(what)] == [3], found


@pytest.mark.parametrize(
    "source",
    [
        'say("没有模型，请检查 --model 的路径", "no model: check --model")',
        'say("试试：medchat ask \\"头痛怎么办？\\"", "try: medchat ask \\"头痛怎么办？\\"")',
        'say("、", ", ").join(names)',
        'say("约 ", "~")',
        "say(*pair)",
        """say(f"没有“{name}”，共 {n} 个（{size:.1f} GiB）……", f"no {name!r}")""",
        'say("export NO_PROXY=http://主机:端口", "export NO_PROXY=http://HOST:PORT")',
        'MARK_ZH = "本回答由人工智能生成。"\nMARK_EN = "This answer was generated by AI."',
        'KINDS = {"Expecting value": "这里应当是一个值"}',
        'Command("undo", "撤销", "撤销最近的几轮问答", "take back turns")',
        '"""说明：docstring, 不是界面文字"""',
        'NAME = "问题"',
        'WORDS = re.compile("(?:头痛|发烧),")',
    ],
)
def test_what_is_set_as_it_should_be_is_no_fault(source: str) -> None:
    assert faults_in(source) == []
