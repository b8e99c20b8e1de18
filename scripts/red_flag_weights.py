"""Learn the weights of a wording from labelled sentences, and write them beside the red-flag lexicon.

    python scripts/red_flag_weights.py --questions FOLDER            learn from everything, write weights.json
    python scripts/red_flag_weights.py --questions FOLDER --judge    hold out each writer in turn, print the figures

Reads tests/data/red_flags/*.jsonl but unseen.jsonl. FOLDER holds the published training data, whose questions are
taken as sentences that must not fire. Run it after rules or sentences changed: what the lexicon finds in a text has
a weight too. A logistic regression with a squared penalty has one minimum; it is followed in double precision until
nothing moves, so that another machine writes the same file but for the last digit.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from medchat.medical_safety import find_red_flags
from medchat.medical_safety.lexicon_files import load_lexicon
from medchat.medical_safety.red_flags import marks_of
from medchat.medical_safety.wording import Weights, Wording, pieces, plain_words

ROOT = Path(__file__).resolve().parent.parent
SENTENCES = ROOT / "tests" / "data" / "red_flags"
UNSEEN = SENTENCES / "unseen.jsonl"
TARGET = ROOT / "medchat" / "medical_safety" / "lexicon" / "weights.json"
STEPS, PENALTY = 400, 3e-6
#: How many of the published questions are learned from, and how much each counts.
QUESTIONS, QUESTION_WEIGHT = 3000, 0.3
#: Pieces seen once say nothing; weights below this change nothing.
LEAST_SEEN, LEAST_WEIGHT = 2, 0.1
#: What sums mean: chosen with --judge, for the most emergencies found at under 8 % false alarms.
ALARM, DOUBT, VITAL_DOUBT = 1.0, 0.0, -0.4
ALARMS = (0.8, 1.0, 1.2)


@dataclass(frozen=True)
class Row:
    """A sentence to learn from: its pieces, its label, how much it counts and who wrote it."""

    text: str
    must: bool
    vital: bool
    writer: str
    counts: float
    pieces: frozenset[str]


def labelled(path: Path) -> Iterator[Row]:
    """Yield the sentences of a file without a turn before them."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if not row.get("previous"):
            writer = f"{path.stem} {row.get('set', '')}"
            text, must = row["text"], row["must"]
            yield Row(text, must, must and row.get("vital", False), writer, 1.0, pieces_of(text))


def sentences() -> list[Row]:
    """Return every labelled sentence but those that nobody may learn from."""
    return [row for path in sorted(SENTENCES.glob("*.jsonl")) if path != UNSEEN for row in labelled(path)]


def questions(folder: Path) -> list[Row]:
    """Return so many of the questions of the published data, drawn by a fixed seed."""
    lines = (folder / "llama_data.json").read_text(encoding="utf-8").splitlines()
    texts = {json.loads(line)["instruction"] for line in lines}
    texts |= {
        row["question"] for row in json.loads((folder / "cmcoqa_question.json").read_text(encoding="utf-8"))
    }
    drawn = random.Random(0).sample(sorted(texts), QUESTIONS)
    return [Row(text, False, False, "questions", QUESTION_WEIGHT, pieces_of(text)) for text in drawn]


def pieces_of(text: str) -> frozenset[str]:
    """Return the pieces of a text."""
    words = plain_words(load_lexicon().folder.fold(text).text)
    return frozenset(pieces(words, {name for _, _, name in marks_of(text)}))


def matrix(rows: list[Row], index: dict[str, int]) -> torch.Tensor:
    """Return one row a text, each of its pieces by the square root of how many it has."""
    at = [
        (number, index[piece], len(row.pieces) ** -0.5)
        for number, row in enumerate(rows)
        for piece in row.pieces
        if piece in index
    ]
    places = torch.tensor([[number for number, _, _ in at], [column for _, column, _ in at]])
    values = torch.tensor([value for _, _, value in at], dtype=torch.float64)
    return torch.sparse_coo_tensor(places, values, (len(rows), len(index)), check_invariants=True).coalesce()


def learn(rows: list[Row]) -> Weights:
    """Return the weights of a logistic regression."""
    seen = Counter(piece for row in rows for piece in row.pieces)
    index = {
        piece: at
        for at, piece in enumerate(sorted(piece for piece, times in seen.items() if times >= LEAST_SEEN))
    }
    inputs = matrix(rows, index)
    labels = torch.tensor([float(row.must) for row in rows], dtype=torch.float64)
    counts = torch.tensor([row.counts for row in rows], dtype=torch.float64)
    weights = torch.zeros(len(index), 1, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights, bias], max_iter=STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def loss() -> torch.Tensor:
        search.zero_grad()
        logits = torch.sparse.mm(inputs, weights)[:, 0] + bias
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        total: torch.Tensor = (losses * counts).sum() / counts.sum() + PENALTY * (weights**2).sum()
        total.backward()
        return total

    search.step(loss)
    learned = {piece: round(weights[at].item(), 2) for piece, at in index.items()}
    kept = {piece: weight for piece, weight in sorted(learned.items()) if abs(weight) >= LEAST_WEIGHT}
    return Weights(kept, round(bias.item(), 3), ALARM, DOUBT, VITAL_DOUBT)


