"""How near answers are to reference answers: ROUGE-L by characters and words, BLEU, perplexity per character.

They compare wording, not truth: `contradicted` makes the opposite of a reference, so that a report can show how
little they see of it. jieba and sacrebleu are imported when they are first used.
"""

from __future__ import annotations

import logging
import math
import re
import tempfile
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from medchat.plugin_kit import require_extra
from medchat_eval.results import Metric, bootstrap_metric
from medchat_eval.statistics import Interval

#: The range of ROUGE-L.
OVERLAP = Interval(0.0, 1.0)
#: What the metrics by words need.
TEXT_LIBRARIES = ("jieba", "sacrebleu")
#: A word of a statement, and the one that says the opposite; the first that is found is put in its place.
_OPPOSITES = (
    ("不应", "应"),
    ("不宜", "宜"),
    ("不能", "能"),
    ("不可", "可"),
    ("不需要", "需要"),
    ("不必", "必须"),
    ("不会", "会"),
    ("不是", "是"),
    ("没有", "有"),
    ("无法", "可以"),
    ("避免", "尽量"),
    ("禁止", "允许"),
    ("应", "不应"),
    ("必须", "不必"),
    ("需要", "不需要"),
    ("可以", "不可以"),
    ("可能", "不可能"),
    ("能", "不能"),
    ("会", "不会"),
    ("是", "不是"),
    ("有", "没有"),
)


def rouge_l(answer: Sequence[Hashable], reference: Sequence[Hashable]) -> float:
    """Return the F1 of ROUGE-L (Lin 2004): by the longest common subsequence; 0 where either is empty."""
    if not answer or not reference:
        return 0.0
    common = _common(answer, reference)
    return 2 * common / (len(answer) + len(reference))


def _common(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Return the length of the longest common subsequence, a row of the table in one integer (Hyyrö 2004)."""
    places: dict[Hashable, int] = {}
    for at, symbol in enumerate(one):
        places[symbol] = places.get(symbol, 0) | 1 << at
    whole = (1 << len(one)) - 1
    row = whole
    for symbol in other:
        matched = row & places.get(symbol, 0)
        row = (row + matched | row - matched) & whole
    return len(one) - row.bit_count()


def characters(text: str) -> list[str]:
    """Return the characters that say something: neither blanks nor marks."""
    return re.findall(r"\w", text)


@cache
def word_cutter() -> Callable[[str], list[str]]:
    """Return what cuts Chinese text into words, by jieba. Raises UsageError where it is not installed."""
    jieba: Any = _installed("jieba")
    jieba.setLogLevel(logging.ERROR)
    cutter = jieba.Tokenizer()
    # It trusts its cache, which lies in a folder that all users write to: for loading it gets a folder of our own.
    with tempfile.TemporaryDirectory() as folder:
        cutter.tmp_dir = folder
        cutter.initialize()
    return lambda text: [word for word in cutter.lcut(text) if re.search(r"\w", word)]


def bleu(answers: Sequence[str], references: Sequence[str]) -> Metric:
    """Return the BLEU of the answers together, from 0 to 1, with sacrebleu's tokeniser for Chinese.

    Raises UsageError where sacrebleu is not installed.
    """
    scorer: Any = _installed("sacrebleu").BLEU
    # Only the counts of single answers are used: what `effective_order` changes is their score.
    counting = scorer(tokenize="zh", effective_order=True)
    found = [counting.sentence_score(one, [other]) for one, other in zip(answers, references, strict=True)]
    table = np.asarray([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found])

    def of(rows: Any) -> float:
        *grams, ours, theirs = table[rows].sum(axis=0).tolist()
        right, total = grams[: len(grams) // 2], grams[len(grams) // 2 :]
        score: float = scorer.compute_bleu(right, total, ours, theirs, smooth_method="exp").score
        return score / 100

    return bootstrap_metric(of(slice(None)), len(answers), of)


def perplexity_per_character(scores: Sequence[Sequence[float]], texts: Sequence[str]) -> Metric:
    """Return exp of the negative log-likelihood per character of `texts`, whatever tokens they are cut into."""
    sums = np.asarray([math.fsum(values) for values in scores])
    lengths = np.asarray([len(text) for text in texts])

    def of(rows: Any) -> float:
        return math.exp(-float(sums[rows].sum()) / int(lengths[rows].sum()))

    return bootstrap_metric(of(slice(None)), len(texts), of)


def contradicted(text: str) -> str:
    """Return the text with its first statement turned into the opposite, "" where none of the known words is in it."""
    for word, opposite in _OPPOSITES:
        if word in text:
            return text.replace(word, opposite, 1)
    return ""


def require_text_libraries() -> None:
    """Raise UsageError unless jieba and sacrebleu are installed: before a model is loaded."""
    require_extra("eval", *TEXT_LIBRARIES)


def _installed(name: str) -> Any:
    require_extra("eval", name)
    return import_module(name)
