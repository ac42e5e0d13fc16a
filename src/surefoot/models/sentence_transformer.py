"""The files in which a SentenceTransformer folder states pooling and length: read and written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from surefoot.assets import is_offline
from surefoot.files import write_json
from surefoot.models.card import read_json
from surefoot.models.model import Model

#: The poolings that SentenceTransformer has too, by its key of each.
_POOLING_KEYS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "last": "pooling_mode_lasttoken",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weighted_mean": "pooling_mode_weightedmean_tokens",
}
#: Its newer name of each.
_POOLING_MODES = {
    "mean": "mean",
    "cls": "cls",
    "max": "max",
    "lasttoken": "last",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
}
KNOWN_POOLINGS = tuple(_POOLING_KEYS)


def read_conventions(source: Path | str) -> dict[str, Any]:
    """Pooling and length as a SentenceTransformer folder states them."""
    found: dict[str, Any] = {}
    if not isinstance(source, Path):
        return _from_hub(source)
    limits = source / "sentence_bert_config.json"
    if limits.exists():
        found["max_length"] = read_json(limits).get("max_seq_length")
    if found.get("max_length") is None and (source / "modules.json").exists():
        # Since version 6 the tokenizer holds it; where nobody set it, that is an absurdly large number.
        settings = source / "tokenizer_config.json"
        limit = read_json(settings).get("model_max_length") if settings.exists() else None
        found["max_length"] = limit if isinstance(limit, int) and limit < 1_000_000 else None
    for path in sorted(source.glob("*_Pooling/config.json")):
        found["pool"] = _pooling_mode(read_json(path))
    return found


def _from_hub(name: str) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    found: dict[str, Any] = {}
    for file in ("sentence_bert_config.json", "1_Pooling/config.json"):
        try:
            content = json.loads(Path(hf_hub_download(name, file, local_files_only=is_offline())).read_text("utf8"))
        except Exception:
            continue
        if file.startswith("1_"):
            found["pool"] = _pooling_mode(content)
        else:
            found["max_length"] = content.get("max_seq_length")
    return found


def _pooling_mode(config: dict[str, Any]) -> str:
    if isinstance(config.get("pooling_mode"), str):
        return _POOLING_MODES.get(config["pooling_mode"], "mean")
    return next((pool for pool, key in _POOLING_KEYS.items() if config.get(key)), "mean")


def write_conventions(model: Model, folder: Path, max_length: int) -> None:
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
