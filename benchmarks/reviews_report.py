"""What `bench-reviews` trained, as figures: paired differences over turns and seeds with bootstrap intervals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "study"))

from safetensors import safe_open
from worlds import REPORT, world

from surefoot.assess.decision import fit_decision
from surefoot.assess.forecast import Forecast, forecast
from surefoot.assess.metrics import area_under_curve, fit_prior
from surefoot.environment import environment
from surefoot.files import write_json
from surefoot.search.sets import HOME

METHODS = ("linear_probe", "fine_tune", "lp_ft", "wise_ft", "surefoot")
#: (the search over the first bank, over the enlarged one) by what `bench-TASK.json` calls their difference.
BANKS = {
    "wide bank": ("surefoot", "surefoot_wide"),
    "wide bank, every layer": ("surefoot_deep", "surefoot_deep_wide"),
}
SEARCHES = tuple(name for names in BANKS.values() for name in names)
DRAWS, AUC_DRAWS = 2000, 300
#: How the decision is made: as the model has it; corrected by judge and unlabelled data; at the true prior.
DECISIONS = ("plain", "corrected", "true prior")


def report(store: Path, task: str, results: Path) -> None:
    """Read everything under `store` and write results/bench-TASK.json; print the table."""
    cells = collect(store, task)
    figures = {
        "task": task,
        "seeds": sorted({cell["seed"] for cell in cells}),
        "unseen": by_method(cells, "unseen"),
        "home": by_method(cells, "home"),
        "turns": {turn: by_method([c for c in cells if c["turn"] == turn], "unseen") for turn in turns(cells)},
        "differences": {
            f"surefoot - {other}": {figure: difference(cells, other, figure) for figure in (*DECISIONS, "auc", "home")}
            for other in METHODS[:-1]
        },
        "surefoot corrected - fine_tune plain": crossed(cells, "corrected", "fine_tune", "plain"),
        "surefoot corrected - lp_ft plain": crossed(cells, "corrected", "lp_ft", "plain"),
        "cost": cost(store, turns(cells)[0]),
        "forecast": forecasts(store, task, cells),
        "environment": environment(),
    }
    path = results / f"bench-{task}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    figures |= {key: known[key] for key in BANKS if key in known}
    write_json(path, figures)
    show(figures)


def report_banks(store: Path, task: str, results: Path, *, deep: bool) -> None:
    """Write how the searches over the two banks under `store` differ into results/bench-TASK.json, beside what is there."""
    cells = collect(store, task)
    path = results / f"bench-{task}.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    key = list(BANKS)[deep]
    figures[key] = enlarged(cells, *BANKS[key]) | {"environment": environment()}
    write_json(path, figures)
    show_banks(key, figures[key])


def enlarged(cells: list[dict[str, Any]], first: str, wide: str) -> dict[str, Any]:
    """The search over the enlarged bank against that over the first one, on the seeds and turns that have both."""
    both = {(cell["seed"], cell["turn"]) for cell in cells if cell["method"] == wide}
    cells = [cell for cell in cells if (cell["seed"], cell["turn"]) in both]
    means = {
        method: {
            figure: [
                np.mean([np.mean(c[figure]) for c in cells if c["turn"] == turn and c["method"] == method])
                for turn in turns(cells)
            ]
            for figure in ("plain", "corrected", "auc")
        }
        for method in (first, wide)
    }
    worst = {method: {name: float(min(each)) for name, each in found.items()} for method, found in means.items()}
    return {
        "seeds": len({cell["seed"] for cell in cells}),
        "worst turn": {name: {"wide": worst[wide][name], "first": worst[first][name]} for name in worst[wide]},
        "wide - first": {
            figure: difference(cells, first, figure, ours=wide) for figure in ("plain", "corrected", "auc", "home")
        },
    }


def collect(store: Path, task: str) -> list[dict[str, Any]]:
    """For every seed, turn and method: per-sentence correctness by decision, AUC and accuracy at home."""
    cells = []
    for folder in sorted(store.glob("seed-*")):
        seed = int(folder.name.removeprefix("seed-"))
        here = world(task, seed=seed, half=REPORT)
        for turn in here.away:
            if not any((folder / f"{name}-{turn}.npz").exists() for name in SEARCHES):
                continue
            for method in (*METHODS[:-1], *SEARCHES):
                name = f"{method}-{turn}" if method in SEARCHES else method
                if not (folder / f"{name}.npz").exists():
                    continue
                with np.load(folder / f"{name}.npz") as file:
                    logits = {key[4:]: file[key] for key in file.files if key.startswith("set:")}
                cells.append({"seed": seed, "turn": turn, "method": method, **judged(here, turn, logits)})
    return cells


def judged(here: Any, turn: str, logits: dict[str, np.ndarray]) -> dict[str, Any]:
    others = [name for name in here.away if name != turn]
    labels = {name: each.labels for name, each in here.sets.items()}
    test, truth = logits[f"{turn}/test"], labels[f"{turn}/test"]
    judge = np.concatenate([logits[f"{name}/judge"] for name in others])
    judge_labels = np.concatenate([labels[f"{name}/judge"] for name in others])
    validation = labels[f"{here.home}/validation"]
    shares = np.bincount(validation, minlength=test.shape[1]) / len(validation)
    decision = fit_decision(judge, judge_labels, shares, logits[f"{turn}/unlabelled"], draws=0)
    true = np.bincount(truth, minlength=test.shape[1]) / len(truth)
    decided = {"plain": test, "corrected": decision(test), "true prior": fit_prior(test, true)}
    home = f"{here.home}/test"
    return {
        **{name: (each.argmax(1) == truth).astype(float) for name, each in decided.items()},
        "home": (logits[home].argmax(1) == labels[home]).astype(float),
        "document": document_of(here.sets[f"{turn}/test"]),
        "home document": document_of(here.sets[home]),
        "logits": test,
        "labels": truth,
        "auc": area_under_curve(test, truth),
    }


def turns(cells: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(cell["turn"] for cell in cells))


def by_method(cells: list[dict[str, Any]], where: str) -> dict[str, dict[str, float]]:
    figures = ("home",) if where == "home" else (*DECISIONS, "auc")
    return {
        method: {
            figure: float(np.mean([np.mean(c[figure]) for c in cells if c["method"] == method])) for figure in figures
        }
        for method in METHODS
    }


def pairs(
    cells: list[dict[str, Any]], other: str, ours: str = "surefoot"
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    found = {(c["seed"], c["turn"], c["method"]): c for c in cells}
    return [(c, found[c["seed"], c["turn"], other]) for c in cells if c["method"] == ours]


def difference(cells: list[dict[str, Any]], other: str, figure: str, ours: str = "surefoot") -> dict[str, float]:
    """Mean of ours - other over turns and seeds, with a bootstrap over seeds and, within a domain, documents."""
    return bootstrap(pairs(cells, other, ours), figure, figure)


def crossed(cells: list[dict[str, Any]], ours: str, other: str, theirs: str) -> dict[str, float]:
    return bootstrap(pairs(cells, other), ours, theirs)


def bootstrap(pairs_: list[tuple[dict[str, Any], dict[str, Any]]], ours: str, theirs: str) -> dict[str, float]:
    """Seeds are drawn, and within each whole documents of the test set; the three turns of a seed share home's draw."""
    rng = np.random.default_rng(0)
    by_seed: dict[int, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for a, b in pairs_:
        by_seed.setdefault(a["seed"], []).append((a, b))
    where = "home document" if ours == "home" else "document"
    draws = []
    for _ in range(DRAWS if ours != "auc" else AUC_DRAWS):
        means = []
        for seed in rng.choice(list(by_seed), len(by_seed)):
            weights = None
            for a, b in by_seed[int(seed)]:
                if weights is None or ours != "home":
                    weights = times_drawn(a[where], rng)
                if ours == "auc":
                    index = np.repeat(np.arange(len(weights)), weights)
                    both = [area_under_curve(c["logits"][index], c["labels"][index]) or np.nan for c in (a, b)]
                    means.append(both[0] - both[1])
                else:
                    means.append(np.average(a[ours] - b[theirs], weights=weights))
        draws.append(np.nanmean(means))
    value = np.mean([np.mean(a[ours]) - np.mean(b[theirs]) for a, b in pairs_])
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"value": float(value), "low": float(low), "high": float(high)}


