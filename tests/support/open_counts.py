"""How often a run of the program opens the files of a folder, counted by the interpreter's own audit hook."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from child_process import TORCH, child_environment, run_python

#: Counts every `open` of Python, of whatever module. Files opened by C or Rust libraries are not counted.
_COUNTING = """
import atexit, collections, json, os, sys
counts = collections.Counter()
def count(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & 3 == os.O_RDONLY:
        counts[os.path.realpath(os.fsdecode(arguments[0]))] += 1
sys.addaudithook(count)
target = sys.argv.pop(1)
def write():
    found = dict(counts)
    with open(target, "w") as file:
        json.dump(found, file)
atexit.register(write)
from medchat.__main__ import main
sys.exit(main())
"""


def count_opens(home: Path, *arguments: str) -> Counter[str]:
    """Run the program with `arguments`; return how often it opened each file to read it, by its real path."""
    target = home / "counts.json"
    done = run_python(
        "-c",
        _COUNTING,
        str(target),
        "--lang",
        "en",
        *arguments,
        environment=child_environment(),
        imported=TORCH,
        stdin="头痛怎么办？\n".encode(),
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return Counter(json.loads(target.read_text()))
