"""What people ask about these weights, answered, and how to cite them.

Sources: the questions and answers of BenTsao's README (SCIR-HI/Huatuo-Llama-Med-Chinese), the citations of
its README and Med-ChatGLM's; the rest is what MedChat does.
"""

from __future__ import annotations

from dataclasses import dataclass

from medchat.language import say


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """One question and its answer, in the interface language."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Citation:
    """How to cite one work."""

    title: str
    authors: str
    where: str


def common_questions() -> tuple[AnsweredQuestion, ...]:
    """Return the questions that the published projects are asked most."""
    return (
        AnsweredQuestion(
            say("哪个模型最好？", "Which model is best?"),
            say(
                "本草作者的经验：基于活字（huozi）的效果相对更好；LLaMA 的中文语料有限，更易重复或出错。",
                "BenTsao's authors found the one on Huozi better than the others; LLaMA saw little Chinese, "
                "repeats itself and errs more.",
            ),
        ),
        AnsweredQuestion(
            say("为什么每次回答不一样？", "Why do answers vary?"),
            say(
                "回答是按概率采样的。--greedy 或 --num-beams 4 每次相同；--seed 固定采样。",
                "Answers are sampled. --greedy and --num-beams 4 always give the same answer; --seed repeats a sample.",
            ),
        ),
        AnsweredQuestion(
            say("用哪个模板？", "Which template?"),
            say(
                "不用选：程序按权重和适配器自动选（见上面每一项）。自己训练的适配器用训练时的模板：--template。",
                "You need not choose: it follows from the weights and the adapter (see each entry above). For an "
                "adapter of your own name the one it was trained with: --template.",
            ),
        ),
    )


def citations() -> tuple[Citation, ...]:
    """Return the works behind the medical weights."""
    hit = "Haochun Wang, Chi Liu, Sendong Zhao, Bing Qin, Ting Liu"
    return (
        Citation(
            "HuaTuo: Tuning LLaMA Model with Chinese Medical Knowledge",
            "Haochun Wang, Chi Liu, Nuwa Xi, Zewen Qiang, Sendong Zhao, Bing Qin, Ting Liu",
            "arXiv:2304.06975",
        ),
        Citation(
            "ChatGLM-Med: 基于中文医学知识的ChatGLM模型微调", hit, "https://github.com/SCIR-HI/Med-ChatGLM"
        ),
    )
