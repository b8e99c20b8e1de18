"""A whole backbone: it says the question back. One token is one character."""

import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medchat import plugin_kit as kit

medchat_api_version = 1
Prompt = Sequence[kit.Segment]


class EchoModel:
    """Fulfils ChatModel. A real one holds weights, and its module imports torch."""

    def __init__(self, path: Path, context_length: int) -> None:
        self.path, self.context_length = path, context_length

    def stream(
        self, segments: Prompt, config: kit.GenerationConfig, cancel: threading.Event
    ) -> Iterator[kit.Delta]:
        prompt, answer = self._fitting(segments), _answer(segments)
        for stop in filter(None, config.stop):
            answer = answer.partition(stop)[0]
        limit = min(config.max_new_tokens, self.context_length - prompt)
        for said, character in enumerate(answer[:limit], start=1):
            if cancel.is_set():
                yield kit.Delta(
                    text="", completion_tokens=said - 1, prompt_tokens=prompt, finish=kit.Finish.CANCELLED
                )
                return
            yield kit.Delta(text=character, completion_tokens=said, prompt_tokens=prompt)
        finish = kit.Finish.LENGTH if len(answer) > limit else kit.Finish.STOP
        yield kit.Delta(
            text="", completion_tokens=min(len(answer), limit), prompt_tokens=prompt, finish=finish
        )

    def generate_batch(self, prompts: Sequence[Prompt], config: kit.GenerationConfig) -> list[kit.Completion]:
        completions = []
        for prompt in prompts:
            *pieces, end = self.stream(prompt, config, threading.Event())
            text = "".join(piece.text for piece in pieces)
            finish = end.finish or kit.Finish.STOP
            completions.append(
                kit.Completion(
                    text=text,
                    finish=finish,
                    prompt_tokens=end.prompt_tokens,
                    completion_tokens=end.completion_tokens,
                )
            )
        return completions

    def score(self, segments: Prompt, answer: str) -> tuple[float, ...]:
        self._fitting(segments, answer)
        expected = [*_answer(segments), "end"]  # certain of what it says, and of nothing else
        given = [*answer, "end"]
        return tuple(0.0 if given[: i + 1] == expected[: i + 1] else -math.inf for i in range(len(given)))

    def count(self, segments: Prompt) -> int:
        for part in segments:
            if isinstance(part, kit.Control):  # a vocabulary that has some names them in `special_tokens`
                raise kit.UsageError(kit.say(f"没有特殊标记 {part.token}", f"no special token {part.token}"))
        return sum(len(part.text) for part in segments if isinstance(part, kit.Text))

    def _fitting(self, segments: Prompt, answer: str = "") -> int:
        prompt = self.count(segments)
        if prompt + len(answer) >= self.context_length:
            raise kit.UsageError(kit.say("问题太长，占满了上下文", "the question fills the context"))
        return prompt

    def describe(self) -> Mapping[str, Any]:
        return {"backbone": "echo", "model": str(self.path), "dtype": "none", "device": "cpu"}

    def close(self) -> None:
        pass


def _answer(segments: Prompt) -> str:
    return segments[-1].text if segments and isinstance(segments[-1], kit.Text) else ""


class Echo(kit.Backbone):
    name = "echo"
    summary: Mapping[str, str] = {"zh": "示例：把问题原样说回来", "en": "example: says the question back"}
    capabilities = kit.Capabilities(
        beams=False, adapters=False, batch=False, devices=("cpu",), dtypes=(), quantize=()
    )
    not_applicable: Mapping[str, str] = {
        "test_a_kept_cache_answers_as_a_fresh_one": "it computes nothing that could be kept",
        "test_a_seed_repeats_an_answer": "it never draws a token at random",
    }

    def load(self, options: kit.LoadOptions) -> kit.ChatModel:
        card = self.inspect(options.model)
        if card is None:
            what = kit.say("这个目录里没有 echo.json", "there is no echo.json in this folder")
            raise kit.CheckpointError(what, where=str(options.model))
        return EchoModel(options.model, card.context_length)

    def template(self, options: kit.LoadOptions) -> kit.PromptTemplate:
        return kit.load_template("bare")

    def inspect(self, path: Path) -> kit.ModelCard | None:
        try:
            length = int(json.loads((path / "echo.json").read_text())["context_length"])
        except (OSError, ValueError, KeyError):
            return None
        return kit.ModelCard(
            backbone="echo", family="echo", path=path, context_length=length, template="bare"
        )

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "echo.json").write_text(json.dumps({"context_length": shape.get("context_length", 2048)}))


@kit.hookimpl
def medchat_backbones() -> list[kit.Backbone]:
    return [Echo()]
