"""What a merge will do, before it does it: which tensors come from where, and what that takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from surefoot.errors import ModelError, RecipeError
from surefoot.merge.checkpoint import Checkpoint, Stored
from surefoot.merge.combine import Combine
from surefoot.registry import name_of

#: Elements that are merged at a time: few enough for the processor's cache, with every input.
PIECE = 1 << 17
#: Bytes of the files that are held in memory at a time, for each tensor that is being merged.
HELD = 32 << 20
#: What Python, torch and this package take before a merge begins, in bytes (measured by benchmarks/merging.py).
RESIDENT = 250 << 20
#: Facts of an architecture: where they differ, weights do not mean the same.
ARCHITECTURE = (
    *("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("intermediate_size", "hidden_act", "vocab_size", "type_vocab_size", "max_position_embeddings"),
)


@dataclass(frozen=True)
class Source:
    """A tensor of a checkpoint."""

    checkpoint: Checkpoint
    name: str

    @property
    def stored(self) -> Stored:
        return self.checkpoint.tensors[self.name]


@dataclass(frozen=True)
class Planned:
    """One tensor of the output. combine: None for one that is copied from the first of `tuned`."""

    name: str
    tuned: tuple[Source, ...]
    base: Source | None
    combine: Combine | None
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tuned[0].stored.shape

    @property
    def count(self) -> int:
        return self.tuned[0].stored.count

    @property
    def bytes(self) -> int:
        """In the output."""
        return self.count * self.dtype.itemsize

    @property
    def inputs(self) -> int:
        """Bytes of all inputs."""
        return sum(each.stored.bytes for each in (*self.tuned, *([self.base] if self.base else [])))

    @property
    def memory(self) -> int:
        """Bytes that are held at a time while it is merged, at most."""
        parts = len(self.tuned) + (self.base is not None)
        if self.combine is None or self.combine.by_pieces:
            piece = min(self.count, PIECE) * 4
            return 4 * piece * (parts + 1) + min(self.inputs, HELD + parts * piece)
        return self.inputs + self.count * 4 * (parts + 3)


@dataclass(frozen=True)
class Plan:
    """The tensors of the output in their order, those of a head apart, and what the user should know.

    heads: what happens to the heads: `merged`, `kept` (each model's own, because their classes differ) or `none`.
    """

    tensors: Sequence[Planned]
    head: Sequence[Planned]
    heads: str
    notes: Sequence[str] = field(default=())

    @property
    def bytes_in(self) -> int:
        return sum(each.inputs for each in (*self.tensors, *self.head))

    @property
    def bytes_out(self) -> int:
        return sum(each.bytes for each in (*self.tensors, *self.head))

    @property
    def peak(self) -> int:
        """Bytes of memory at most, Python and torch included: as many tensors are merged side by side as torch has threads."""
        memory = sorted((each.memory for each in (*self.tensors, *self.head)), reverse=True)
        return RESIDENT + sum(memory[: torch.get_num_threads()])


def plan_merge(
    checkpoints: Sequence[Checkpoint],
    base: Checkpoint | None,
    combine: Callable[[str], Combine],
    *,
    dtype: torch.dtype | None = None,
) -> Plan:
    """Check that the checkpoints fit together, and say what becomes of every tensor.

    combine: the method for the tensor of that name. dtype: of the output; by default that of the checkpoints.
    Raises ModelError for other names, shapes, dtypes, architectures or tokenizers, saying what differs.
    """
    first = checkpoints[0]
    method = combine(next(iter(first.tensors)))
    if not method.streams:
        raise RecipeError(
            f"`{name_of(method)}` looks at a training or at data, and cannot merge from disk: put it into a recipe's `after`, or give it data (`merge_fit`)"
        )
    method.check(len(checkpoints))
    if method.needs_base and base is None:
        raise RecipeError(
            f"`{name_of(method)}` starts from the model that all were tuned from: give it with --base, or choose a method without one, such as linear"
        )
    heads, notes = _heads(checkpoints)
    without = base is not None and base.classes != first.classes
    check_together([*checkpoints, *([base] if base is not None else [])], dtype)

    def planned(name: str, start: Checkpoint | None, by: Combine) -> Planned:
        stored = first.tensors[name]
        whole = stored.dtype.is_floating_point
        return Planned(
            name,
            tuple(Source(each, name) for each in (checkpoints if whole else checkpoints[:1])),
            Source(start, name) if start is not None and whole and by.needs_base else None,
            by if whole else None,
            (dtype or stored.dtype) if whole else stored.dtype,
        )

    backbone = [planned(name, base, combine(name)) for name in first.tensors if not _is_head(name, first)]
    head: list[Planned] = []
    if heads == "merged":
        own = [name for name in first.tensors if _is_head(name, first)]
        if without and any(combine(name).needs_base for name in own):
            from surefoot.merge.uniform_soup import UniformSoup

            head = [planned(name, None, UniformSoup()) for name in own]
            notes.append("the base has no head for these classes: the heads are averaged")
        else:
            head = [planned(name, base, combine(name)) for name in own]
    elif heads == "kept":
        notes.append(
            "the heads know other classes: the backbone alone is merged, and each model's head is kept under heads/"
        )
    return Plan(backbone, head, heads, notes)


def check_together(together: Sequence[Checkpoint], dtype: torch.dtype | None, *, depth: bool = True) -> None:
    """Raises ModelError unless these can be merged; without `depth` they may have other numbers of layers."""
    first = together[0]
    for other in together[1:]:
        _same_architecture(first, other, depth=depth)
        if depth:
            _same_tensors(first, other)
    _same_dtypes(together, dtype)
    _same_tokenizers(together)


def _is_head(name: str, checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.card) and name.startswith("head.")


def _heads(checkpoints: Sequence[Checkpoint]) -> tuple[str, list[str]]:
    classes = {each.classes for each in checkpoints}
    if classes == {()}:
        return "none", []
    if len(classes) == 1:
        return "merged", []
    return "kept", []


def _same_architecture(first: Checkpoint, other: Checkpoint, *, depth: bool) -> None:
    if not first.config or not other.config:
        return
    differing = [
        f"{key} {first.config.get(key)} and {other.config.get(key)}"
        for key in ARCHITECTURE
        if first.config.get(key) != other.config.get(key) and (depth or key != "num_hidden_layers")
    ]
    if differing:
        raise ModelError(
            f"{first.name} and {other.name} are of other architectures ({'; '.join(differing)}): only models of one architecture, tuned from one start, can be merged"
        )
    for key in ("pool", "normalize"):
        if first.card and other.classes and first.card.get(key) != other.card.get(key):
            raise ModelError(
                f"{first.name} and {other.name} make features differently ({key} {first.card.get(key)} and {other.card.get(key)}): tune them alike before merging"
            )


def _same_tensors(first: Checkpoint, other: Checkpoint) -> None:
    """Of floats: whether numbers of positions are stored beside the weights depends on who saved them."""
    mine, theirs = (
        {n: s for n, s in each.tensors.items() if s.dtype.is_floating_point and not _is_head(n, each)}
        for each in (first, other)
    )
    missing, extra = [n for n in mine if n not in theirs], [n for n in theirs if n not in mine]
    if missing or extra:
        parts = [
            f"{len(names)} only in {where.name}, such as `{names[0]}`"
            for names, where in ((missing, first), (extra, other))
            if names
        ]
        raise ModelError(
            f"{first.name} and {other.name} have other tensors ({'; '.join(parts)}): merge models of one kind"
        )
    shapes = [name for name in mine if mine[name].shape != theirs[name].shape]
    if shapes:
        name = shapes[0]
        raise ModelError(
            f"{first.name} and {other.name} have other shapes in {len(shapes)} tensors (`{name}`: {list(mine[name].shape)} and {list(theirs[name].shape)}): merge models of one architecture and vocabulary"
        )


def _same_dtypes(together: Sequence[Checkpoint], dtype: torch.dtype | None) -> None:
    """Without a dtype to write, all must agree; what is not a float must agree anyway."""
    first = together[0]
    for other in together[1:]:
        for name, stored in first.tensors.items():
            known = other.tensors.get(name, stored).dtype
            both = known.is_floating_point and stored.dtype.is_floating_point
            if known != stored.dtype and not (both and dtype is not None):
                hint = "say what to write with --dtype, such as --dtype float32" if both else "merge models of one kind"
                raise ModelError(
                    f"{first.name} and {other.name} have other dtypes (`{name}`: {str(stored.dtype)[6:]} and {str(known)[6:]}): {hint}"
                )


def _same_tokenizers(together: Sequence[Checkpoint]) -> None:
    """Raises ModelError where vocabularies differ: the same row would be another word."""
    known = [(each, _vocabulary(each.folder)) for each in together if not each.single]
    with_one = [(each, words) for each, words in known if words]
    for other, words in with_one[1:]:
        mine = with_one[0][1]
        if words != mine:
            differing = [word for word in (*mine, *words) if mine.get(word) != words.get(word)]
            raise ModelError(
                f"{with_one[0][0].name} and {other.name} have other tokenizers ({len(set(differing))} tokens differ, such as {differing[0]!r}): merge models of one vocabulary"
            )


def _vocabulary(folder: Path) -> Mapping[str, int]:
    """Token to row of the embeddings; empty where there is no tokenizer.json."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf8"))
        words = found["model"]["vocab"]
        words = words if isinstance(words, dict) else {word: row for row, (word, _) in enumerate(words)}
        return words | {each["content"]: each["id"] for each in found.get("added_tokens") or []}
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a tokenizer ({error}): copy it from where the model comes from") from error
