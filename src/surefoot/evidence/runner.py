"""The runner: both arms of every entry over paired seeds, mapped by an engine, resumable; then a summary per method.

A job is one arm on one track with one seed. Its key tells everything that its result depends on, so that arms that
several methods share (baselines above all) run once, and a bench that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot import __version__
from surefoot.engine import Engine
from surefoot.environment import environment
from surefoot.errors import DataError, RunError
from surefoot.evidence.entry import Arm, Entry, entries
from surefoot.evidence.quantities import described, is_quantity
from surefoot.evidence.results import result_path
from surefoot.evidence.summary import Difference, effect_verdict, mechanism_verdict
from surefoot.evidence.track import ERRORS, load_track
from surefoot.files import write_json

#: Below so many seconds a baseline costs nothing worth dividing by.
LEAST_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """One arm on one track with one seed; `asked`: the quantities that some entry wants of this arm."""

    track: str
    arm: Arm
    seed: int
    asked: tuple[str, ...]

    @property
    def label(self) -> str:
        """What differs from the track's own recipe, for progress."""
        return (
            " ".join(f"{name} {value}" for name, value in self.arm.model_dump(exclude_defaults=True).items())
            or "baseline"
        )

    @property
    def key(self) -> str:
        """Equal for jobs with the same result."""
        facts = [__version__, load_track(self.track).generation, self.arm.model_dump(), self.asked]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.track}-{digest}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """The jobs of some entries: by key, and for each entry and seed the keys of the arm, of what its effect is measured
    against, and of what its mechanism is."""

    jobs: Mapping[str, Job]
    keys: Mapping[str, list[tuple[str, str, str]]]
    baselines: Mapping[str, list[str]]
    seeds: tuple[int, ...]


def plan(chosen: Sequence[Entry], *, seeds: Sequence[int], tracks: Sequence[str] = ()) -> Plan:
    """Jobs for the entries, and for the own baselines of `tracks`, each arm once."""
    wanted = _wanted(entries().values())
    jobs: dict[str, Job] = {}

    def add(track: str, arm: Arm, seed: int) -> str:
        job = Job(track, arm, seed, wanted.get((track, arm.model_dump_json()), ()))
        key = job.key
        jobs[key] = job
        return key

    baselines = {track: [add(track, Arm(), seed) for seed in seeds] for track in tracks}
    keys = {}
    for entry in chosen:
        name = entry.track
        keys[entry.key] = [
            (add(name, entry.arm, seed), add(name, entry.against, seed), add(name, entry.without, seed))
            for seed in seeds
        ]
    return Plan(jobs, keys, baselines, tuple(seeds))


def _wanted(known: Iterable[Entry]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The quantities that entries want of each arm, whichever entries are run now: keys must not depend on that."""
    found: dict[tuple[str, str], set[str]] = {}
    for entry in known:
        for arm in (entry.arm, entry.without):
            found.setdefault((entry.track, arm.model_dump_json()), set()).add(entry.mechanism.quantity)
        if entry.metric and is_quantity(entry.metric):  # an effect may be measured in a quantity too
            for arm in (entry.arm, entry.against):
                found.setdefault((entry.track, arm.model_dump_json()), set()).add(entry.metric)
    return {key: tuple(sorted(names)) for key, names in found.items()}


def usable(chosen: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries whose track's data are here, and one sentence for each track whose data are not."""
    why: dict[str, str | None] = {}
    for entry in chosen:
        if entry.track not in why:
            try:
                load_track(entry.track).check()
                why[entry.track] = None
            except DataError as error:
                why[entry.track] = f"track `{entry.track}` is left out: {error}"
    return [entry for entry in chosen if why[entry.track] is None], [each for each in why.values() if each]


def tracks_here(names: Iterable[str]) -> list[str]:
    """The tracks among `names` whose data are here."""
    found = []
    for name in names:
        with suppress(DataError):
            load_track(name).check()
            found.append(name)
    return found


def figure(job: Job, result: Mapping[str, float]) -> str:
    """What a job found, in a few words."""
    metric = next((name for name in (load_track(job.track).metric, *ERRORS) if name in result), "seconds")
    return f"{metric} {result[metric]:.4f}, {result['seconds']:.1f} s"


def run_job(job: Mapping[str, Any]) -> dict[str, float]:
    """One job, in one thread: what workers run. Raises whatever the track raises."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        track = load_track(job["track"])
        return track.run(Arm(**job["arm"]), seed=job["seed"], quantities=job["asked"], store=Path(job["store"]))
    finally:
        torch.set_num_threads(before)


def execute(planned: Plan, engine: Engine, *, store: Path) -> Iterator[tuple[Job, dict[str, float]]]:
    """Run what the store lacks, method by method; yields each job as it ends."""
    jobs = {
        key: {
            "track": job.track,
            "arm": job.arm.model_dump(),
            "seed": job.seed,
            "asked": list(job.asked),
            "store": str(store / "shared"),
        }
        for key, job in planned.jobs.items()
    }
    for key, result in engine.map(run_job, jobs, folder=store / "jobs", label="bench"):
        yield planned.jobs[key], result


def finished(planned: Plan, *, store: Path) -> dict[str, dict[str, float]]:
    """Results that the store holds, by key."""
    found = {}
    for key in planned.jobs:
        path = store / "jobs" / f"{key}.json"
        if path.is_file():
            found[key] = json.loads(path.read_text("utf8"))
    return found


def summarise(entry: Entry, planned: Plan, results: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The result of one entry: what `evidence/results/KIND-NAME.json` holds. Raises RunError if an arm is missing."""
    keys = planned.keys[entry.key]
    missing = [key for each in keys for key in each if key not in results]
    if missing:
        raise RunError(f"{entry.key}: {len(missing)} of its arms have not run: run `surefoot bench {entry.name}` again")
    arms, others, without = ([results[each[side]] for each in keys] for side in range(3))
    track = load_track(entry.track)
    metric = entry.metric or track.metric
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(arms, others, strict=True) if b["seconds"] > LEAST_SECONDS]
    return {
        "kind": entry.kind,
        "name": entry.name,
        "claim": entry.claim,
        "settings": entry.settings,
        "mechanism": _mechanism(entry, arms, without),
        "effect": None if entry.no_track else _effect(entry, metric, planned.seeds, arms, others),
        "no_track": entry.no_track,
        "cost_ratio": round(statistics.median(ratios), 3) if ratios else None,
        "arm": entry.arm.model_dump(exclude_defaults=True),
        "against": entry.against.model_dump(exclude_defaults=True),
        "per_seed": [
            {"seed": seed, "with": a, "without": b} for seed, a, b in zip(planned.seeds, arms, others, strict=True)
        ],
        "environment": environment() | {"threads": 1},
    }


