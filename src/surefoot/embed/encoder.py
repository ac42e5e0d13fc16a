"""`Encoder`: texts to vectors, as fast as the machine does it without changing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from surefoot.embed.backends import Backend, open_backend
from surefoot.embed.modules import Dense, Normalize, read_modules
from surefoot.embed.tokens import Chunks, tokenise
from surefoot.errors import DataError, ModelError
from surefoot.models.batching import evaluation_batches
from surefoot.models.model import Model
from surefoot.models.precision import has_bfloat16
from surefoot.progress import Progress, Silent

Dtype = Literal["auto", "float32", "bfloat16", "int8"]
DTYPES = ("auto", "float32", "bfloat16", "int8")


@dataclass
class Counts:
    """What happened to texts so far: how many there were, how many of them differ, were cut, were read in chunks."""

    texts: int = 0
    distinct: int = 0
    truncated: int = 0
    chunked: int = 0


class Encoder:
    """Texts to vectors (N, D) float32: distinct texts once, in batches of like length, without padding where it can.

        v = normalise(pool(backbone(text))[:dim])

    model: what `load` opens; its pooling and the text that it writes around an input (echo) are its own.
    dtype: of the matrix products. "float32" (default), "bfloat16", "int8", or "auto": bfloat16 where the processor has
    it, float32 elsewhere. dim: keep the first `dim` numbers of each vector and scale what is left to unit length, as
    models of Matryoshka training want it; all by default. normalize: scale vectors to unit length; by default where the
    model's own folder ends with that (a SentenceTransformer with a Normalize module; its Dense modules run in any case). max_length: most tokens read of a
    text, at most what the model reads. chunk: read a longer text in pieces of that length, its vector the mean of
    theirs; otherwise it is cut, and `counts.truncated` says how many were. backend: "torch", "onnx" or "openvino".

    `encode` raises DataError for a text that is no string, is empty or blank, or in which the tokenizer finds nothing;
    the constructor ModelError for a model that reads no text, an unknown dtype or backend, or a width the model does not
    have. Reference for the cut: Kusupati et al. 2022, Matryoshka Representation Learning.
    """

    def __init__(
        self,
        model: Model,
        *,
        dtype: Dtype = "float32",
        dim: int | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        chunk: bool = False,
        backend: str = "torch",
    ) -> None:
        if model.processor.modality != "text":
            raise ModelError(f"`{model.name}` reads {model.processor.modality}, not text: choose a model of texts")
        if dtype not in DTYPES:
            raise ModelError(f"unknown dtype `{dtype}`: known: {', '.join(f'`{each}`' for each in DTYPES)}")
        if dtype == "auto":
            dtype = "bfloat16" if has_bfloat16(model.device.type) else "float32"
        modules = list(read_modules(model))
        self.width = next(
            (each.linear.out_features for each in reversed(modules) if isinstance(each, Dense)), model.dim
        )
        if dim is not None and not 1 <= dim <= self.width:
            raise ModelError(
                f"dim {dim}: a vector of `{model.name}` has {self.width} numbers: choose from 1 to {self.width}"
            )
        if max_length is not None and max_length < 1:
            raise ModelError(f"max_length {max_length}: a text has at least one token: choose 1 or more")
        processor: Any = model.processor
        self.model = model.eval()
        self.dtype: Dtype = dtype
        self.dim = dim or self.width
        ends = any(isinstance(each, Normalize) for each in modules[-1:])
        self.normalize = (ends or model.normalize) if normalize is None else normalize
        self.modules = torch.nn.Sequential(*(modules[:-1] if ends else modules))
        self.max_length = min(max_length or processor.max_length, processor.max_length)
        self.chunk = chunk
        self.counts = Counts()
        self.backend: Backend = open_backend(backend, model, dtype)

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """(N, D) float32, row i for text i; a single string is a list of one."""
        texts = [texts] if isinstance(texts, str) else texts
        distinct = check_texts(texts)
        found = self._vectors(list(distinct), progress or Silent())
        self.counts.texts += len(texts)
        if len(distinct) == len(texts):
            return found
        return found[[distinct[text] for text in texts]]

    @torch.inference_mode()
    def _vectors(self, texts: list[str], progress: Progress) -> np.ndarray:
        chunks: Chunks = tokenise(self.model, texts, max_length=self.max_length, chunk=self.chunk)
        self.counts.distinct += len(texts)
        self.counts.truncated += chunks.truncated
        self.counts.chunked += chunks.chunked
        encoded = chunks.encoded
        features = np.empty((len(encoded.lengths), self.model.dim), dtype=np.float32)
        advance = progress.start("texts", len(texts))
        done = 0
        for index in evaluation_batches(encoded.lengths, tokens=self.backend.tokens, most=self.backend.most):
            features[index] = self.backend.features(encoded, index)
            done += len(index)
            advance(done * len(texts) // len(features) - (done - len(index)) * len(texts) // len(features))
        return self._finish(chunks.gather(features))

    def _finish(self, features: np.ndarray) -> np.ndarray:
        """Cut to the width that was asked for, and of unit length where it was."""
        if len(self.modules):
            features = self.modules(torch.from_numpy(features)).numpy()
        vectors = np.ascontiguousarray(features[:, : self.dim])
        if self.normalize or self.dim < self.width:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


def check_texts(texts: Sequence[str]) -> dict[str, int]:
    """Each distinct text with its place among them. Raises DataError for one that is no string, or empty."""
    distinct: dict[str, int] = {}
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {row + 1} is not a string (but {type(text).__name__}): write it as one")
        if text not in distinct:
            if not text.strip():
                raise DataError(f"text {row + 1} is empty: fill or remove it")
            distinct[text] = len(distinct)
    return distinct
