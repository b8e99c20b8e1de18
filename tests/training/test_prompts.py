"""Train and serve: what a record teaches is the very prompt that batch inference asks it with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from built_features import build_features
from medchat_bloom.huozi.prompts import HUOZI
from medchat_chatglm.prompts import CHATGLM_ROUNDS, MED_CHATGLM
from medchat_llama.prompts import MED_ALLDATA

from medchat.api import GenerationConfig, PromptTemplate, Segment, Text
from medchat.batch import read_questions
from medchat.batch.prompts import PromptMaker, QuestionPrompt
from medchat.sft_job.data import read_training_data
from medchat.templates import list_templates

RECORDS: list[dict[str, Any]] = [
    {"instruction": "头痛怎么办？", "input": "", "output": "休息。"},
    {"instruction": "总结病历", "input": "患者，男，\n50岁。", "output": "略。"},
    {"instruction": " <user>: 甲？ <bot>: 乙。 <user>: 丙？", "input": "", "output": "丁。"},
    {"instruction": "<user>:甲？<bot>:乙。 <user>: 丙？", "input": "附", "output": "丁。"},
    {"instruction": " <user>: 甲？", "output": "丁。"},
    {"context": "问题：头痛？\n回答: ", "target": "休息。"},
    {"content": "问", "summary": "答", "history": [["一", "二"], ["三", "四"]]},
    {"system": "你是医生", "question": "问", "input": "附", "answer": "答"},
]


class Counting:
    """A model of which only the prompts are wanted."""

    context_length = 1 << 20

    def count(self, segments: Sequence[Segment]) -> int:
        return sum(len(segment.text) for segment in segments if isinstance(segment, Text))


class Keeping:
    """An encoder that keeps the prompts it was given."""

    def __init__(self) -> None:
        self.prompts: list[tuple[Segment, ...]] = []

    def encode_prompt(self, segments: Sequence[Segment]) -> list[int]:
        self.prompts.append(tuple(segments))
        return [1]

    def encode_answer(self, answer: str) -> list[int]:
        return [2, 0]


@pytest.mark.parametrize(
    "template",
    [*list_templates(), MED_ALLDATA, CHATGLM_ROUNDS, MED_CHATGLM, HUOZI],
    ids=lambda template: template.name,
)
def test_training_prompts_are_those_of_batch_inference(template: PromptTemplate, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    model: Any = Counting()
    maker = PromptMaker(model, template, GenerationConfig(max_new_tokens=16))
    asked = [maker.make(question) for question in read_questions(path).questions]
    taught = Keeping()
    build_features(read_training_data(path).examples, template, taught, 1 << 20)
    assert len(asked) == len(RECORDS)
    for prompt, learned in zip(asked, taught.prompts, strict=True):
        assert isinstance(prompt, QuestionPrompt) and learned == prompt.segments
