"""Candidates for the answer: the members, their interpolations, and soups of the best, at no further training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from surefoot.search.family import Family, Member
from surefoot.search.judge import Candidate, Judge, Rule
from surefoot.search.trials import BASELINES

#: What a mix is made of: names of members, and the share of the way from their start.
Parts = tuple[tuple[str, ...], float]


@dataclass
class Soups:
    """Makes mixes of members and remembers them: many masks of the judge ask for the same one.

    `sets`: home's held-out examples and the judge, all that a candidate is compared on. `sizes` and `shares`: see
    `Task`.
    """

    family: Family
    sets: Any
    judge: Judge
    rule: Rule
    view: Callable[[Member], Any]
    sizes: Sequence[int] = (3, 5)
    shares: Sequence[float] = (1.0, 0.75)
    mixes: dict[Parts, Member] = field(default_factory=dict)
    _views: dict[str, Any] = field(default_factory=dict)
    _scores: dict[tuple[str, bytes], float] = field(default_factory=dict)
    _parts: dict[str, Callable[[np.ndarray], Parts]] = field(default_factory=dict)

    def candidates(self, members: Sequence[Member]) -> dict[str, Candidate]:
        """By name: the baselines; of every start the soups of the best few, whole and interpolated.

        The first members are the baselines. Where a start has fewer members than a soup takes there is one of all.
        """
        found: dict[str, Candidate] = {}
        for member in members[: len(BASELINES)]:
            self._add(found, member.name, [member], 1, 1.0)
        drawn = members[len(BASELINES) :]
        for start in dict.fromkeys(member.start for member in drawn):
            kin = [member for member in drawn if member.start == start]
            for share in self.shares:
                for size in sorted({min(size, len(kin)) for size in self.sizes}):
                    name = f"best {size} of {start}" + (f" at {share:g}" if share < 1.0 else "")
                    self._add(found, name, kin, size, share)
        return found

    def member(self, name: str, mask: np.ndarray) -> Member:
        """The member or mix that the candidate called `name` is when `mask` of the judge may be looked at."""
        return self._mix(*self._parts[name](mask))

    def _add(self, found: dict[str, Candidate], name: str, kin: Sequence[Member], size: int, share: float) -> None:
        def parts(mask: np.ndarray) -> Parts:
            return self._best(kin, size, mask), share

        self._parts[name] = parts
        found[name] = lambda mask: self._seen(self._mix(*parts(mask)))

    def _best(self, kin: Sequence[Member], size: int, mask: np.ndarray) -> tuple[str, ...]:
        if size >= len(kin):
            return tuple(sorted(member.name for member in kin))
        scores = {member.name: self._score(member, mask) for member in kin}
        return tuple(sorted(sorted(scores, key=scores.__getitem__)[:size]))

    def _score(self, member: Member, mask: np.ndarray) -> float:
        key = (member.name, mask.tobytes())
        if key not in self._scores:
            self._scores[key] = self.rule(self._seen(member), self.judge, mask)
        return self._scores[key]

    def _mix(self, names: tuple[str, ...], share: float) -> Member:
        if len(names) == 1 and share == 1.0:
            return self.family.members[names[0]]
        key = (names, share)
        if key not in self.mixes:
            members = [self.family.members[name] for name in names]
            weights = self.family.mix(members, share=share)
            first, depth = members[0], min(member.depth for member in members)
            model = self.family.build(weights, normalize=first.normalize)
            label = " + ".join(names) + (f" at {share:g}" if share < 1.0 else "")
            logits = self.sets.logits(model, depth=depth)
            # The weights are not kept: they are put together again for the one that is chosen.
            self.mixes[key] = Member(
                label, first.start, depth, first.normalize, logits, {}, {"soup": list(names), "share": share}
            )
        return self.mixes[key]

    def _seen(self, member: Member) -> Any:
        if member.name not in self._views:
            self._views[member.name] = self.view(member)
        return self._views[member.name]
