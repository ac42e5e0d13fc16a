"""Smaller vectors: a byte or a bit for each number."""

from __future__ import annotations

from typing import Literal

import numpy as np

from surefoot.errors import ModelError, nearest

Quantization = Literal["int8", "uint8", "binary", "ubinary"]
QUANTIZATIONS = ("int8", "uint8", "binary", "ubinary")


def check_quantization(name: str | None) -> None:
    """Raise ModelError for a name that is none."""
    if name is not None and name not in QUANTIZATIONS:
        raise ModelError(f"unknown quantization `{name}`: {nearest(name, QUANTIZATIONS)}")


def value_ranges(vectors: np.ndarray) -> np.ndarray:
    """(2, D) float32: the least and the greatest value of each dimension of (N, D) vectors."""
    return np.stack([vectors.min(0), vectors.max(0)]).astype(np.float32)


def quantize(vectors: np.ndarray, how: Quantization, *, ranges: np.ndarray | None = None) -> np.ndarray:
    """(N, D) float32 to (N, D) of a byte, or (N, ceil(D / 8)) of eight bits a byte.

        int8:   floor((v - low) / ((high - low) / 255)) - 128, cut to [-128, 127];  uint8 without the 128
        binary: [v > 0], eight dimensions a byte, the first the highest bit, less 128;  ubinary without that

    ranges: (2, D), low and high of each dimension; by default those of these vectors, which is only right where they
    are all there will be. Equal to `sentence_transformers.quantize_embeddings`, so that its searches read them; values
    outside the ranges are cut to their ends. Raises ModelError for another name, or one vector without ranges.

    >>> quantize(np.array([[0.5, -1.0, 0.1]], dtype=np.float32), "ubinary")
    array([[160]], dtype=uint8)
    """
    check_quantization(how)
    if how.endswith("binary"):
        bits = np.packbits(vectors > 0, axis=-1)
        return bits if how == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if ranges is None:
        if len(vectors) < 2:
            raise ModelError(
                f"{how} needs the ranges of the values, which one vector does not show: give more, or ranges"
            )
        ranges = value_ranges(vectors)
    low = ranges[0].astype(np.float32)
    steps = (ranges[1].astype(np.float32) - low) / 255
    steps = np.where(steps == 0, 1, steps)
    levels: np.ndarray = np.clip(np.floor((vectors - low) / steps), 0, 255)
    return levels.astype(np.uint8) if how == "uint8" else (levels - 128).astype(np.int8)
