"""Merging beside mergekit and beside copying the bytes: throughput and peak memory; writes benchmarks/results/merging.json.

    python benchmarks/merging.py --store FOLDER [--sizes small large memory] [--rounds 3]

small: eight checkpoints of MiniLM's size; large: two synthetic ones of 2 GB; memory: eight of 2 GB, peak memory only,
which are the large ones under several names (hard links: each is mapped and counted for itself). Every arm is a process
of its own; all start before the first run, and they take turns over the same files. A merge's time is that of the work
alone, without starting Python and importing; peak memory is the whole process's. "copying", which comes first in a round,
reads every input and writes as many bytes as the output has, through one buffer; nobody syncs but surefoot, which by its
rule waits for the disk before the rename: it is timed with and without. Ratios are medians over the rounds, each within
its round, with the smallest and the largest; `processor` are ratios of processor time, which other work on the machine
moves less.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

RESULTS = Path(__file__).parent / "results" / "merging.json"
METHODS = ("linear", "task_arithmetic", "slerp", "ties")
GB = 1 << 30


def make_llama(folder: Path, *, hidden: int, layers: int, vocabulary: int, seed: int) -> Path:
    """A Llama of random weights, tuned from one base, in float32, as both tools open it."""
    from transformers import LlamaConfig

    if (folder / "model.safetensors").is_file():
        return folder
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    heads = hidden // 64
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": vocabulary}
    config = LlamaConfig(**sizes, tie_word_embeddings=True, architectures=["LlamaForCausalLM"])
    config.save_pretrained(partial)
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        shapes |= {f"{stem}.self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
        shapes |= {f"{stem}.mlp.{name}_proj.weight": (4 * hidden, hidden) for name in ("gate", "up")}
        shapes[f"{stem}.mlp.down_proj.weight"] = (hidden, 4 * hidden)
        shapes |= {f"{stem}.{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    base, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        weights[name] = torch.randn(shape, generator=base)
        if seed:
            weights[name] += 0.05 * torch.randn(shape, generator=own)
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    partial.rename(folder)
    return folder


SIZES = {
    "small": {"hidden": 384, "layers": 5, "vocabulary": 30522, "count": 8},
    "large": {"hidden": 1536, "layers": 12, "vocabulary": 32000, "count": 2},
    "memory": {"hidden": 1536, "layers": 12, "vocabulary": 32000, "count": 8},
}


def config_of(method: str, base: Path, models: list[Path]) -> dict[str, Any]:
    """mergekit's YAML, which both read."""
    if method == "linear":
        return {"merge_method": "linear", "models": [{"model": str(m), "parameters": {"weight": 1}} for m in models]}
    if method == "slerp":
        pair = [{"model": str(each)} for each in models[:2]]
        return {"merge_method": "slerp", "base_model": str(models[0]), "models": pair, "parameters": {"t": 0.5}}
    options = {"weight": 0.5} | ({"density": 0.2} if method == "ties" else {})
    return {
        "merge_method": method,
        "base_model": str(base),
        "models": [{"model": str(each), "parameters": options} for each in models],
    }


#: What each arm's process does: get ready, then one run for each line of arguments.
SUREFOOT = """
    from surefoot.merge import layers, mergekit_yaml, merging
    from surefoot.registry import methods
    import surefoot.files
    methods("merge")
    sync = surefoot.files._sync
    def work(config, out, synced):
        surefoot.files._sync = sync if synced else lambda path: None
        merging.merge_config(config, out=out)
"""
MERGEKIT = """
    import yaml
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    options = MergeOptions(quiet=True, write_model_card=False, copy_tokenizer=False, device="cpu")
    def work(config, out):
        run_merge(MergeConfiguration.model_validate(yaml.safe_load(open(config))), out, options)
"""
COPYING = """
    import os
    buffer = memoryview(bytearray(1 << 22))
    def work(inputs, out, size):
        os.makedirs(out)
        for path in inputs:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        with open(os.path.join(out, "copy"), "wb", buffering=0) as file:
            for _ in range(size >> 22):
                file.write(buffer)
"""
LOOP = """
    import json, sys, time
    said, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        arguments = json.loads(line)
        open("/proc/self/clear_refs", "w").write("5")  # peak memory is counted from here
        began, worked = time.perf_counter(), time.process_time()
        work(*arguments)
        spent = time.perf_counter() - began, time.process_time() - worked
        peak = next(int(each.split()[1]) for each in open("/proc/self/status") if "VmHWM" in each)
        print(json.dumps([*spent, 1024 * peak]), file=said, flush=True)
"""


@dataclass(frozen=True)
class Ran:
    """Seconds by the clock and of processor time, and bytes of peak memory."""

    seconds: float
    processor: float
    memory: int


