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
from surefoot.models.template import Template

#: The input that says which tokens are pooled, where not all are: for the model's pooling and not for its backbone.
POOL_MASK = "pool_mask"


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
    """Token ids of N texts, one after another, with the offsets (N + 1,) where each begins.

    pooled: (N, 2), from where to where in each row the tokens are pooled; None where all are.
    """

    ids: np.ndarray
    offsets: np.ndarray
    pad: int
    truncated: int
    pooled: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.lengths = np.diff(self.offsets)
        digest = hashlib.sha256(self.ids.tobytes() + self.offsets.tobytes())
        if self.pooled is not None:
            digest.update(self.pooled.tobytes())
        self.fingerprint = digest.hexdigest()

    def collate(self, index: np.ndarray) -> dict[str, Tensor]:
        lengths = self.lengths[index]
        width = int(lengths.max())
        mask = np.arange(width) < lengths[:, None]
        ids = np.full((len(index), width), self.pad, dtype=np.int64)
        ids[mask] = np.concatenate([self.ids[self.offsets[i] : self.offsets[i + 1]] for i in index])
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        if self.pooled is not None:
            places, (begin, end) = np.arange(width), self.pooled[index].T
            inputs[POOL_MASK] = torch.from_numpy(
                ((places >= begin[:, None]) & (places < end[:, None])).astype(np.int64)
            )
        return inputs


class TextProcessor:
    """A tokenizer with the length that the model reads at most.

    template: what is written around every text; `max_length` then holds for each copy of the text.
    """

    modality = "text"

    def __init__(self, tokenizer: Any, *, max_length: int, template: Template | None = None) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.template = template
        if tokenizer.pad_token_id is None:
            # Causal models often have none; padded positions are masked, so that any token serves.
            tokenizer.pad_token = tokenizer.eos_token
        # Padding is ours (by bucket), and a backend that still pads would make every text as long as the longest.
        tokenizer.padding_side = "right"

    def encode(self, inputs: Sequence[str], *, max_length: int | None = None) -> EncodedText:
        limit = min(max_length or self.max_length, self.max_length)
        if self.template is not None and len(inputs):
            return self._around(list(inputs), self.template, limit)
        rows = self._tokens(list(inputs), limit) if len(inputs) else []
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        if len(lengths) and lengths.min() == 0:
            raise DataError(
                f"row {int(lengths.argmin()) + 1}: the tokenizer finds no token in the text {inputs[int(lengths.argmin())]!r}: drop the row or mend the text"
            )
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]) if rows else np.zeros(0, np.int32)
        return EncodedText(ids, offsets, self.tokenizer.pad_token_id, int((lengths == limit).sum()))

    def _tokens(self, inputs: list[str], limit: int, *, special: bool = True) -> list[list[int]]:
        rows: list[list[int]] = self.tokenizer(
            inputs,
            truncation=True,
            max_length=limit,
            add_special_tokens=special,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return rows

    def _around(self, inputs: list[str], template: Template, limit: int) -> EncodedText:
        """The inputs inside the template, each copy cut at `limit` tokens."""
        around = template.around(self.tokenizer)
        read = {
            spaced: self._tokens([f" {each}" for each in inputs] if spaced else inputs, limit, special=False)
            for spaced in set(around.spaced)
        }
        rows, pooled, cut = [], np.empty((len(inputs), 2), dtype=np.int64), 0
        for number, text in enumerate(inputs):
            copies = [np.asarray(read[spaced][number], dtype=np.int32) for spaced in around.spaced]
            if not len(copies[-1]):
                raise DataError(
                    f"row {number + 1}: the tokenizer finds no token in the text {text!r}: drop the row or mend the text"
                )
            whole, begin, end = around.row(copies)
            rows.append(whole)
            pooled[number] = begin, end
            cut += len(copies[-1]) == limit
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        return EncodedText(np.concatenate(rows), offsets, self.tokenizer.pad_token_id, cut, pooled)

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
