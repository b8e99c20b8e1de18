"""`medchat eval compare`: metrics side by side, and a difference tested on the questions of both runs."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call, Outcome
from medchat_eval.results import Evaluation, Metric
from medchat_eval.scored_answers import read_answers_run
from medchat_eval.statistics import bootstrap_interval, mcnemar

pytest_plugins = ("cli_program",)


def write_run(folder: Path, scores: list[float], task: str = "choice", **changes: Any) -> Path:
    items = [{"id": str(at), "question": f"问 {at}？", "score": score} for at, score in enumerate(scores)]
    mean = Metric(sum(scores) / len(scores), len(scores))
    content = Evaluation(task, {}, [], {}, {"accuracy": mean}, items=items).as_json() | changes
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    # 2 * P(X <= k) of the binomial distribution with one half.
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375), (10, 0, 0.001953125)],
)
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p)


def test_the_bootstrap_holds_the_mean_95_times_in_100() -> None:
    draw, held = random.Random(1), 0
    for seed in range(100):
        interval = bootstrap_interval([draw.gauss(0.3, 1.0) for _ in range(40)], seed=seed, draws=150)
        held += interval.holds(0.3)
    assert 87 <= held <= 100
    assert bootstrap_interval([0.1, 0.5, 0.2]) == bootstrap_interval([0.1, 0.5, 0.2])


def test_runs_stand_side_by_side_and_are_tested_pair_by_pair(call: Call, tmp_path: Path) -> None:
    before = write_run(tmp_path / "before", [0.0] * 12 + [1.0] * 8)
    after = write_run(tmp_path / "after", [1.0] * 10 + [0.0] * 2 + [1.0] * 8)
    done = call("eval", "compare", f"前={before}", f"后={after}", "--json")
    found = done.one()
    (test,) = found["against_first"]
    assert (test["label"], test["count"], test["p"]) == ("后", 20, pytest.approx(0.001953125))
    assert test["difference"] == pytest.approx(0.5) and 0 < test["low"] < test["high"]
    page = call("eval", "compare", str(before), str(after)).out
    assert "| before | after |" in page and "+0.500" in page


def test_conditions_are_shown_as_readers_expect_them(call: Call, tmp_path: Path) -> None:
    model = {
        "adapter": ["one", "two"],
        "decoding": {"num_beams": 1, "top_p": 0.7},
        "dtype": None,
        "rotation": True,
    }
    runs = [write_run(tmp_path / name, [1.0, 0.0], model=model) for name in ("a", "b")]
    page = call("eval", "compare", *map(str, runs)).out.replace("\\", "")
    for name, shown in (("adapter", "one, two"), ("decoding", "num_beams=1, top_p=0.7"), ("rotation", "是")):
        assert f"| {name} | {shown} | {shown} |" in page
    assert not re.search("True|None|[{'\\[]", page.partition("## 各列")[2])


def test_scores_between_are_compared_without_mcnemar(call: Call, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, [0.25, 0.5, 1.0], "text") for name in ("a", "b")]
    (test,) = call("eval", "compare", *map(str, runs), "--json").one()["against_first"]
    assert test["p"] is None and (test["difference"], test["low"], test["high"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "changes", [{"schema": "other"}, {"schema_version": 99}, {"items": [{"id": 1}]}, {"task": "text"}]
)
def test_what_cannot_be_compared_is_named(changes: dict[str, Any], call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "good", [1.0, 0.0])
    write_run(tmp_path / "other", [1.0, 0.0], **changes)
    done = call("eval", "compare", str(tmp_path / "good"), str(tmp_path / "other"))
    assert done.code == 6 and "results.json" in done.err


def test_a_run_that_is_not_there_and_one_alone_are_refused(call: Call, tmp_path: Path) -> None:
    good = str(write_run(tmp_path / "good", [1.0]))
    assert call("eval", "compare", good, str(tmp_path / "missing")).code == 3
    assert call("eval", "compare", good).code == 2
    assert call("eval", "compare", good, good).code == 2


def test_scores_of_questions_in_other_words_are_not_compared(call: Call, tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", [1.0, 0.0], settings={"judge_form": 1})
    other = write_run(tmp_path / "other", [1.0, 0.0], settings={"judge_form": 2})
    done = call("eval", "compare", str(one), str(other))
    assert done.code == 6 and "judge_form" in done.failure()[0]


# ---------------------------------------------------------------- answers of medchat infer

OPTIONS = "哪个是病毒引起的？\nA. 流感\nB. 肺结核\nC. 痛风\nD. 骨折"
ASKED = {"感冒要吃抗生素吗？": "不需要抗生素。", OPTIONS: "A", "没有参考的问题": None}


def answers_of(folder: Path, name: str, *answers: str, **fields: Any) -> Path:
    """Write a result file of medchat infer: an answer to each of `ASKED`."""
    path = folder / f"{name}.jsonl"
    rows = [
        {
            "index": at,
            "question": question,
            "answer": answer,
            "finish": "stop",
            "model": "llama-7b",
            "adapter": [name],
        }
        | ({"reference": reference} if reference else {})
        | fields
        for at, ((question, reference), answer) in enumerate(zip(ASKED.items(), answers, strict=True))
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def columns(tmp_path: Path) -> list[str]:
    plain = answers_of(tmp_path, "plain", "需要。", "应选 B", "不知道")
    alpaca = answers_of(tmp_path, "alpaca", "不需要。", "不是B，应该选A", "多休息")
    med = answers_of(tmp_path, "med", "不需要抗生素。", "答案是 A。", "<script>|多喝水")
    return [f"Plain={plain}", f"Alpaca={alpaca}", f"Med={med}"]


def compare(call: Call, *words: str) -> Outcome:
    done = call("eval", "compare", *words)
    assert done.code == 0, done.err
    return done


def test_answers_stand_beside_their_scores(call: Call, columns: list[str]) -> None:
    found = compare(call, *columns, "--json").one()
    by_label = {label: found["metrics"][label]["accuracy"]["value"] for label in ("Plain", "Alpaca", "Med")}
    assert by_label == {"Plain": 0.0, "Alpaca": 1.0, "Med": 1.0}
    assert found["metrics"]["Med"]["accuracy"]["chance"] == 0.25
    assert found["metrics"]["Med"]["rouge_l"]["value"] == 1.0
    first, second, third = found["questions"]
    assert first["answers"]["Alpaca"] == {"answer": "不需要。", "score": pytest.approx(2 * 3 / 9)}
    assert second["answers"]["Plain"]["score"] == 0.0 and third["answers"]["Med"]["score"] is None
    assert [one["label"] for one in found["against_first"]] == ["Alpaca", "Med"]
    assert found["columns"][2] == {"label": "Med", "model": "llama-7b", "adapter": ["med"]} and found["AIGC"]


def test_the_table_is_a_page_that_no_answer_breaks(call: Call, columns: list[str], tmp_path: Path) -> None:
    page = compare(call, *columns).out
    assert "| Plain | 得分 | Alpaca | 得分 | Med | 得分 |" in page and "<script>" not in page
    compare(call, *columns, "--output", str(tmp_path / "table.html"))
    html = (tmp_path / "table.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html and "&lt;script&gt;|多喝水" in html and "<script>" not in html
    compare(call, *columns, "--output", str(tmp_path / "table.json"))
    assert json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))["task"] == "answers"
    assert (tmp_path / "table.json").stat().st_mode & 0o777 == 0o600


def test_evaluations_show_their_answers_too(call: Call, tmp_path: Path) -> None:
    items = [{"id": "0", "question": "问？", "reference": "甲", "reply": "乙", "score": 0.0}]
    runs = [str(write_run(tmp_path / name, [0.0], "text", items=items)) for name in ("a", "b")]
    (question,) = compare(call, *runs, "--json").one()["questions"]
    assert question["reference"] == "甲" and question["answers"]["b"] == {"answer": "乙", "score": 0.0}


@pytest.mark.parametrize(
    "line", ["[1]", '{"index": 1, "que', '{"question": "问？"}', '{"question": 1, "answer": "a"}']
)
def test_a_line_that_is_no_answer_is_named(line: str, call: Call, columns: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text((tmp_path / "med.jsonl").read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    done = call("eval", "compare", columns[0], str(bad))
    assert done.code == 6 and f"{bad}:4" in done.err


def test_output_is_none_of_the_inputs(call: Call, columns: list[str], tmp_path: Path) -> None:
    plain = tmp_path / "plain.jsonl"
    before = plain.read_bytes()
    done = call("eval", "compare", *columns, "--output", str(plain))
    assert done.code == 2 and plain.read_bytes() == before


def test_without_the_libraries_the_metrics_by_words_are_left_out(
    columns: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(columns[0].partition("=")[2])
    assert set(read_answers_run("x", path).metrics) == {"accuracy", "rouge_l", "rouge_l_words", "bleu"}
    monkeypatch.setattr("medchat_eval.scored_answers.lacks_text_libraries", lambda: True)
    assert set(read_answers_run("x", path).metrics) == {"accuracy", "rouge_l"}
