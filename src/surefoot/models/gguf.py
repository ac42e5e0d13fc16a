"""SmolLM2-135M-Instruct from its 4-bit GGUF file: dequantised once, cached as safetensors.

Reading a Q4_1 file takes `transformers` about 18 seconds; the cached folder opens in 0.2 and gives the same logits.
The weights are those of the quantised file: every figure calls the model `smollm2-135m-instruct-q4`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from filelock import FileLock

from surefoot.assets import cache_folder, fetch
from surefoot.errors import require
from surefoot.files import atomic_folder

NAME = "smollm2-135m-instruct-q4"


def smollm2() -> Path:
    """The folder with the dequantised model and its tokenizer, made on the first call."""
    folder = cache_folder() / "models" / NAME
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{NAME}.lock"):
        if not (folder / "config.json").exists():
            _convert(fetch("smollm2"), folder)
    return folder


def _convert(file: Path, folder: Path) -> None:
    require("gguf", extra="gguf", why="reading the GGUF file of SmolLM2")
    require("accelerate", extra="gguf", why="reading the GGUF file of SmolLM2")
    import transformers

    options = {"gguf_file": file.name, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **options)
    model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
    # The weights are plain float32 now; with these marks `save_pretrained` refuses, taking them for quantised.
    for mark in ("hf_quantizer", "quantization_method", "is_quantized"):
        if hasattr(model, mark):
            try:
                delattr(model, mark)
            except AttributeError:
                setattr(model, mark, None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with atomic_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
