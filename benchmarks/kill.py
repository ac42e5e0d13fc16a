"""Twenty SIGKILLs at random moments of a MiniLM training, checkpoint after every few steps: the same weights in the end.

python benchmarks/kill.py          # about ten minutes on two cores
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from surefoot.environment import environment
from surefoot.files import write_json

KILLS = 20
SCRIPT = """
import sys
from surefoot import Recipe, load, load_task
from surefoot.tune import run
from surefoot.tune.checkpoint import Checkpoint
run.Checkpoint = lambda path: Checkpoint(path, every=0.5)
train = load_task("reviews", train_size=640).train
Recipe(max_length=64, epochs=4, head="random").fit(load("minilm"), train, out=sys.argv[1])
"""


def start(out: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out)])


def digest(out: Path) -> str:
    return hashlib.sha256(
        b"".join(path.read_bytes() for path in sorted((out / "model").glob("*.safetensors")))
    ).hexdigest()


def main() -> None:
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        begun = time.monotonic()
        if start(whole).wait():
            sys.exit("the undisturbed training failed")
        length = time.monotonic() - begun
        kills, done, checkpoints = 0, False, 0
        while not done:
            process = start(killed)
            if kills < KILLS:
                time.sleep(rng.uniform(0.25, 0.75) * length if kills else 0.3 * length)
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    checkpoints += (killed / "checkpoint.safetensors").exists()
            done = process.wait() == 0
        equal = digest(whole) == digest(killed)
    result = {
        "kills": kills,
        "with_a_checkpoint": checkpoints,
        "equal": equal,
        "undisturbed_seconds": round(length, 1),
        "environment": environment(),
    }
    write_json(Path(__file__).parent / "results" / "kill.json", result)
    print(json.dumps({key: value for key, value in result.items() if key != "environment"}))
    sys.exit(0 if equal and kills == KILLS else 1)


if __name__ == "__main__":
    main()
