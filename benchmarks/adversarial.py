"""Clean, corrupted and robust accuracy on CIFAR-10 of plain training, adversarial training, and RiFT after it.

    python benchmarks/adversarial.py             # three seeds in one thread: about twenty minutes on a quiet core
    python benchmarks/adversarial.py --print     # the table of what was measured

A small convolutional network on 15,000 photographs; each seed has its own start, training and test photographs. Robust:
the share that is right and stays so within 8/255 (PGD-10 on 1,000 photographs, AutoAttack on 100 of them). Corrupted: the
mean over the six corruptions of the track `images`. RiFT is the recipe `rift` as it stands: it sees training images
alone. What has been measured is kept in --store, and a run that was stopped goes on there.
Results are written to benchmarks/results/adversarial.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from surefoot import Recipe
from surefoot.assess.robustness import build_attack, survivors
from surefoot.assets import cache_folder
from surefoot.data.examples import Examples
from surefoot.data.tasks.cifar10 import CLASSES
from surefoot.environment import environment
from surefoot.evidence.summary import Difference
from surefoot.evidence.tracks.images import DEVIATION, MEAN, SHIFTS, photographs
from surefoot.files import atomic_write, write_json
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs, predict
from surefoot.tune.fit import Fit

RESULT = Path(__file__).parent / "results" / "adversarial.json"
TRAIN, TEST, STRONG, WIDTH = 15_000, 1_000, 100, 16
EPSILON = 8 / 255
PGD = {"name": "pgd", "epsilon": EPSILON, "steps": 10}
#: Square has 1,000 of its 5,000 queries: what it finds after the others comes early.
AUTO_ATTACK = {"name": "auto_attack", "epsilon": EPSILON, "queries": 1000}
TRAINING: dict[str, Any] = {
    "head": "random",
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
    "batch_size": 128,
    "warmup": 0.2,
    "epochs": 6,
}
#: Three steps of half the radius: half the cost of seven of a quarter.
AT = {"pgd_at": {"epsilon": EPSILON, "steps": 3, "step_size": EPSILON / 2}}
ARMS = ("plain", "AT", "AT + RiFT")
FIGURES = ("clean", "corrupted", "pgd", "auto_attack")


class Network(nn.Module):
    """Five convolutions: (B, 32, 32, 3) in [0, 1] to (B, 64)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)
        shapes = [(3, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1), (2 * width, 4 * width, 2)]
        shapes.append((4 * width, 4 * width, 1))
        layers = [
            nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            for i, o, stride in shapes
        ]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).to(
            memory_format=torch.channels_last
        )

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2)  # which is in channels-last order as it comes
        features: Tensor = self.layers((pixels - self.mean) / self.deviation)
        return features


def network(seed: int) -> Model:
    torch.manual_seed(seed)
    return Model.from_module(Network(), dim=4 * WIDTH, classes=CLASSES, name="five-convolutions")


@cache
def data(seed: int) -> tuple[Examples, Examples]:
    rng = np.random.default_rng(seed)
    train = photographs("train", rng.permutation(50_000)[:TRAIN])
    return train, photographs("test", rng.permutation(10_000)[:TEST])


def measure(model: Model, test: Examples, *, seed: int) -> dict[str, Any]:
    """Whether each test photograph is right: clean, under each corruption (their mean), under each attack."""
    labels = np.asarray(test.labels)

    def right(examples: Examples) -> np.ndarray:
        encoded = encode_inputs(model, examples.inputs, examples.modality)
        return np.asarray(predict(model, encoded, precision="float32").logits.argmax(1) == labels)

    def robust(spec: dict[str, Any], count: int) -> np.ndarray:
        some = test.take(np.arange(count))
        encoded = encode_inputs(model, some.inputs, some.modality)
        return survivors(model, encoded, np.asarray(some.labels), build_attack(spec, model), seed=seed)

    corrupted = [
        right(
            replace(test, inputs=corruption(np.asarray(test.inputs), severity, np.random.default_rng([seed, number])))
        )
        for number, (corruption, severity) in enumerate(SHIFTS.values())
    ]
    found = {
        "clean": right(test),
        "corrupted": np.mean(corrupted, axis=0),
        "pgd": robust(PGD, TEST),
        "auto_attack": robust(AUTO_ATTACK, STRONG),
    }
    return {name: np.asarray(each, dtype=float).round(6).tolist() for name, each in found.items()}


