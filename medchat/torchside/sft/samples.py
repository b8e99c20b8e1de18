"""What a model answers to a few questions before it is trained, and after."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from medchat.api import Example, GenerationConfig, PromptTemplate, SFTData
from medchat.torchside.chat_model import TokenChatModel
from medchat.torchside.sft.features import prompt_of

#: The longest sample answer in tokens.
MOST_TOKENS = 128


def sample_questions(
    loaded: TokenChatModel, data: SFTData, template: PromptTemplate, count: int
) -> tuple[Example, ...]:
    """Return the first `count` held-out examples, else the first learned ones, that leave room for an answer."""
    room = loaded.context_length - MOST_TOKENS
    fitting = (
        example
        for example in data.held_out or data.train
        if loaded.count(prompt_of(example, template)) <= room
    )
    return tuple(islice(fitting, count))


def answers(loaded: TokenChatModel, asked: Sequence[Example], template: PromptTemplate) -> list[str]:
    """Return what the model says to the questions, greedily; in training or not, it stays as it was."""
    config = GenerationConfig(greedy=True, max_new_tokens=MOST_TOKENS, stop=template.stop)
    was_training = loaded.model.training
    loaded.model.eval()
    texts = [loaded.generate_batch([prompt_of(one, template)], config)[0].text for one in asked]
    loaded.model.train(was_training)
    return texts
