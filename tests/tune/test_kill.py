"""SIGKILL at random moments of training and writing: the rerun ends with the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[3])
torch.set_num_threads(1)
from conftest import examples
from surefoot import Recipe, load
from surefoot.tune import run
from surefoot.tune.checkpoint import Checkpoint
run.Checkpoint = lambda path: Checkpoint(path, every=0.0)  # after every step: many of the kills fall into the writing
print("ready", flush=True)
recipe = Recipe(epochs=12, batch_size=4, precision="float32", optimizer={"name": "sam"}, objectives={"cross_entropy": 1, "elr": 0.5})
recipe.fit(load(sys.argv[1]), examples(160), out=sys.argv[2])
"""


def start(model: Path, out: Path) -> subprocess.Popen:
    tests = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(model), str(out), tests],
        stdout=subprocess.PIPE,
        env=os.environ | {"SUREFOOT_CACHE": str(out.parent / "cache")},
    )


def digest(out: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((out / "model").glob("*.safetensors"))
    }


def test_ten_kills_change_nothing(bert_folder: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    undisturbed = start(bert_folder, tmp_path / "whole")
    undisturbed.stdout.readline()  # type: ignore[union-attr]
    ready = time.monotonic()
    assert undisturbed.wait() == 0
    length = time.monotonic() - ready
    assert time.monotonic() - begun < 120
    rng = random.Random(0)
    kills = 0
    for _ in range(40):
        process = start(bert_folder, tmp_path / "killed")
        process.stdout.readline()  # type: ignore[union-attr]
        time.sleep(rng.uniform(0.0, length / 4))
        if process.poll() is None and kills < 10:
            process.send_signal(signal.SIGKILL)
            kills += 1
        if process.wait() == 0:
            break
    assert kills == 10
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    left = [path.name for path in (tmp_path / "killed").iterdir() if path.name.startswith(".")]
    assert left == [], "nothing half-written stays behind"
