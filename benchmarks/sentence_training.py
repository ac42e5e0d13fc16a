"""SimCSE against DiffCSE from the undone MiniLM, by how long both train.

    python benchmarks/sentence_training.py --store FOLDER [--seeds 3] [--passes 1 4]     # resumes

Both at the settings of the track `sts` and their own defaults, on 2,048 unlabelled sentences; a pass is 32 steps, where the
papers take 15,000. Spearman's rho on SemEval's STS, mean over years, by seed, and the paired difference with its 95%
interval by Student's t. Nothing is chosen by these figures. Writes benchmarks/results/sentence_training.json after every run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t

from surefoot.environment import environment
from surefoot.evidence.entry import Arm
from surefoot.evidence.tracks.sts import TRACK
from surefoot.files import write_json

RESULTS = Path(__file__).parent / "results" / "sentence_training.json"
METHODS = ("simcse", "diffcse")


def difference(runs: dict[str, list[float]]) -> dict[str, float]:
    """DiffCSE less SimCSE, paired by seed."""
    apart = np.array(runs["diffcse"]) - np.array(runs["simcse"])
    half = float(t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))) if len(apart) > 1 else 2.0
    return {"value": float(apart.mean()), "low": float(apart.mean()) - half, "high": float(apart.mean()) + half}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--store", type=Path, required=True, help="of the undone model, which is made where there is none"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 4])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(RESULTS.read_text("utf8")) if RESULTS.exists() else {"passes": {}}
    for passes in asked.passes:
        runs = found["passes"].setdefault(str(passes), {name: [] for name in METHODS})
        for seed in range(asked.seeds):
            for name in METHODS:
                if len(runs[name]) <= seed:
                    arm = Arm(recipe={"objectives": {name: 1.0}, "epochs": passes})
                    runs[name].append(TRACK.run(arm, seed=seed, store=asked.store)["spearman"])
                    write_json(RESULTS, found | {"environment": environment()})
        runs["difference"] = difference(runs)
        print(passes, json.dumps(runs), flush=True)
    write_json(RESULTS, found | {"environment": environment()})


if __name__ == "__main__":
    main()
