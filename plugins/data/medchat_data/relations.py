"""How a relation of a knowledge record is asked about and stated in Chinese.

What is not listed is asked for and stated by its own name, so that any relation makes a question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: So many values stand in one sentence; of a longer list the first ones, followed by 等.
MOST_VALUES = 12
#: A value of more characters is a clause, and clauses are divided by semicolons.
_LONGEST_WORD = 16


@dataclass(frozen=True, slots=True)
class Relation:
    """The wording of one relation. `{e}` stands for the centre word, `{v}` for the values.

    `questions` are ways to ask for it, `statement` says it, `next` asks for it where the centre word was named before,
    `name` is how it is called within a sentence. `check` asks, to be answered by 是 or 不是, whether `{v}` belongs to
    it; where it is empty, no check is made of it. `ending` goes behind a statement that stands alone.
    """

    name: str
    questions: tuple[str, ...]
    statement: str
    next: str
    check: str = ""
    ending: str = ""


#: Stands in a value of MYTHS between what is wrongly said and what is right.
MYTH_MARK = "——"

SYMPTOMS = Relation(
    "表现",
    ("{e}有哪些常见的表现？", "{e}的临床表现有哪些？", "想了解一下{e}，一般会有什么症状？"),
    "{e}常见的表现有{v}",
    "那一般会有哪些表现？",
    "{v}是{e}常见的表现吗？",
)
TESTS = Relation(
    "检查",
    ("怀疑{e}，一般需要做哪些检查？", "诊断{e}常用哪些检查？", "{e}要做什么检查？"),
    "{e}常用的检查有{v}",
    "那需要做哪些检查？",
    "{v}是诊断{e}常用的检查吗？",
    ending="，具体做哪些由医生根据情况决定",
)
TREATMENT = Relation(
    "治疗",
    ("{e}一般怎样治疗？", "{e}有哪些治疗办法？", "{e}该怎么治？"),
    "{e}的治疗包括{v}",
    "那一般怎样治疗？",
    ending="，具体方案因人而异，请听医生安排",
)
_CAUSES = Relation(
    "病因",
    ("{e}是什么原因引起的？", "{e}的病因有哪些？", "为什么会得{e}？"),
    "{e}的病因或诱因包括{v}",
    "那是什么原因引起的？",
    "{v}是{e}的病因或诱因吗？",
)
_COMPLICATIONS = Relation(
    "并发症",
    ("{e}可能有哪些并发症？", "{e}会引起哪些并发症？", "{e}如果不及时处理，可能出现什么问题？"),
    "{e}可能的并发症有{v}",
    "那可能有哪些并发症？",
    "{v}是{e}可能的并发症吗？",
)
_PREVENTION = Relation(
    "预防措施",
    ("怎样预防{e}？", "预防{e}可以做些什么？", "平时怎么做能减少{e}的发生？"),
    "预防{e}可以这样做：{v}",
    "那平时怎样预防？",
)
DEPARTMENT = Relation(
    "就诊科室",
    ("{e}应该看哪个科？", "{e}去医院挂什么科？"),
    "{e}一般看{v}",
    "那应该看哪个科？",
)
_GROUPS = Relation(
    "高危人群",
    ("哪些人容易得{e}？", "{e}多见于哪些人？"),
    "{e}的高危人群有{v}",
    "那哪些人容易得？",
)
_RISKS = Relation(
    "危险因素",
    ("哪些因素会增加{e}的风险？", "{e}的危险因素有哪些？"),
    "会增加{e}风险的因素有{v}",
    "那哪些因素会增加患病的风险？",
)
_TRANSMISSION = Relation(
    "传播途径",
    ("{e}是怎样传播的？", "{e}会通过什么途径传染？"),
    "{e}主要的传播途径是{v}",
    "那是怎样传播的？",
    "{v}是{e}的传播途径吗？",
)
WHEN_TO_GO = Relation(
    "就医提示",
    ("关于{e}，什么情况要马上就医？", "{e}出现哪些情况不能拖延？"),
    "关于{e}的就医提示：{v}",
    "那什么情况要马上就医？",
)
#: A value is what is wrongly said and, behind `MYTH_MARK`, what is right.
MYTHS = Relation(
    "误解",
    ("关于{e}，有哪些常见的误解？", "对{e}，人们常有什么误解？"),
    "关于{e}，常见的误解有：{v}",
    "那人们常有哪些误解？",
    "“{v}”，这种说法对吗？",
)
_INDICATIONS = Relation(
    "适应症",
    ("{e}有什么用？", "{e}用于治疗什么病？"),
    "{e}用于{v}",
    "那用于治疗什么病？",
    "{v}是{e}的适应症吗？",
    ending="，是否适用由医生或药师判断",
)
_ADVERSE = Relation(
    "不良反应",
    ("{e}有哪些不良反应？", "用{e}可能有什么副作用？"),
    "{e}可能的不良反应有{v}",
    "那可能有哪些不良反应？",
    "{v}是{e}可能的不良反应吗？",
)
_FORBIDDEN = Relation(
    "禁忌",
    ("哪些情况不能用{e}？", "{e}有哪些禁忌？"),
    "{e}的禁忌：{v}",
    "那哪些情况不能用？",
)
_BY_NAME: Mapping[str, Relation] = {
    **dict.fromkeys(("临床表现", "相关症状", "症状", "症状体征", "常见症状"), SYMPTOMS),
    **dict.fromkeys(("检查", "辅助检查", "实验室检查", "影像学检查", "诊断检查"), TESTS),
    **dict.fromkeys(("治疗", "药物治疗", "治疗方案", "辅助治疗", "手术治疗", "治疗方法"), TREATMENT),
    **dict.fromkeys(("病因", "发病原因", "诱因"), _CAUSES),
    "并发症": _COMPLICATIONS,
    **dict.fromkeys(("预防", "预防措施"), _PREVENTION),
    **dict.fromkeys(("所属科室", "就诊科室"), DEPARTMENT),
    **dict.fromkeys(("高危人群", "多发群体", "易感人群"), _GROUPS),
    "危险因素": _RISKS,
    "常见误解": MYTHS,
    "传播途径": _TRANSMISSION,
    **dict.fromkeys(("适应症", "主治", "功能主治"), _INDICATIONS),
    "不良反应": _ADVERSE,
    "禁忌": _FORBIDDEN,
    **dict.fromkeys(("就医提示", "何时就医", "急救"), WHEN_TO_GO),
}


def relation_named(name: str) -> Relation:
    """Return the wording of the relation of that name; one of its own is made of the name."""
    said = name.replace("{", "{{").replace("}", "}}")
    return _BY_NAME.get(name) or Relation(
        name,
        (f"{{e}}的{said}有哪些？", f"请说说{{e}}的{said}。"),
        f"{{e}}的{said}：{{v}}",
        f"那它的{name}呢？",
    )


def statement_of(name: str, centre: str, values: Sequence[str], *, briefly: bool = False) -> str:
    """Return the sentence that says the values of the relation of that name, `briefly` without its ending."""
    kind = relation_named(name)
    return kind.statement.format(e=centre, v=as_phrase(values)) + ("" if briefly else kind.ending) + "。"


def of_kind(names: Sequence[str], kind: Relation) -> list[str]:
    """Return those of the relations' names that have the wording `kind`."""
    return [name for name in names if relation_named(name) is kind]


def as_phrase(values: Sequence[str]) -> str:
    """Return the values as a part of a sentence."""
    shown = values[:MOST_VALUES]
    clauses = any(len(value) > _LONGEST_WORD or "，" in value or "、" in value for value in shown)
    return ("；" if clauses else "、").join(shown) + ("等" if len(values) > MOST_VALUES else "")
