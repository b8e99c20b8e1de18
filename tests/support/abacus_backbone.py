"""A backbone with every property of `medchat.testing`, in plain Python; each broken plugin breaks one of them.

Its tokens are bytes and four control tokens. The next one depends on all previous ones: their checksum
determines the logits of the bytes that may continue a character of `LETTERS`, or end the answer. Fine-tuning
memorises answers. (PYTEST_DONT_REWRITE: imported by name.)
"""

from __future__ import annotations

import codecs
import json
import math
import random
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from medchat.api import (
    Backbone,
    Capabilities,
    ChatModel,
    Completion,
    Control,
    Delta,
    Finish,
    GenerationConfig,
    LoadOptions,
    ModelCard,
    Option,
    PreviewPiece,
    PromptTemplate,
    Segment,
    SFTData,
    SFTOptions,
    SFTProgress,
    SFTRecipe,
    SFTReport,
    SFTSample,
    SFTSurvey,
    SFTWatcher,
    SpecialTokens,
    Text,
    Turn,
)
from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.inference.detokenizer import StopText

Prompt = Sequence[Segment]
LETTERS = [letter.encode() for letter in "头痛多休息喝水体温看医生。，abcdefgh 🙂💊"]
BEGIN, END = "<s>", "</s>"
SPECIAL = {BEGIN: 256, END: 257, "<user>": 258, "<bot>": 259}
ROWS = 260
CONTEXT = 1024
#: The logits of impossible tokens, and of memorised ones.
NEVER, LEARNED = -30.0, 60.0


class Template:
    """Each turn between its control tokens."""

    name = "abacus"
    stop: tuple[str, ...] = ()
    multi_turn = True

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        parts: list[Segment] = [Text(system)] if system else []
        for turn in turns:
            parts += [
                Control("<user>"),
                Text(turn.question),
                Control("<bot>"),
                Text(turn.answer),
                Control(END),
            ]
        return (*parts, Control("<user>"), Text(question), Control("<bot>"))


def prompt_ids(segments: Prompt) -> list[int]:
    """Return the ids of a prompt, with a leading <s>."""
    ids: list[int] = []
    for segment in segments:
        if isinstance(segment, Text):
            ids += segment.text.encode("utf-8", "replace")
        elif segment.token in SPECIAL:
            ids.append(SPECIAL[segment.token])
        else:
            raise UsageError(f"there is no control token {segment.token}")
    return ids if ids[:1] == [SPECIAL[BEGIN]] else [SPECIAL[BEGIN], *ids]


