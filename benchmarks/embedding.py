"""Sentences a second beside sentence-transformers, arms in turn within one run, and what the quick modes cost on STS.

    python benchmarks/embedding.py                     # all of the corpus, in ten rounds
    python benchmarks/embedding.py --rounds 3 --of 20  # three rounds, each of a twentieth of it

The corpus is 20,000 sentences of the reviews and the abstracts of Cranfield, shuffled with a seed and cut into rounds;
in each round every arm embeds the same texts, in an order that changes with the round. Ratios are taken within a round,
so that what else the machine does falls on all arms alike; and both by the clock and by the processor's time, which is
the one to trust (with --threads 1) where others compute too. Peak memory is that of `surefoot embed` in a process of its
own. Results are written to benchmarks/results/embedding.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from surefoot import load
from surefoot.assets import fetch
from surefoot.data.tasks.reviews import FILES, rated_sentences
from surefoot.embed import Encoder
from surefoot.environment import environment
from surefoot.errors import MissingExtra
from surefoot.files import write_json

RESULTS = Path(__file__).parent / "results"
SENTENCES = 20_000
#: What was asked of the median ratio.
ASKED = {
    "float32, over sentence-transformers float32": 1.5,
    "bfloat16, over sentence-transformers bfloat16": 1.3,
    "best mode, over sentence-transformers float32": 2.5,
}


def corpus(data: Path, seed: int) -> list[str]:
    """20,000 sentences of the reviews and every abstract of Cranfield, shuffled."""
    rng = np.random.default_rng(seed)
    sentences = [text for name in FILES for _, _, text in rated_sentences(name)]
    chosen = [sentences[i] for i in rng.permutation(len(sentences))[:SENTENCES]]
    table = pq.read_table(data / "cranfield" / "corpus.parquet")
    abstracts = [each for each in table["text"].to_pylist() if each and each.strip()]
    texts = chosen + abstracts
    return [texts[i] for i in rng.permutation(len(texts))]


def arms(backends: list[str]) -> dict[str, Callable[[list[str]], np.ndarray]]:
    """Every way to embed, by name; those whose library is not installed are left out."""
    from sentence_transformers import SentenceTransformer

    folder = str(fetch("minilm"))
    peer = SentenceTransformer(folder, device="cpu")
    half = SentenceTransformer(folder, device="cpu", model_kwargs={"torch_dtype": torch.bfloat16})
    found: dict[str, Callable[[list[str]], np.ndarray]] = {
        "sentence-transformers float32": lambda texts: peer.encode(texts, show_progress_bar=False),
        "sentence-transformers bfloat16": lambda texts: half.encode(texts, convert_to_tensor=True).float().numpy(),
    }
    model = load("minilm")
    for backend, dtype in (
        ("torch", "float32"),
        ("torch", "bfloat16"),
        ("torch", "int8"),
        ("onnx", "int8"),
        ("openvino", "float32"),
        ("openvino", "bfloat16"),
    ):
        if backend not in backends:
            continue
        try:
            encoder = Encoder(model, dtype=dtype, backend=backend)  # type: ignore[arg-type]
        except MissingExtra as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        found[f"surefoot {backend} {dtype}"] = encoder.encode
    return found


def throughput(texts: list[str], rounds: int, of: int, backends: list[str]) -> dict[str, Any]:
    """Texts a second of every arm in every round, and the least cosine of each with the peer in float32."""
    ways, rates, busy, cosines = arms(backends), {}, {}, {}
    names = list(ways)
    for name in names:
        ways[name](texts[:64])
        rates[name], busy[name], cosines[name] = [], [], []
    for number, part in enumerate(np.array_split(np.arange(len(texts)), of)[:rounds]):
        chosen = [texts[i] for i in part]
        vectors = {}
        for name in np.roll(names, -number):
            begin, spent = time.perf_counter(), time.process_time()
            vectors[name] = ways[name](chosen)
            rates[name].append(len(chosen) / (time.perf_counter() - begin))
            busy[name].append(len(chosen) / (time.process_time() - spent))
        for name in names:
            cosines[name].append(float((vectors[name] * vectors[names[0]]).sum(1).min()))
        line = ", ".join(f"{name} {rates[name][-1]:.0f} ({busy[name][-1]:.0f})" for name in names)
        print(f"round {number + 1}: {line}", file=sys.stderr, flush=True)
    return {
        "rates": rates,
        "rates_of_processor_time": busy,
        "least_cosine": {name: min(each) for name, each in cosines.items()},
    }


def ratio(rates: dict[str, list[float]], arm: str, against: str) -> dict[str, Any]:
    each = np.array(rates[arm]) / np.array(rates[against])
    return {"arm": arm, "median": float(np.median(each)), "min": float(each.min()), "max": float(each.max())}


def similarity(data: Path, names: list[str], backends: list[str]) -> dict[str, float]:
    """Spearman of cosines with the ratings of all STS pairs, in points, for these arms."""
    from scipy.stats import spearmanr

    table = pq.read_table(data / "sts.parquet")
    first, second, scores = (table[name].to_pylist() for name in ("sentence1", "sentence2", "score"))
    ways, found = arms(backends), {}
    for name in names:
        a, b = ways[name](first), ways[name](second)
        found[name] = 100 * float(spearmanr((a * b).sum(1), scores).statistic)
        print(f"STS, {name}: {found[name]:.2f}", file=sys.stderr, flush=True)
    return found


def peak_memory(texts: list[str], copies: int) -> dict[str, Any]:
    """Greatest resident memory of `surefoot embed` over the texts `copies` times, each made different by its number."""
    with tempfile.TemporaryDirectory() as place:
        path, written = Path(place) / "corpus.parquet", 0
        with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
            for copy in range(copies):
                rows = [f"{copy} {text}" for text in texts]
                writer.write_table(pa.table({"text": rows}))
                written += len(rows)
        command = [sys.executable, "-m", "surefoot", "embed", "--model", "minilm", "--input", str(path)]
        command += ["--dtype", "auto", "--output", str(Path(place) / "vectors"), "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        said = json.loads(process.stdout.read())
        _, _, usage = os.wait4(process.pid, 0)
        return {"rows": written, "bytes": usage.ru_maxrss * 1024, "rows_a_second": said["rows_a_second"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SUREFOOT_DATA", "data")))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--of", type=int, default=10, help="Into how many parts the corpus is cut.")
    parser.add_argument("--backends", nargs="+", default=["torch", "onnx", "openvino"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sts", action="store_true", help="What the quick modes cost on STS too.")
    parser.add_argument("--memory", type=int, metavar="TEXTS", help="Peak memory over so many texts too.")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = RESULTS / "embedding.json"
    before = json.loads(path.read_text("utf8")) if path.exists() else {}
    texts = corpus(args.data, args.seed)
    if args.rounds:
        before |= throughput(texts, args.rounds, args.of, args.backends) | {"parts": args.of, "threads": args.threads}
        rates = before["rates"]
        close = [name for name in rates if name.startswith("surefoot") and before["least_cosine"][name] > 0.995]
        best = max(close, key=lambda name: float(np.median(rates[name])))
        peers = "sentence-transformers float32", "sentence-transformers bfloat16"
        chosen = {
            "float32, over sentence-transformers float32": ("surefoot torch float32", peers[0]),
            "bfloat16, over sentence-transformers bfloat16": ("surefoot torch bfloat16", peers[1]),
            "best mode, over sentence-transformers float32": (best, peers[0]),
        }
        before["ratios"] = {name: ratio(rates, *pair) | {"asked": ASKED[name]} for name, pair in chosen.items()}
        busy = before["rates_of_processor_time"]
        before["ratios_of_processor_time"] = {
            name: ratio(busy, *pair) | {"asked": ASKED[name]} for name, pair in chosen.items()
        }
    if args.sts:
        quickest = before["ratios"]["best mode, over sentence-transformers float32"]["arm"]
        before["sts"] = similarity(args.data, ["surefoot torch float32", quickest], args.backends)
    if args.memory:
        copies = -(-args.memory // len(texts))
        before["memory"] = peak_memory(texts, copies)
    before["environment"] = environment() if args.rounds or not path.exists() else before["environment"]
    if path.exists():  # parts may be measured by calls that run side by side
        own = {"environment"} | ({"sts"} if args.sts else set()) | ({"memory"} if args.memory else set())
        own |= set(before) - {"sts", "memory"} if args.rounds else set()
        before = json.loads(path.read_text("utf8")) | {name: before[name] for name in own}
    write_json(path, before)
    for kind in ("ratios", "ratios_of_processor_time"):
        for name, each in before.get(kind, {}).items():
            said = f"{each['median']:5.2f}x [{each['min']:.2f}, {each['max']:.2f}] asked {each['asked']}"
            print(f"{kind.replace('_', ' '):25s} {name:48s} {said} ({each['arm']})")
    if "memory" in before:
        print(f"peak memory over {before['memory']['rows']:,} texts: {before['memory']['bytes'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
