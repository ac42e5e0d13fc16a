"""Write the tables of docs/merge.md from benchmarks/results/merging.json and evidence/results/merge-*.json.

`make readme` runs it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "merge.md"
SIZES = {"small": "eight of {size:.0f} MB", "large": "two of {size:.1f} GB"}
TASKS = {"clinc150": "CLINC150", "banking77": "Banking77", "reviews": "movie reviews", "cad_imdb": "IMDB"}


def speed() -> str:
    """Throughput beside mergekit and beside copying, and peak memory."""
    results = ROOT / "benchmarks" / "results" / "merging.json"
    if not results.exists():
        return "Not measured yet."
    found = json.loads(results.read_text("utf8"))
    lines = [
        "| | method | rounds | over mergekit | of copying | processor time of copying |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for size, words in SIZES.items():
        if size not in found:
            continue
        scale = 1e6 if size == "small" else 1e9
        for method, own in found[size]["methods"].items():
            over, copied = own["over_mergekit"], own["of_copying"]
            title = words.format(size=found[size]["bytes_each"] / scale)
            cells = [
                f"{each['median']:.2f}x ({each['range'][0]:.2f} to {each['range'][1]:.2f})" for each in (over, copied)
            ]
            lines.append(f"| {title} | {method} | {own['rounds']} | {' | '.join(cells)} | {copied['processor']:.2f}x |")
    text = (
        "\n".join(lines)
        + "\n\nMedians, with smallest and largest, of the ratios within each round;"
        + f" other programs ran meanwhile (a load of {found['environment']['load']} on {found['environment']['cores']} cores)."
    )
    if "memory" in found:
        own = found["memory"]["methods"]
        peaks = ", ".join(
            f"{name} {each['peak_memory']['surefoot_unsynced'] / 1e6:.0f} MB" for name, each in own.items()
        )
        allowed = min(each["allowed_memory"] for each in own.values()) / 1e6
        size = found["memory"]["bytes_each"] / 1e9
        text += f" Peak memory with {found['memory']['checkpoints']} checkpoints of {size:.1f} GB: {peaks}; the bound that was set is {allowed:.0f} MB."
    return text


def measured() -> dict[str, dict[str, Any]]:
    """What `surefoot bench` wrote of merges, by name."""
    found = {}
    for path in sorted((ROOT / "evidence" / "results").glob("merge-*.json")):
        each = json.loads(path.read_text("utf8"))
        found[each["name"]] = each
    return found


def tasks() -> str:
    """Accuracy of merged backbones on each of four tasks, beside the models that were tuned for each."""
    own = {name: each for name, each in measured().items() if (each["effect"] or {}).get("track") == "tasks"}
    if not own:
        return "Not measured yet."
    rows: dict[str, list[dict[str, float]]] = {}
    for name, each in own.items():
        rows[name] = [seed["with"] for seed in each["per_seed"]]
        other = each["against"].get("merge", {"name": "uniform_soup"})
        if set(other) == {"name"}:
            rows.setdefault(other["name"], [seed["without"] for seed in each["per_seed"]])
    lines = ["| | " + " | ".join(TASKS.values()) + " | mean | gap |", "| --- |" + " ---: |" * (len(TASKS) + 2)]

    def line(title: str, runs: list[dict[str, float]], which: str) -> str:
        cells = [sum(run[f"{which}/{task}"] for run in runs) / len(runs) for task in TASKS]
        mean, best = (sum(run[key] for run in runs) / len(runs) for key in (which, "own"))
        shown = " | ".join(f"{100 * cell:.1f}" for cell in [*cells, mean])
        return f"| {title} | {shown} | {100 * (mean - best):+.1f} |"

    lines.append(line("each task's own model", next(iter(rows.values())), "own"))
    lines += [line(name, runs, "accuracy") for name, runs in sorted(rows.items(), key=lambda item: -_mean(item[1]))]
    effects = "; ".join(f"{name} over {_against(each)} {_points(each['effect'])}" for name, each in own.items())
    count = len(next(iter(own.values()))["per_seed"])
    return "\n".join(lines) + (
        f"\n\nAccuracy in percent, means over {count} seeds; the gap is to the four models of their own. Paired differences with 95% intervals, in points: {effects}."
    )


def soups() -> str:
    """What soups of three members gain over the first of them."""
    own = {name: each for name, each in measured().items() if each["arm"].get("members") and each["effect"]}
    lines = ["| | home | away | away, over one member | verdict |", "| --- | ---: | ---: | ---: | --- |"]
    for name, each in own.items():
        home = sum(seed["with"]["accuracy_home"] for seed in each["per_seed"]) / len(each["per_seed"])
        effect = each["effect"]
        lines.append(
            f"| {name} | {100 * home:.1f} | {100 * effect['with']:.1f} | {_points(effect)} | {effect['verdict']} |"
        )
    counts = ", ".join(f"{name} {len(each['per_seed'])}" for name, each in own.items())
    return "\n".join(lines) + (
        f"\n\nAccuracy in percent on the track `reviews`; members differ in the order of the data alone. Seeds: {counts}."
    )


def _mean(runs: list[dict[str, float]]) -> float:
    return sum(run["accuracy"] for run in runs) / len(runs)


def _against(each: dict[str, Any]) -> str:
    return str(each["against"].get("merge", {"name": "uniform_soup"})["name"])


def _points(effect: dict[str, Any]) -> str:
    return f"{100 * effect['difference']:+.1f} [{100 * effect['low']:+.1f}, {100 * effect['high']:+.1f}]"


def page(text: str) -> str:
    """The page with its tables as the results have them now."""
    for mark, table in {"speed": speed(), "tasks": tasks(), "soups": soups()}.items():
        pattern = rf"(<!-- merging {mark}:[^\n]*-->\n).*?(<!-- /merging {mark} -->)"
        text = re.sub(pattern, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text, flags=re.S)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf8")), "utf8")
