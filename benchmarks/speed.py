"""Speed beside the plain loop, arms in turn within one run, and accuracy on the plain loop's own splits.

    python benchmarks/speed.py --baseline reviews_plain_loop.py                 # throughput: about eight minutes
    python benchmarks/speed.py --baseline reviews_plain_loop.py --quality 0 1 2 # accuracy: ten minutes a seed

The plain loop is an independent script (transformers, AdamW, nothing else); its data loading, splits and classifier are
imported from it, and its training loop is repeated here statement by statement because it also has to run with frozen
layers. Ratios are taken within a round, so that a drift of the machine's speed cancels; the median round is reported.
Results are written to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from surefoot import Recipe, load
from surefoot.assess.evaluate import evaluate
from surefoot.assets import cache_folder, fetch
from surefoot.data.examples import Examples
from surefoot.environment import environment
from surefoot.files import write_json
from surefoot.models import prefix
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs, predict
from surefoot.tune.fit import Fit

RESULTS = Path(__file__).parent / "results"
SIZE = 32
#: AutoFT's bank of nine, with its weights in the middle of its range.
NINE = {
    "cross_entropy": 1.0,
    "hinge": 0.1,
    "entropy": 0.01,
    "confidence_minimization": 0.01,
    "flyp": {"weight": 0.1, "cached": True, "write_head": False},
    "l1_zero": 0.1,
    "l2_zero": 0.1,
    "l1_start": 0.1,
    "l2_start": 0.1,
}


class Plain:
    """The plain loop's model and data, and its training and evaluation loops for a number of steps."""

    def __init__(self, module: ModuleType, seed: int = 0) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = str(fetch("minilm"))
        self.module = module
        self.sets = module.split(vader(), np.random.RandomState(seed), 4000)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.new_encoder = lambda: AutoModel.from_pretrained(folder)

    def tokens(self, texts: list[str]) -> Any:
        return self.tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")

    def train(self, steps: int, frozen: int = 0) -> float:
        """Sentences a second over `steps` steps of the plain loop, with the lowest `frozen` layers frozen."""
        rng = np.random.RandomState(0)
        model = self.module.Classifier(self.new_encoder(), nn.Linear(384, 2)).train()
        if frozen:
            for part in [model.encoder.embeddings, *model.encoder.encoder.layer[:frozen]]:
                part.requires_grad_(False)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-5, weight_decay=0.01)
        texts, labels = self.sets["train"]
        batches = np.array_split(rng.permutation(len(texts)), len(texts) // SIZE)
        started, done = 0.0, 0
        for number, index in enumerate(batches[: steps + 2]):
            if number == 2:  # the first steps warm up
                started, done = time.perf_counter(), 0
            loss = nn.functional.cross_entropy(
                model(self.tokens([texts[i] for i in index])), torch.tensor(labels[index])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += len(index)
        return done / (time.perf_counter() - started)

    @torch.no_grad()
    def infer(self) -> float:
        model = self.module.Classifier(self.new_encoder(), nn.Identity()).eval()
        texts = self.sets["train"][0][:2048]
        model.features(self.tokens(texts[:128]))
        started = time.perf_counter()
        for i in range(0, len(texts), 128):
            model.features(self.tokens(texts[i : i + 128]))
        return len(texts) / (time.perf_counter() - started)


def examples(pair: tuple[list[str], np.ndarray], name: str) -> Examples:
    return Examples(pair[0], pair[1].astype(np.int64), ("negative", "positive"), source=name)


def ours(model: Model, train: Examples, **fields: Any) -> float:
    """Sentences a second of a whole fit: tokenising, caching, training."""
    forget_prefixes()
    started = time.perf_counter()
    fit = Fit(Recipe(max_length=64, head="random", **fields), model, train)
    fit.run()
    return fit.history.examples / (time.perf_counter() - started)


def step_rate(model: Model, train: Examples, **fields: Any) -> float:
    """Sentences a second of the steps alone."""
    fit = Fit(Recipe(max_length=64, head="random", epochs=1, **fields), model, train)
    fit.run()
    return fit.history.examples_per_second


def our_inference(model: Model, train: Examples) -> float:
    """Sentences a second, tokenising included."""
    texts = train.inputs[:2048]
    started = time.perf_counter()
    predict(model, encode_inputs(model, texts, "text", max_length=64))
    return len(texts) / (time.perf_counter() - started)


def forget_prefixes() -> None:
    prefix._memory.clear()
    shutil.rmtree(cache_folder() / "prefix", ignore_errors=True)


def vader() -> Path:
    folder = fetch("vader")
    return next(path.parent for path in [folder, *folder.rglob("*")] if path.name == "tweets_GroundTruth.txt")


def throughput(module: ModuleType, rounds: int) -> dict[str, Any]:
    plain, model = Plain(module), load("minilm")
    train = examples(plain.sets["train"], "train")
    part = train.take(np.arange(1280))
    arms: dict[str, Callable[[], float]] = {
        "plain, full": lambda: plain.train(24),
        "surefoot, full": lambda: ours(model, part, epochs=1),
        "plain, top two layers": lambda: plain.train(40, frozen=4),
        "surefoot, top two layers, cached, three epochs": lambda: ours(
            model, train, epochs=3, selection={"name": "top_layers", "k": 2}
        ),
        "plain, inference": plain.infer,
        "surefoot, inference": lambda: our_inference(model, train),
        "cross-entropy, float32": lambda: step_rate(model, part, precision="float32"),
        "nine objectives, float32": lambda: step_rate(model, part, precision="float32", objectives=NINE),
        "cross-entropy, bfloat16": lambda: step_rate(model, part, precision="bfloat16"),
        "nine objectives, bfloat16": lambda: step_rate(model, part, precision="bfloat16", objectives=NINE),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        for name, arm in arms.items():
            rates[name].append(arm())
            print(f"round {number + 1}: {name}: {rates[name][-1]:.1f}/s", file=sys.stderr, flush=True)
    pairs = {
        "full fine-tuning, over plain": ("surefoot, full", "plain, full", 2.0),
        "top two cached, over plain top two": (
            "surefoot, top two layers, cached, three epochs",
            "plain, top two layers",
            4.0,
        ),
        "top two cached, over plain full": ("surefoot, top two layers, cached, three epochs", "plain, full", 7.0),
        "inference, over plain": ("surefoot, inference", "plain, inference", 2.5),
        "cost of nine objectives, float32": ("cross-entropy, float32", "nine objectives, float32", 1.4),
        "cost of nine objectives, bfloat16": ("cross-entropy, bfloat16", "nine objectives, bfloat16", 1.6),
    }
    ratios = {}
    for name, (top, bottom, asked) in pairs.items():
        each = [a / b for a, b in zip(rates[top], rates[bottom], strict=True)]
        ratios[name] = {"median": statistics.median(each), "min": min(each), "max": max(each), "asked": asked}
    return {
        "rates": {name: statistics.median(values) for name, values in rates.items()},
        "ratios": ratios,
        "rounds": rounds,
        "environment": environment(),
    }


def quality(baseline: Path, module: ModuleType, seed: int) -> dict[str, Any]:
    """The plain loop's own result for this seed, and surefoot's four recipes on exactly its splits."""
    command = [
        sys.executable,
        str(baseline),
        "--data",
        str(vader()),
        "--model",
        str(fetch("minilm")),
        "--seed",
        str(seed),
    ]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    sets = module.split(vader(), np.random.RandomState(seed), 4000)
    train, tests = examples(sets["train"], "train"), {name: examples(sets[name], name) for name in module.DOMAINS}
    model, accuracy = load("minilm"), {}
    for name in ("linear_probe", "fine_tune", "lp_ft", "wise_ft"):
        run = Recipe.named(name, max_length=64).fit(model, train, seed=seed)
        accuracy[name] = {domain: evaluate(run.model, each)[1].accuracy.value for domain, each in tests.items()}
    top = Recipe.named("lp_ft", max_length=64, epochs=3, selection={"name": "top_layers", "k": 2}).fit(
        model, train, seed=seed
    )
    accuracy["lp_ft, top two layers, cached"] = {
        domain: evaluate(top.model, each)[1].accuracy.value for domain, each in tests.items()
    }
    return {"seed": seed, "plain": theirs, "surefoot": accuracy, "environment": environment()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quality", type=int, nargs="*", metavar="SEED")
    args = parser.parse_args()
    spec = importlib.util.spec_from_file_location("plain_loop", args.baseline)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    RESULTS.mkdir(exist_ok=True)
    if args.quality is None:
        result = throughput(module, args.rounds)
        write_json(RESULTS / "speed.json", result)
        for name, ratio in result["ratios"].items():
            print(
                f"{name:40s} {ratio['median']:5.2f}x  [{ratio['min']:.2f}, {ratio['max']:.2f}]  asked {ratio['asked']}"
            )
        return
    for seed in args.quality:
        path = RESULTS / f"quality-{seed}.json"
        if not path.exists():  # resumable by seed
            write_json(path, quality(args.baseline, module, seed))
        print(path.read_text())


if __name__ == "__main__":
    main()
