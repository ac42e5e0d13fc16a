"""Echo embeddings of SmolLM2-135M: what they are worth, what they cost, and beside the authors' code.

    python benchmarks/echo.py --store FOLDER --parts quality cost tuned
    python benchmarks/echo.py --store FOLDER --parts peer --peer FOLDER     # a checkout of jakespringer/echo-embeddings

quality: Spearman's rho of every pooling on all test pairs of `sts` (SemEval 2012 to 2014), by year and as the mean over
subsets, with 95% intervals over pairs (bootstrap, subsets kept apart), and echo's difference from the mean of a single
pass, paired. Products in bfloat16; vectors are kept in the store.
cost: processor time of echo over that of a single pass, in the same engine, on 200 texts of `sts`, one thread, in turn.
peer: processor time of the authors' code over ours, float32, one thread, on 128 texts in batches of 32 as they come;
cosines of the vectors. Their parser is given the template in braces so that both read the same tokens.
tuned: both poolings fine-tuned on the same pairs (Banking77, questions of one intent; the top two layers, one epoch of
1,000 pairs, InfoNCE), three seeds; on the same STS pairs, 60 of each test.
Writes benchmarks/results/echo.json, part by part.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from surefoot import Examples, Recipe, load
from surefoot.assess.similarity import spearman
from surefoot.data.tasks.stored import stored
from surefoot.embed.encoder import Encoder
from surefoot.embed.geometry import unit_length
from surefoot.environment import environment
from surefoot.files import atomic_write, write_json
from surefoot.models.pooling import Pooling, make_pooling
from surefoot.models.poolings.echo import WORDING

RESULTS = Path(__file__).parent / "results" / "echo.json"
MODEL = "smollm2-135m-instruct-q4"
#: Poolings by name; those of one entry are taken from one pass over the texts.
POOLINGS: tuple[dict[str, Any], ...] = (
    {"mean": "mean", "weighted_mean": "weighted_mean", "last": "last"},
    {"one_word": "one_word"},
    {"echo": "echo", "echo_last": {"name": "echo", "tokens": "last"}},
)
DRAWS = 2000
#: Texts that cost is measured on, that the peer is, and rounds of each.
COST_TEXTS, PEER_TEXTS, ROUNDS = 200, 128, 5
#: Pairs of each subset on which trained models are compared.
TUNED_PAIRS = 60


def pairs() -> pd.DataFrame:
    """All of `sts`; `test` names a subset of a year, which another year may have a subset of the same name beside."""
    frame = pd.read_parquet(stored("sts"))
    return frame.assign(test=frame["year"].astype(str) + " " + frame["subset"])


def tests_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The subsets that are tests: 2012 has training sets too."""
    return frame[frame["subset"].str.endswith(".test")].reset_index(drop=True)


def texts_of(frame: pd.DataFrame) -> list[str]:
    """Every distinct text, in order."""
    return list(dict.fromkeys([*frame["sentence1"], *frame["sentence2"]]))


# --- what it is worth


def quality(store: Path) -> dict[str, Any]:
    """rho by pooling: mean over subsets with its interval, by year, and the paired difference from `mean`."""
    every = pairs()
    texts, frame = texts_of(every), tests_of(every)
    place = {text: row for row, text in enumerate(texts)}
    first, second = (np.array([place[text] for text in frame[name]]) for name in ("sentence1", "sentence2"))
    cosines = {}
    for group in POOLINGS:
        kept = store / "vectors" / f"{'-'.join(group)}.npy"
        whole = _kept(kept, lambda group=group: _encode(list(group.values()), texts))
        for name, vectors in zip(group, np.split(whole, len(group), axis=1), strict=True):
            vectors = unit_length(vectors)
            cosines[name] = (vectors[first] * vectors[second]).sum(1)
    ratings = frame["score"].astype(float).to_numpy()
    return {"pairs": len(frame), "texts": len(texts)} | compared(frame, cosines, ratings)


