"""How ChatGLM is fine-tuned. A recipe says what is trained, on what, in what form; torchside trains."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from medchat.api import LoadOptions, Segment, SFTData, SFTOptions, SFTRecipe, SFTReport, SFTWatch
from medchat.errors import MedchatError, UsageError
from medchat.language import say
from medchat.torchside.sft.checkpoint import save_weights
from medchat.torchside.sft.features import Feature, build_features
from medchat.torchside.sft.run_folder import RunFolder, check_output, finished_note, open_run_folder
from medchat.torchside.sft.training import (
    Collator,
    Trained,
    check_options,
    cpu_threads,
    fingerprint_of,
    label_losses,
    train,
)
from medchat_chatglm.collators import AnswerCollator, MedCollator, TrainingSample
from medchat_chatglm.config_file import read_json
from medchat_chatglm.configuration import PositionRule
from medchat_chatglm.loading import load_model
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from medchat_chatglm.prompts import TEMPLATE_KEY, template_for
from medchat_chatglm.tokenizer import ChatGLMTokenizer

COLLATORS = ("default", "med")
RULE_KEY = "medchat_position_rule"

#: Beside the weights, what a checkpoint folder needs to be loaded by itself.
_TOKENIZER_FILES = ("ice_text.model", "tokenizer_config.json", "generation_config.json")
#: Keys of the source's config.json that are not true of what we write.
_STALE_KEYS = ("auto_map", "quantization_bit", "quantization_embeddings", "dtype")
#: The reloaded model's token losses may differ from the trained one's by this: the order of sums, no more.
_RELOAD_TOLERANCE = 1e-4
#: Which examples the reloaded model is compared on.
_COMPARED = 8


@dataclass(frozen=True, slots=True)
class ChatGLMEncoder:
    """Prompts and answers as ids, by the same tokenizer calls that chat makes."""

    tokenizer: ChatGLMTokenizer

    def encode_prompt(self, segments: Sequence[Segment]) -> list[int]:
        """Return a prompt's ids, [gMASK] `<sop>` included."""
        return self.tokenizer.build_prompt(segments)

    def encode_answer(self, answer: str) -> list[int]:
        """Return an answer's ids and the end token its generation was trained with."""
        return [*self.tokenizer.encode(answer), self.tokenizer.eos_token_id]


class FullRecipe(SFTRecipe):
    """Every weight is trained, in float32 (mixed with bfloat16 on GPUs that compute it)."""

    method = "full"
    collators = COLLATORS

    def run(self, data: SFTData, options: SFTOptions, watch: SFTWatch) -> SFTReport:
        """Train, write `options.output` atomically, and read it back before saying it worked.

        `options.extra`: `rule` to train under another position rule. Raises UsageError for
        bad options or an output that exists, DataError, CheckpointError, MemoryShortageError, and
        MedchatError if training diverged or was cancelled; nothing is left at the output then.
        """
        check_options(options)
        if options.collator not in COLLATORS:
            raise UsageError(
                say(
                    f"没有名为 {options.collator!r} 的 collator", f"no collator is named {options.collator!r}"
                ),
                say(f"可选：{', '.join(COLLATORS)}", f"choose one of {', '.join(COLLATORS)}"),
            )
        if done := check_output(options):
            watch.told(finished_note(options.output))
            return done
        template = template_for(options.model)
        tokenizer = ChatGLMTokenizer.from_folder(options.model)
        template = data.template or template
        made = build_features(
            data.train,
            template,
            ChatGLMEncoder(tokenizer),
            options.max_length,
            allow_left_out=options.allow_truncation,
        )
        fingerprint = fingerprint_of(made.features)
        with cpu_threads(options.threads), open_run_folder(options, fingerprint) as folder:
            trained = self._train_and_write(made.features, options, folder, watch)
            report = SFTReport(
                output=options.output,
                examples=len(made.features),
                label_tokens=made.label_tokens,
                template=template.name,
                **asdict(trained),
            )
            watch.finish(folder.path, report)
            folder.finish(report, {"backbone": "chatglm", "method": self.method, "seed": options.seed})
        return report

    def _train_and_write(
        self,
        features: Sequence[Feature],
        options: SFTOptions,
        folder: RunFolder,
        watch: SFTWatch,
    ) -> Trained:
        model = _load(options.model, options)
        collate = _collator(model, options, ChatGLMTokenizer.from_folder(options.model))
        model.requires_grad_(True)
        trained = train(model, features, (), collate, options, folder, watch)
        expected = label_losses(model, features[:_COMPARED], collate)
        with folder.result() as output:
            save_weights(model, output)
            _write_small_files(options.model, output, model.config.rule)
            # Two copies of the weights at once would need twice the memory.
            del model, collate
            gc.collect()
            _compare_reloaded(output, features[:_COMPARED], options, expected)
        return trained


def _load(folder: Path, options: SFTOptions) -> ChatGLMForConditionalGeneration:
    config = read_json(folder / "config.json")
    if config.get("quantization_bit"):
        raise UsageError(
            say("量化后的权重不能做全参数微调", "quantised weights cannot be fine-tuned in full"),
            say("请换用未量化的检查点", "use the checkpoint that is not quantised"),
            where=str(folder),
        )
    extra = {"rule": options.extra["rule"]} if "rule" in options.extra else {}
    loaded = load_model(LoadOptions(folder, device=options.device, dtype="float32", extra=extra))
    return loaded.model


def _collator(
    model: ChatGLMForConditionalGeneration, options: SFTOptions, tokenizer: ChatGLMTokenizer
) -> Collator:
    if options.collator == "med":
        model.config.medchat_position_rule = str(PositionRule.MED)
        family: MedCollator | AnswerCollator = MedCollator(tokenizer.eos_token_id)
    else:
        family = AnswerCollator(model.config)

    def collate(features: Sequence[Feature]) -> dict[str, Tensor]:
        return family(
            [
                TrainingSample((*feature.prompt_ids, *feature.answer_ids), len(feature.prompt_ids))
                for feature in features
            ]
        )

    return collate


def _write_small_files(source: Path, folder: Path, rule: PositionRule) -> None:
    config = read_json(source / "config.json")
    for key in _STALE_KEYS:
        config.pop(key, None)
    config |= {"torch_dtype": "float32", RULE_KEY: str(rule), TEMPLATE_KEY: template_for(source).name}
    text = json.dumps(config, ensure_ascii=False, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    for name in _TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def _compare_reloaded(
    folder: Path, features: Sequence[Feature], options: SFTOptions, expected: Tensor
) -> None:
    """Load what was written as chat would, and raise MedchatError unless it is the model just trained."""
    # Chat is given no rule: the one written into the folder must be found there.
    told = {key: value for key, value in options.extra.items() if key != "rule"}
    model = _load(folder, replace(options, extra=told))
    collate = _collator(model, options, ChatGLMTokenizer.from_folder(folder))
    losses = label_losses(model, features, collate)
    if not torch.allclose(losses, expected, rtol=_RELOAD_TOLERANCE, atol=_RELOAD_TOLERANCE):
        difference = float((losses - expected).abs().max())
        raise MedchatError(
            say(
                f"写出的模型重新载入后结果不同（损失最多相差 {difference:.2g}），没有保留",
                f"the written model differs when loaded again (by up to {difference:.2g} in loss); it is not kept",
            ),
            say("这是程序的缺陷，请反馈", "this is a defect of MedChat, please report it"),
            where=str(folder),
        )
