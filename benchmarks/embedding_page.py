"""Write the tables of docs/embed.md, and the one of README.md on tuning, from benchmarks/results/{embedding,echo,matryoshka,embedding_tuning}.json.

`make readme` runs it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES, RESULTS = (ROOT / "docs" / "embed.md", ROOT / "README.md"), ROOT / "benchmarks" / "results"
ARMS = {
    "plain": "plain, at the one of three rates that is best at home",
    "contrastive": "plain, at the recipe's rate",
    "wise_contrastive": "half way back from that (WiSE-FT)",
    "surefoot": "surefoot's search",
}


def read(name: str) -> dict[str, Any]:
    """What a benchmark wrote; nothing where it did not run."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf8")) if path.exists() else {}
    return found


def throughput() -> str:
    found = read("embedding")
    if "ratios" not in found:
        return ""
    # Of one thread the processor's time is known whatever else the machine did; of two only the clock's.
    by, kind = (
        ("the processor's time", "ratios_of_processor_time") if found["threads"] == 1 else ("the clock", "ratios")
    )
    rounds = len(next(iter(found["rates"].values())))
    lines = ["| | mode | median | range | aim |", "| --- | --- | ---: | ---: | ---: |"]
    for name, each in found[kind].items():
        mode = each["arm"].removeprefix("surefoot ")
        cells = f"{each['median']:.2f}x | {each['min']:.2f} to {each['max']:.2f} | {each['asked']}x"
        lines.append(f"| {name} | {mode} | {cells} |")
    cosines = ", ".join(
        f"{value:.4f} in {name.removeprefix('surefoot ')}"
        for name, value in found["least_cosine"].items()
        if name.startswith("surefoot")
    )
    text = f"Threads: {found['threads']}; by {by}; {rounds} interleaved rounds of a {found['parts']}th of the corpus each. "
    text += f"Least cosine with `sentence-transformers` in float32: {cosines}."
    if "sts" in found:
        scores = ", ".join(f"{value:.2f} in {name.removeprefix('surefoot ')}" for name, value in found["sts"].items())
        text += f" Spearman on the rated pairs of STS 2012 to 2014 together: {scores}."
    if "memory" in found:
        own = found["memory"]
        text += (
            f" Peak memory of `surefoot embed --dtype auto` over {own['rows']:,} texts: {own['bytes'] / 1e9:.2f} GB."
        )
    return "\n".join(lines) + "\n\n" + text


def echo() -> str:
    found = read("echo")
    lines, text = [], ""
    if "quality" in found:
        years = sorted(found["quality"]["poolings"]["mean"]["years"])
        lines = [
            "| pooling | Spearman | over the mean | " + " | ".join(years) + " |",
            "| --- | ---: | ---: |" + " ---: |" * len(years),
        ]
        for name, each in found["quality"]["poolings"].items():
            low, high = each["interval"]
            apart = "{:+.1f} [{:+.1f}, {:+.1f}]".format(each["minus_mean"], *each["minus_mean_interval"])
            cells = " | ".join(f"{each['years'][year]:.1f}" for year in years)
            own = f"{each['spearman']:.1f} [{low:.1f}, {high:.1f}]"
            lines.append(f"| {name} | {own} | {'' if name == 'mean' else apart} | {cells} |")
        text += f"SmolLM2-135M on {found['quality']['pairs']:,} pairs, means over subsets, 95% intervals over pairs. "
    if "cost" in found:
        own = "; ".join(
            f"{found['cost'][dtype]['median']:.2f} times a single pass in {dtype} ({found['cost'][dtype]['tokens']:.2f} times its tokens)"
            for dtype in ("float32", "bfloat16")
        )
        text += f"Echo costs {own}. "
    if "peer" in found:
        own = found["peer"]["theirs_over_ours"]
        text += f"The authors' code takes {own['median']:.2f} times as long ({own['smallest']:.2f} to {own['largest']:.2f}), "
        text += f"with vectors of cosine {found['peer']['lowest_cosine']:.7f} or more. "
    if "tuned" in found:
        gaps = found["tuned"]["echo_minus_mean_after"]
        after = {name: sum(found["tuned"][name]["after"]) / len(gaps) for name in ("mean", "echo")}
        text += (
            f"Tuned on the same pairs, {len(gaps)} seeds: echo {after['echo']:.1f} (before {found['tuned']['echo']['before']:.1f}), "
            f"mean {after['mean']:.1f} ({found['tuned']['mean']['before']:.1f}); echo is ahead by "
            f"{', '.join(f'{gap:+.1f}' for gap in gaps)}."
        )
    return "\n".join([*lines, "", text.strip()]).strip()


