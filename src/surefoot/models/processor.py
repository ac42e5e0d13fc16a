"""From raw examples to padded tensors: tokenised once, collated by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from surefoot.errors import DataError


class Encoded(Protocol):
    """Examples ready to be collated. `lengths` (N,) is what batches are bucketed by."""

    lengths: np.ndarray
    fingerprint: str
    truncated: int

    def collate(self, index: np.ndarray) -> dict[str, Tensor]:
        """The model's inputs for those examples."""


class Processor(Protocol):
    """What turns an `Examples.inputs` into `Encoded`; `modality` is the one it reads."""

    modality: str

    def encode(self, inputs: Any, *, max_length: int | None = None) -> Encoded: ...

    def save(self, folder: Path) -> None: ...


@dataclass
class EncodedText:
    """Token ids of N texts, one after another, with the offsets (N + 1,) where each begins."""

    ids: np.ndarray
    offsets: np.ndarray
    pad: int
    truncated: int

    def __post_init__(self) -> None:
        self.lengths = np.diff(self.offsets)
        self.fingerprint = hashlib.sha256(self.ids.tobytes() + self.offsets.tobytes()).hexdigest()

    def collate(self, index: np.ndarray) -> dict[str, Tensor]:
        lengths = self.lengths[index]
        width = int(lengths.max())
        mask = np.arange(width) < lengths[:, None]
        ids = np.full((len(index), width), self.pad, dtype=np.int64)
        ids[mask] = np.concatenate([self.ids[self.offsets[i] : self.offsets[i + 1]] for i in index])
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


class TextProcessor:
    """A tokenizer with the length that the model reads at most."""

    modality = "text"

    def __init__(self, tokenizer: Any, *, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        if tokenizer.pad_token_id is None:
            # Causal models often have none; padded positions are masked, so that any token serves.
            tokenizer.pad_token = tokenizer.eos_token
        # Padding is ours (by bucket), and a backend that still pads would make every text as long as the longest.
        tokenizer.padding_side = "right"

    def encode(self, inputs: Sequence[str], *, max_length: int | None = None) -> EncodedText:
        limit = min(max_length or self.max_length, self.max_length)
        rows = (
            self.tokenizer(
                list(inputs),
                truncation=True,
                max_length=limit,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )["input_ids"]
            if len(inputs)
            else []
        )
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        if len(lengths) and lengths.min() == 0:
            raise DataError(
                f"row {int(lengths.argmin()) + 1}: the tokenizer finds no token in the text {inputs[int(lengths.argmin())]!r}: drop the row or mend the text"
            )
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]) if rows else np.zeros(0, np.int32)
        return EncodedText(ids, offsets, self.tokenizer.pad_token_id, int((lengths == limit).sum()))

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)


@dataclass
class EncodedImages:
    """Images, processed batch by batch: N processed images rarely fit in memory where N raw ones do."""

    images: Any
    processor: Any
    fingerprint: str
    truncated: int = 0

    def __post_init__(self) -> None:
        self.lengths = np.ones(len(self.images), dtype=np.int64)

    def collate(self, index: np.ndarray) -> dict[str, Tensor]:
        images = [self._rgb(self.images[i]) for i in index]
        return {"pixel_values": self.processor(images=images, return_tensors="pt")["pixel_values"]}

    @staticmethod
    def _rgb(image: Any) -> Any:
        from PIL import Image

        if isinstance(image, np.ndarray):
            image = Image.fromarray(image.astype(np.uint8))
        return image.convert("RGB")


class ImageProcessor:
    """An image processor of `transformers`."""

    modality = "image"

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def encode(self, inputs: Any, *, max_length: int | None = None) -> EncodedImages:
        digest = hashlib.sha256(self.processor.to_json_string().encode())
        for image in inputs:
            digest.update(np.asarray(image).tobytes())
        return EncodedImages(inputs, self.processor, digest.hexdigest())

    def save(self, folder: Path) -> None:
        self.processor.save_pretrained(folder)


@dataclass
class EncodedFeatures:
    """Numbers that a plain module reads: (N, ...) float32."""

    values: np.ndarray
    truncated: int = 0

    def __post_init__(self) -> None:
        self.lengths = np.ones(len(self.values), dtype=np.int64)
        self.fingerprint = hashlib.sha256(np.ascontiguousarray(self.values).tobytes()).hexdigest()

    def collate(self, index: np.ndarray) -> dict[str, Tensor]:
        return {"features": torch.from_numpy(self.values[index])}


class FeatureProcessor:
    """Arrays as they are, for `Model.from_module`."""

    modality = "features"

    def encode(self, inputs: Any, *, max_length: int | None = None) -> EncodedFeatures:
        return EncodedFeatures(np.asarray(inputs, dtype=np.float32))

    def save(self, folder: Path) -> None:
        """Nothing to save: the arrays come from the caller."""
