"""Run the pages and write what their blocks print into them: `python docs/generate/outputs.py [PAGE...]`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from generate.blocks import DOCS, OUTPUT, PAGES, WRITTEN_ON, Page, clean, difference
from surefoot.environment import processor


def write_outputs(path: Path) -> None:
    """Run one page and put the outputs beneath the blocks that print something."""
    text = path.read_text("utf8")
    with tempfile.TemporaryDirectory() as folder:
        printed = list(Page(path, Path(folder)).run())
    # From the end, so that places before stay where they are.
    for block, output in reversed(printed):
        if block.output is not None and difference(block.output, output) is None:
            continue  # it differs in times alone, or by rounding
        shown = f"\n\n{OUTPUT}{clean(output)}```" if clean(output) else ""
        text = text[: block.end] + shown + text[block.output_end :]
    path.write_text(WRITTEN_ON.sub(f"<!-- outputs: {processor()} -->", text), "utf8")


def main() -> None:
    for name in sys.argv[1:] or PAGES:
        started = time.perf_counter()
        write_outputs(DOCS / name)
        print(f"{name}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
