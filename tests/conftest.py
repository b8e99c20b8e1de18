"""Make the source tree importable when MedChat is not installed, and keep tests out of the user's folders."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, *sorted((ROOT / "plugins").iterdir()), ROOT / "tests" / "support"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

#: What a launcher, a hub client or a proxy set-up leaves in a shell's environment (proxies in either case).
_INHERITED = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "COLUMNS", "LINES", "PYTHONWARNINGS"),
)
_INHERITED_PREFIXES = ("SLURM_", "ACCELERATE_", "TORCHELASTIC_", "HF_", "FSDP_")


def pytest_configure() -> None:
    """Start from the same state whatever the suite was started from."""
    # A shell starts a background job with SIGINT ignored, nohup ignores SIGHUP, and every child inherits that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for other in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        if signal.getsignal(other) is signal.SIG_IGN:
            signal.signal(other, signal.SIG_DFL)
    # Neither files' modes nor which processes and servers are asked depend on the shell that started the tests.
    os.umask(0o022)
    for name in list(os.environ):
        if name.upper() in _INHERITED or name.startswith(_INHERITED_PREFIXES):
            del os.environ[name]
    # Without it every program that a test starts compiles its modules again, which takes longer than what it
    # then does.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # On a busy machine 200 ms say nothing about the code.
    hypothesis.settings.register_profile("medchat", deadline=None)
    hypothesis.settings.load_profile("medchat")


@pytest.hookimpl(trylast=True)  # after -m and -k have taken their tests out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trace no line for coverage in a test with made-up inputs, nor beyond the third inputs of a parametrized one.

    Hypothesis runs a hundred and more of them through lines that tests with inputs of their own run too, and
    tracing slows its own code as much as ours. Further inputs of a test run mostly the lines that its first three did:
    what they alone reach counts as not covered, so the figure is never too high.
    """
    traced: Counter[str] = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        traced[test] += 1
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False) or traced[test] > 3:
            item.add_marker("no_cover")


@pytest.fixture(autouse=True, scope="module")
def _garbage_is_this_modules() -> None:
    """Let a collection of garbage look at what was made from here on.

    Each training run and each model that is closed collects. To look through all that torch and its like have made
    takes longer than all else in the run of a miniature.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the configuration and sessions of whoever runs it, or speaks their language."""
    for name in [name for name in os.environ if name.startswith("MEDCHAT_")]:
        if name not in ("MEDCHAT_SHARED", "MEDCHAT_GOLDENS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "medchat-home"))
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")


@pytest.fixture(autouse=True)
def _chinese_again() -> Iterator[None]:
    """A test that spoke English leaves the next one the language that MedChat starts with."""
    yield
    from medchat.language import set_language  # importable from here on only, see above

    set_language("zh")
