"""The file of a journal: one process at a time holds it, and what a kill left torn of it is cut off."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from surefoot.errors import RunError

#: Name of the study in the journal, by which a journal of somebody else's is told apart.
STUDY = "surefoot"
# Every journal begins with the creation of its study.
_BEGIN = b'{"op_code":0,"worker_id":"'


class Held:
    """What Optuna locks the journal with for each record: the ledger's own lock, which has been taken already.

    Optuna's own are files that a killed process leaves behind, to be waited for.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path, self.lock = path, lock

    def acquire(self) -> bool:
        if not self.lock.is_locked:
            raise RunError(f"the ledger of {self.path} has been closed; open it again to add trials")
        return True

    def release(self) -> None:
        pass


def holder_of(path: Path) -> Path:
    return path.parent / f".{path.name}.pid"


def take(path: Path) -> FileLock:
    """Lock the journal for this process; the system lets go of such a lock when the process ends, however it ends."""
    lock = FileLock(path.parent / f".{path.name}.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = holder_of(path)  # not in the lock file, which some releases of filelock empty when they try it
        process = holder.read_text(encoding="ascii", errors="replace") if holder.exists() else "unknown"
        raise RunError(
            f"{path} is in use by another process (PID {process}): wait for it or end it, or choose another folder"
        ) from None
    holder_of(path).write_text(str(os.getpid()), encoding="ascii")
    return lock


def mend(path: Path) -> None:
    """Cut off what a kill or a power cut left of the last record; a file that is no journal of ours is not touched."""
    content = path.read_bytes()
    end, lines = 0, 0
    while (stop := content.find(b"\n", end) + 1) and _record(content[end:stop]) is not None:
        end, lines = stop, lines + 1
    tail = content[end:]
    if end:
        first = _record(content[: content.index(b"\n")]) or {}
        ours = first["op_code"] == 0 and first.get("study_name") == STUDY
    else:
        ours = _BEGIN.startswith(tail[: len(_BEGIN)].rstrip(b"\0"))  # nothing yet, or a torn beginning
    if not ours:
        raise RunError(f"{path} is not a journal of surefoot's: it has been left alone; choose another folder")
    if any(_record(line) is not None for line in tail.split(b"\n")[1:-1]):
        raise RunError(
            f"line {lines + 1} of {path} is damaged and others follow it: put back a copy, or choose another folder"
        )
    if tail:
        with open(path, "r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("op_code"), int) else None


def refused(path: Path, error: OSError) -> RunError:
    why = error.strerror or error
    return RunError(f"cannot keep the search in {path}: {why}; free some space or choose another folder")
