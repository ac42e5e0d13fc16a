"""Images kept encoded and decoded when read, so that a data set larger than memory's worth of pixels still fits."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.data.table import Table
from surefoot.errors import DataError, require


class Images(Sequence[Any]):
    """A sequence of N RGB `PIL.Image`s, each decoded from its bytes or file when it is read."""

    def __init__(self, cells: Sequence[Any], *, folder: Path = Path()) -> None:
        self._cells = list(cells)
        self._folder = folder

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Images(self._cells[index], folder=self._folder)
        return decode(self._cells[index], folder=self._folder)

    def take(self, indices: Sequence[int] | np.ndarray) -> Images:
        """Those images, still encoded."""
        return Images([self._cells[int(index)] for index in indices], folder=self._folder)


def decode(cell: Any, *, folder: Path = Path()) -> Any:
    """An RGB `PIL.Image` from bytes, the hub's {"bytes", "path"}, a path relative to `folder`, an image or an array."""
    Image = require("PIL.Image", extra="images", why="image data")
    ImageOps = require("PIL.ImageOps", extra="images", why="image data")
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str | Path):
        cell = (folder / cell).read_bytes()
    if isinstance(cell, bytes | bytearray | memoryview):
        with Image.open(io.BytesIO(cell)) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    if isinstance(cell, Image.Image):
        return cell.convert("RGB")
    if isinstance(cell, np.ndarray):
        return Image.fromarray(cell).convert("RGB")
    raise TypeError(f"a {type(cell).__name__} is not an image")


def check_images(table: Table, column: str) -> Images:
    """Every image decoded once, so that a broken one is named by its row before anything trains."""
    cells = table.columns[column]
    for row, cell in enumerate(cells):
        if cell is None or (isinstance(cell, bytes | str) and not cell):
            raise table.error(row, column, "the image is missing; fill or remove it")
        try:
            decode(cell, folder=table.folder)
        except FileNotFoundError as error:
            raise table.error(
                row, column, f"no image file {error.filename}; paths are relative to the data file"
            ) from None
        except DataError:
            raise
        except ImportError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever their format brings
            reason = " ".join(str(error).split())[:120]
            raise table.error(row, column, f"not a whole image ({reason}); replace or remove it") from None
    return Images(cells, folder=table.folder)
