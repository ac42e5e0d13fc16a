"""Progress of long work: whoever starts it shows it as they like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """What shows the progress of long work; `start` returns a function to call with every advance."""

    def start(self, label: str, total: int) -> Callable[[int], None]: ...


class Silent:
    """No progress shown."""

    def start(self, label: str, total: int) -> Callable[[int], None]:
        return lambda count: None