def matryoshka() -> str:
    found = read("matryoshka")
    if "speed" not in found:
        return ""
    seeds = list(found["seeds"].values())
    widths = list(next(iter(seeds[0]["infonce"].values())))
    methods = [name for name in seeds[0] if name != "csr"]
    lines = [
        "| method | layers | speed | " + " | ".join(widths) + " |",
        "| --- | ---: | ---: |" + " ---: |" * len(widths),
    ]
    for name in methods:
        for depth in list(found["speed"])[1::2]:
            cells = " | ".join(
                f"{sum(seed[name][depth][width] for seed in seeds) / len(seeds):.1f}" for width in widths
            )
            lines.append(f"| {name} | {depth} | {found['speed'][depth]:.1f}x | {cells} |")
    sparse = sum(seed["csr"] for seed in seeds) / len(seeds)
    return (
        "\n".join(lines)
        + f"\n\nSpearman on STS by width, means over {len(seeds)} seeds. CSR, 24 active units of the whole plain model: {sparse:.1f}."
    )


def tuning() -> str:
    found = read("embedding_tuning")
    if not found:
        return ""
    own, rounds = found["summary"], found["rounds"]
    away = [name for name in own["plain"]["changes"] if name != "home"]
    lines = [
        "| | home | mean away | " + " | ".join(away) + " |",
        "| --- | ---: | ---: |" + " ---: |" * len(away),
    ]
    for arm, words in ARMS.items():
        each = own[arm]
        cells = " | ".join(f"{each['changes'][name]:+.1f}" for name in away)
        lines.append(f"| {words} | {each['home_gain']:+.1f} | {-each['away_loss']:+.1f} | {cells} |")
    text = f"Points gained over MiniLM as it comes, means over {len(rounds)} seeds. "
    pairs = zip(own["surefoot"]["home_gain_by_seed"], own["plain"]["home_gain_by_seed"], strict=True)
    kept = sorted(100 * ours / theirs for ours, theirs in pairs)
    text += f"The search keeps {100 * own['share_of_home_gain']:.0f}% ({kept[0]:.0f} to {kept[-1]:.0f}% by seed) of what the first plain tuning gains at home"
    share = own["share_of_away_loss"]
    if share is None:
        text += "; plain tuning loses nothing away on average."
    elif share <= 0:
        text += f"; plain tuning loses {own['plain']['away_loss']:.1f} points away on average, and the search gains {-own['surefoot']['away_loss']:.1f}."
    else:
        text += f" and has {100 * share:.0f}% of its loss away."
    behind = [name for name in away if own["surefoot"]["changes"][name] < min(0.0, own["contrastive"]["changes"][name])]
    if behind:
        text += f" On {', '.join(behind)} it loses, and more than plain tuning at the recipe's rate."
    rates = sorted({each["rate"] for each in rounds})
    text += f" The rate that was best at home: {', '.join(f'{rate:g}' for rate in rates)}, of {', '.join(f'{rate:g}' for rate in found['settings'].get('rates', (5e-5, 1e-4, 3e-4)))}."
    return "\n".join(lines) + "\n\n" + text


def page(text: str) -> str:
    """The page with its tables as the results have them now."""
    for mark, table in {
        "throughput": throughput(),
        "echo": echo(),
        "matryoshka": matryoshka(),
        "tuning": tuning(),
    }.items():
        shown = table or "Not measured yet."
        pattern = rf"(<!-- embedding {mark}:[^\n]*-->\n).*?(<!-- /embedding {mark} -->)"
        text = re.sub(pattern, lambda found, shown=shown: f"{found[1]}{shown}\n{found[2]}", text, flags=re.S)
    return text


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(page(each.read_text("utf8")), "utf8")
