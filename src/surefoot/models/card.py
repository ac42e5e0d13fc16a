"""What surefoot itself writes beside a model's own files: classes, pooling, head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch import nn

from surefoot.errors import ModelError

if TYPE_CHECKING:
    from surefoot.models.model import Model

CARD = "surefoot.json"
HEAD = "head.safetensors"
POOLING = "pooling.safetensors"
#: Raised when the card's fields change; cards of another version are refused, not guessed at. The next one is that of
#: models with additions, which a reader that knows nothing of them must not open without, and the one after that of
#: compressed models.
CARD_VERSION = 1
COMPRESSED_VERSION = 3


def read_card(source: Path | str) -> dict[str, Any]:
    if not isinstance(source, Path) or not (source / CARD).exists():
        return {}
    card = read_json(source / CARD)
    if card.get("version") not in (CARD_VERSION, CARD_VERSION + 1, COMPRESSED_VERSION):
        raise ModelError(
            f"{source / CARD}: of version {card.get('version')}, and this surefoot reads {CARD_VERSION}: use the surefoot that saved the model"
        )
    if not isinstance(card.get("classes"), list):
        raise ModelError(
            f"{source / CARD}: no `classes`: the folder was damaged; take it from where it came from again"
        )
    return card


def restore_head(model: Model, source: Path | str, card: dict[str, Any]) -> None:
    if not card:
        return
    model.set_classes(card["classes"])
    try:
        model.head.load_state_dict(load_file(Path(source) / HEAD))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{Path(source) / HEAD}: the head is missing or damaged ({reason}): take the folder from where it came from again"
        ) from error


def restore_pooling(model: Model, source: Path | str) -> None:
    """What a pooling learned, where the folder has it."""
    path = Path(source) / POOLING
    if not isinstance(model.pooling, nn.Module) or not isinstance(source, Path) or not path.exists():
        return
    try:
        model.pooling.load_state_dict(load_file(path))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path}: the pooling is damaged, or of another model ({reason}): take the folder from where it came from again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; ModelError if the file holds anything else."""
    try:
        content = json.loads(path.read_text("utf8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: not valid JSON ({error}): the folder was damaged; take it from where it came from again"
        ) from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{path}: holds a JSON {type(content).__name__}, not an object: the folder was damaged; take it from where it came from again"
        )
    return content