def judge(rows: list[Row], plain: list[Row]) -> None:
    """Print how rules and weights fare on each writer, learned from all the others, at several thresholds."""
    judged: list[Judged] = []
    for writer in sorted({row.writer for row in rows}):
        weights = learn([row for row in rows if row.writer != writer] + plain)
        judged += [Judged.of(row, weights) for row in rows if row.writer == writer]
    for alarm in ALARMS:
        for doubt in (-0.2, 0.0, 0.2, 0.4):
            for vital in (doubt - 0.4, doubt):
                sys.stdout.write(figures(judged, alarm, doubt, vital) + "\n")
    for writer in sorted({row.writer for row in rows}):
        of_writer = [each for each in judged if each.row.writer == writer]
        sys.stdout.write(f"{writer}: {figures(of_writer, ALARM, DOUBT, VITAL_DOUBT)}\n")


@dataclass(frozen=True)
class Judged:
    """What rules and weights say of a sentence, each alone."""

    row: Row
    ruled: bool
    vital: bool
    sure: bool
    total: float
    alarms: frozenset[float]

    @classmethod
    def of(cls, row: Row, weights: Weights) -> Judged:
        """Judge a sentence by the rules, whatever its wording, and by its wording."""
        found = find_red_flags(row.text)
        fired = [each for each in (*found.evidence, *found.silenced) if each.silenced_by in ("", "wording")]
        fired = [each for each in fired if not each.rule.startswith("weak signs")]
        folded, marks = load_lexicon().folder.fold(row.text), marks_of(row.text)
        return cls(
            row,
            ruled=bool(fired),
            vital=any(each.vital for each in fired),
            sure=any(each.intent for each in fired),
            total=Wording(weights, folded, marks).total(
                folded.folded_span(each.mentions[0].start, each.mentions[0].end) for each in fired
            ),
            alarms=frozenset(
                alarm
                for alarm in ALARMS
                if Wording(replace(weights, alarm=alarm), folded, marks).alarms() is not None
            ),
        )

    def fires(self, alarm: float, doubt: float, vital_doubt: float) -> bool:
        """Whether a notice is shown with these thresholds."""
        if not self.ruled:
            return alarm in self.alarms
        return self.sure or self.total >= (vital_doubt if self.vital else doubt)


def figures(judged: list[Judged], alarm: float, doubt: float, vital_doubt: float) -> str:
    """Return recall, recall where life is in danger, and false alarms at these thresholds."""
    tally: Counter[str] = Counter()
    for each in judged:
        fires = each.fires(alarm, doubt, vital_doubt)
        for name, counted in (("must", each.row.must), ("vital", each.row.vital), ("not", not each.row.must)):
            tally[name] += counted
            tally[f"{name} fired"] += counted and fires
    shares = {name: tally[f"{name} fired"] / max(1, tally[name]) for name in ("must", "vital", "not")}
    return (
        f"alarm {alarm:4.1f} doubt {doubt:4.1f} vital {vital_doubt:4.1f}: recall {shares['must']:.3f}"
        f" vital {shares['vital']:.3f} false alarms {shares['not']:.3f}"
    )


def write(weights: Weights) -> None:
    """Write the weights as a file of the lexicon."""
    table: dict[str, Any] = {
        "made by": "scripts/red_flag_weights.py",
        "date": datetime.now(UTC).date().isoformat(),
        "source": "labelled sentences of tests/data/red_flags, and published questions as sentences that must not fire",
        "alarm": weights.alarm,
        "doubt": weights.doubt,
        "vital_doubt": weights.vital_doubt,
        "bias": weights.bias,
        "pieces": weights.pieces,
    }
    TARGET.write_text(json.dumps(table, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def main() -> int:
    """Learn, judge or write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--judge", action="store_true")
    arguments = parser.parse_args()
    rows = sentences()
    plain = questions(arguments.questions)
    if arguments.judge:
        judge(rows, plain)
        return 0
    weights = learn(rows + plain)
    write(weights)
    sys.stdout.write(f"{len(rows)} sentences, {len(plain)} questions, {len(weights.pieces)} pieces\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
