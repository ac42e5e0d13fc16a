"""Merging from disk to disk: each tensor, or part of one, is read, merged and appended to the output.

The header of a safetensors file says where each tensor lies, and a plan knows all shapes beforehand: so the header is
written first and the tensors behind it as they come. No shard is held in memory.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from surefoot.errors import ModelError
from surefoot.files import write_json
from surefoot.merge.checkpoint import DTYPES
from surefoot.merge.combine import Piece, computed
from surefoot.merge.plan import HELD, PIECE, Planned, Source

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
Advance = Callable[[int], None]


def write_tensors(
    tensors: Sequence[Planned], folder: Path, *, stem: str = "model", shard: int = 5_000_000_000, advance: Advance
) -> list[Path]:
    """Merge the planned tensors into `folder`: STEM.safetensors, or shards of at most so many bytes with their index.

    advance: called with the bytes that were merged. Raises ModelError at the first tensor that is not finite.
    """
    shards: list[list[Planned]] = [[]]
    filled = 0
    for each in tensors:
        if shards[-1] and filled + each.bytes > shard:
            shards.append([])
            filled = 0
        shards[-1].append(each)
        filled += each.bytes
    total = len(shards)
    names = (
        [f"{stem}.safetensors"]
        if total == 1
        else [f"{stem}-{number:05d}-of-{total:05d}.safetensors" for number in range(1, total + 1)]
    )
    for name, part in zip(names, shards, strict=True):
        _write_file(part, folder / name, advance)
    if total > 1:
        places = {each.name: name for name, part in zip(names, shards, strict=True) for each in part}
        facts = {"metadata": {"total_size": sum(each.bytes for each in tensors)}, "weight_map": places}
        write_json(folder / f"{stem}.safetensors.index.json", facts)
    return [folder / name for name in names]


def _write_file(tensors: Sequence[Planned], path: Path, advance: Advance) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for each in tensors:
        begin, end = end, end + each.bytes
        header[each.name] = {"dtype": _NAMES[each.dtype], "shape": list(each.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of eight bytes
    with open(path, "wb", buffering=0) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    begins = dict(zip([each.name for each in tensors], _begins(tensors, 8 + len(text)), strict=True))

    def write(planned: Planned) -> None:
        with open(path, "r+b", buffering=0) as file:
            file.seek(begins[planned.name])
            for piece in merged(planned):
                _append(file, piece.to(planned.dtype))
                advance(piece.numel() * planned.dtype.itemsize)
            for source in (*planned.tuned, *([planned.base] if planned.base else [])):
                source.checkpoint.release(source.name)

    # Tensors are merged side by side, each in one thread: pieces are too small to be worth several.
    with _threads() as pool:
        jobs = [pool.submit(write, each) for each in sorted(tensors, key=lambda each: -each.bytes)]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begins(tensors: Sequence[Planned], first: int) -> list[int]:
    """The first byte of each tensor in the file."""
    return [first, *(first + int(each) for each in itertools.accumulate(each.bytes for each in tensors))][:-1]


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """As many workers as torch has threads, in each of which torch has one."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count) as pool:
            yield pool
    finally:
        torch.set_num_threads(count)


def _append(file: BinaryIO, piece: Tensor) -> None:
    view = memoryview(piece.contiguous().view(torch.uint8).numpy().data) if piece.numel() else memoryview(b"")
    while view:
        view = view[file.write(view) :]


def merged(planned: Planned) -> Iterator[Tensor]:
    """The merged tensor, flat, part by part."""
    if planned.count == 0:
        return
    if planned.combine is None:
        for (part,), _ in _parts(planned.tuned[:1], None):
            yield part
        return
    if not planned.combine.by_pieces:
        tuned = [each.checkpoint.tensor(each.name) for each in planned.tuned]
        base = planned.base.checkpoint.tensor(planned.base.name) if planned.base else None
        whole = planned.combine.tensor(tuned, base, name=planned.name)
        yield _checked(whole.flatten(), planned)
        return

    def parts() -> Iterator[Piece]:
        return _parts(planned.tuned, planned.base)

    measured = planned.combine.measure(parts, name=planned.name)
    for each, start in parts():
        yield _checked(planned.combine.piece(each, start, measured), planned)


def _parts(tuned: Sequence[Source], base: Source | None) -> Iterator[Piece]:
    """Views of the files, of which at most HELD bytes stay in memory, or all where that is less."""
    sources = (*tuned, *([base] if base is not None else []))
    count = tuned[0].stored.count
    window = max(PIECE, HELD // sum(each.stored.dtype.itemsize for each in sources) // PIECE * PIECE)
    for start in range(0, count, window):
        end = min(start + window, count)
        for each in sources:
            each.checkpoint.expect(each.name, start, end - start)
        for begin in range(start, end, PIECE):
            size = min(PIECE, end - begin)
            views = [each.checkpoint.view(each.name, begin, size) for each in sources]
            views = [computed(each) if each.is_floating_point() else each for each in views]
            yield views[: len(tuned)], views[-1] if base is not None else None
        if window < count:
            for each in sources:
                each.checkpoint.release(each.name, start, end - start)


def _checked(piece: Tensor, planned: Planned) -> Tensor:
    """A sum is finite only if all that is summed is; where it is not, say whose weights are to blame."""
    if math.isfinite(float(piece.sum())) or bool(piece.isfinite().all()):
        return piece
    for source in (*planned.tuned, *([planned.base] if planned.base else [])):
        if not bool(source.checkpoint.tensor(source.name).isfinite().all()):
            raise ModelError(
                f"{source.checkpoint.name}: `{source.name}` holds NaN or infinite weights: that training failed; leave the model out"
            )
    raise ModelError(f"`{planned.name}` is not finite when merged, though its inputs are: choose smaller coefficients")
