"""Parts of pre-training that stand on an encoder and are dropped after it: a few layers and an output over its words."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from surefoot.errors import ModelError
from surefoot.models.additions import text_alone
from surefoot.models.model import Model
from surefoot.models.processor import POOL_MASK
from surefoot.models.vocabulary import vocabulary, word_embeddings
from surefoot.tune.step import Output

#: What checkpoints call the parts of their output layer for masked words: dense layer, norm, bias over the words.
OUTPUTS = (
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
    ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
)

#: What they call those of a pooler, behind the model's own name or without it.
POOLER = ("pooler.dense.weight", "pooler.dense.bias")


class WordHead(nn.Module):
    """BERT's output for masked words: z = LayerNorm(GELU(W h + c)) E^T + b, states (..., D) to logits (..., V).

    E: the encoder's word embeddings as they are now, which train from both ends. W, c, b and the norm are the checkpoint's
    own where the folder that the model was loaded from holds them (`found`), as BERT and RoBERTa name them; otherwise W is
    random and the rest plain.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(model.dim, model.dim), nn.GELU(), nn.LayerNorm(model.dim))
        self.bias = nn.Parameter(torch.zeros(len(word_embeddings(model))))
        own = checkpoint_head(model)
        self.found = bool(own)
        if own:
            config: Any = model.backbone.config
            self.transform[2].eps = config.layer_norm_eps
            self.load_state_dict(own)

    def forward(self, model: Model, states: Tensor) -> Tensor:
        return vocabulary(model, self.transform(states.float())) + self.bias


def checkpoint_head(model: Model) -> dict[str, Tensor]:
    """The output layer for masked words in the folder that the model was loaded from, as `WordHead` names its parts;
    empty where the folder has none that fits."""
    file = _checkpoint(model)
    if file is None:
        return {}
    shape = word_embeddings(model).shape
    with safe_open(file, framework="pt") as tensors:
        for dense, norm, bias in OUTPUTS:
            names = {"transform.0": dense, "transform.2": norm}
            wanted = {
                f"{ours}.{end}": f"{theirs}.{end}" for ours, theirs in names.items() for end in ("weight", "bias")
            }
            wanted["bias"] = bias
            if set(wanted.values()) <= set(tensors.keys()):
                found = {ours: tensors.get_tensor(theirs).float() for ours, theirs in wanted.items()}
                fits = found["bias"].shape == shape[:1] and found["transform.0.weight"].shape == (model.dim, model.dim)
                return found if fits else {}
    return {}


def _checkpoint(model: Model) -> Path | None:
    """The weights that the model was loaded from, where they lie in a folder here."""
    places = (model.source, getattr(model.backbone, "name_or_path", None))
    return next((file for place in places if place and (file := Path(place) / "model.safetensors").is_file()), None)


def checkpoint_pooler(model: Model) -> dict[str, Tensor]:
    """`weight` and `bias` of the pooler in the folder that the model was loaded from; empty where it has none."""
    file = _checkpoint(model)
    if file is None:
        return {}
    with safe_open(file, framework="pt") as tensors:
        found = {
            name.rpartition(".")[2]: tensors.get_tensor(name).float()
            for name in tensors.keys()  # noqa: SIM118 - no mapping
            if name in POOLER or name.partition(".")[2] in POOLER
        }
    return found if set(found) == {"weight", "bias"} and found["bias"].shape == (model.dim,) else {}


def embedded(model: Model, inputs: Mapping[str, Tensor]) -> Tensor:
    """What the lowest block of the encoder receives: words and positions, (B, T, D), with gradient."""
    with text_alone(model):
        return model._states_entering(0, {name: each for name, each in inputs.items() if name != POOL_MASK}).float()


def embedded_vectors(model: Model, vectors: Tensor, attention_mask: Tensor) -> Tensor:
    """What the lowest block receives for vectors (B, T, D) in place of word embeddings: positions come in as for words."""
    with text_alone(model):
        return model._states_entering(0, {"inputs_embeds": vectors, "attention_mask": attention_mask}).float()


def pooled(model: Model, output: Output, inputs: Mapping[str, Tensor]) -> Tensor:
    """The text's vector as the model pools it, before it is scaled to unit length: (B, D). `output` has hidden states."""
    assert output.hidden_states is not None
    states = tuple(each.float() for each in output.hidden_states)
    mask = inputs.get(POOL_MASK, inputs["attention_mask"])
    return model.pooling(states if model.pooling.every_layer else states[-1], mask)


def position_embeddings(model: Model, length: int) -> Tensor:
    """The encoder's learned embeddings of the first `length` positions: (T, D). Raises ModelError where it has none."""
    for name, module in model.backbone.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            first = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa counts from behind padding
            return module.weight[first : first + length].float()
    raise ModelError(f"`{model.name}` has no table of positions: choose an encoder such as `minilm`")


def top_layers(model: Model, count: int, *, fresh: bool = False) -> nn.ModuleList:
    """Copies of the `count` topmost blocks, at most all of them; `fresh`: with the weights of an untrained one."""
    layers = nn.ModuleList(deepcopy(layer) for layer in model.layers[-count:])
    if fresh:
        backbone: Any = model.backbone
        layers.apply(backbone._init_weights)
    for parameter in layers.parameters():
        parameter.requires_grad_(True)
    return layers.train()


def through(model: Model, layers: nn.ModuleList, states: Tensor, attention_mask: Tensor, ids: Tensor) -> Tensor:
    """The states (B, T, D) after `layers`, run as the encoder runs its own: with its masks and relative positions.

    What follows the blocks in the encoder, such as a last norm, follows here too.
    """
    assert model._stack is not None
    path, parent, own = model._stack
    attribute = path.split(".")[-1]
    parent._modules[attribute] = nn.ModuleList([_Entering(states, layers[0]), *layers[1:]])
    try:
        # The words are not read: the states stand in their place.
        with text_alone(model):
            output: Any = model.backbone(input_ids=ids, attention_mask=attention_mask)
    finally:
        parent._modules[attribute] = own
    found: Tensor = output.last_hidden_state.float()
    return found


class _Entering(nn.Module):
    """A block that is given these states in place of those that it is called with."""

    def __init__(self, states: Tensor, layer: nn.Module) -> None:
        super().__init__()
        self.states = states
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if args:
            return self.layer(self.states, *args[1:], **kwargs)
        return self.layer(**{**kwargs, "hidden_states": self.states})
