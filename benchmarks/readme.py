"""Write the README's figures: the demo's accuracies over seeds and the speed table. `make readme` runs it."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SEEDS = 2
NAMES = {"linear_probe": "linear probe", "fine_tune": "fine-tune", "lp_ft": "LP-FT", "wise_ft": "WiSE-FT"}


def demo_table() -> str:
    """Accuracy per domain: mean over seeds, and the lowest and highest; from the demo's result, run where missing."""
    path = ROOT / "benchmarks" / "results" / "demo.json"
    if not path.exists():
        command = [sys.executable, "-m", "surefoot", "demo", "--json", "--seeds", str(SEEDS)]
        path.write_text(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    result = json.loads(path.read_text())
    metrics, seeds = result["metrics"], len(result["seeds"])
    domains = list(metrics["fine_tune"])
    lines = ["| | " + " | ".join(domains) + " |", "| --- " * (len(domains) + 1) + "|"]
    for name, title in NAMES.items():
        cells = []
        for domain in domains:
            values = [100 * each["accuracy"]["value"] for each in metrics[name][domain]]
            cells.append(f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    note = f"Accuracy in percent, mean (lowest to highest) over {seeds} seeds: `surefoot demo --seeds {seeds}`. Movies are home."
    return "\n".join(lines) + "\n\n" + note


def speed_table() -> str:
    result = json.loads((ROOT / "benchmarks" / "results" / "speed.json").read_text())
    lines = ["| | median | range |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {ratio['median']:.2f}x | {ratio['min']:.2f} to {ratio['max']:.2f} |"
        for name, ratio in result["ratios"].items()
    ]
    return "\n".join(lines)


def main() -> None:
    path = ROOT / "README.md"
    text = path.read_text("utf8")
    for mark, table in (("demo", demo_table()), ("speed", speed_table())):
        text = re.sub(
            rf"(<!-- {mark}:[^\n]*-->\n).*?(<!-- /{mark} -->)",
            lambda found, table=table: f"{found[1]}{table}\n{found[2]}",
            text,
            flags=re.S,
        )
    path.write_text(text, "utf8")


if __name__ == "__main__":
    main()
