"""Turn the report of `pip install --dry-run --report` over constraints.txt into requirements.lock on stdout."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
#: The one platform the hashes are for.
PLATFORM = {
    "sys_platform": "linux",
    "platform_machine": "x86_64",
    "implementation_name": "cpython",
    "python_version": "3.11",
}
HEADER = """\
# Every package of constraints.txt with the SHA-256 of its file, for Linux x86_64 (glibc) and CPython 3.11.
# torch is the build for the CPU, from PyTorch's own index (README: PIP_EXTRA_INDEX_URL); elsewhere: constraints.txt.
# Made by scripts/lock.sh; do not edit.
#   pip install --no-deps --require-hashes -r requirements.lock && pip install --no-deps -e .
"""


def canonical(name: str) -> str:
    """Return the name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def hashes(report: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each chosen file, by canonical name. Raises SystemExit: another platform, none stated."""
    other = {name: report["environment"][name] for name in PLATFORM} != PLATFORM
    if other:
        raise SystemExit("错误：需要 Linux x86_64 上的 Python 3.11 / Python 3.11 on Linux x86_64 is needed")
    found = {}
    for item in report["install"]:
        name = canonical(item["metadata"]["name"])
        digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not digest:
            raise SystemExit(f"错误：pip 没有给出 {name} 的 SHA-256 / pip states no SHA-256 of {name}")
        found[name] = digest
    return found


def main() -> None:
    """Write the lock in the order of constraints.txt."""
    digests = hashes(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    lines = [line.strip() for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines()]
    pins = [line for line in lines if line and not line.startswith("#")]
    rows = [f"{pin} --hash=sha256:{digests[canonical(pin.partition('==')[0])]}" for pin in pins]
    sys.stdout.write(HEADER + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
