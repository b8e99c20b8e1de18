"""`medchat models list|show|pull|verify` as a user types them, against a hub on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from child_process import SOURCES, child_environment
from cli_program import run
from hub_server import Fault, Hub
from plugin_packages import write_distribution
from published_weights import REPOSITORY, SHARDS, Program, known_as, published_files

from medchat.weights.folders import UNFINISHED

pytest_plugins = ("published_weights",)

FILES = published_files()
BIG = SHARDS[0]
TINY = known_as("tiny-6b", FILES, ("ice_text.model", *SHARDS))
LORA = known_as("tiny-lora", FILES, (), kind="adapter", fits=("tiny-6b",))
BY_HAND = known_as(
    "tiny-med",
    FILES,
    ("ice_text.model",),
    source="https://github.com/lab/tiny-med",
    by_hand=("https://pan.example/tiny-med", "https://drive.example/tiny-med"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where a pulled `tiny-6b` lies."""
    return tmp_path / "medchat-home" / "data" / "models" / "tiny-6b"


def wait_for(true: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def partial_bytes(folder: Path) -> int:
    nest = folder / UNFINISHED
    return (
        max((file.stat().st_size for file in nest.glob(f"{BIG}.*.part")), default=0) if nest.is_dir() else 0
    )


def begun(program: Program, hub: Hub, folder: Path) -> subprocess.Popen[bytes]:
    """Start a pull from a server that falls silent, and return once most of what it sent has come."""
    hub.faults[BIG] = [Fault(silent_after=100_000)]
    process = program.start("models", "pull", "tiny-6b")
    wait_for(lambda: partial_bytes(folder) >= 60_000)
    return process


# ---------------------------------------------------------------- pull


def test_pull_verify_and_the_name_work_together(program: Program, hub: Hub, folder: Path) -> None:
    done = program.run("models", "pull", "tiny-6b")
    assert (done.code, done.out) == (0, f"{folder}\n")
    assert "100%" in done.err and "--model tiny-6b" in done.err
    assert folder.stat().st_mode & 0o777 == 0o700
    checked = program.run("models", "verify", "tiny-6b", "--json").one()
    assert checked["sound"] and {one["verdict"] for one in checked["files"]} == {"ok"}
    (listed,) = program.run("models", "list", "--json").one()
    assert (listed["state"], listed["path"]) == ("here", str(folder))


def test_a_killed_pull_goes_on_where_it_was(program: Program, hub: Hub, folder: Path) -> None:
    process = begun(program, hub, folder)
    process.kill()
    process.communicate()
    had = partial_bytes(folder)
    assert program.run("models", "pull", "tiny-6b").code == 0
    assert (folder / BIG).read_bytes() == FILES[BIG]
    assert hub.downloads(BIG)[-1].headers["range"] == f"bytes={had}-"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_pull_ends_at_once_and_says_how_to_go_on(
    program: Program, hub: Hub, folder: Path, number: signal.Signals, code: int
) -> None:
    process = begun(program, hub, folder)
    sent = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code and time.monotonic() - sent < 4
    assert "断点" in err.decode() and "Traceback" not in err.decode()
    asked = program.run("ask", "头痛", "--model", "tiny-6b")
    assert asked.code == 3 and "medchat models pull tiny-6b" in asked.failure()[1]


def test_a_wrong_checksum_ends_with_3_and_names_the_file(program: Program, hub: Hub, folder: Path) -> None:
    hub.faults[BIG] = [Fault(spoil=True)]
    done = program.run("models", "pull", "tiny-6b")
    what, remedy = done.failure()
    assert (done.code, done.out) == (3, "") and f"{BIG}.wrong" in what and "models pull tiny-6b" in remedy
    checked = program.run("models", "verify", "tiny-6b")
    assert checked.code == 3 and BIG in checked.failure()[0]


@pytest.mark.parametrize(
    ("flags", "environment"),
    [(["--offline"], {}), ([], {"MEDCHAT_OFFLINE": "true"}), ([], {"HF_HUB_OFFLINE": "1"})],
)
def test_offline_means_that_nothing_is_asked(
    program: Program, hub: Hub, folder: Path, flags: list[str], environment: dict[str, str]
) -> None:
    done = program.run("models", "pull", "tiny-6b", *flags, **environment)
    assert done.code == 2 and done.failure() and not hub.asked and not folder.exists()


def test_weights_that_a_person_must_fetch_come_with_links_and_place(
    program: Program, hub: Hub, folder: Path
) -> None:
    program.know(BY_HAND)
    done = program.run("models", "pull", "tiny-med")
    what, remedy = done.failure()
    assert done.code == 3 and not hub.asked
    assert all(link in what for link in BY_HAND.by_hand)
    assert str(folder.with_name("tiny-med")) in remedy and "models verify tiny-med" in remedy


def test_a_mistyped_name_is_answered_with_the_near_one(program: Program, hub: Hub) -> None:
    done = program.run("models", "pull", "tiny-6")
    assert done.code == 3 and "tiny-6b" in done.failure()[1] and not hub.asked


def test_another_folder_and_another_repository(program: Program, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["else/where"] = hub.repositories.pop(REPOSITORY)
    place = tmp_path / "别处"
    done = program.run("models", "pull", "tiny-6b", "--dir", str(place), "--repo", "else/where")
    assert (done.code, done.out) == (0, f"{place}\n")
    assert program.run("models", "verify", str(place)).code == 0


def test_the_name_of_a_repository_is_a_name_too(program: Program, hub: Hub, folder: Path) -> None:
    assert program.run("models", "pull", REPOSITORY).out == f"{folder}\n"


# ---------------------------------------------------------------- ModelScope


def test_modelscope_brings_the_same_files(program: Program, hub: Hub, folder: Path) -> None:
    program.know(replace(TINY, modelscope=REPOSITORY))
    asked = ("models", "pull", "tiny-6b", "--from", "modelscope")
    hub.faults[BIG] = [Fault(spoil=True)]
    assert program.run(*asked, MODELSCOPE_DOMAIN=hub.url).code == 3
    assert program.run(*asked, MODELSCOPE_DOMAIN=hub.url).code == 0
    assert (folder / BIG).read_bytes() == FILES[BIG]
    assert not any("authorization" in map(str.lower, one.headers) for one in hub.asked)


def test_a_repository_that_modelscope_lacks_is_said(program: Program, hub: Hub) -> None:
    program.know(replace(TINY, modelscope=REPOSITORY))
    asked = ("models", "pull", "tiny-6b", "--from", "modelscope", "--repo", "nobody/nothing")
    done = program.run(*asked, MODELSCOPE_DOMAIN=hub.url)
    assert done.code == 3 and "nobody/nothing" in done.err and "--repo" in done.failure()[1]


# ---------------------------------------------------------------- verify


def test_verify_says_of_each_file_what_it_is(program: Program, hub: Hub, folder: Path) -> None:
    program.run("models", "pull", "tiny-6b")
    with (folder / BIG).open("r+b") as file:
        file.write(b"\0")
    (folder / SHARDS[1]).unlink()
    (folder / "notes.txt").write_text("mine")
    done = program.run("models", "verify", str(folder), "--json")
    verdicts = {one["name"]: (one["verdict"], one["compared_with"]) for one in done.one()["files"]}
    assert done.code == 3
    assert verdicts[BIG] == ("wrong", "published") and verdicts[SHARDS[1]] == ("missing", "published")
    assert verdicts["config.json"] == ("ok", "recorded") and verdicts["notes.txt"] == ("unknown", None)


def test_verify_without_anything_to_compare_with_says_so(program: Program, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "model.safetensors").write_bytes(b"x")
    done = program.run("models", "verify", str(tmp_path / "own"), MEDCHAT_LANG="en")
    assert done.code == 0 and "unknown" in done.out and "no checksums" in done.err


# ---------------------------------------------------------------- list and show


def test_list_and_show_touch_neither_the_network_nor_its_library(program: Program, hub: Hub) -> None:
    program.know(TINY, LORA, BY_HAND)
    code = "import sys; from medchat.__main__ import main; code = main(); "
    code += "assert not {'huggingface_hub', 'httpx2', 'torch'} & set(sys.modules), 'imported'; sys.exit(code)"
    environment = child_environment(**program.environment())
    for words in (["list"], ["list", "--json"], ["show", "tiny-med"], ["show", "tiny-lora", "--json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "models", *words],
            capture_output=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
    assert not hub.asked


def test_list_answers_the_common_questions_and_cites() -> None:
    done = run("models", "list", MEDCHAT_LANG="en", PYTHONPATH=os.pathsep.join(SOURCES))
    for words in ("Which model is best?", "Why do answers vary?", "Which template?"):
        assert words in done.out
    assert "arXiv:2304.06975" in done.out and "Med-ChatGLM" in done.out


def test_a_broken_plugin_costs_the_list_one_line(program: Program) -> None:
    write_distribution(
        program.site, "medchat-bad", {"medchat": {"bad": "bad_plugin"}}, {"bad_plugin": "1 / 0"}
    )
    done = program.run("models", "list", MEDCHAT_PLUGINS="published,bad")
    assert done.code == 0 and "tiny-6b" in done.out
    assert len(done.err.splitlines()) == 1 and "bad" in done.err


def test_show_knows_what_is_not_here_yet(program: Program) -> None:
    program.know(TINY, LORA, BY_HAND)
    shown = program.run("models", "show", "tiny-lora", "--json").one()
    assert (shown["kind"], shown["fits"], shown["state"]) == ("adapter", ["tiny-6b"], "absent")
    text = program.run("models", "show", "tiny-med").out
    assert all(link in text for link in BY_HAND.by_hand) and "手动" in text


def test_show_describes_an_adapter_folder(program: Program, folder: Path) -> None:
    program.know(TINY, LORA)
    place = folder.with_name("tiny-lora")
    place.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
    (place / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "\x1b[2J../x"})
    )
    (place / "adapter_model.bin").write_bytes(b"x" * 10)
    shown = program.run("models", "show", "tiny-lora", "--json").one()
    assert (shown["rank"], shown["fits"], shown["weight_bytes"]) == (8, ["tiny-6b"], 10)
    assert "\x1b" not in program.run("models", "show", str(place)).out
    (place / "adapter_config.json").write_text("[")
    assert program.run("models", "show", "tiny-lora").code == 3


def test_a_terminal_gets_a_bar_and_stdout_only_the_folder(program: Program, hub: Hub, folder: Path) -> None:
    screen, stderr = os.openpty()
    command_line = [sys.executable, "-m", "medchat", "models", "pull", "tiny-6b"]
    environment = child_environment(**program.environment(), TERM="xterm", COLUMNS="100")
    process = subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=stderr, env=environment)
    os.close(stderr)
    shown = b""
    try:
        while piece := os.read(screen, 1 << 16):
            shown += piece
    except OSError:  # the other end is closed: the program has ended
        pass
    finally:
        os.close(screen)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out.decode()) == (0, f"{folder}\n")
    text = shown.decode()
    assert "100%" in text and re.search(r"[\d.]+ [kM]?B/s|bytes/s", text)
    assert text.count("6 个文件") == 1 and "完成" in text
