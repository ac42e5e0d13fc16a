"""Checkpoints on disk, read tensor by tensor and part by part: nothing is held that has not been asked for.

A checkpoint is a surefoot run or model, a folder of transformers or sentence-transformers, one `.safetensors` file, the
`.safetensors.index.json` of several, or a name on the hub. Whole tensors are read into memory of their own; merges that go part by part
look at the pages of the files themselves, which saves a copy of all that is read, and release them as they go.
"""

from __future__ import annotations

import json
import math
import mmap
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from surefoot.errors import ModelError, nearest
from surefoot.merge.hub import is_hub_name, snapshot

#: Names of the safetensors format and torch's.
DTYPES: Mapping[str, torch.dtype] = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
    **{"BOOL": torch.bool},
}
WEIGHTS, INDEX, HEAD, CARD = "model.safetensors", "model.safetensors.index.json", "head.safetensors", "surefoot.json"
ADAPTER = "adapter_model.safetensors"
#: MADV_POPULATE_READ, which Python's mmap does not name.
_POPULATE_READ = 22 if sys.platform == "linux" else None


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: `begin` is its first byte in `file`."""

    file: Path
    begin: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass
class Checkpoint:
    """`tensors` by name, in the order of the files; `folder` is what the weights lie in, `name` what users call it."""

    name: str
    folder: Path
    tensors: dict[str, Stored]
    files: list[Path]
    single: bool = False
    _open: dict[tuple[Path, int], FileIO] = field(default_factory=dict, repr=False)
    _maps: dict[Path, mmap.mmap] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def card(self) -> dict[str, Any]:
        """What surefoot wrote beside the weights: classes, pooling; empty where it did not save them."""
        from surefoot.models.card import read_card

        return {} if self.single else read_card(self.folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """Of its head; none where it has no head of surefoot's."""
        return tuple(self.card.get("classes", ())) if "head.weight" in self.tensors else ()

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, or nothing."""
        from surefoot.models.card import read_json

        path = self.folder / "config.json"
        return read_json(path) if path.is_file() and not self.single else {}

    def read(self, name: str, begin: int = 0, count: int | None = None) -> Tensor:
        """`count` elements of the tensor from element `begin` on, as a flat tensor of their dtype; all by default."""
        stored = self.tensors[name]
        count = stored.count - begin if count is None else count
        buffer = torch.empty(count, dtype=stored.dtype)
        if count == 0:
            return buffer
        file = self._file(stored.file)
        file.seek(stored.begin + begin * stored.dtype.itemsize)
        view = memoryview(buffer.view(torch.uint8).numpy().data)
        if file.readinto(view) != len(view):
            raise ModelError(f"{stored.file}: cut short while it was read: copy or download it again")
        return buffer

    def view(self, name: str, begin: int, count: int) -> Tensor:
        """As `read`, but on the pages of the file itself, which count as memory of the process until they are released.

        What is written into the tensor reaches no file. Somebody who cuts the file short meanwhile ends the process.
        """
        stored = self.tensors[name]
        offset = stored.begin + begin * stored.dtype.itemsize
        if count == 0 or offset % stored.dtype.itemsize:
            return self.read(name, begin, count)
        return torch.frombuffer(self._mapped(stored.file), dtype=stored.dtype, count=count, offset=offset)

    def expect(self, name: str, begin: int, count: int) -> None:
        """These elements will be viewed: have their pages at hand, all at once instead of fault by fault."""
        self._mapped(self.tensors[name].file)
        with suppress(OSError):  # kernels before 5.14 do not know how
            self._advise(_POPULATE_READ, name, begin, count)

    def release(self, name: str, begin: int = 0, count: int | None = None) -> None:
        """Let go of the pages of a tensor; views of it stay good, and have to be read again."""
        self._advise(getattr(mmap, "MADV_DONTNEED", None), name, begin, count)

    def _advise(self, advice: int | None, name: str, begin: int, count: int | None) -> None:
        stored = self.tensors[name]
        count = stored.count - begin if count is None else count
        pages = self._maps.get(stored.file)
        if pages is None or advice is None or not count:
            return
        first = stored.begin + begin * stored.dtype.itemsize
        start = first // mmap.PAGESIZE * mmap.PAGESIZE
        pages.madvise(advice, start, first + count * stored.dtype.itemsize - start)

    def _mapped(self, path: Path) -> mmap.mmap:
        with self._lock:
            if path not in self._maps:
                with open(path, "rb") as file:
                    self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return self._maps[path]

    def tensor(self, name: str) -> Tensor:
        """The whole tensor, in its shape."""
        return self.read(name).view(self.tensors[name].shape)

    def weights(self) -> dict[str, Tensor]:
        """Everything, in memory."""
        return {name: self.tensor(name) for name in self.tensors}

    def _file(self, path: Path) -> FileIO:
        """Each thread has a place in the file of its own."""
        key = (path, threading.get_ident())
        if key not in self._open:
            self._open[key] = FileIO(path, "rb")
        return self._open[key]

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()
        self._maps.clear()  # each is unmapped when the last view of it is gone


def open_checkpoint(source: str | Path) -> Checkpoint:
    """The checkpoint that lies there, is called so on the hub, or `minilm`. Raises ModelError, in one sentence, for what is none."""
    path = Path(source).expanduser()
    name = path.name or str(source)
    if is_hub_name(source):
        return _folder(snapshot(str(source)), name)
    if str(source) in ("minilm",) and not path.exists():
        from surefoot.assets import fetch

        return _folder(fetch("minilm"), "minilm")
    if path.is_dir():
        inner = path / "model"
        return _folder(inner if (inner / CARD).is_file() else path, name)
    if path.suffix == ".safetensors" and path.is_file():
        return Checkpoint(path.stem, path.parent, _header(path), [path], single=True)
    if path.name.endswith(".safetensors.index.json") and path.is_file():
        return Checkpoint(path.parent.name, path.parent, *_sharded(path), single=True)
    if path.is_file():
        raise ModelError(
            f"{path}: not a checkpoint that can be merged: give a folder, a .safetensors file or a .safetensors.index.json; pickles are never opened"
        )
    near = nearest(path.name, [each.name for each in path.parent.iterdir()]) if path.parent.is_dir() else ""
    raise ModelError(f"{source}: no such folder or file: {near if near.startswith('did') else 'check the path'}")


def _folder(folder: Path, name: str) -> Checkpoint:
    if (folder / ADAPTER).is_file() and not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"{folder}: holds a LoRA adapter of peft and no model: merge adapters with adapters, or put it into its model first"
        )
    if (folder / "additions.safetensors").is_file():
        raise ModelError(
            f"{folder}: has parts beside its weights (additions.safetensors), which no arithmetic on weights merges: tune with a selection such as `lora` or `all`"
        )
    if (folder / INDEX).is_file():
        tensors, files = _sharded(folder / INDEX)
    elif (folder / WEIGHTS).is_file():
        tensors, files = _header(folder / WEIGHTS), [folder / WEIGHTS]
    else:
        from surefoot.models.pretrained import refuse_pickles

        refuse_pickles(folder)
        others = sorted(each.name for each in folder.glob("*.safetensors"))
        raise ModelError(f"{folder}: neither {WEIGHTS} nor {INDEX} there, only {', '.join(others)}: name the file")
    if (folder / HEAD).is_file() and (folder / CARD).is_file():
        tensors |= {f"head.{key}": value for key, value in _header(folder / HEAD).items()}
        files = [*files, folder / HEAD]
    return Checkpoint(name, folder, tensors, files)


def _sharded(index: Path) -> tuple[dict[str, Stored], list[Path]]:
    """Tensors and files of an index; ModelError for a shard that is missing or does not hold what the index says."""
    from surefoot.models.card import read_json

    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{index}: no `weight_map`: copy or download it again")
    files = [index.parent / name for name in dict.fromkeys(places.values())]
    for file in files:
        if file.parent != index.parent or not file.is_file():
            raise ModelError(f"{index}: names the file {file.name}, which is not there: copy or download it again")
    found: dict[str, Stored] = {}
    for file in files:
        found |= _header(file)
    lost = [name for name, file in places.items() if name not in found or found[name].file.name != file]
    if lost:
        raise ModelError(f"{index}: `{lost[0]}` is not in {places[lost[0]]}: copy or download the checkpoint again")
    return found, files


def _header(path: Path) -> dict[str, Stored]:
    """Where each tensor of a file lies, the library having found the file whole."""
    try:
        with safe_open(path, framework="pt"):
            pass
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path}: the weights are damaged or cut short ({reason}): copy or download them again"
        ) from error
    found = {}
    for name, each in sorted(_tensors(header), key=lambda item: item[1]["data_offsets"][0]):
        if each["dtype"] not in DTYPES:
            raise ModelError(
                f"{path}: `{name}` has the dtype {each['dtype']}, which is not merged: known: {', '.join(DTYPES)}"
            )
        begin = 8 + length + each["data_offsets"][0]
        found[name] = Stored(path, begin, DTYPES[each["dtype"]], tuple(each["shape"]))
    return found


def _tensors(header: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, each) for name, each in header.items() if name != "__metadata__")
