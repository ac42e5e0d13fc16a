"""The magnitudes that stand at some ranks of a task vector's: exact, in two passes over its parts and little memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from surefoot.merge.combine import Pieces

Ranks = Callable[[int, int], Sequence[int]]
Bracket = tuple[float, float]
#: One element of so many is looked at first; a prime, so that it meets every column of a matrix.
_STRIDE = 61
#: Tensors of at most so many elements are sorted whole.
_WHOLE = 1 << 14
#: Deviations of a sample's rank within which the threshold is looked for.
_DEVIATIONS = 4.0
#: Floats are compared by their first so many bits; what shares them is compared whole.
_SHIFT = 16


def thresholds(pieces: Pieces, ranks: Ranks) -> list[list[float]]:
    """For each checkpoint, the magnitudes that stand at some ranks of its task vector's, counted from the largest.

    ranks: from the checkpoint's number and the count of elements to ranks, 1 for the largest; rank 0 gives infinity.
    A sample says between which two values each threshold lies; one pass counts what is above and keeps what is between.
    Where the sample was wrong, magnitudes are counted by their bits. Both ways are exact.
    """
    samples, count = _sampled(pieces)
    wanted = [list(ranks(number, count)) for number in range(len(samples))]
    if count <= _WHOLE:
        ordered = [np.sort(each)[::-1] for each in samples]
        return [
            [float(own[rank - 1]) if rank else math.inf for rank in row]
            for own, row in zip(ordered, wanted, strict=True)
        ]
    brackets = [_brackets(each, count, row) for each, row in zip(samples, wanted, strict=True)]
    found = _between(pieces, wanted, brackets)
    return found if found is not None else _by_bits(pieces, wanted)


def _magnitudes(tuned: Tensor, base: Tensor | None) -> Tensor:
    """|theta_k - theta_0|, flat; float64 is compared as float32."""
    assert base is not None
    return (tuned - base).abs_().float().flatten()


def _sampled(pieces: Pieces) -> tuple[list[np.ndarray], int]:
    """Of each checkpoint's magnitudes every so many, of a small tensor all; and how many there are."""
    parts: list[list[np.ndarray]] = []
    count = 0
    for tuned, base in pieces():
        assert base is not None
        if not parts:
            parts = [[] for _ in tuned]
            step = 1 if base.numel() <= _WHOLE else _STRIDE
        count += base.numel()
        for number, each in enumerate(tuned):
            parts[number].append(_magnitudes(each.flatten()[::step], base.flatten()[::step]).numpy())
    samples = [np.concatenate(each) for each in parts]
    # A sample of n^(2/3) balances what sorting it costs with what is left between the two values.
    thin = max(1, int(len(samples[0]) / count ** (2 / 3))) if count > _WHOLE else 1
    return [each[::thin] for each in samples], count


def _brackets(sample: np.ndarray, count: int, ranks: Sequence[int]) -> list[Bracket | None]:
    """For each rank two values of the sample, the smaller first, between which the magnitude of that rank should lie."""
    ordered = np.sort(sample)[::-1]
    size, found = len(ordered), []
    for rank in ranks:
        share = rank / count
        margin = _DEVIATIONS * math.sqrt(size * share * (1 - share)) + 2
        first, last = math.floor(size * share - margin), math.ceil(size * share + margin)
        high = float(ordered[first]) if first >= 0 else math.inf
        low = float(ordered[last]) if last < size else 0.0
        found.append((low, high) if rank else None)
    return found


def _between(
    pieces: Pieces, ranks: Sequence[Sequence[int]], brackets: Sequence[Sequence[Bracket | None]]
) -> list[list[float]] | None:
    """The thresholds, if they lie in their brackets."""
    spots = [(number, at, *each) for number, row in enumerate(brackets) for at, each in enumerate(row) if each]
    above = [0] * len(spots)
    inside: list[list[np.ndarray]] = [[] for _ in spots]
    for tuned, base in pieces():
        known: dict[int, np.ndarray] = {}
        for spot, (number, _, low, high) in enumerate(spots):
            if number not in known:
                known = {number: _magnitudes(tuned[number], base).numpy()}
            own = known[number]
            larger = own > high
            above[spot] += int(np.count_nonzero(larger))
            inside[spot].append(own[(own >= low) ^ larger])
    found = [[math.inf] * len(row) for row in ranks]
    for (number, at, _, _), larger_count, parts in zip(spots, above, inside, strict=True):
        values = np.concatenate(parts)
        rank = ranks[number][at] - larger_count
        if not 1 <= rank <= len(values):
            return None
        found[number][at] = float(np.partition(values, len(values) - rank)[len(values) - rank])
    return found


def _by_bits(pieces: Pieces, ranks: Sequence[Sequence[int]]) -> list[list[float]]:
    """For floats of one sign the order of the bits is the order of the numbers: one pass counts magnitudes by the first
    half of theirs, another looks at those that fall where the threshold is."""
    counts = [torch.zeros(1 << (31 - _SHIFT), dtype=torch.int64) for _ in ranks]
    for tuned, base in pieces():
        for number, each in enumerate(tuned):
            bits = _magnitudes(each, base).view(torch.int32)
            counts[number] += torch.bincount(bits >> _SHIFT, minlength=1 << (31 - _SHIFT))
    spots: dict[tuple[int, int], tuple[int, int]] = {}  # where the threshold is, and its rank there
    for number, (count, row) in enumerate(zip(counts, ranks, strict=True)):
        above = count.flip(0).cumsum(0).flip(0)
        for at, rank in enumerate(row):
            if rank:
                place = int((above >= rank).nonzero().max())
                spots[number, at] = place, rank - int(above[place] - count[place])
    inside: dict[tuple[int, int], list[Tensor]] = {spot: [] for spot in spots}
    for tuned, base in pieces():
        for (number, at), (place, _) in spots.items():
            bits = _magnitudes(tuned[number], base).view(torch.int32)
            inside[number, at].append(bits[(bits >> _SHIFT) == place])
    found = [[math.inf] * len(row) for row in ranks]
    for (number, at), (_, rank) in spots.items():
        bits = torch.cat(inside[number, at])
        value = bits.kthvalue(len(bits) - rank + 1).values
        found[number][at] = float(value.view(1).view(torch.float32))
    return found