def compared(frame: pd.DataFrame, cosines: Mapping[str, np.ndarray], ratings: np.ndarray) -> dict[str, Any]:
    """Scores with intervals; the same resamples serve every pooling, so that differences are paired."""
    subsets = {str(name): rows for name, rows in frame.groupby("test").indices.items()}
    rng = np.random.default_rng(0)
    draws: dict[str, list[float]] = {name: [] for name in cosines}
    for _ in range(DRAWS):
        drawn = [rng.choice(rows, len(rows)) for rows in subsets.values()]
        for name, cosine in cosines.items():
            draws[name].append(100 * float(np.mean([spearman(cosine[rows], ratings[rows]) for rows in drawn])))
    found: dict[str, Any] = {}
    for name, cosine in cosines.items():
        by_subset = {subset: 100 * spearman(cosine[rows], ratings[rows]) for subset, rows in subsets.items()}
        years = {
            str(year): float(np.mean([by_subset[name] for name in sorted(set(part["test"]))]))
            for year, part in frame.groupby("year")
        }
        apart = np.array(draws[name]) - np.array(draws["mean"])
        found[name] = {
            "spearman": float(np.mean(list(by_subset.values()))),
            "interval": np.percentile(draws[name], [2.5, 97.5]).tolist(),
            "minus_mean": float(np.mean(list(by_subset.values()))) - _mean_of(cosines["mean"], ratings, subsets),
            "minus_mean_interval": np.percentile(apart, [2.5, 97.5]).tolist(),
            "years": years,
            "subsets": by_subset,
        }
    return {"poolings": found}


def _mean_of(cosine: np.ndarray, ratings: np.ndarray, subsets: Mapping[str, np.ndarray]) -> float:
    return float(np.mean([100 * spearman(cosine[rows], ratings[rows]) for rows in subsets.values()]))


class Several(Pooling):
    """Poolings of the same states, side by side."""

    def __init__(self, poolings: Sequence[Pooling]) -> None:
        self.poolings = poolings

    @property
    def template(self) -> Any:
        return self.poolings[0].template

    def __call__(self, hidden: Any, mask: torch.Tensor) -> torch.Tensor:
        return torch.cat([each(hidden, mask) for each in self.poolings], dim=1)


def _encode(pools: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
    """Vectors (N, P D) of the P poolings, from one pass."""
    print(f"reading {len(texts):,} texts, pooled by {pools}", flush=True)
    model = load(MODEL, pool=pools[0])
    model.pooling, model.dim = Several([make_pooling(each) for each in pools]), len(pools) * model.dim
    return Encoder(model, dtype="bfloat16").encode(texts)


def _kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    if not path.exists():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.save(file, made)
    found: np.ndarray = np.load(path)
    return found


# --- what it costs


def cost() -> dict[str, Any]:
    """Echo over a single pass, by precision: median, smallest and largest over the rounds."""
    torch.set_num_threads(1)
    texts = _drawn(COST_TEXTS)
    found: dict[str, Any] = {"texts": len(texts)}
    for dtype in ("float32", "bfloat16"):
        encoders = {name: Encoder(load(MODEL, pool=name), dtype=dtype) for name in ("mean", "echo")}
        ratios = []
        for number in range(ROUNDS):
            order = list(encoders)[:: 1 if number % 2 else -1]
            seconds = {name: _timed(encoders[name].encode, texts)[0] for name in order}
            ratios.append(seconds["echo"] / seconds["mean"])
        tokens = {name: _tokens(each, texts) for name, each in encoders.items()}
        found[dtype] = _ratios(ratios) | {"tokens": tokens["echo"] / tokens["mean"]}
    return found


def peer(folder: Path) -> dict[str, Any]:
    """The authors' code over ours."""
    torch.set_num_threads(1)
    texts = _drawn(PEER_TEXTS)
    model = load(MODEL, pool="echo")
    encoder = Encoder(model)
    theirs = _authors(folder, model)
    ratios, cosines = [], np.zeros(0)
    for number in range(ROUNDS):
        arms = {"ours": encoder.encode, "theirs": theirs}
        ran = {name: _timed(arms[name], texts) for name in list(arms)[:: 1 if number % 2 else -1]}
        ratios.append(ran["theirs"][0] / ran["ours"][0])
        cosines = (unit_length(ran["ours"][1]) * unit_length(ran["theirs"][1])).sum(1)
    return {"texts": len(texts), "theirs_over_ours": _ratios(ratios), "lowest_cosine": float(cosines.min())}


def _authors(folder: Path, model: Any) -> Callable[[Sequence[str]], np.ndarray]:
    """Their parser, model and pooling on the same weights, in batches of 32 as texts come."""
    spec = importlib.util.spec_from_file_location("echo_embeddings", folder / "echo_embeddings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    begin, middle = WORDING.split(" {text}")[:2]
    template = f"{begin}{{! %%text%%}}{middle}{{ %%text%%}}"
    parser = module.EchoParser(model.processor.tokenizer, {"text": template}, max_length=model.processor.max_length)
    network, pooling = module.EchoEmbeddingsMistral(model.backbone).eval(), module.EchoPooling(strategy="mean")

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> np.ndarray:
        found = []
        for begin in range(0, len(texts), 32):
            asked = [("text", {"text": text}) for text in texts[begin : begin + 32]]
            found.append(pooling(network(parser(asked)))["sentence_embedding"].numpy())
        return np.concatenate(found)

    return encode


def _drawn(count: int) -> list[str]:
    texts = texts_of(pairs())
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:count]]


