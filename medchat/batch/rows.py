"""One line of the result file: what was asked, what was answered, and by what.

Everything but `seconds` follows from the question, the model and the settings, so that a run that was
interrupted and continued gives the same lines as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medchat import medical_safety
from medchat.api import Completion, Finish, GenerationConfig, Notice
from medchat.batch.prompts import QuestionPrompt
from medchat.batch.questions import Question
from medchat.errors import DataError, MedchatError, UsageError

#: DEL and C1 controls, Unicode line ends, marks that change the direction of reading, lone surrogates.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What answered: the same for every line of a run. Paths are as the user gave them.

    `options` are the backbone's own, by name.
    """

    model: str
    backbone: str
    adapters: tuple[str, ...]
    template: str
    decoding: Mapping[str, Any]
    dtype: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_fields(self) -> dict[str, Any]:
        """Return the fields of a line."""
        return {
            "model": self.model,
            "backbone": self.backbone,
            "adapter": list(self.adapters),
            "template": self.template,
            "dtype": self.dtype,
            "decoding": dict(self.decoding),
            "options": {
                name: str(value) if isinstance(value, Path) else value for name, value in self.options.items()
            },
        }

    def differs_from(self, row: Mapping[str, Any]) -> str | None:
        """Return the name of the first field in which an earlier line was made otherwise, None if it was not.

        A path counts as the same where it leads to the same folder. `dtype` is known only once the
        model is loaded and does not count.
        """
        ours = self.as_fields()
        del ours["dtype"]
        for name, value in ours.items():
            if name in row and not _same(value, row[name]):
                return name
        return None


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, str) and isinstance(theirs, str):
        return ours == theirs or Path(ours).resolve() == Path(theirs).resolve()
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return all(map(_same, ours, theirs))
    return bool(ours == theirs)


def decoding(config: GenerationConfig) -> dict[str, Any]:
    """Return the settings that decide the answers, and only those; what a server decides is left out."""
    chosen: dict[str, Any] = {"max_new_tokens": config.max_new_tokens}
    if config.samples:
        chosen |= {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k,
            "seed": config.seed,
        }
    else:
        chosen["num_beams"] = config.num_beams
    if config.repetition_penalty != 1.0:
        chosen["repetition_penalty"] = config.repetition_penalty
    return {name: value for name, value in chosen.items() if name not in config.unset}


def answer_row(
    prompt: QuestionPrompt,
    completion: Completion,
    seconds: float,
    provenance: Provenance,
    notices: Sequence[Notice] = (),
) -> dict[str, Any]:
    """Return the line of an answer. `seconds` is this answer's share of its batch's time.

    `answer_notices` says what the answer's review found, where a red flag fired on the question.
    `tokens_estimated` is there where the token counts are guesses (a remote endpoint did not tell them),
    `rejected_settings` where the endpoint did not take some, `reasoning_only` where the model wrote no
    answer.
    """
    row = _asked(prompt.question)
    row |= {"answer": completion.text, "finish": str(completion.finish)}
    if prompt.dropped:
        row["dropped_turns"] = prompt.dropped
    row |= {
        "prompt_tokens": completion.prompt_tokens,
        "tokens": completion.completion_tokens,
        "seconds": round(seconds, 4),
    }
    if completion.estimated:
        row["tokens_estimated"] = True
    if completion.rejected:
        row["rejected_settings"] = list(completion.rejected)
    if completion.reasoning and not completion.text.strip():
        row["reasoning_only"] = True
    row = _marked(row, provenance, notices)
    if any(notice.urgent and notice.key for notice in notices):
        reviews = medical_safety.review_answer(prompt.question.asked.last, completion.text)
        row["answer_notices"] = [medical_safety.as_fields(notice) for notice in reviews]
    return row


def failure_row(
    question: Question, error: BaseException, provenance: Provenance, notices: Sequence[Notice] = ()
) -> dict[str, Any]:
    """Return the line of a question that has no answer. `--resume` asks it again.

    `error` says why, `error_code` is the exit code that goes with it: 6 for a question that was refused.
    """
    reason, code = f"{type(error).__name__}: {error}", MedchatError.exit_code
    if isinstance(error, MedchatError):
        reason, code = error.what, error.exit_code
    if isinstance(error, UsageError):
        code = DataError.exit_code
    row = _asked(question) | {"answer": "", "finish": str(Finish.ERROR), "error": reason, "error_code": code}
    row |= {"prompt_tokens": 0, "tokens": 0, "seconds": 0.0}
    return _marked(row, provenance, notices)


def _asked(question: Question) -> dict[str, Any]:
    asked = question.asked
    row: dict[str, Any] = {"index": question.index}
    if asked.id is not None:
        row["id"] = asked.id
    row["question"] = asked.text
    if asked.input:
        row["input"] = asked.input
    if asked.turns:
        row["turns"] = len(asked.turns)
    if asked.reference not in (None, ""):
        row["reference"] = asked.reference
    if asked.extra:
        row["extra"] = dict(asked.extra)
    return row


def _marked(row: dict[str, Any], provenance: Provenance, notices: Sequence[Notice]) -> dict[str, Any]:
    row |= provenance.as_fields()
    row["safety"] = [medical_safety.as_fields(notice) for notice in notices]
    row["disclaimer"] = medical_safety.ai_mark()
    made_by = json.dumps([row["index"], row["question"], provenance.as_fields()], ensure_ascii=False)
    name = hashlib.sha256(made_by.encode()).hexdigest()[:32]
    row["AIGC"] = medical_safety.aigc_metadata(str(row["answer"]), name)
    return row


def as_line(row: Mapping[str, Any]) -> bytes:
    """Return the line of JSON that a row or a record is, newline included. Chinese stays readable.

    What some readers take for a line end, and what a terminal would obey when the file is shown, is
    written as an escape; the text that is read back is the same.
    """
    text = json.dumps(row, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode() + b"\n"
