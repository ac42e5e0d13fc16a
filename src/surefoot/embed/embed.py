"""A corpus to a folder of vectors: streamed, resumable to the shard, each distinct text of a window once."""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surefoot.embed.corpus import Corpus, Window
from surefoot.embed.encoder import Encoder
from surefoot.embed.quantize import Quantization, check_quantization, quantize, value_ranges
from surefoot.embed.shards import Format, Shards
from surefoot.errors import RunError
from surefoot.models.model import Model
from surefoot.progress import Progress, Silent

#: Rows of a shard, which is also the window within which texts are sorted by length and looked up: 25 MB of MiniLM.
SHARD_ROWS = 16384
#: Rows after which freed memory goes back to the system.
GIVEN_BACK = 1024


@dataclass(frozen=True)
class Embedded:
    """What `embed_corpus` has written. Rows without a vector are in `skipped`; the other counts are of all shards."""

    folder: Path
    rows: int
    distinct: int
    truncated: int
    chunked: int
    skipped: int
    width: int
    resumed: int

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def embed_corpus(
    encoder: Encoder,
    corpus: Corpus,
    folder: str | Path,
    *,
    quantization: Quantization | None = None,
    shard_rows: int = SHARD_ROWS,
    format: Format = "parquet",
    progress: Progress | None = None,
) -> Embedded:
    """Write the vectors of a corpus to `folder`, where shards that an earlier call left stay as they are.

    quantization: int8 or uint8, with the ranges of the first window, or binary or ubinary (see `quantize`). shard_rows:
    rows of a shard; memory grows with it, and a little with the length of the corpus (docs/embed.md). format: "parquet" (columns `id`, `embedding`) or "npy"
    (vectors-00000.npy beside ids-00000.npy). The folder's embed.json says what the vectors are made of.

    Raises RunError where the folder holds something else, or vectors of another model, pooling, corpus or setting.
    """
    check_quantization(quantization)
    if shard_rows < 1 or format not in ("parquet", "npy"):
        raise RunError(f"shards of {shard_rows} rows as `{format}`: write at least one row, as parquet or npy")
    facts = describe(encoder) | {
        "quantize": quantization,
        "corpus": corpus.fingerprint,
        "rows": corpus.rows,
        "skipped": len(corpus.skipped),
        "shard_rows": shard_rows,
        "format": format,
    }
    shards = Shards.open(folder, facts)
    resumed = shards.total("rows")
    advance = (progress or Silent()).start("rows", corpus.rows)
    advance(resumed)
    # The first window calibrates the bytes of all others, also when a later one is all that is missing.
    for window in corpus.windows(shard_rows, wanted=lambda number: number not in shards.done):
        vectors, counts = _encode(encoder, window, advance)
        if quantization is not None:
            if quantization.endswith("int8") and "ranges" not in shards.facts:
                shards.facts["ranges"] = value_ranges(vectors).tolist()
            ranges = np.array(shards.facts["ranges"], dtype=np.float32) if "ranges" in shards.facts else None
            vectors = quantize(vectors, quantization, ranges=ranges)
        shards.write(window.number, window.ids, vectors, counts)
    counted = {name: shards.total(name) for name in ("rows", "distinct", "truncated", "chunked")}
    return Embedded(shards.folder, **counted, skipped=len(corpus.skipped), width=encoder.dim, resumed=resumed)


def _give_back() -> None:
    """Freed memory, to the system: buffers of ever other sizes leave glibc's heap full of holes, by 100 MB
    in 16,384 rows."""
    with suppress(OSError, AttributeError):  # another C library keeps fewer, and has no such call
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _encode(encoder: Encoder, window: Window, advance: Callable[[int], None]) -> tuple[np.ndarray, dict[str, int]]:
    """A window's vectors, and what happened to its texts; the bar moves with the rows."""
    rows = len(window.texts)
    moved = 0

    class Rows:
        def start(self, label: str, total: int) -> Callable[[int], None]:
            seen = 0

            def move(count: int) -> None:
                nonlocal seen, moved
                seen += count
                step = rows * seen // max(total, 1) - moved
                if (moved + step) // GIVEN_BACK > moved // GIVEN_BACK:
                    _give_back()
                moved += step
                advance(step)

            return move

    before = asdict(encoder.counts)
    vectors = encoder.encode(window.texts, progress=Rows())
    advance(rows - moved)
    after = asdict(encoder.counts)
    return vectors, {name: after[name] - before[name] for name in ("distinct", "truncated", "chunked")}


def describe(encoder: Encoder) -> dict[str, Any]:
    """What the vectors of an encoder depend on, for embed.json."""
    model = encoder.model
    return {
        "model": model.name,
        "weights": weights_digest(model),
        "pooling": model.pool if isinstance(model.pool, str) else json.dumps(model.pool, sort_keys=True, default=repr),
        "dtype": encoder.dtype,
        "backend": encoder.backend.name,
        "dim": encoder.dim,
        "normalize": encoder.normalize,
        "max_length": encoder.max_length,
        "chunk": encoder.chunk,
    }


def weights_digest(model: Model) -> str:
    """Sixteen hexadecimal digits of the backbone's and the pooling's weights, and of the tokenizer's words."""
    digest = hashlib.sha256()
    for part in (model.backbone, model.pooling):
        if not isinstance(part, torch.nn.Module):
            continue
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    words: Any = getattr(model.processor, "tokenizer", None)
    digest.update(json.dumps(sorted(words.get_vocab().items())).encode() if words is not None else b"")
    return digest.hexdigest()[:16]