def _timed(encode: Callable[[Sequence[str]], np.ndarray], texts: Sequence[str]) -> tuple[float, np.ndarray]:
    begin = time.process_time()
    vectors = encode(texts)
    return time.process_time() - begin, vectors


def _tokens(encoder: Encoder, texts: Sequence[str]) -> int:
    return int(encoder.model.processor.encode(texts).lengths.sum())


def _ratios(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "smallest": min(values), "largest": max(values), "rounds": len(values)}


# --- both, trained


def tuned(store: Path, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """rho before and after training on the same pairs, by pooling and seed."""
    frame = tests_of(pairs()).groupby("test").sample(TUNED_PAIRS, random_state=0).reset_index(drop=True)
    ratings = frame["score"].astype(float).to_numpy()
    found: dict[str, Any] = {}
    for name in ("mean", "echo"):
        before = _scored(load(MODEL, pool=name), frame, ratings)
        after = []
        for seed in seeds:
            path = store / "tuned" / f"{name}-{TUNED_PAIRS}-{seed}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, {"spearman": _scored(_trained(name, seed), frame, ratings)})
            after.append(json.loads(path.read_text("utf8"))["spearman"])
        found[name] = {"before": before, "after": after}
    gaps = [echo - mean for echo, mean in zip(found["echo"]["after"], found["mean"]["after"], strict=True)]
    return found | {"echo_minus_mean_after": gaps}


def _trained(name: str, seed: int) -> Any:
    recipe = Recipe(
        objectives={"infonce": 1.0},
        selection={"name": "top_layers", "k": 2},
        optimizer={"name": "adamw", "lr": 5e-5},
        epochs=1,
        batch_size=32,
        max_length=48,
    )
    return recipe.fit(load(MODEL, pool=name, max_length=48), _questions(seed), seed=seed).model


def _questions(seed: int, count: int = 1000) -> Examples:
    """Pairs of Banking77's training questions that have one intent."""
    frame = pd.read_parquet(stored("banking77"))
    frame = frame[frame["split"] == "train"]
    rng = np.random.default_rng(seed)
    anchors, positives = [], []
    groups = [list(part) for _, part in frame.groupby("intent")["text"]]
    while len(anchors) < count:
        group = groups[int(rng.integers(len(groups)))]
        first, second = rng.choice(len(group), 2, replace=False)
        anchors.append(group[first])
        positives.append(group[second])
    return Examples(anchors, None, (), positive=np.array(positives, dtype=object), source="banking77 pairs")


def _scored(model: Any, frame: pd.DataFrame, ratings: np.ndarray) -> float:
    texts = texts_of(frame)
    vectors = dict(zip(texts, unit_length(Encoder(model, dtype="bfloat16").encode(texts)), strict=True))
    cosine = np.array([vectors[a] @ vectors[b] for a, b in zip(frame["sentence1"], frame["sentence2"], strict=True)])
    return _mean_of(cosine, ratings, dict(frame.groupby("test").indices))


def show(found: Mapping[str, Any]) -> None:
    console = Console()
    if "quality" in found:
        table = Table("pooling", "rho", "95%", "minus mean", *sorted(found["quality"]["poolings"]["mean"]["years"]))
        for name, each in found["quality"]["poolings"].items():
            low, high = each["interval"]
            apart = "[{:+.1f}, {:+.1f}]".format(*each["minus_mean_interval"])
            years = [f"{value:.1f}" for _, value in sorted(each["years"].items())]
            table.add_row(
                name,
                f"{each['spearman']:.1f}",
                f"[{low:.1f}, {high:.1f}]",
                f"{each['minus_mean']:+.1f} {apart}",
                *years,
            )
        console.print(table)
    console.print_json(json.dumps({name: found[name] for name in ("cost", "peer", "tuned") if name in found}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=("quality", "cost", "peer", "tuned"), default=["quality", "cost"])
    parser.add_argument("--peer", type=Path, help="checkout of jakespringer/echo-embeddings")
    arguments = parser.parse_args()
    found = json.loads(RESULTS.read_text("utf8")) if RESULTS.exists() else {}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "quality": lambda: quality(arguments.store),
        "cost": cost,
        "peer": lambda: peer(arguments.peer),
        "tuned": lambda: tuned(arguments.store),
    }
    if "peer" in arguments.parts and arguments.peer is None:
        parser.error("--parts peer needs --peer FOLDER, a checkout of jakespringer/echo-embeddings")
    for name in arguments.parts:
        found |= {name: parts[name](), "environment": environment(), "model": MODEL}
        write_json(RESULTS, found)
    show(found)


if __name__ == "__main__":
    main()