def times_drawn(document: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often each sentence (N,) comes when as many documents as there are, are drawn with replacement."""
    count = document.max() + 1
    return np.bincount(rng.integers(0, count, count), minlength=count)[document]


def document_of(examples: Any) -> np.ndarray:
    """The number of each sentence's document (N,); without documents every sentence is one."""
    if examples.document is None:
        return np.arange(len(examples))
    return np.unique(examples.document, return_inverse=True)[1]


def cost(store: Path, first: str) -> dict[str, float]:
    """Seconds of one trial and of a search, in full fine-tunings of ours measured in the same process.

    first: the turn in which a seed's trials are trained; the other turns find them in the family.
    """
    full, trials, searches = [], [], []
    for folder in store.glob("seed-*"):
        searched, tuned = folder / f"surefoot-{first}.npz", folder / "fine_tune.npz"
        if searched.exists() and tuned.exists():
            found = facts(searched)
            full.append(facts(tuned)["seconds"])
            trials += [each for each in found["trials"][3:] if each]
            searches.append(found["seconds"])
    return {
        "full fine-tune, seconds": float(np.mean(full)),
        "trial, seconds": float(np.mean(trials)),
        "search, seconds": float(np.mean(searches)),
        "trial in full fine-tunes": float(np.mean(trials) / np.mean(full)),
        "search in full fine-tunes": float(np.mean(searches) / np.mean(full)),
    }


def facts(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return json.loads(str(file["facts"]))


def forecasts(store: Path, task: str, cells: list[dict[str, Any]]) -> dict[str, float]:
    """Forecast of the shipped model on the unseen domain against its accuracy there, read anew from the stored logits."""
    errors, homes, covered, floor, drawn = [], [], [], [], []
    for seed in sorted({cell["seed"] for cell in cells}):
        folder, here = store / f"seed-{seed}", world(task, seed=seed, half=REPORT)
        members = stored_members(folder)
        for cell in cells:
            if (cell["seed"], cell["method"]) != (seed, "surefoot"):
                continue
            seen, truth = forecast_of(folder, here, cell["turn"], members), float(cell["plain"].mean())
            errors.append(abs(seen.value - truth))
            homes.append(abs(float(cell["home"].mean()) - truth))
            covered.append(seen.low <= truth <= seen.high)
            drawn.append(seen.method == "aline_d")
            floor.append(np.sqrt(truth * (1 - truth) * 2 / np.pi / len(cell["plain"])))
    return {
        "mean absolute error": float(np.mean(errors)),
        "of assuming home": float(np.mean(homes)),
        "coverage": float(np.mean(covered)),
        "line drawn": float(np.mean(drawn)),
        "sampling floor": float(np.mean(floor)),
    }


def stored_members(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Logits by set of every trial of a seed."""
    found = {}
    for path in sorted((folder / "family").glob("trial-*.safetensors")):
        with safe_open(path, "np") as file:
            keys = [key for key in file.keys() if key.startswith("logits/")]  # noqa: SIM118
            found[path.stem] = {key[7:]: file.get_tensor(key) for key in keys}
    return found


def forecast_of(folder: Path, here: Any, turn: str, members: dict[str, dict[str, np.ndarray]]) -> Forecast:
    """What `answer.look_at` says of the shipped model, whose own trial is not among the others; WiSE-FT's logits are kept
    for the last turn alone."""
    with np.load(folder / f"surefoot-{turn}.npz") as file:
        shipped = {key[4:]: file[key] for key in file.files if key.startswith("set:")}
        made_of = json.loads(str(file["facts"]))["answer"]["members"]
    target = f"unlabelled/{turn}"
    others = [each for name, each in members.items() if target in each and made_of != [name]]

    def family(own: str, theirs: str) -> np.ndarray:
        return np.stack([shipped[own], *(each[theirs] for each in others)])

    validation = f"{here.home}/validation"
    known = [(family(f"{each}/judge", each), here.sets[f"{each}/judge"].labels) for each in here.away if each != turn]
    home, unlabelled = family(validation, HOME), family(f"{turn}/unlabelled", target)
    return forecast(home, here.sets[validation].labels, unlabelled, 0, known=known)


def show(figures: dict[str, Any]) -> None:
    print(f"{figures['task']}: {len(figures['seeds'])} seeds, means over turns")
    for method, each in figures["unseen"].items():
        row = "  ".join(f"{name} {100 * value:.1f}" for name, value in each.items())
        print(f"{method:14} {row}  home {100 * figures['home'][method]['home']:.1f}")
    for name, each in figures["differences"].items():
        row = "  ".join(
            f"{k} {100 * v['value']:+.1f} [{100 * v['low']:+.1f}, {100 * v['high']:+.1f}]" for k, v in each.items()
        )
        print(f"{name:26} {row}")
    for key in BANKS:
        if key in figures:
            show_banks(key, figures[key])
    for key in ("cost", "forecast"):
        print(key, json.dumps(figures[key]))


if __name__ == "__main__":
    task = sys.argv[2] if len(sys.argv) > 2 else "reviews"
    report(Path(sys.argv[1]) / task, task, Path(__file__).parent / "results")


def show_banks(key: str, found: dict[str, Any]) -> None:
    print(f"{key}, beside the first one: {found['seeds']} seeds")
    for name, each in found["worst turn"].items():
        print(f"worst turn, {name}: {100 * each['wide']:.1f} over {100 * each['first']:.1f}")
    for name, each in found["wide - first"].items():
        print(f"mean, {name}: {100 * each['value']:+.1f} [{100 * each['low']:+.1f}, {100 * each['high']:+.1f}]")
