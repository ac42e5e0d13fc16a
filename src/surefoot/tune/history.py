"""What a training did, as its run keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """What happened in training: the loss of each step, how fast it went, and what the user should know."""

    steps: int = 0
    resumed_at: int = 0
    seconds: float = 0.0
    examples: int = 0
    losses: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def examples_per_second(self) -> float:
        return self.examples / self.seconds if self.seconds else 0.0
