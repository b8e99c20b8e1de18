"""Write the table of traditional characters that the red-flag lexicon needs, from OpenCC's own.

    python scripts/traditional_table.py

Run it after words were added to medchat/medical_safety/lexicon/; a test says so where it was forgotten.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from opencc import OpenCC

from medchat.medical_safety.lexicon_files import lexicon_characters

TABLE = Path(__file__).resolve().parent.parent / "medchat" / "medical_safety" / "lexicon" / "traditional.toml"
#: The blocks of Han characters in use: the base block and extension A.
BLOCKS = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF))


def traditional_table(characters: set[str]) -> str:
    """Return the table for these simplified characters, as TOML."""
    han = [chr(code) for first, last in BLOCKS for code in range(first, last + 1)]
    simplified = OpenCC("t2s").convert("\n".join(han)).split("\n")
    found: dict[str, str] = {}
    for old, new in zip(han, simplified, strict=True):
        if old != new and new in characters:
            found[new] = found.get(new, "") + old
    lines = [
        f"{json.dumps(new, ensure_ascii=False)} = {json.dumps(olds, ensure_ascii=False)}"
        for new, olds in sorted(found.items())
    ]
    head = (
        "# Made by scripts/traditional_table.py from OpenCC's t2s: simplified = its traditional characters."
    )
    return "\n".join([head, "", "[characters]", *lines, ""])


if __name__ == "__main__":
    TABLE.write_text(traditional_table(lexicon_characters()), encoding="utf-8")
    sys.stdout.write(f"{TABLE}\n")