class AbacusModel:
    """Caches the checksums of the ids that it has read."""

    context_length = CONTEXT

    def __init__(self, path: Path, learned: Mapping[tuple[int, ...], Sequence[int]]) -> None:
        self.path, self.learned = path, learned
        self.ids: list[int] = []
        self.sums: list[int] = []

    # ------------------------------------------------------------ reading

    def read(self, ids: Sequence[int]) -> int:
        """Read a prompt, reusing the cached prefix, and return its length."""
        kept = self.kept(ids)
        del self.ids[kept:], self.sums[kept:]
        self.take(ids[kept:])
        return kept

    def kept(self, ids: Sequence[int]) -> int:
        same = 0
        for one, other in zip(self.ids, ids[:-1], strict=False):
            if one != other:
                break
            same += 1
        return same

    def take(self, ids: Sequence[int]) -> None:
        """Append ids."""
        for number in ids:
            self.sums.append(crc32(struct.pack("<H", number), self.sums[-1] if self.sums else 1))
            self.ids.append(number)

    def logits(self) -> dict[int, float]:
        """Return the logits of the next token; missing ones are `NEVER`."""
        part, total = _unfinished(self.ids), self.sums[-1]
        tokens = {one[len(part)] for one in LETTERS if one.startswith(part) and len(one) > len(part)}
        tokens |= set() if part else {SPECIAL[END]}
        found = {token: crc32(struct.pack("<H", token), total) % 8000 / 1000 for token in tokens}
        for prompt, answer in self.learned.items():
            said = tuple(self.ids[len(prompt) :])
            if (
                tuple(self.ids[: len(prompt)]) == prompt
                and said == tuple(answer[: len(said)])
                and len(said) < len(answer)
            ):
                found[answer[len(said)]] = LEARNED
        return found

    def choose(self, config: GenerationConfig, luck: random.Random) -> int:
        logits = self.logits()
        if config.greedy:
            return max(sorted(logits), key=logits.__getitem__)
        weights = [math.exp((value - max(logits.values())) / config.temperature) for value in logits.values()]
        return luck.choices(list(logits), weights)[0]

    # ------------------------------------------------------------ answering

    def prompt_ids(self, segments: Prompt) -> list[int]:
        return prompt_ids(segments)

    def refuse_prompt(self, tokens: int) -> None:
        if tokens >= self.context_length:
            raise UsageError("the prompt fills the context")

    def refuse_answer(self, tokens: int) -> None:
        self.refuse_prompt(tokens)

    def stream(self, segments: Prompt, config: GenerationConfig, cancel: threading.Event) -> Iterator[Delta]:
        prompt = self.prompt_ids(segments)
        self.refuse_prompt(len(prompt))
        reused, count, finish = self.read(prompt), 0, Finish.LENGTH
        luck, decoder, watch = random.Random(config.seed), self.decoder(), StopText(config.stop)
        for _ in range(min(config.max_new_tokens, self.context_length - len(prompt))):
            if cancel.is_set():
                finish = Finish.CANCELLED
                break
            token = self.choose(config, luck)
            if token == SPECIAL[END]:
                finish = Finish.STOP
                break
            self.take([token])
            count += 1
            if text := watch.feed(decoder.decode(bytes([token]))):
                yield Delta(text, count, len(prompt))
            if watch.found:
                finish = Finish.STOP
                break
        yield Delta(watch.finish(), count, len(prompt), reused, finish)

    def decoder(self) -> codecs.IncrementalDecoder:
        return codecs.getincrementaldecoder("utf-8")("replace")

    def generate_batch(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        return [self.completion(prompt, config) for prompt in prompts]

    def completion(self, prompt: Prompt, config: GenerationConfig) -> Completion:
        *pieces, last = self.stream(prompt, config, threading.Event())
        text = "".join(piece.text for piece in (*pieces, last))
        assert last.finish is not None
        return Completion(text, last.finish, last.prompt_tokens, last.completion_tokens)

    def score(self, segments: Prompt, answer: str) -> tuple[float, ...]:
        prompt, target = self.prompt_ids(segments), [*answer.encode(), SPECIAL[END]]
        self.refuse_answer(len(prompt) + len(target) - 1)
        self.read(self.scored(prompt))
        found = []
        for token in target:
            logits = self.logits()
            total = sum(map(math.exp, logits.values())) + (ROWS - len(logits)) * math.exp(NEVER)
            found.append(logits.get(token, NEVER) - math.log(total))
            self.take([token])
        return tuple(found)

    def scored(self, prompt: list[int]) -> list[int]:
        """Return the ids of the prompt of a scored answer."""
        return prompt

    def count(self, segments: Prompt) -> int:
        return len(self.prompt_ids(segments))

    def describe(self) -> Mapping[str, Any]:
        return {"backbone": Abacus.name, "model": str(self.path), "dtype": "float32", "device": "cpu"}

    def close(self) -> None:
        self.ids, self.sums = [], []


def _unfinished(ids: Sequence[int]) -> bytes:
    """Return the bytes of an incomplete character at the end of the ids."""
    for back in range(1, min(4, len(ids) + 1)):
        first = ids[-back]
        if first >= 256 or first < 128:
            return b""
        if first >= 192:
            length = 2 if first < 224 else 3 if first < 240 else 4
            return bytes(ids[-back:]) if length > back else b""
    return b""


# ---------------------------------------------------------------- files


def write_safetensors(path: Path, content: bytes) -> None:
    """Write the bytes as the one tensor of a file."""
    header = json.dumps(
        {"bytes": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}
    )
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + content)


def read_safetensors(path: Path) -> bytes:
    """Return the bytes of the one tensor of a file."""
    content = path.read_bytes()
    return content[8 + struct.unpack("<Q", content[:8])[0] :]


