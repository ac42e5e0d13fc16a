"""Save a model so that AutoModel.from_pretrained, SentenceTransformer and surefoot all open the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from surefoot.errors import ModelError
from surefoot.files import atomic_folder, write_json
from surefoot.models.additions import inside, write_weights
from surefoot.models.card import CARD, CARD_VERSION, COMPRESSED_VERSION, HEAD, POOLING
from surefoot.models.compressed import described, write_compressed
from surefoot.models.model import Model
from surefoot.models.sentence_transformer import KNOWN_POOLINGS, write_conventions


def save(model: Model, folder: Path) -> None:
    """Write `folder`: the backbone and tokenizer as transformers saves them, SentenceTransformer's modules, the head.

    Everything is written to a temporary folder first; a killed process leaves the old folder or none. Parts that no
    weight could absorb (adapters) go into a file of their own: surefoot opens the model whole, the others without them.
    Raises ModelError for a plain module (`Model.from_module`): there is no class to open it with elsewhere.
    """
    check_saveable(model)
    with atomic_folder(folder) as partial:
        if model.compression:
            write_compressed(model, partial)
        else:
            _write_backbone(model, partial)
        model.processor.save(partial)
        # Parts that act at the head have a file of their own, as all have.
        own = {name: value for name, value in model.head.state_dict().items() if name not in inside(model.head, [name])}
        save_file({name: value.contiguous() for name, value in own.items()}, partial / HEAD)
        if isinstance(model.pooling, nn.Module):
            save_file(
                {name: value.contiguous() for name, value in model.pooling.state_dict().items()}, partial / POOLING
            )
        card: dict[str, Any] = {
            "version": CARD_VERSION + bool(model.additions),
            "name": model.name,
            "classes": list(model.classes),
            "pool": model.pool,
            "normalize": model.normalize,
            "precision": model.precision,
        }
        if model.compression:
            card |= {"version": COMPRESSED_VERSION, "compression": described(model)}
        if model.additions:
            card["additions"] = model.additions
            write_weights(model, partial)
        if model.processor.modality == "text":
            card["max_length"] = model.processor.max_length  # type: ignore[attr-defined]
            # SentenceTransformer could not open a compressed one, and knows no other pooling.
            if not model.compression and model.pool in KNOWN_POOLINGS:
                write_conventions(model, partial, card["max_length"])
        write_json(partial / CARD, card)


def _write_backbone(model: Model, folder: Path) -> None:
    options: dict[str, Any] = {}
    if model.additions:
        state = model.backbone.state_dict()
        added = inside(model.backbone, state)
        options["state_dict"] = {name: value for name, value in state.items() if name not in added}
    model.backbone.save_pretrained(folder, **options)  # type: ignore[operator]


def check_saveable(model: Model) -> None:
    """ModelError for a plain module: asked before hours of training, not after."""
    if not hasattr(model.backbone, "save_pretrained"):
        raise ModelError(
            f"`{model.name}` is a plain module: only transformers models are saved; keep its state_dict with safetensors instead"
        )
