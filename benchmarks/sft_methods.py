"""LoRA, QLoRA, Adapter and P-tuning on the same base and data, from the reports that `medchat sft` writes.

    python benchmarks/sft_methods.py --json FILE [--data llama_data.json] [--records 2400] [--markdown FILE]

There are no published weights here to train on, so the base is a miniature LLaMA that `medchat sft --method full`
has first taught the first half of the records; each method then learns the second half from it, with the same
batches, epochs and learning rate. So the figures compare the methods on a toy, and say nothing of a 7B model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loading_figures import ROOT, environment, source_folders
from reporting import parser_of, report

METHODS = ("full", "lora", "qlora", "adapter", "ptuning")
SHAPE = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "vocabulary_size": 2000}
COMMON = ["--backbone", "llama", "--device", "cpu", "--template", "med_template", "--samples", "0", "--yes"]
BASE = ["--method", "full", "--learning-rate", "2e-3", "--num-epochs", "3", "--adam-epsilon", "1e-8"]
EACH = ["--num-epochs", "2", "--batch-size", "32", "--micro-batch-size", "16", "--adam-epsilon", "1e-8"]
#: All methods but P-tuning, whose prefix wants its own (larger) rate.
RATE, PREFIX_RATE = "2e-3", "2e-2"


def records(path: Path, count: int) -> tuple[list[str], list[str]]:
    """Return the lines of the base's data and of the methods'."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    half = min(count, len(lines)) // 2
    return lines[:half], lines[half : 2 * half]


def train(folder: Path, name: str, model: Path, data: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Run `medchat sft` in a process of its own and return what its report says."""
    output = folder / name
    words = ["sft", *COMMON, "--model", str(model), "--data", str(data), "--output", str(output), *flags]
    done = subprocess.run(
        [sys.executable, "-m", "medchat", *words],
        env=environment() | {"MEDCHAT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"medchat sft --method {name} ended with {done.returncode}")
    result: dict[str, Any] = json.loads((output / "report.json").read_text(encoding="utf-8"))["result"]
    result["result_bytes"] = sum(path.stat().st_size for path in output.glob("*.safetensors"))
    return result


def measure(data: Path, count: int) -> dict[str, dict[str, Any]]:
    """Teach the base, then let every method learn; return the reports by method, `base` among them."""
    sys.path[:0] = map(str, source_folders())
    from medchat_llama.backbone import LlamaBackbone

    first, second = records(data, count)
    corpus = [
        record[key] for line in first for record in [json.loads(line)] for key in ("instruction", "output")
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        LlamaBackbone().tiny(folder / "start", corpus=corpus, **SHAPE)
        for name, lines in (("first", first), ("second", second)):
            (folder / f"{name}.json").write_text("\n".join(lines), encoding="utf-8")
        found = {"base": train(folder, "base", folder / "start", folder / "first.json", BASE)}
        for method in METHODS:
            rate = PREFIX_RATE if method == "ptuning" else RATE
            flags = ["--method", method, "--learning-rate", rate, *EACH]
            found[method] = train(folder, method, folder / "base", folder / "second.json", flags)
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the figures as a table."""
    lines = [
        "| method | trained | result | peak memory | tokens/s | training loss | held-out loss, before → best |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for method in METHODS:
        row = found[method]
        share = row["trainable_parameters"] / row["parameters"]
        cells = (
            f"{row['trainable_parameters']:,} ({share:.1%})",
            f"{row['result_bytes'] / 2**10:,.0f} KiB",
            f"{row['peak_bytes'] / 2**20:,.0f} MiB",
            f"{row['tokens'] / row['seconds']:,.0f}",
            f"{row['first_loss']:.3f} → {row['last_loss']:.3f}",
            f"{row['loss_before']:.4f} → {row['best_loss']:.4f}",
        )
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print, and return 1 if a method did not learn."""
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "llama_data.json")
    parser.add_argument("--records", type=int, default=2400)
    parser.add_argument("--markdown", type=Path, help="where the table goes")
    arguments = parser.parse_args()
    found = measure(arguments.data, arguments.records)
    if arguments.markdown:
        arguments.markdown.write_text(table(found), encoding="utf-8")
    failures = [
        f"{name} did not learn" for name, row in found.items() if row["best_loss"] >= row["loss_before"]
    ]
    return report("sft_methods", {}, {"methods": found}, failures, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
