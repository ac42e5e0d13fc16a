"""Writing that is whole or not at all: a temporary name beside the target, then a rename.

A killed process leaves at most a `.NAME.tmp-PID-xxxx` beside the target; the next write of the same target removes it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from surefoot.errors import RunError

_SENTENCES = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "no permission to write there; choose another folder or change its permissions",
    errno.EPERM: "no permission to write there; choose another folder or change its permissions",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
    errno.EEXIST: "a part of the path is a file, not a folder; choose another path",
    errno.EISDIR: "a folder of that name is in the way; choose another name or remove it",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; after the block it is synced and renamed onto `path`.

    If the block raises, the temporary file is removed and `path` is untouched. Folders above are made as needed.
    Raises RunError, in one sentence, when the disk is full or the place cannot be written.
    """
    path = Path(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clean(path)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
    temporary = _temporary(path)
    try:
        with _explained(path, temporary):
            yield temporary
        with _explained(path):
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new temporary folder beside the target; after the block it takes the target's place, old content and all.

    If the block raises, the temporary folder is removed and `path` is untouched. On Linux the exchange with an existing
    folder is a single step; elsewhere it is two renames, and a kill between them is mended by the next write.
    """
    path = Path(path)
    temporary = _temporary(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clean(path)
        if path.exists() and not path.is_dir():
            raise FileExistsError(errno.EEXIST, "is a file", str(path))
        temporary.mkdir()
    try:
        with _explained(path, temporary):
            yield temporary
        with _explained(path):
            for file in temporary.rglob("*"):
                _sync(file)
            _take_place(temporary, path)
            _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def plain(value: Any) -> Any:
    """Facts as JSON has them: arrays are lists, keys are strings, and a number that is not finite is none.

    >>> plain({1: (0.5, float("nan"))})
    {'1': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):  # of numpy: an array, or a number
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN, which JSON does not have, is a ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def _explained(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turn an operating system's refusal into a RunError about `path`.

    Inside the caller's block (`temporary` given) only refusals that are about the write are ours to explain: an error
    with a file name elsewhere, such as a missing input, passes through.
    """
    try:
        yield
    except OSError as error:
        number = error.errno
        ours = temporary is None or number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        ours = ours or str(error.filename or "").startswith(str(temporary))
        if not ours:
            raise
        sentence = _SENTENCES.get(number or 0) or f"{error.strerror or error}; choose another path"
        raise RunError(f"cannot write {path}: {sentence}") from error
    except Exception as error:
        # Libraries that write from Rust or C++ (safetensors, arrow) bring the system's words but not its number.
        if "no space left on device" not in str(error).lower() or isinstance(error, RunError):
            raise
        raise RunError(f"cannot write {path}: {_SENTENCES[errno.ENOSPC]}") from error


def _temporary(path: Path, *, mark: str = "") -> Path:
    return path.parent / f".{path.name}.tmp-{os.getpid()}-{mark}{secrets.token_hex(4)}"


def clean(path: Path) -> None:
    """Remove what killed processes left of earlier writes of `path`."""
    pattern = re.compile(re.escape(f".{path.name}.tmp-") + r"(\d+)-(old)?[0-9a-f]{8}")
    for entry in os.scandir(path.parent):
        found = pattern.fullmatch(entry.name)
        if found is None or _alive(int(found[1])):
            continue
        leftover = Path(entry.path)
        if found[2] and not path.exists():
            os.rename(leftover, path)  # killed between the two renames: this is the only copy
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if process == os.getpid():
        return True
    if os.name == "nt":  # there, signal 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _take_place(temporary: Path, path: Path) -> None:
    """Rename the folder `temporary` to `path`; an old folder there ends up under the temporary name and is removed."""
    if not path.exists():
        os.rename(temporary, path)
    elif not _exchange(temporary, path):
        old = _temporary(path, mark="old")
        os.rename(path, old)
        os.rename(temporary, path)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step (Linux's renameat2 with RENAME_EXCHANGE); False where that is not to be had."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0)


def _sync(path: Path) -> None:
    """Ask the disk to hold what was written, so that a power cut after the rename does not leave an empty file."""
    if os.name == "nt" and path.is_dir():
        return
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)