class Arm:
    """A process of its own, which starts once and then does one run after another."""

    def __init__(self, code: str, out: Path) -> None:
        self.out = out
        script = textwrap.dedent(code) + textwrap.dedent(LOOP)
        self.process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, first: Any, *others: Any) -> Ran:
        """One run; what it wrote is removed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        shutil.rmtree(self.out, ignore_errors=True)
        self.process.stdin.write(json.dumps([first, str(self.out), *others]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        shutil.rmtree(self.out, ignore_errors=True)
        if not line:
            raise SystemExit("an arm failed: see above")
        return Ran(*json.loads(line))

    def close(self) -> None:
        self.process.communicate()


def checkpoints(size: str, store: Path) -> tuple[Path, list[Path]]:
    """The base and the tuned models, made where they are not there."""
    facts = dict(SIZES[size])
    count = facts.pop("count")
    made = SIZES["large"]["count"] if size == "memory" else count
    need = (made + 2) * (2.2 * GB if size != "small" else 0.15 * GB)
    place = store / ("small" if size == "small" else "large")
    place.mkdir(exist_ok=True)
    if not place.joinpath(f"m{made}").is_dir() and shutil.disk_usage(store).free < need:
        raise SystemExit(f"{store}: {need / GB:.0f} GB are needed; choose another --store")
    base, *models = [make_llama(place / f"m{number}", **facts, seed=number) for number in range(made + 1)]
    for number in range(made + 1, count + 1):
        link = place / f"m{number}"
        if not link.is_dir():
            shutil.copytree(models[number % made], link, copy_function=os.link)
        models.append(link)
    return base, models


def measure(size: str, store: Path, rounds: int) -> dict[str, Any]:
    """All arms of one size, in turn."""
    base, models = checkpoints(size, store)
    rounds = rounds if size != "memory" else 1
    written = (base / "model.safetensors").stat().st_size
    facts: dict[str, Any] = {"checkpoints": len(models), "bytes_each": written}
    found: dict[str, Any] = facts | {"methods": {}}
    codes = {"surefoot": SUREFOOT} | ({"copying": COPYING, "mergekit": MERGEKIT} if size != "memory" else {})
    arms = {name: Arm(code, store / "out") for name, code in codes.items()}
    for method in METHODS if size != "memory" else ("linear", "task_arithmetic", "ties"):
        path = store / f"{method}.yaml"
        config = config_of(method, base, models)
        path.write_text(json.dumps(config))
        used = sorted(
            {each["model"] for each in config["models"]} | {config.get("base_model", config["models"][0]["model"])}
        )
        inputs = [f"{each}/model.safetensors" for each in used]
        runs: dict[str, list[Ran]] = {}
        for _ in range(rounds):
            if size != "memory":  # first, so that the others find the inputs in the page cache
                runs.setdefault("copying", []).append(arms["copying"](inputs, written))
            runs.setdefault("surefoot_unsynced", []).append(arms["surefoot"](str(path), False))
            if size != "memory":
                runs.setdefault("surefoot", []).append(arms["surefoot"](str(path), True))
                runs.setdefault("mergekit", []).append(arms["mergekit"](str(path)))
        largest = SIZES[size]["vocabulary"] * SIZES[size]["hidden"] * 4
        found["methods"][method] = {
            "rounds": rounds,
            "seconds": {name: round(statistics.median(each.seconds for each in own), 3) for name, own in runs.items()},
            "peak_memory": {name: max(each.memory for each in own) for name, own in runs.items()},
            "allowed_memory": round(1.3 * largest * len(inputs) + 300e6),
        }
        if size != "memory":
            found["methods"][method] |= {
                "over_mergekit": ratio(runs["mergekit"], runs["surefoot"]),
                "unsynced_over_mergekit": ratio(runs["mergekit"], runs["surefoot_unsynced"]),
                "of_copying": ratio(runs["surefoot_unsynced"], runs["copying"]),
            }
        print(size, method, json.dumps(found["methods"][method]), flush=True)
        save(size, found)
    for each in arms.values():
        each.close()
    return found


def save(size: str, found: dict[str, Any]) -> None:
    """Into the results, beside those of other sizes, after every method."""
    from surefoot.environment import environment
    from surefoot.files import write_json

    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    when = {"load": round(os.getloadavg()[0], 1), "when": time.strftime("%Y-%m-%d")}
    write_json(RESULTS, known | {size: found, "environment": environment() | when})


def ratio(first: list[Ran], second: list[Ran]) -> dict[str, Any]:
    """Of the first's time to the second's, round by round."""
    seconds = [a.seconds / b.seconds for a, b in zip(first, second, strict=True)]
    processor = statistics.median(a.processor / b.processor for a, b in zip(first, second, strict=True))
    ends = [round(min(seconds), 2), round(max(seconds), 2)]
    return {"median": round(statistics.median(seconds), 2), "range": ends, "processor": round(processor, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="leave the synthetic checkpoints where they are")
    options = parser.parse_args()
    options.store.mkdir(parents=True, exist_ok=True)
    try:
        for size in options.sizes:
            measure(size, options.store, options.rounds)
    finally:
        if not options.keep:
            for name in ("small", "large", "out"):
                shutil.rmtree(options.store / name, ignore_errors=True)


if __name__ == "__main__":
    main()
