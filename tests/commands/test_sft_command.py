"""`medchat sft` from flags to exit code, with a recipe that only pretends: what is shown, refused, written, stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_program import MARK_EN, MARK_ZH, Call, Outcome
from launched import launched
from scripted_recipe import RECORDS, Pupil

from medchat.cli.stuck import SECOND_WISH

pytest_plugins = ("cli_program",)

Sft = Callable[..., Outcome]


@pytest.fixture
def pupil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pupil]:
    made = Pupil(tmp_path / "pupil")
    monkeypatch.syspath_prepend(made.site)
    yield made


@pytest.fixture
def sft(pupil: Pupil, call: Call) -> Sft:
    return lambda *more: call(*pupil.flags, *more)


# ---------------------------------------------------------------- what is shown, and written


def test_a_run_shows_everything_first_and_ends_with_what_to_type_next(pupil: Pupil, sft: Sft) -> None:
    ended = sft("--learning-rate", "0.002", "--lora-targets", "q_proj,v_proj", "--rule", "two")
    assert ended.code == 0, ended.err
    output, model = str(pupil.output), str(pupil.model)
    assert ended.out == f"medchat chat --backbone pupil --model '{model}' --adapter '{output}'\n"
    for said in (
        r"learning_rate +0\.002 +--learning-rate",
        r"batch_size +128 +方法 lora",
        r"seed +2023 +内置",
        r"extra\.rule +\"two\" +--option",
        r"data\.json +Alpaca 格式（JSONL） +40 条",
        "训练 36 条，留作评估 4 条",
        r"长度 +中位数 \d+ 词元",
        r"回答的结尾（结束标记保留） +3 +8\.33%",
        "问：问题.*\n答：<sop>⟦回答.*。</s>⟧",
        r"权重 +512 MiB|权重 +0\.5 GiB",
        r"合计峰值 +1\.0 GiB +放得下",
        r"24 GB +加上 --gradient-checkpointing\n +80 GB +放得下",
        "可训练参数 10，共 1,000",
        r"100% +第 10/10 步 +损失 0\.300 +1234 词元/秒 +剩余 0:00",
        "第 10 步评估：损失 0.5000，困惑度 1.65（目前最好）",
        f"完成：结果在 {output}",
    ):
        assert re.search(said, ended.err), f"{said}\n{ended.err}"
    assert "\x1b" not in ended.err and "adapter_size" not in ended.err
    assert ended.err.index("内存估计") < ended.err.index("第 1/10 步")
    called = pupil.called()
    assert (called["learning_rate"], called["lora_targets"]) == (0.002, ["q_proj", "v_proj"])
    assert called["extra"] == {"rule": "two"}


def test_beside_the_result_stand_settings_card_report_and_pictures(pupil: Pupil, sft: Sft) -> None:
    assert sft("--seed", "7").code == 0
    names = {path.name for path in pupil.output.iterdir()}
    assert {"README.md", "report.md", "report.html", "report.json", "sft.toml", "loss.svg"} <= names
    card = (pupil.output / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and MARK_ZH in card and MARK_EN in card
    assert card.index("## 声明") < card.index("## Please read") and "120" in card and "许可" in card
    assert str(pupil.folder) not in card  # a card is published
    report = (pupil.output / "report.md").read_text(encoding="utf-8")
    assert "3.0000 → 0.3000" in report and "![" in report and MARK_ZH in report
    told = json.loads((pupil.output / "report.json").read_text(encoding="utf-8"))
    assert told["AIGC"]["Label"] == "1" and told["disclaimer"] == MARK_ZH


def test_the_saved_settings_make_the_same_run_again(pupil: Pupil, sft: Sft, call: Call) -> None:
    assert sft("--learning-rate", "0.002", "--batch-size", "32", "--val-size", "3", "--rule", "one").code == 0
    first = pupil.called()
    kept = pupil.output / "sft.toml"
    again = call("sft", "--config", str(kept), "--output", str(pupil.folder / "again"))
    assert again.code == 0, again.err
    second = json.loads((pupil.folder / "again" / "called.json").read_text(encoding="utf-8"))
    assert {**second, "output": ""} == {**first, "output": ""}


def test_going_on_needs_the_output_alone(pupil: Pupil, sft: Sft, call: Call) -> None:
    pupil.script(diverges_at=4)
    assert sft("--seed", "11", "--lora-r", "3").code == 1
    assert (pupil.output / "sft.toml").is_file()
    pupil.script()
    ended = call("sft", "--output", str(pupil.output), "--resume")
    assert ended.code == 0, ended.err
    called = pupil.called()
    assert (called["seed"], called["lora_r"], called["resume"]) == (11, 3, True)
    assert re.search(r"lora_r +3 +.*sft\.toml:\d+", ended.err)


def test_json_is_one_object_with_the_mark(sft: Sft) -> None:
    told = sft("--json").one()
    assert (told["kind"], told["steps"], told["disclaimer"]) == ("adapter", 10, MARK_ZH)
    assert told["AIGC"]["ContentProducer"] == "MedChat"


def test_what_a_plugin_says_cannot_command_the_terminal(sft: Sft) -> None:
    ended = sft()
    assert "a note" in ended.err and "\x1b" not in ended.err


def test_a_broken_run_can_be_reported_and_a_finished_report_is_left_alone(
    pupil: Pupil, sft: Sft, call: Call
) -> None:
    pupil.script(diverges_at=4)
    assert sft().code == 1
    told = call("sft", "--report", "--output", str(pupil.output))
    assert told.out == f"{pupil.output / 'report.html'}\n"
    unfinished = (pupil.output / "report.md").read_text(encoding="utf-8")
    assert "还没有结束" in unfinished and "--resume" in unfinished and "→" in unfinished
    assert call("sft", "--report", "--output", str(pupil.folder)).code == 3
    pupil.script()
    assert sft("--resume").code == 0
    finished = (pupil.output / "report.html").read_bytes()
    assert call("sft", "--report", "--output", str(pupil.output)).code == 0
    assert (pupil.output / "report.html").read_bytes() == finished


# ---------------------------------------------------------------- dry run and memory


def test_a_dry_run_says_all_on_stdout_and_writes_nothing(pupil: Pupil, sft: Sft) -> None:
    ended = sft("--dry-run")
    assert ended.code == 0 and "放得下" in ended.out and "⟦回答" in ended.out
    assert not pupil.output.exists()
    told = sft("--dry-run", "--json").one()
    assert told["memory"]["fits"] and told["survey"]["cut_answers"] == 3
    assert told["settings"]["learning_rate"] == {"value": 3e-4, "origin": "方法 lora"}


def test_a_run_that_cannot_fit_is_refused_before_loading_with_the_nearest_that_does(
    pupil: Pupil, sft: Sft
) -> None:
    pupil.script(needs=2**34, free=2**30)
    dry = sft("--dry-run")
    assert dry.code == 4 and "放不下" in dry.out
    ended = sft()
    assert ended.code == 4 and not pupil.output.exists()
    what, remedy = ended.failure()
    assert "16.0 GiB" in what and "--gradient-checkpointing --micro-batch-size 1" in remedy


def test_a_recipe_that_can_tell_nothing_is_run_all_the_same(pupil: Pupil, sft: Sft) -> None:
    pupil.script(untold=True)
    ended = sft()
    assert ended.code == 0 and "内存估计：这个方法无法估计" in ended.err
    assert json.loads((pupil.output / "report.json").read_text(encoding="utf-8"))["run"]["lengths"] is None


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--method", "lore"), 2, "--method lora"),
        (("--collator", "med"), 2, "default, other"),
        (("--learning-rate", "0"), 2, "(0, 10]"),
        (("--report-to", "wandb,mlflow"), 2, "tensorboard | wandb | swanlab"),
        (("--rule", "three"), 2, "one | two"),
        (("--extra", "colour=red"), 2, "rule"),
        (("--option", "red"), 2, "--option"),
        (("--micro_batch_size", "4", "--cutoff_len=9"), 2, "--micro-batch-size；--cutoff_len → --max-length"),
        (("--frobnicate",), 2, "--help"),
        (("--template", "no_such"), 2, "med_template"),
        (("--adapter", "/no/such"), 3, "medchat models"),
        (("--data", "/no/such.json"), 3, "路径"),
        (("--config", "/no/such.toml"), 3, "--config"),
        (("--val-size", "40"), 2, "--val-size"),
    ],
)
def test_what_cannot_be_run_is_refused_with_what_to_type(
    pupil: Pupil, sft: Sft, more: tuple[str, ...], code: int, said: str
) -> None:
    ended = sft(*more)
    assert ended.code == code, ended.err
    assert said in ended.failure()[1]
    assert not pupil.output.exists()


@pytest.mark.parametrize("missing", ["--model", "--data", "--output"])
def test_what_is_missing_is_named(pupil: Pupil, call: Call, missing: str) -> None:
    words = list(pupil.flags)
    at = words.index(missing)
    ended = call(*words[:at], *words[at + 2 :])
    assert ended.code == 2 and missing in ended.failure()[1]


def test_an_output_that_holds_something_is_kept(pupil: Pupil, sft: Sft) -> None:
    pupil.output.mkdir()
    (pupil.output / "mine").write_text("mine")
    ended = sft()
    assert ended.code == 2 and "--resume" in ended.failure()[1]
    assert [path.name for path in pupil.output.iterdir()] == ["mine"]


def test_a_bad_record_is_named_by_line_and_left_out_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    pupil = Pupil(tmp_path / "pupil", [*RECORDS[:3], {"instruction": "没有答案"}, *RECORDS[3:]])
    monkeypatch.syspath_prepend(pupil.site)
    ended = call(*pupil.flags)
    assert ended.code == 6
    assert f"{pupil.data}:4" in ended.failure()[0] and "--skip-bad" in ended.failure()[1]
    ended = call(*pupil.flags, "--skip-bad")
    assert ended.code == 0 and "40 条，跳过 1 条" in ended.err and f"{pupil.data}:4" in ended.err


def test_a_run_that_fails_says_so_and_what_to_do(pupil: Pupil, sft: Sft) -> None:
    pupil.script(diverges_at=3)
    ended = sft()
    assert ended.code == 1 and ended.out == ""
    assert ended.failure() == ("错误：it diverged", "下一步：lower the rate")


# ---------------------------------------------------------------- signals, several processes


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_after_the_step_and_says_how_to_go_on(
    pupil: Pupil, number: signal.Signals, code: int
) -> None:
    pupil.script(steps=1000, seconds=0.05)
    process = started(pupil)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "完成这一步后保存并停止" in err and "stopped and saved" in err and "--resume" in err
    assert "Traceback" not in err


def test_the_same_signal_again_stops_at_once_unless_it_is_an_echo(pupil: Pupil) -> None:
    pupil.script(steps=2, seconds=20)
    process = started(pupil, wait_for="")
    for _ in range(3):  # the terminal's, and what a launcher passes on
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.poll() is None
    time.sleep(SECOND_WISH)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert time.monotonic() - began < 10 and "stopped and saved" not in err
    assert err.count("完成这一步后保存并停止") == 1


def started(pupil: Pupil, wait_for: str = "/1000 步") -> subprocess.Popen[str]:
    """Return a run in whose training a first step (or, with "", the output folder) has been seen."""
    process = pupil.start()
    assert process.stderr is not None
    deadline = time.monotonic() + 30
    if wait_for:
        for line in process.stderr:
            if wait_for in line:
                return process
    while not (pupil.output / "sft.toml").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    return process


def test_of_several_processes_one_speaks(pupil: Pupil) -> None:
    ended = pupil.run(**launched(1, 2))
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    refused = pupil.run("--method", "lore", **launched(1, 2))
    assert (refused.code, refused.err) == (2, "")
    first_on_its_machine = pupil.run("--method", "lore", **{**launched(1, 2), "LOCAL_RANK": "0"})
    assert first_on_its_machine.code == 2 and "--method lora" in first_on_its_machine.err
    pupil.script(needs=2**34, free=2**30)
    elsewhere = ("--output", str(pupil.folder / "elsewhere"))
    short = [pupil.run(*elsewhere, **launched(rank, 2)) for rank in ("0", "1")]
    assert [each.code for each in short] == [4, 4]
    assert "16.0 GiB" in short[0].failure()[0] and short[1].err == ""


def test_settings_of_the_program_count_below_flags_and_file(
    pupil: Pupil, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCHAT_BACKBONE", "pupil")
    monkeypatch.setenv("MEDCHAT_MODEL", os.fspath(pupil.model))
    ended = call("sft", "--data", str(pupil.data), "--output", str(pupil.output), "--dry-run")
    assert ended.code == 0, ended.err
    assert re.search(r"model +\".*权重\" +MEDCHAT_MODEL", ended.out)


def test_a_tracker_stays_on_this_machine_when_told_to_be_offline(
    pupil: Pupil, sft: Sft, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("SWANLAB_MODE", raising=False)
    assert sft("--report-to", "wandb").code == 0
    assert "WANDB_MODE" not in os.environ
    monkeypatch.setenv("SWANLAB_MODE", "disabled")
    assert sft("--report-to", "wandb", "--offline", "--output", str(pupil.folder / "other")).code == 0
    assert (os.environ["WANDB_MODE"], os.environ["SWANLAB_MODE"]) == ("offline", "disabled")
    os.environ.pop("WANDB_MODE")
