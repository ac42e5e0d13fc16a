"""Twenty SIGKILLs at random moments of a MiniLM training that keeps every step: the same weights in the end.

python benchmarks/kill.py          # about ten minutes on two cores
"""

from __future__ import annotations

import hashlib
import itertools
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

class Loud(Checkpoint):
    def restore(self, fit):
        begin = super().restore(fit)
        print("begin", begin, flush=True)
        return begin
    def save(self, fit):
        super().save(fit)
        print("saved", flush=True)

run.Checkpoint = lambda path: Loud(path, every=0.0)
train = load_task("reviews", train_size=640).train
Recipe(max_length=64, epochs=4, head="random").fit(load("minilm"), train, out=sys.argv[1])
"""


def start(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out)], stdout=subprocess.PIPE, text=True)


def digest(out: Path) -> str:
    return hashlib.sha256(
        b"".join(path.read_bytes() for path in sorted((out / "model").glob("*.safetensors")))
    ).hexdigest()


def main() -> None:
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        start(whole).communicate()
        begins = []
        for kill in range(KILLS + 1):
            process = start(killed)
            begins.append(int(process.stdout.readline().split()[1]))
            if kill == KILLS:
                process.communicate()
                break
            for _ in range(rng.randrange(1, 4)):
                process.stdout.readline()
            time.sleep(rng.uniform(0.0, 1.0))
            process.send_signal(signal.SIGKILL)
            process.wait()
        equal = digest(whole) == digest(killed) and process.returncode == 0
    resumed = all(later > earlier for earlier, later in itertools.pairwise(begins))
    result = {"kills": KILLS, "began_at_steps": begins, "each_went_further": resumed, "equal": equal}
    write_json(Path(__file__).parent / "results" / "kill.json", result | {"environment": environment()})
    print(json.dumps(result))
    sys.exit(0 if equal and resumed else 1)


if __name__ == "__main__":
    main()
