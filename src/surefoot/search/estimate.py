"""`estimate`: a finished search looks at new data without labels, with all the members that it trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from surefoot.data.examples import Examples
from surefoot.errors import DataError, RunError, SurefootError
from surefoot.files import atomic_write
from surefoot.models.load import load
from surefoot.models.model import Model
from surefoot.progress import Progress, Silent
from surefoot.search.answer import FAMILY, Target, look_at
from surefoot.search.door import at_most
from surefoot.search.family import Family, Member
from surefoot.search.judge import Judge
from surefoot.search.plan import Plan
from surefoot.search.sets import HOME, MOST, Sets
from surefoot.search.similarities import SimilaritySets
from surefoot.tune.folder import check_run, read_mark
from surefoot.tune.identity import model_hash

#: Labels of the held-out examples, and what the shipped model says of them.
LABELS = "labels.safetensors"


@dataclass(frozen=True)
class HeldOut:
    """What a forecast and a prior need beside the new data. `logits`: of the shipped model, by set, (N, C)."""

    home_labels: np.ndarray
    judge: Judge
    logits: dict[str, np.ndarray]


def write_labels(
    folder: Path, home_labels: np.ndarray, judge: Mapping[str, np.ndarray], logits: Mapping[str, np.ndarray]
) -> None:
    """Write `labels.safetensors` into a run folder.

    home_labels: (N,) of home's held-out examples. judge: labels by domain. logits: of the model as it is shipped, its
    temperature included, on "home/validation" and on every domain of the judge.
    """
    named = {HOME: home_labels, **{f"judge/{name}": each for name, each in judge.items()}}
    stored = {name: np.ascontiguousarray(each, dtype=np.int64) for name, each in named.items()}
    for name in (HOME, *judge):
        stored[f"logits/{name}"] = np.ascontiguousarray(logits[name], dtype=np.float32)
    with atomic_write(folder / LABELS) as partial:
        save_file(stored, partial, metadata={"judge": json.dumps(list(judge))})


def check_search(folder: str | Path) -> dict[str, Any]:
    """The facts of a finished search; RunError for a folder that is none."""
    folder = Path(folder)
    check_run(folder)
    if not (folder / "search.json").exists():
        raise RunError(
            f"{folder}: no search in it, so no held-out examples to forecast from: give the folder that `surefoot tune` with --judge wrote"
        )
    try:
        facts = json.loads((folder / "search.json").read_text("utf8"))
        if not {"answer", "leaderboard"} <= set(facts):
            raise ValueError("not the facts of a search")
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / 'search.json'}: cannot be read ({error}): tune again into another folder") from error
    return cast("dict[str, Any]", facts)


def is_embedding(facts: Mapping[str, Any]) -> bool:
    """Whether a finished search was for an embedding."""
    return "metric" in facts["answer"].get("judge domains", {})


def read_labels(folder: Path, domains: Sequence[str]) -> HeldOut:
    """What `write_labels` wrote; RunError where it is missing or damaged."""
    try:
        stored = load_file(folder / LABELS)
        labels = [stored[f"judge/{name}"] for name in domains]
        logits = {name: stored[f"logits/{name}"] for name in (HOME, *domains)}
        home_labels = stored[HOME]
    except FileNotFoundError as error:
        raise RunError(f"{folder}: no {LABELS}, which forecasts need: give the same `tune` command again") from error
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError(f"{folder / LABELS}: damaged ({error}): give the same `tune` command again") from error
    together = np.concatenate(labels)
    number = np.repeat(np.arange(len(labels)), [len(each) for each in labels])
    # Nothing is chosen any more: every example is a document of its own, in one fold.
    judge = Judge(tuple(domains), together, number, np.arange(len(together)), np.zeros(len(together), dtype=np.int64))
    return HeldOut(home_labels, judge, logits)


def estimate(
    folder: str | Path,
    data: Mapping[str, Any],
    *,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> dict[str, Target]:
    """The accuracy to expect of a search's model on each set of `data`, and the set's label shares; labels are ignored.

    Of an embedding it is Spearman's correlation with ratings that nobody gave: see `estimate_embedding`.

    Every member that the search trained looks at the data, which takes the pretrained model that the search began with.
    Where that cannot be had any more, the estimators that need only the shipped model stand in, and the note says so.
    Of a larger set 1,000 examples are drawn. Raises RunError for a folder that holds no finished search, DataError for
    data of another kind than the model reads.
    """
    folder = Path(folder)
    facts = check_search(folder)
    if is_embedding(facts):
        from surefoot.search.estimate_embedding import estimate_embedding

        return estimate_embedding(folder, facts, data, device=device, progress=progress)
    held = read_labels(folder, facts["answer"]["judge domains"]["domains"])
    plan = Plan(**Plan.load(folder / "plan.yaml"))
    shipped = load(folder, device=device)
    keys = {name: f"unlabelled/{name}" for name in data}
    sets = _sets(shipped, {keys[name]: each for name, each in data.items()}, plan)
    parts = facts["answer"]["members"]
    name = parts[0] if len(parts) == 1 and facts["answer"]["share"] == 1.0 else facts["answer"]["candidate"]
    final = Member(name, "", 0, shipped.normalize, {**held.logits, **sets.logits(shipped)}, {})
    members, why = members_of(folder, facts, shipped.classes, sets, device, progress or Silent())
    found = {}
    for name, key in keys.items():
        found[name] = with_reason(look_at(key, final, members, held.home_labels, held.judge), why)
    return found


def with_reason(target: Target, why: str | None) -> Target:
    """The target, whose forecast says why no members were asked."""
    if why is None:
        return target
    note = f"{why}; {target.forecast.note}" if target.forecast.note else why
    return replace(target, forecast=replace(target.forecast, note=note))


def members_on(
    folder: str | Path,
    examples: Examples,
    *,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> tuple[HeldOut, list[Member], np.ndarray]:
    """What a search held out at home, its members with logits (N, C) on `HOME` and on "stream", and the rows of `examples`
    (M,) that the latter are of: 1,000 of them at most.

    Raises RunError for a folder that holds no finished search, or whose members cannot be had any more.
    """
    folder = Path(folder)
    facts = check_search(folder)
    if is_embedding(facts):
        raise RunError(f"{folder}: an embedding has no classes to follow in a stream: give the search of a classifier")
    held = read_labels(folder, facts["answer"]["judge domains"]["domains"])
    plan = Plan(**Plan.load(folder / "plan.yaml"))
    rows = np.arange(len(examples))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng([plan.seed, 6]).permutation(len(examples))[:MOST])
    shipped = load(folder, device=device)
    sets = _sets(shipped, {"stream": examples.take(rows)}, plan)
    members, why = members_of(folder, facts, shipped.classes, sets, device, progress or Silent())
    if why:
        raise RunError(why)
    return held, members, rows


def _sets(model: Model, data: Mapping[str, Examples], plan: Plan) -> Sets:
    """The data as the trials of a search would see them."""
    if not data:
        raise DataError("no data to look at: give one set or more")
    few = {}
    for name, each in data.items():
        if each.modality != model.processor.modality:
            raise DataError(
                f"{each.source} holds {each.modality} but `{model.name}` reads {model.processor.modality}: give data of the same kind"
            )
        few[name] = at_most(each, MOST, np.random.default_rng([plan.seed, 6]))
    return Sets(few, classes=model.classes, max_length=plan.max_length)


def members_of(
    folder: Path,
    facts: Mapping[str, Any],
    classes: tuple[str, ...],
    sets: Sets | SimilaritySets,
    device: str | torch.device,
    progress: Progress,
) -> tuple[list[Member], str | None]:
    """The search's members with logits on the new sets too; or none, and why not."""
    try:
        model = _base(folder, facts, device)
    except SurefootError as error:
        return [], f"only the shipped model was asked, because the one it began with is not to be had ({error})"
    model.set_classes(classes)
    family = Family(model, folder / "family")
    complete = [entry["trial"] for entry in facts["leaderboard"] if entry["state"] == "complete"]
    if len(complete) > FAMILY:
        complete = [complete[i] for i in np.linspace(0, len(complete) - 1, FAMILY).round().astype(int)]
    members = []
    advance = progress.start("members of the search", len(sets) * len(complete))
    for number in complete:
        member = family.find(f"trial-{number:04d}")
        if member is None or HOME not in member.logits:
            return [], f"only the shipped model was asked, because {folder / 'family'} lacks trial {number}"
        logits = sets.logits(
            family.build(member.load(), normalize=member.normalize), depth=member.depth, advance=advance
        )
        members.append(replace(member, logits={**member.logits, **logits}))
    return members, None


def _base(folder: Path, facts: Mapping[str, Any], device: str | torch.device) -> Model:
    """The pretrained model that the search began with, verified."""
    if not facts.get("base"):
        raise RunError("the run does not name it")
    model = load(facts["base"], device=device)
    if is_embedding(facts):
        model.set_classes(())  # the search took a classifier's head away before it looked
    identity = (read_mark(folder) or {}).get("identity", {})
    if model_hash(model) != identity.get("model"):
        raise RunError(f"`{facts['base']}` is another model by now")
    return model
