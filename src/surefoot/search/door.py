"""Before a search: what cannot work is said, home is held out, and the search gets its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import transformers

from surefoot.data.examples import Examples, overlap
from surefoot.errors import DataError
from surefoot.models.model import Model
from surefoot.search.plan import Plan
from surefoot.tune.identity import model_hash

#: Held-out home examples, where none are given: a fifth of the training set, at most so many.
VALIDATION = 1000


def check(
    train: Examples, judge: Mapping[str, Examples], unlabelled: Mapping[str, Examples], tests: Mapping[str, Examples]
) -> list[str]:
    """What cannot work, as an error; what can but should be known, as notes."""
    if not judge:
        raise DataError(
            "a search needs a judge, labelled examples of another domain than home: give one or more, or a recipe such as wise_ft"
        )
    notes = []
    for what, sets in (("judge", judge), ("unlabelled set", unlabelled), ("test set", tests)):
        for name, each in sets.items():
            if each.modality != train.modality:
                raise DataError(
                    f"{each.source} holds {each.modality} but {train.source} holds {train.modality}: give data of the same kind"
                )
            if shared := overlap(train, each):
                notes.append(f"{shared} of {len(each)} examples of the {what} `{name}` are also in the training set")
    for each in judge.values():
        if each.labels is None:
            raise DataError(f"{each.source}: a judge needs labels; add a column `label`")
        if len(each) < 20:
            raise DataError(f"{each.source}: {len(each)} examples cannot judge; give at least 20, better 100")
    for name, each in tests.items():
        if each.labels is None:
            raise DataError(f"{each.source}: a test set needs labels; add a column `label`")
        each.with_classes(train.classes)  # a label that training never saw is said now, not after the search
        for other, judging in judge.items():
            if shared := overlap(judging, each):
                notes.append(
                    f"{shared} of {len(each)} examples of the test set `{name}` are also in the judge `{other}`"
                )
    if len(judge) == 1:
        notes.append(
            f"one judge, `{next(iter(judge))}`: what is chosen may suit that domain alone; a second domain would tell"
        )
    return notes


def hold_out(train: Examples, validation: Examples | None, plan: Plan) -> tuple[Examples, Examples]:
    if validation is not None:
        if validation.modality != train.modality or validation.labels is None:
            raise DataError(
                f"{validation.source}: held-out home examples are {train.modality} with labels, like {train.source}"
            )
        return train, validation.with_classes(train.classes)
    size = min(VALIDATION, len(train) // 5)
    if size < 10:
        raise DataError(f"{train.source}: {len(train)} examples are too few to hold some out: give 50 or more")
    rng = np.random.default_rng([plan.seed, 3])
    order = rng.permutation(len(train))
    if train.document is not None:  # sentences of one document are not held out from each other
        documents, which = np.unique(train.document, return_inverse=True)
        order = np.argsort(rng.permutation(len(documents))[which], kind="stable")
        while size < len(train) // 2 and which[order[size - 1]] == which[order[size]]:
            size += 1
    held = train.take(np.sort(order[:size]))
    return train.take(np.sort(order[size:])), replace(held, source=f"{train.source} (held out)")


def at_most(examples: Any, most: int, rng: np.random.Generator) -> Any:
    """So many examples at most (of anything with `take`), in their order."""
    return examples if len(examples) <= most else examples.take(np.sort(rng.permutation(len(examples))[:most]))


def _all_of(examples: Any) -> str:
    """A hash of inputs, labels and every column that training or folds depend on."""
    if not isinstance(examples, Examples):
        return str(examples.fingerprint())
    columns = [
        None if column is None else np.asarray(column).tolist()
        for column in (examples.weight, examples.group, examples.document, examples.label_texts)
    ]
    return hashlib.sha256(f"{examples.fingerprint()}{columns}".encode()).hexdigest()


def identity_of(
    model: Model,
    plan: Plan,
    train: Examples,
    validation: Any,
    judge: Mapping[str, Any],
    unlabelled: Mapping[str, Any],
    *,
    threads: int,
) -> dict[str, str]:
    """What makes two searches the same; how many trials, until when, and on how many workers is not part of it.

    threads: of whatever trains the trials.
    """
    here = torch.get_num_threads()
    sets = {
        name: _all_of(each) for name, each in sorted({**judge, **{f"?{k}": v for k, v in unlabelled.items()}}.items())
    }
    return {
        "plan": hashlib.sha256(json.dumps(plan.identity, sort_keys=True).encode()).hexdigest(),
        "data": hashlib.sha256("".join(map(_all_of, (train, validation))).encode()).hexdigest(),
        "judge or unlabelled sets": hashlib.sha256(json.dumps(sets).encode()).hexdigest(),
        "model": model_hash(model),
        "seed": str(plan.seed),
        "threads": f"{here}" if threads == here else f"{here}, {threads} in workers",
        "device": str(model.device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
