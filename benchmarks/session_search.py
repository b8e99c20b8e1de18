"""Searching saved sessions: planted words of 1, 2, 3 and 8 characters among 100,000 turns.

    python benchmarks/session_search.py --json FILE [--turns 100000]

Bars, exit code 1 where one is missed:
- every planted word is found, in the turns that hold it, and in no other;
- each search takes under 100 ms of processor time, also where a word or all of its characters are in every turn;
- indexing all turns at the first search takes under 0.5 ms of processor time a turn.

The turns are made of words drawn as in a language, the first ones far more often than the last.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from reporting import parser_of, report

from medchat.api import Turn
from medchat.store import SavedTurn, SessionStore, Transcript

SEARCH_BAR_MS, INDEXING_BAR_MS = 100.0, 0.5
WORDS, TURNS_OF_A_SESSION = 6000, 1000
#: A planted word is in one of so many turns.
RARITY = 1000
#: Characters that no other word has, so that nothing but the planting can have put the word there …
RARE = ("铍", "铍镉", "铍镉铟", "铍镉铟铊锗硒碲砷")
#: … and words of the commonest characters, whose pairs are in very many turns.
COMMON = {"most common character": 1, "most common word": 2, "two words": 4, "four words": 8}
RUNS = 5


def vocabulary(drawn: random.Random) -> list[str]:
    """Return made-up words, one or two characters each."""
    characters = [chr(0x4E00 + number) for number in range(2500)]
    weights = [1 / (number + 5) for number in range(len(characters))]
    return ["".join(drawn.choices(characters, weights, k=drawn.choice((1, 2, 2)))) for _ in range(WORDS)]


def texts(drawn: random.Random, words: list[str], turns: int) -> Iterator[tuple[str, str]]:
    """Give a question and an answer for each turn, some twenty and some two hundred characters."""
    weights = [1 / (number + 5) for number in range(len(words))]
    for _ in range(turns):
        said = drawn.choices(words, weights, k=132)
        yield "".join(said[:12]) + "？", "".join(said[12:72]) + "，" + "".join(said[72:]) + "。"


def fill(store: SessionStore, turns: int) -> tuple[dict[str, set[tuple[str, int]]], str]:
    """Write the turns; return where each rare word was planted, and the other words, the commonest first."""
    drawn = random.Random(0)
    words = vocabulary(drawn)
    chosen = {word: set(drawn.sample(range(turns), max(1, turns // RARITY))) for word in RARE}
    planted: dict[str, set[tuple[str, int]]] = {word: set() for word in RARE}
    made = store.create("benchmark", "none")
    rows = enumerate(texts(drawn, words, turns))
    while several := list(islice(rows, TURNS_OF_A_SESSION)):
        saved = []
        for at, (question, answer) in several:
            said = "；".join([answer, *(word for word in RARE if at in chosen[word])])
            saved.append(SavedTurn(1, Turn(question, said), made.created))
        (record,) = store.add([Transcript(made, tuple(saved))])
        for word in RARE:  # a turn with a longer one holds the shorter ones too
            planted[word] |= {(record.id, at) for at, one in enumerate(saved, 1) if word in one.turn.answer}
    return planted, "".join(words)


def milliseconds(store: SessionStore, word: str) -> float:
    """Return the least processor time of some searches as the program makes them, at most 20 turns each."""
    times = []
    for _ in range(RUNS):
        began = time.process_time()
        store.search([word], 20)
        times.append((time.process_time() - began) * 1000)
    return min(times)


def indexing(store: SessionStore, turns: int) -> tuple[float, float]:
    """Return the processor time of the first search in milliseconds a turn, and its seconds by the clock."""
    began, wall = time.process_time(), time.monotonic()
    store.search(["铑"], 20)
    return (time.process_time() - began) * 1000 / turns, time.monotonic() - wall


def misses(store: SessionStore, planted: dict[str, set[tuple[str, int]]]) -> Iterator[str]:
    """Say where a search finds too little or too much."""
    for word, places in planted.items():
        found = {(hit.session_id, hit.saved.position) for hit in store.search([word], 0)}
        if found != places:
            yield f"{word}: {len(places - found)} not found, {len(found - places)} too many"


def main() -> int:
    """Fill a database, search it, report, and return the exit code."""
    parser = parser_of(__doc__)
    parser.add_argument("--turns", type=int, default=100_000, help="saved turns")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sessions.db"
        with SessionStore.open(file) as store:
            planted, common = fill(store, given.turns)
        sizes = [file.stat().st_size]
        with SessionStore.open(file) as store:
            a_turn, seconds = indexing(store, given.turns)
            failures = list(misses(store, planted))
            searched = {word: word for word in RARE} | {name: common[:end] for name, end in COMMON.items()}
            # Pairs that are in very many turns, in an order that is in none.
            searched["eight characters, nowhere"] = (common[:2] + common[1::-1]) * 2
            taken = {name: round(milliseconds(store, word), 1) for name, word in searched.items()}
        sizes.append(file.stat().st_size)
    failures += [f"{name}: {figure} ms" for name, figure in taken.items() if figure > SEARCH_BAR_MS]
    failures += [f"indexing takes {a_turn:.2f} ms a turn"] if a_turn > INDEXING_BAR_MS else []
    bars = {"search_ms": SEARCH_BAR_MS, "indexing_ms_a_turn": INDEXING_BAR_MS}
    figures = {
        "turns": given.turns,
        "planted": {word: len(places) for word, places in planted.items()},
        "indexing_ms_a_turn": round(a_turn, 3),
        "indexing_seconds": round(seconds, 1),
        "megabytes_without_and_with_index": [round(size / 1e6, 1) for size in sizes],
        "search_ms": taken,
    }
    return report("session_search", bars, figures, failures, given.json)


if __name__ == "__main__":
    sys.exit(main())