class AbacusRecipe(SFTRecipe):
    """Memorises the answers; each step updates a checksum of all steps."""

    method = "memory"
    learns_questions = False

    def survey(self, data: SFTData, options: SFTOptions) -> SFTSurvey | None:
        first = data.train[0]
        question = PreviewPiece(f"<user>{first.question}<bot>", self.learns_questions)
        preview = (question, PreviewPiece(first.answer, True), PreviewPiece(END, True, special=True))
        return SFTSurvey("abacus", len(data.train), options.max_length, (1,), label_tokens=9, preview=preview)

    def run(self, data: SFTData, options: SFTOptions, watch: SFTWatcher) -> SFTReport:
        output, total = options.output, options.max_steps or int(options.num_epochs)
        output.mkdir(exist_ok=options.resume)
        step, state = self.begin(output, options)
        while step < total:
            step, state = step + 1, crc32(struct.pack("<LL", step, options.seed), state)
            watch.on_event(SFTProgress(step, total, 1 / step, 1e-4, 1.0, 1.0))
            if watch.cancel.is_set() and step < total:
                (output / "checkpoint.json").write_text(json.dumps([step, state]))
                raise MedchatError(f"stopped after step {step}; saved")
        lessons = self.lessons(data)
        learned = {" ".join(map(str, prompt)): list(answer) for prompt, answer in lessons.items()}
        write_safetensors(
            output / "adapter_model.safetensors", json.dumps({"state": state, "learned": learned}).encode()
        )
        (output / "adapter_config.json").write_text("{}")
        trained = AbacusModel(options.model, lessons)
        samples = tuple(
            SFTSample(one.question, one.answer, "", self.said(trained, one.question))
            for one in data.train[: options.samples]
        )
        report = SFTReport(output, step, len(data.train), 9, 1.0, 0.1, 1.0, kind="adapter", samples=samples)
        watch.finish(output, report)
        return report

    def begin(self, output: Path, options: SFTOptions) -> tuple[int, int]:
        """Return the step and the state to start from."""
        if not options.resume:
            return 0, 7
        step, state = json.loads((output / "checkpoint.json").read_text())
        return step, state

    def said(self, trained: AbacusModel, question: str) -> str:
        """Return the trained model's answers."""
        return trained.completion(Template().render((), question), GenerationConfig(greedy=True)).text

    def lessons(self, data: SFTData) -> Mapping[tuple[int, ...], Sequence[int]]:
        """Return the ids of the answer to each prompt."""
        return {
            tuple(prompt_ids(Template().render(one.turns, one.question, one.system))): [
                *one.answer.encode(),
                SPECIAL[END],
            ]
            for one in data.train
        }


class Abacus(Backbone):
    """A folder with abacus.json is a model."""

    name = "abacus"
    summary: Mapping[str, str] = {"zh": "测试用", "en": "for tests"}
    capabilities = Capabilities(beams=False)
    load_keys: Mapping[str, Option | tuple[str, ...]] = {"rods": Option(kind=int, low=1, high=20, default=13)}
    model_class = AbacusModel
    recipe_class: type[AbacusRecipe] = AbacusRecipe

    def load(self, options: LoadOptions) -> ChatModel:
        if self.inspect(options.model) is None:
            raise CheckpointError("there is no abacus.json", where=str(options.model))
        options.extra["rods"]  # a key with a default is always there
        found = self.learned(options)
        learned = {tuple(map(int, prompt.split())): answer for prompt, answer in found.items()}
        return self.model_class(options.model, learned)

    def learned(self, options: LoadOptions) -> dict[str, list[int]]:
        """Return what the model and its adapters have memorised."""
        learned: dict[str, list[int]] = dict(
            json.loads((options.model / "abacus.json").read_text()).get("learned", {})
        )
        for folder in options.adapters:
            learned |= json.loads(read_safetensors(folder / "adapter_model.safetensors"))["learned"]
        return learned

    def save_merged(self, options: LoadOptions, folder: Path, dtype: str) -> None:
        (folder / "abacus.json").write_text(json.dumps({"learned": self.learned(options)}))

    def template(self, options: LoadOptions) -> PromptTemplate:
        return Template()

    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        return SpecialTokens(tuple(SPECIAL), {"bos_token": BEGIN, "eos_token": END})

    def inspect(self, path: Path) -> ModelCard | None:
        try:
            if not (path / "abacus.json").is_file():
                return None
        except OSError:
            return None
        return ModelCard("abacus", "abacus", path, ROWS, 1, 1, 1, ("float32",), 1, CONTEXT, "abacus")

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        path.mkdir(parents=True)
        (path / "abacus.json").write_text(json.dumps({"seed": seed}))

    @property
    def recipes(self) -> Mapping[str, SFTRecipe]:
        return {"memory": self.recipe_class()}
