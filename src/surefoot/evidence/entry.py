"""Entries: what a method claims, on which track that is looked at, and by which quantity its mechanism shows.

One YAML file a method, `entries/KIND/NAME.yaml`:

    claim: RetinaNet with it is 2.9 AP better than ...     # the paper's words, shortened, with its figure
    track: imbalanced                                      # where both arms run
    arm: {recipe: {objectives: {focal: 1.0}}}              # what differs from the track's own recipe
    against: {}                                            # what it is compared with: the track's own recipe
    settings: gamma 2, the paper's best                    # where values come from; never from this track's tests
    mechanism: {quantity: easiest_quarter, should: fall}

`no_track` takes the place of an effect where no track can show the claim; the mechanism is still measured.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer

from surefoot.errors import SurefootError, nearest

FOLDER = Path(__file__).parent / "entries"


#: Fields of an arm that came after there were results.
_LATER = frozenset(
    [
        "adapt",
        "compress",
        "strategy",
        "shift",
        "reading",
        "words",
        "pairs",
        "few_shot",
        "embedding",
        "ensemble",
        "attack",
    ]
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arm(_Strict):
    """What runs on a track.

    recipe: fields that differ from the track's own recipe, or from the registered recipe `named`, which keeps the
    track's schedule. merge and members: so many trainings that differ in their seed alone, and what combines them.
    trusted: examples with a wrong label get weight 0 (tracks with label noise). estimator, prior: a method that reads
    logits of the track's family of models; `assume_home` is what they are compared with. strategy: what moves the
    hyperparameters while the recipe trains, judged by the track's held-out examples of home. reading: a method that
    reads outputs of the track's own recipe, by its kind, as {calibrator: temperature}; `none` for outputs as they are.
    shift: what the test at home is seen under, with its `severity`, by the track's own model.
    compress: what makes the trained model smaller. adapt: what adapts the track's own model to streams of the domains
    away, with the `streams` it meets (see `adapting.py`); `frozen` is what they are compared with. words: static vectors
    that learn from the track's texts (see `wording.py`). pairs: a pair maker, by its name and options, and the `corpus`
    (see `paired.py`) whose pairs the recipe trains on. few_shot: a way of `tune/few_shot.py`. embedding: how
    texts become vectors, before a recipe trains or without one (see `embedding.py`). ensemble: models that the track
    trains and what makes one of them (see `assembling.py`). attack: what moves the test at home against the model that
    the recipe trains (see `breaking.py`).
    """

    named: str | None = None
    recipe: dict[str, Any] = {}
    merge: dict[str, Any] | None = None
    members: int = Field(default=1, ge=1)
    trusted: bool = False
    estimator: str | None = None
    prior: str | None = None
    strategy: dict[str, Any] | None = None
    shift: dict[str, Any] | None = None
    compress: dict[str, Any] | None = None
    reading: dict[str, Any] | None = None
    adapt: dict[str, Any] | None = None
    words: dict[str, Any] | None = None
    pairs: dict[str, Any] | None = None
    few_shot: str | None = None
    embedding: dict[str, Any] | None = None
    ensemble: dict[str, Any] | None = None
    attack: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """Short, and another for every other arm."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:12]

    @model_serializer(mode="wrap")
    def _as_fields(self, fields: Any) -> dict[str, Any]:
        """Without those of _LATER that are not there: what ran before a field was there keeps its key."""
        found: dict[str, Any] = fields(self)
        return {key: each for key, each in found.items() if key not in _LATER or each is not None}


class Mechanism(_Strict):
    """The quantity that the method acts on, and which way it should move beside the arm without the method; `against`
    is that arm where it is another than the one that the effect is measured against."""

    quantity: str
    should: Literal["rise", "fall"]
    against: Arm | None = None


class Entry(_Strict):
    """The evidence to be collected for one method; see the module."""

    kind: str
    name: str
    claim: str
    track: str
    arm: Arm
    against: Arm = Arm()
    settings: str
    mechanism: Mechanism
    metric: str | None = None
    no_track: str | None = None

    @property
    def key(self) -> str:
        return f"{self.kind}-{self.name}"

    @property
    def without(self) -> Arm:
        """The arm that the mechanism is measured against."""
        return self.mechanism.against or self.against


@cache
def entries() -> dict[tuple[str, str], Entry]:
    """Every entry by kind and name. Raises SurefootError for a file that is not one."""
    found = {}
    for path in sorted(FOLDER.glob("*/*.yaml")):
        kind, name = path.parent.name, path.stem
        found[kind, name] = _read(path, kind, name)
    return found


def _read(path: Path, kind: str, name: str) -> Entry:
    fields = yaml.safe_load(path.read_text("utf8"))
    try:
        return Entry(kind=kind, name=name, **fields)
    except (ValidationError, TypeError) as error:
        raise SurefootError(f"{path}: not an entry: {' '.join(str(error).split())}") from error


def choose(names: list[str], *, track: str | None = None) -> list[Entry]:
    """The entries of methods called NAME or KIND/NAME, or all; of one track if it is given.

    Raises SurefootError for a name that is not registered or has no entry.
    """
    known = entries()
    chosen = []
    for name in names:
        kind, _, bare = name.rpartition("/")
        matching = [entry for entry in known.values() if entry.name == bare and kind in ("", entry.kind)]
        if not matching:
            raise SurefootError(f"no method with evidence is called `{name}`: {nearest(bare, {n for _, n in known})}")
        chosen += matching
    return [entry for entry in (chosen or known.values()) if track in (None, entry.track)]
