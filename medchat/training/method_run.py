"""One run of a method: load the base, train, write the result, reload it and compare."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from medchat.api import SFTData, SFTNote, SFTOptions, SFTSample, SFTStatus, SFTWatcher
from medchat.errors import MedchatError
from medchat.inference.chat_model import TokenChatModel
from medchat.inference.device import dtype_of
from medchat.language import say
from medchat.templates import same_template
from medchat.training.data_loader import Collator
from medchat.training.evaluation import (
    answer_again,
    check_round_trip,
    generate_answers,
    label_losses,
    sample_questions,
)
from medchat.training.family import Family
from medchat.training.features import EncodedData
from medchat.training.methods import Method
from medchat.training.methods.method import metadata_of, precision
from medchat.training.run_folder import RunFolder
from medchat.training.train import train
from medchat.training.train_result import TrainResult

#: The number of examples on which the reloaded model is compared.
_COMPARED = 8


@dataclass(frozen=True, slots=True)
class MethodRun:
    """One run of `method` on `family`, in an open output folder."""

    family: Family
    method: Method
    data: SFTData
    encoded: EncodedData
    options: SFTOptions
    folder: RunFolder
    watch: SFTWatcher

    def train_and_write(self) -> tuple[TrainResult, tuple[SFTSample, ...]]:
        """Train, write the result and check it; return the figures and sample answers. In the main process.

        Raises what loading and training raise, and MedchatError if the run was stopped before training or the
        reloaded result differs.
        """
        loaded = self.method.load(self.family, self.options)
        loaded.reserve_positions(self.method.positions_taken(self.options))
        asked = sample_questions(loaded, self.data, self.encoded.template, self.options.samples)
        count = len(asked)
        if asked:
            self.watch.on_event(
                SFTStatus(say(f"训练前先答 {count} 题", f"answering {count} questions before training"))
            )
        before = generate_answers(loaded, asked, self.encoded.template, self.watch.cancel)
        if self.watch.cancel.is_set():
            raise MedchatError(
                say("训练还没有开始，已停止", "stopped before training began"), self.folder.way_on()
            )
        self.watch.on_event(SFTStatus(say("准备训练", "preparing to train")))
        trained = self._train(loaded)
        trained = replace(trained, parameters=self.method.parameters(loaded.model))
        after = answer_again(loaded, asked, self.encoded.template, self.watch)
        self.watch.on_event(
            SFTStatus(say("写出结果，再加载核对", "writing the result, then loading it again to check"))
        )
        self._write_and_check(loaded)
        self._note_lost_template()
        samples = tuple(
            SFTSample(example.question, example.answer, first, last)
            for example, first, last in zip(asked, before, after, strict=False)  # the rest: cancelled
        )
        return trained, samples

    def train_beside_main(self) -> TrainResult:
        """Train in a process other than the main one, which alone writes files and samples answers."""
        loaded = self.method.load(self.family, self.options)
        trained = self._train(loaded)
        loaded.close()
        return trained

    def _train(self, loaded: TokenChatModel) -> TrainResult:
        # New parameters are initialised at random: from the seed alone, so that a restarted run is the same.
        torch.manual_seed(self.options.seed)
        self.method.make_trainable(loaded.model, self.family, self.options)
        _cast_trained(loaded.model, precision(self.options).weights)
        train_data, held_out = self.encoded.train.features, self.encoded.held_out
        collate = self._collator_of(loaded)
        return train(loaded.model, train_data, held_out, collate, self.options, self.folder, self.watch)

    def _write_and_check(self, loaded: TokenChatModel) -> None:
        """Write the result and load it as chat does. Closes `loaded` first: two copies would need twice the memory."""
        compared = self.encoded.train.features[:_COMPARED]
        facts = self.family.trained_facts(loaded.model)
        expected = label_losses(loaded.model, compared, self._collator_of(loaded))
        with self.folder.result() as output:
            metadata = metadata_of(loaded.model, self.family, self.encoded.template, output)
            self.method.save(loaded.model, self.family, self.options, metadata, output)
            loaded.close()
            reloaded = self.method.load_result(self.family, self.options, output)
            # Read before the collator is made, which may set it.
            same = self.family.trained_facts(reloaded.model) == facts
            losses = label_losses(reloaded.model, compared, self._collator_of(reloaded))
            check_round_trip(same, losses, expected, dtype_of(reloaded.model), output)
            reloaded.close()

    def _collator_of(self, loaded: TokenChatModel) -> Collator:
        return self.family.collator(self.options.collator, loaded.model, loaded.tokenizer, self.options)

    def _note_lost_template(self) -> None:
        """Note it if chat would use another template for the result than it was trained with.

        This happens with a template that is another plugin's code: there is no file of it to write.
        """
        found = self.family.template(self.method.result_options(self.options, self.options.output))
        if not same_template(found, self.encoded.template):
            name = self.encoded.template.name
            self.watch.on_event(
                SFTNote(
                    say(
                        f"模板 {name} 无法写进结果；对话时请加上 --template {name}",
                        f"the template {name} cannot be written into the result: chat with --template {name}",
                    )
                )
            )


def _cast_trained(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast the trained parameters to the dtype of their updates; the others keep theirs."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
