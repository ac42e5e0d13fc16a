"""Where in a transformer block things are: attention and feed-forward, by the linear layers that they begin and end with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from surefoot.errors import RecipeError
from surefoot.tune.selections import linear_layers

if TYPE_CHECKING:
    from surefoot.models.model import Model

#: Last parts of the names that models give the projections.
QUERIES = ("query", "q_proj", "q_lin", "q", "query_proj", "wq", "q_attn")
VALUES = ("value", "v_proj", "v_lin", "v", "value_proj", "wv")


@dataclass(frozen=True)
class Site:
    """A sub-layer of a block: `first` reads its input, `last` gives its output; names of linear layers."""

    first: str
    last: str


@dataclass(frozen=True)
class Heads:
    """The attention of a block: names of its projections, `count` heads of `size` numbers each.

    `values`: heads of the value projection, fewer than `count` where heads share their keys and values.
    """

    query: str
    value: str
    output: str
    count: int
    size: int
    values: int


def site(model: Model, block: str, where: Literal["attention", "feed_forward"]) -> Site:
    """The first and the last linear layer of the attention or of the feed-forward part of a block.

    Raises RecipeError where there are none.
    """
    names = [name for name in linear_layers(model, [block]) if is_attention(name, block) == (where == "attention")]
    if len(names) < 2 or outputs(model.get_submodule(names[-1])) != inputs(model.get_submodule(names[0])):
        raise RecipeError(
            f"no {where.replace('_', '-')} part of linear layers was found in `{block}`: choose `lora`, which adapts layers one by one"
        )
    return Site(names[0], names[-1])


def heads(model: Model, block: str, *, asking: str, scales: bool = False) -> Heads:
    """The attention heads of a block. Raises RecipeError where they are not found, queries and values are one layer, or
    queries are normalised after their projection, so that no scale of theirs would tell."""
    names = [name for name in linear_layers(model, [block]) if is_attention(name, block)]
    ends = {name.rpartition(".")[2].lower(): name for name in names}
    query = next((ends[end] for end in QUERIES if end in ends), None)
    value = next((ends[end] for end in VALUES if end in ends), None)
    count = _count(model)
    if query is None or value is None or not count:
        raise RecipeError(
            f"{asking} acts on attention heads, and `{block}` has no query and value projections of its own: choose `lora`"
        )
    owner = model.get_submodule(query.rpartition(".")[0])
    if scales and any(name.startswith("q_norm") for name, _ in owner.named_children()):
        raise RecipeError(
            f"{asking} scales queries, and `{block}` normalises its own, which undoes a scale: choose `lora`, or another model"
        )
    size = outputs(model.get_submodule(query)) // count
    return Heads(query, value, names[-1], count, size, outputs(model.get_submodule(value)) // size)


def all_heads(model: Model, *, asking: str, scales: bool = False) -> dict[str, Heads]:
    """By block; `scales`: what asks multiplies queries. Raises RecipeError for a model without blocks or heads."""
    _check_blocks(model, asking)
    return {block: heads(model, block, asking=asking, scales=scales) for block in model.layer_names}


@dataclass(frozen=True)
class Outputs:
    """What the heads of a block give: the name of their output projection, `count` heads of `size` numbers each."""

    output: str
    count: int
    size: int


def all_outputs(model: Model, *, asking: str) -> dict[str, Outputs]:
    """By block, however queries, keys and values are computed. Raises RecipeError for a model without blocks or heads."""
    _check_blocks(model, asking)
    found, count = {}, _count(model)
    for block in model.layer_names:
        names = [name for name in linear_layers(model, [block]) if is_attention(name, block)]
        width = inputs(model.get_submodule(names[-1])) if names else 0
        if not count or not width or width % count:
            raise RecipeError(
                f"{asking} acts on attention heads, and no output projection of theirs was found in `{block}`: choose `lora`"
            )
        found[block] = Outputs(names[-1], count, width // count)
    return found


def _check_blocks(model: Model, asking: str) -> None:
    if not model.layer_names:
        raise RecipeError(f"{asking} acts on attention heads, and `{model.name}` has none: choose a transformer")


def _count(model: Model) -> int:
    """Attention heads of a layer, by the configuration; 0 if it does not say."""
    return int(getattr(getattr(model.backbone, "config", None), "num_attention_heads", None) or 0)


def is_attention(name: str, block: str) -> bool:
    """Whether a layer of the block belongs to its attention, by its name."""
    return "att" in name.removeprefix(block).lower()


def inputs(layer: Any) -> int:
    """Numbers that a linear layer takes; `Conv1D` is GPT-2's transposed one."""
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.weight.shape[0])


def outputs(layer: Any) -> int:
    """Numbers that it gives."""
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.weight.shape[1])
