"""Arms that train nothing of their own: the track's model, trained once for each seed, on its home test under a shift.

`accuracy_lost` is what the shift claims to cost; `shift_...` say what became of the inputs, by which its mechanism shows.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from safetensors.torch import load_file, save_file

from surefoot.data.examples import Examples
from surefoot.errors import SurefootError
from surefoot.evidence.cost import Clock
from surefoot.evidence.entry import Arm
from surefoot.files import atomic_write
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs, predict
from surefoot.shifts.shift import Shift, check_severity, shifted
from surefoot.tune.build import build

if TYPE_CHECKING:
    from surefoot.evidence.classification import Classification, World

#: By how much the seeds of two members differ, which is more than there are paired seeds.
MEMBERS = 1000


def run_shift(track: Classification, arm: Arm, *, seed: int, store: Path) -> dict[str, float]:
    """Accuracy at home with and without the shift that the arm names, and what it did to the inputs; `examples`: on so
    many, all of the home test if not given."""
    spec = dict(arm.shift or {})
    count = spec.pop("examples", None)
    severity = check_severity(spec.pop("severity", 0))
    shift: Shift = build("shift", spec)
    world = track.world(seed)
    model, clock = trained_model(track, world, seed=seed, store=store), Clock()
    clean = world.tests[world.home]
    if count is not None:
        clean = clean.take(np.arange(min(count, len(clean))))
    with clock.running():
        moved = _shifted(shift, clean, severity, seed=seed)
    accuracy = {name: _accuracy(model, each) for name, each in (("home", clean), ("shifted", moved))}
    found = {f"accuracy_{name}": value for name, value in accuracy.items()}
    found["accuracy_lost"] = accuracy["home"] - accuracy["shifted"]
    return found | _described(model, clean, moved) | {"seconds": clock.seconds}


def _shifted(shift: Shift, clean: Examples, severity: int, *, seed: int) -> Examples:
    """The examples under the shift; rows of 64 numbers are images of 8x8."""
    inputs = clean.inputs
    if shift.reads == "image" and getattr(inputs, "ndim", 0) == 2:
        side = round(inputs.shape[1] ** 0.5)
        square = Examples(inputs.reshape(-1, side, side), clean.labels, clean.classes, "features", source=clean.source)
        moved = shifted(shift, square, severity, seed=seed)
        return Examples(moved.inputs.reshape(len(clean), -1), clean.labels, clean.classes, "features")
    return shifted(shift, clean, severity, seed=seed)


def trained_model(
    track: Classification, world: World, arm: Arm | None = None, *, seed: int, member: int = 0, store: Path
) -> Model:
    """The track's own training, or the arm's, kept as safetensors by whoever comes first; `member`: one of several that
    differ in their seed."""
    arm = arm or Arm()
    of = "" if arm == Arm() and not member else f"-{arm.key}-{member}"
    path = store / f"shifted-{track.name}-{track.generation}{of}-{seed}.safetensors"
    store.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            trained = track.tune(arm, world, seed=seed + MEMBERS * member).model
            if trained.normalize != world.model.normalize:
                raise SurefootError(
                    f"track `{track.name}`: its recipe changes how features are scaled: no shifts on it"
                )
            with atomic_write(path) as partial:
                save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, partial)
    model = deepcopy(world.model)
    model.set_classes(world.train.classes)
    model.load_state_dict(load_file(path))
    return model


def _accuracy(model: Model, examples: Examples) -> float:
    encoded = encode_inputs(model, examples.inputs, examples.modality, source=examples.source)
    return float((predict(model, encoded).logits.argmax(1) == examples.labels).mean())


def _described(model: Model, clean: Examples, moved: Examples) -> dict[str, float]:
    """How far the inputs are from what they were, and what they are like now."""
    if clean.modality == "text":
        words = [text.split() for text in moved.inputs]
        encoded = encode_inputs(model, moved.inputs, "text")
        count = max(1, sum(map(len, words)))
        pairs = zip(clean.inputs, moved.inputs, strict=True)
        return {
            "shift_distance": float(np.mean([_apart(before, after) for before, after in pairs])),
            "shift_words": count / len(words),
            "shift_tokens": float(encoded.lengths.sum()) / count,
        }
    before, after = (np.asarray(each.inputs, np.float64) for each in (clean, moved))
    if before.ndim == 2:
        side = round(before.shape[1] ** 0.5)
        before, after = (each.reshape(-1, side, side) for each in (before, after))
    axes: Any = tuple(range(1, after.ndim))
    return {
        "shift_distance": float(np.abs(after - before).mean()),
        "shift_deviation": float(after.std(axis=axes).mean()),
        "shift_sharpness": float(np.abs(np.diff(after, axis=2)).mean()),
        "shift_brightness": float(after.mean()),
    }


def _apart(before: str, after: str) -> float:
    """1 - the share of characters that stayed, by the longest matching blocks (Ratcliff and Obershelp)."""
    from difflib import SequenceMatcher

    return 0.0 if before == after else 1 - SequenceMatcher(None, before, after, autojunk=False).ratio()
