"""Save a model so that AutoModel.from_pretrained, SentenceTransformer and surefoot all open the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from surefoot.errors import ModelError
from surefoot.files import atomic_folder, write_json
from surefoot.models.load import CARD, CARD_VERSION, HEAD
from surefoot.models.model import Model

_POOLING_KEYS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "last": "pooling_mode_lasttoken",
}


def save(model: Model, folder: Path) -> None:
    """Write `folder`: the backbone and tokenizer as transformers saves them, SentenceTransformer's modules, the head.

    Everything is written to a temporary folder first; a killed process leaves the old folder or none.
    Raises ModelError for a plain module (`Model.from_module`): there is no class to open it with elsewhere.
    """
    if not hasattr(model.backbone, "save_pretrained"):
        raise ModelError(
            f"`{model.name}` is a plain module: only transformers models are saved; keep its state_dict with safetensors instead"
        )
    with atomic_folder(folder) as partial:
        model.backbone.save_pretrained(partial)  # type: ignore[operator]
        model.processor.save(partial)
        save_file({name: value.contiguous() for name, value in model.head.state_dict().items()}, partial / HEAD)
        card: dict[str, Any] = {
            "version": CARD_VERSION,
            "name": model.name,
            "classes": list(model.classes),
            "pool": model.pool,
            "normalize": model.normalize,
        }
        if model.processor.modality == "text":
            card["max_length"] = model.processor.max_length  # type: ignore[attr-defined]
            _sentence_transformer_files(model, partial, card["max_length"])
        write_json(partial / CARD, card)


def _sentence_transformer_files(model: Model, folder: Path, max_length: int) -> None:
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")] + (
        [("Normalize", "2_Normalize")] if model.normalize else []
    )
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(modules)
        ],
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    pooling = folder / "1_Pooling"
    pooling.mkdir()
    write_json(
        pooling / "config.json",
        {"word_embedding_dimension": model.dim} | {key: pool == model.pool for pool, key in _POOLING_KEYS.items()},
    )
    if model.normalize:
        (folder / "2_Normalize").mkdir()