def run(seed: int, store: Path) -> dict[str, Any]:
    """The three arms of one seed, each kept when it is done."""
    models: dict[str, Model] = {}

    def trained(arm: str, make: Callable[[], Fit]) -> Model:
        path, model = store / f"{arm.replace(' ', '')}-{seed}.safetensors", network(seed)
        if not path.exists():
            started, fit = time.process_time(), make()
            kept = {name: value.contiguous() for name, value in fit.run().state_dict().items()}
            notes = {"seconds": time.process_time() - started} | _chosen(fit)
            write_json(path.with_suffix(".json"), notes)
            with atomic_write(path) as partial:
                save_file(kept, partial)
        model.load_state_dict(load_file(path))
        return model.eval()

    def scored(arm: str) -> dict[str, Any]:
        path = store / f"{arm.replace(' ', '')}-{seed}-scores.json"
        if not path.exists():
            write_json(path, measure(models[arm], data(seed)[1], seed=seed))
        notes = json.loads((store / f"{arm.replace(' ', '')}-{seed}.json").read_text("utf8"))
        return {"scores": json.loads(path.read_text("utf8")), **notes}

    plain, robust = Recipe(**TRAINING), Recipe(**TRAINING, objectives=AT)
    found = {}
    for arm in ARMS:
        models[arm] = trained(
            arm,
            {
                "plain": lambda: Fit(plain, network(seed), data(seed)[0], seed=seed),
                "AT": lambda: Fit(robust, network(seed), data(seed)[0], seed=seed),
                "AT + RiFT": lambda: Fit(Recipe.named("rift"), models["AT"], data(seed)[0], seed=seed),
            }[arm],
        )
        found[arm] = scored(arm)
        shares = ", ".join(f"{name} {100 * np.mean(found[arm]['scores'][name]):.1f}" for name in FIGURES)
        print(f"seed {seed}, {arm}: {shares}; {found[arm]['seconds']:.0f} s", flush=True)
    return found


def _chosen(fit: Fit) -> dict[str, Any]:
    """What RiFT chose: each module's criticality, and (alpha, clean, robust) on training images."""
    ranked = getattr(fit.selection, "criticality_", None)
    looked = [each.alphas_ for each in fit.merges if hasattr(each, "alphas_")]
    return {"criticality": ranked, "alphas": looked[0], "alpha": fit.merges[0].alpha_} if ranked else {}


def summary(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and RiFT's and AT's paired differences with 95% t intervals over seeds, in points."""
    seeds = sorted(found, key=int)

    def points(arm: str, name: str) -> list[float]:
        return [100 * float(np.mean(found[seed][arm]["scores"][name])) for seed in seeds]

    differences = {
        f"{first} - {second}": {
            name: vars(Difference.paired(points(first, name), points(second, name))) for name in FIGURES
        }
        for first, second in (("AT", "plain"), ("AT + RiFT", "AT"))
    }
    return {
        "arms": {arm: {name: points(arm, name) for name in FIGURES} for arm in ARMS},
        "differences": differences,
        "rift": [{key: found[seed]["AT + RiFT"][key] for key in ("alpha", "alphas", "criticality")} for seed in seeds],
        "seconds": {arm: [found[seed][arm]["seconds"] for seed in seeds] for arm in ARMS},
        "seeds": [int(seed) for seed in seeds],
        "settings": {"train": TRAIN, "test": TEST, "auto_attack_test": STRONG, "training": TRAINING, "at": AT}
        | {"pgd": PGD, "auto_attack": AUTO_ATTACK},
        "environment": environment() | {"threads": 1},
    }


def table(result: dict[str, Any]) -> str:
    lines = ["| | clean | corrupted | PGD-10 | AutoAttack |", "| --- | ---: | ---: | ---: | ---: |"]
    for arm, figures in result["arms"].items():
        lines.append(f"| {arm} | " + " | ".join(f"{np.mean(figures[name]):.1f}" for name in FIGURES) + " |")
    for pair, figures in result["differences"].items():
        cells = [f"{each['value']:+.1f} [{each['low']:+.1f}, {each['high']:+.1f}]" for each in figures.values()]
        lines.append(f"| {pair} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--store", type=Path, default=cache_folder() / "benchmarks" / "adversarial")
    parser.add_argument("--print", action="store_true", help="only print the table")
    options = parser.parse_args()
    if len(set(options.seeds)) < 2:
        parser.error("--seeds: give two at least, since differences are paired over seeds")
    if not options.print:
        torch.set_num_threads(1)
        options.store.mkdir(parents=True, exist_ok=True)
        found = {str(seed): run(seed, options.store) for seed in options.seeds}
        write_json(RESULT, summary(found))
    print(table(json.loads(RESULT.read_text("utf8"))))


if __name__ == "__main__":
    main()
