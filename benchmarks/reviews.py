"""`make bench-reviews`: the search against LP-FT, WiSE-FT and fine-tuning, on domains that nothing was chosen on.

    python benchmarks/reviews.py --store STORE            # two workers of one thread; resumes; about an hour

Movies are home; Amazon, the NYT and tweets take turns at being unseen, with 100 labelled sentences of each of the other
two as judge. Ten seeds, each with a fresh training sample; sentences of the half that the study has not seen
(`study/worlds.py`; of the other two tasks the study has seen all sentences, in other samples). The baselines train every
layer; the search the top two to four, and every one once. The trials of one seed are the same in all turns (random
draws, before TPE sets in), so they are trained once. Every method is scored with the same corrections of its decision.
`--bank wide` runs the searches of both banks, without the baselines, and writes how they differ beside what is there;
with `--deep` their draws train every layer and start as the full fine-tuning does, whose soups they can join.
The bootstrap draws seeds, and documents within a domain. `--task` repeats it on the study's other tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "study"))

RESULTS = Path(__file__).parent / "results"
#: Not those of the study.
FIRST_SEED = 2000
BASELINES = ("linear_probe", "fine_tune", "lp_ft", "wise_ft")
TRIALS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="folder of what was trained and predicted")
    parser.add_argument("--task", default="reviews", choices=["reviews", "cad_imdb", "clinc150_domains"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--bank", default="autoft", choices=["autoft", "wide"], help="what draws are made of")
    parser.add_argument("--deep", action="store_true", help="with --bank wide: draws that train every layer")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        work(arguments)
        return
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--worker"]
    workers = [subprocess.Popen([*command, str(i)], env=alone) for i in range(arguments.workers)]
    if any([each.wait() for each in workers]):  # noqa: C419 - all have to end
        sys.exit(1)
    from reviews_report import report, report_banks

    store = arguments.store / arguments.task
    if arguments.bank == "autoft":
        report(store, arguments.task, RESULTS)
    else:
        report_banks(store, arguments.task, RESULTS, deep=arguments.deep)


def work(arguments: argparse.Namespace) -> None:
    """This worker's seeds."""
    import torch
    from worlds import REPORT, world

    from surefoot import load

    torch.set_num_threads(1)
    model = load("minilm")
    for number in range(arguments.worker, arguments.seeds, arguments.workers):
        seed = FIRST_SEED + number
        folder = arguments.store / arguments.task / f"seed-{seed}"
        here = world(arguments.task, seed=seed, half=REPORT, train_size=arguments.train_size)
        if arguments.bank == "autoft":
            baselines(model, here, seed, folder)
        for bank in dict.fromkeys(["autoft", arguments.bank]):
            for unseen in here.away:
                turn(model, here, unseen, seed, folder, arguments.trials, bank, deep=arguments.deep)


def baselines(model: Any, here: Any, seed: int, folder: Path) -> None:
    """Every layer trains; logits on all sets."""
    import torch

    from surefoot import Recipe
    from surefoot.merge.wise_ft import WiSEFT
    from surefoot.search.sets import Sets

    sets = Sets(here.sets, classes=here.train.classes, max_length=here.max_length)
    probe: dict[str, torch.Tensor] = {}
    tuned: dict[str, torch.Tensor] = {}
    if all((folder / f"{name}.npz").exists() for name in BASELINES):
        return
    for name in BASELINES:
        recipe = Recipe.named(name, max_length=here.max_length)
        began = time.perf_counter()
        run = Recipe.named("linear_probe" if name == "wise_ft" else name, max_length=here.max_length).fit(
            model, here.train, seed=seed
        )
        if name == "wise_ft":
            run.model.load_state_dict(WiSEFT(alpha=recipe.after[0]["alpha"])([tuned], probe))
        seconds = time.perf_counter() - began
        if name == "linear_probe":
            probe = {key: value.clone() for key, value in run.model.state_dict().items()}
        if name == "lp_ft":
            tuned = {key: value.clone() for key, value in run.model.state_dict().items()}
        keep(folder / f"{name}.npz", sets.logits(run.model), {"seconds": seconds})
        print(f"seed {seed} {name}: {seconds:.0f} s", flush=True)


def turn(
    model: Any, here: Any, unseen: str, seed: int, folder: Path, trials: int, bank: str, *, deep: bool = False
) -> None:
    """One search with one domain unseen. What is not drawn (baselines, anchors) is the same with either bank."""
    from surefoot import tune
    from surefoot.search.bank import BANKS

    depth = "_deep" if deep else ""
    own = depth + ("" if bank == "autoft" else f"_{bank}")
    path = folder / f"surefoot{own}-{unseen}.npz"
    if path.exists():
        return
    family = folder / f"family{own}"
    if own != depth and not family.exists():
        # Draws have names by number: those of the first bank are not this one's, and the search finds that out.
        shutil.copytree(folder / f"family{depth}", family)
    began = time.perf_counter()
    found = tune(
        model,
        here.train,
        judge={name: here.sets[f"{name}/judge"] for name in here.away if name != unseen},
        unlabelled={unseen: here.sets[f"{unseen}/unlabelled"]},
        validation=here.sets[f"{here.home}/validation"],
        family=family,
        bank=BANKS[bank],
        trials=trials,
        max_length=here.max_length,
        seed=seed,
        **({"starts": ("fine_tune",), "layers": (len(model.layers), len(model.layers))} if deep else {}),
    )
    seconds = time.perf_counter() - began
    from surefoot.search.sets import Sets

    wanted = {
        key: each for key, each in here.sets.items() if key.split("/")[0] in (here.home, unseen) or "judge" in key
    }
    logits = Sets(wanted, classes=here.train.classes, max_length=here.max_length).logits(found.model)
    facts = {
        "seconds": seconds,
        "answer": found.answer.as_json(),
        "trials": [e.attrs.get("seconds") for e in found.trials],
    }
    keep(path, logits, facts)
    print(f"seed {seed}{own} unseen {unseen}: {found.answer.choice.name}, {seconds:.0f} s", flush=True)


def keep(path: Path, logits: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    from surefoot.files import atomic_write

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, facts=json.dumps(facts), **{f"set:{name}": each for name, each in logits.items()})


if __name__ == "__main__":
    main()