def _mechanism(
    entry: Entry, arms: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    name = entry.mechanism.quantity
    first, second = [each[name] for each in arms], [each[name] for each in others]
    difference = Difference.paired(first, second)
    return {
        "quantity": described(name),
        "should": entry.mechanism.should,
        "track": entry.track,
        "with": statistics.fmean(first),
        "without": statistics.fmean(second),
        "values": {"with": first, "without": second},
        **_ends(difference),
        "verdict": mechanism_verdict(difference, entry.mechanism.should),
    }


def _effect(
    entry: Entry,
    metric: str,
    seeds: Sequence[int],
    arms: Sequence[Mapping[str, float]],
    others: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    first, second = [each[metric] for each in arms], [each[metric] for each in others]
    difference, higher = Difference.paired(first, second), metric not in ERRORS
    return {
        "track": entry.track,
        "metric": metric,
        "higher_is_better": higher,
        "seeds": list(seeds),
        "with": statistics.fmean(first),
        "without": statistics.fmean(second),
        **_ends(difference),
        "verdict": effect_verdict(difference, higher=higher),
    }


def _ends(difference: Difference) -> dict[str, float]:
    return {"difference": difference.value, "low": difference.low, "high": difference.high}


def write_results(chosen: Iterable[Entry], planned: Plan, *, store: Path, folder: Path) -> list[dict[str, Any]]:
    """Summarise every entry whose arms have all run, write its file, return the summaries."""
    results = finished(planned, store=store)
    found = []
    for entry in chosen:
        if all(key in results for each in planned.keys[entry.key] for key in each):
            found.append(summarise(entry, planned, results))
            write_json(result_path(entry.kind, entry.name, folder=folder), found[-1])
    return found


def write_tracks(planned: Plan, *, store: Path, folder: Path) -> list[dict[str, Any]]:
    """What the tracks' own baselines give, one file each, `track-NAME.json`; returns them."""
    results = finished(planned, store=store)
    found = []
    for name, keys in planned.baselines.items():
        if not all(key in results for key in keys):
            continue
        track, runs = load_track(name), [results[key] for key in keys]
        values = [each[track.metric] for each in runs]
        found.append(
            {
                "track": name,
                "summary": track.summary,
                "metric": track.metric,
                "mean": statistics.fmean(values),
                "values": values,
                "seconds": statistics.median(each["seconds"] for each in runs),
                "figures": {key: statistics.fmean(each[key] for each in runs) for key in runs[0]},
                "seeds": list(planned.seeds),
                "environment": environment() | {"threads": 1},
            }
        )
        write_json(folder / f"track-{name}.json", found[-1])
    return found
