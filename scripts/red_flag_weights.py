"""Learn the weights of weak signs from labelled sentences, and write them beside the red-flag lexicon.

    python scripts/red_flag_weights.py [--plain FOLDER] [--hold FILE]

Reads tests/data/red_flags/*.jsonl. `--plain` names the folder of the published training data, whose questions are
taken as sentences that must not fire. `--hold` leaves out a file of sentences and prints how they would fare.
Run it after rules or sentences changed: the classes that rules find are pieces too.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from medchat.medical_safety import find_red_flags
from medchat.medical_safety.lexicon_files import load_lexicon
from medchat.medical_safety.red_flags import marks_of
from medchat.medical_safety.weak_signs import Weights, pieces, plain_words, weigh

ROOT = Path(__file__).resolve().parent.parent
SENTENCES = ROOT / "tests" / "data" / "red_flags"
TARGET = ROOT / "medchat" / "medical_safety" / "lexicon" / "weights.json"
STEPS, RATE, PENALTY = 300, 0.05, 1e-4
#: How many of the plain questions are learned from, and how much each counts.
PLAIN, PLAIN_WEIGHT = 3000, 0.3
#: Pieces seen once say nothing; weights below this change nothing.
LEAST_SEEN, LEAST_WEIGHT = 2, 0.15


def labelled(paths: Iterable[Path]) -> list[tuple[str, bool, float]]:
    """Return (text, must, weight) of the sentences without a turn before them."""
    rows = [
        json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines() if line
    ]
    return [(row["text"], row["must"], 1.0) for row in rows if not row.get("previous")]


def plain(folder: Path) -> Iterator[str]:
    """Yield the questions of the published data."""
    for line in (folder / "llama_data.json").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["instruction"]
    for row in json.loads((folder / "cmcoqa_question.json").read_text(encoding="utf-8")):
        yield row["question"]


def of_text(text: str) -> set[str]:
    """Return the pieces of a text."""
    return pieces(plain_words(load_lexicon().folder.fold(text).text), {name for _, _, name in marks_of(text)})


def matrix(found: list[set[str]], index: dict[str, int]) -> torch.Tensor:
    """Return one row a text, each piece by the square root of how many there are."""
    at = [
        (row, index[piece], len(text) ** -0.5)
        for row, text in enumerate(found)
        for piece in text
        if piece in index
    ]
    places = torch.tensor([[row for row, _, _ in at], [column for _, column, _ in at]])
    values = torch.tensor([value for _, _, value in at])
    return torch.sparse_coo_tensor(places, values, (len(found), len(index))).coalesce()


def learn(rows: list[tuple[str, bool, float]], penalty: float) -> tuple[dict[str, float], float]:
    """Return the weights and the bias of a logistic regression."""
    torch.manual_seed(0)
    found = [of_text(text) for text, _, _ in rows]
    seen = Counter(piece for text in found for piece in text)
    index = {
        piece: at
        for at, piece in enumerate(sorted(piece for piece, times in seen.items() if times >= LEAST_SEEN))
    }
    inputs = matrix(found, index)
    labels = torch.tensor([float(must) for _, must, _ in rows])
    counts = torch.tensor([weight for _, _, weight in rows])
    weights, bias = torch.zeros(len(index), 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([weights, bias], lr=RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        logits = torch.sparse.mm(inputs, weights)[:, 0] + bias
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        (torch.mean(losses * counts) + penalty * torch.sum(weights**2) / 10).backward()
        optimizer.step()
    learned = {piece: round(weights[at].item(), 2) for piece, at in index.items()}
    return {piece: weight for piece, weight in learned.items() if abs(weight) >= LEAST_WEIGHT}, round(
        bias.item(), 3
    )


def judge(weights: dict[str, float], bias: float, rows: list[tuple[str, bool, float]]) -> None:
    """Print recall and false alarms on held-out sentences, with the rules, at several thresholds."""
    judged: list[tuple[bool, bool, float]] = []
    for text, must, _ in rows:
        total, _ = weigh(Weights(weights, bias, 0.0), load_lexicon().folder.fold(text), marks_of(text))
        judged.append((must, bool(find_red_flags(text)), total))
    for threshold in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25):
        fired = [(must, ruled or total > threshold, total > threshold) for must, ruled, total in judged]
        recall = [hit for must, hit, _ in fired if must]
        alarms = [hit for must, hit, _ in fired if not must]
        alone = [hit for must, _, hit in fired if not must] or [False]
        hits = [hit for must, _, hit in fired if must] or [False]
        sys.stdout.write(
            f"threshold {threshold:5.2f}  recall {sum(recall) / max(1, len(recall)):.3f}"
            f" (weights alone {sum(hits) / len(hits):.3f})  false alarms"
            f" {sum(alarms) / max(1, len(alarms)):.3f} (weights alone {sum(alone) / len(alone):.3f})\n"
        )


def main() -> int:
    """Learn, judge or write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--plain", type=Path)
    parser.add_argument("--hold", type=Path)
    parser.add_argument("--threshold", type=float, default=0.0)
    parser.add_argument("--penalty", type=float, default=PENALTY)
    arguments = parser.parse_args()
    files = sorted(SENTENCES.glob("*.jsonl"))
    rows = labelled(files)
    held: list[tuple[str, bool, float]] = labelled([arguments.hold]) if arguments.hold else []
    left_out = {text for text, _, _ in held}
    rows = [row for row in rows if row[0] not in left_out]
    if arguments.plain:
        questions = sorted(set(plain(arguments.plain)))
        random.Random(0).shuffle(questions)
        rows += [(question, False, PLAIN_WEIGHT) for question in questions[:PLAIN]]
    weights, bias = learn(rows, arguments.penalty)
    sys.stdout.write(f"{len(rows)} sentences, {len(weights)} pieces, bias {bias}\n")
    if held:
        judge(weights, bias, held)
        return 0
    table: dict[str, Any] = {
        "made by": "scripts/red_flag_weights.py",
        "date": datetime.now(UTC).date().isoformat(),
        "source": "labelled sentences of tests/data/red_flags, and published questions as sentences that must not fire",
        "threshold": arguments.threshold,
        "bias": bias,
        "pieces": dict(sorted(weights.items())),
    }
    TARGET.write_text(json.dumps(table, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
