"""A folder of vectors, written shard by shard: what is there is whole, what is missing is known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from surefoot.errors import RunError
from surefoot.files import atomic_write, clean, write_json

MARK = "embed.json"
VERSION = 1
Format = Literal["parquet", "npy"]
#: What has to be the same for shards to belong together, and what to call it.
_SAME = {
    "model": "the model",
    "weights": "the weights",
    "pooling": "the pooling",
    "dtype": "the dtype",
    "backend": "the backend",
    "dim": "the width",
    "normalize": "the normalisation",
    "quantize": "the quantization",
    "max_length": "the length",
    "chunk": "the chunking",
    "corpus": "the corpus",
    "rows": "the number of rows",
    "shard_rows": "the rows of a shard",
    "format": "the format",
}


@dataclass
class Shards:
    """A folder being filled. `facts` holds what it is made of, and `done` what each finished shard counts.

    A shard is written under a temporary name and renamed, and then entered in embed.json: a process that is killed
    leaves whole shards, and one that was not entered is written again. Shard i holds rows i S to (i + 1) S, so that no
    row is in two or in none.
    """

    folder: Path
    facts: dict[str, Any]
    done: dict[int, dict[str, Any]]

    @classmethod
    def open(cls, folder: str | Path, facts: dict[str, Any]) -> Shards:
        """The folder, new or with what an earlier call of the same facts has done.

        Raises RunError where it holds vectors of something else, or files that are no vectors.
        """
        folder = Path(folder).expanduser()
        mark = folder / MARK
        if not mark.exists():
            if folder.exists() and (
                not folder.is_dir() or any(not each.name.startswith(".") for each in folder.iterdir())
            ):
                raise RunError(f"{folder} is there and holds something other than vectors; choose another folder")
            found = cls(folder, facts, {})
            found._enter()
            return found
        try:
            before = json.loads(mark.read_text("utf8"))
            done = {int(number): dict(each) for number, each in before["shards"].items()}
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise RunError(f"{mark}: cannot be read ({error}); choose another folder, or delete this one") from None
        for name, words in _SAME.items():
            was, now = before.get(name), facts.get(name)
            if was != now:
                shown = "" if name in ("weights", "corpus") else f" ({_shown(was)} there, {_shown(now)} asked for)"
                raise RunError(
                    f"{folder} holds vectors that differ in {words}{shown}; choose another folder, or delete this one"
                )
        found = cls(folder, facts | {key: before[key] for key in ("ranges",) if key in before}, done)
        found.done = {number: each for number, each in done.items() if found.path(number).is_file()}
        return found

    def path(self, number: int) -> Path:
        return self.folder / f"vectors-{number:05d}.{self.facts['format']}"

    def write(self, number: int, ids: list[Any], vectors: np.ndarray, counts: dict[str, int]) -> None:
        """Write shard `number` and enter it. counts: what the mark keeps of it."""
        if self.facts["format"] == "npy":
            # The ids first: vectors that are there have theirs.
            with atomic_write(self.folder / f"ids-{number:05d}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, _id_array(ids), allow_pickle=False)
            with atomic_write(self.path(number)) as temporary, temporary.open("wb") as file:
                np.save(file, vectors, allow_pickle=False)
        else:
            _write_parquet(self.path(number), ids, vectors)
        self.done[number] = {"rows": len(ids), **counts}
        self._enter()

    def total(self, name: str) -> int:
        """The sum of a count over the shards."""
        return sum(each.get(name, 0) for each in self.done.values())

    @property
    def complete(self) -> bool:
        return bool(self.total("rows") == self.facts["rows"])

    def _enter(self) -> None:
        clean_folder(self.folder)
        shards = {str(number): self.done[number] for number in sorted(self.done)}
        write_json(self.folder / MARK, {"version": VERSION, **self.facts, "complete": self.complete, "shards": shards})


def clean_folder(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    if folder.is_dir():
        for leftover in folder.glob(".*.tmp-*"):
            clean(folder / leftover.name[1:].partition(".tmp-")[0])


def read_vectors(folder: str | Path, *, most: int | None = None) -> tuple[list[Any], np.ndarray]:
    """(ids, vectors) of a folder that `surefoot embed` wrote, in the order of the corpus; `most` reads the first shards
    that hold so many. Raises RunError for another folder."""
    folder = Path(folder).expanduser()
    try:
        facts = json.loads((folder / MARK).read_text("utf8"))
        numbers = sorted(int(each) for each in facts["shards"])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: no vectors there ({error}); make them with `surefoot embed`") from None
    shards = Shards(folder, facts, {})
    ids: list[Any] = []
    parts: list[np.ndarray] = []
    for number in numbers:
        if most is not None and len(ids) >= most:
            break
        if facts["format"] == "npy":
            ids += np.load(folder / f"ids-{number:05d}.npy", allow_pickle=False).tolist()
            parts.append(np.load(shards.path(number), allow_pickle=False))
        else:
            import pyarrow.parquet as pq

            table = pq.read_table(shards.path(number))
            ids += table["id"].to_pylist()
            column = table["embedding"].combine_chunks()
            parts.append(column.values.to_numpy().reshape(len(column), -1))
    if not parts:
        raise RunError(f"{folder}: no vectors there yet; `surefoot embed` was stopped before its first shard")
    vectors = np.concatenate(parts)
    return ids[:most], vectors[:most]


def _write_parquet(path: Path, ids: list[Any], vectors: np.ndarray) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    columns = {"id": pa.array(ids), "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
    with atomic_write(path) as temporary:
        # Vectors hardly compress, and trying costs more than writing them.
        pq.write_table(pa.table(columns), temporary, compression="none", use_dictionary=False)


def _id_array(ids: list[Any]) -> np.ndarray:
    if all(isinstance(each, int) and not isinstance(each, bool) for each in ids):
        return np.array(ids, dtype=np.int64)
    return np.array([str(each) for each in ids])


def _shown(value: Any) -> str:
    return "none" if value is None else f"`{value}`" if isinstance(value, str) else str(value)
