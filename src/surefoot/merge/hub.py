"""Checkpoints by their name on the Hugging Face hub, `NAME/MODEL` or `NAME/MODEL@REVISION`: what merging needs of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from surefoot.assets import is_offline
from surefoot.errors import ModelError

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
#: Weights as safetensors, and the settings and the vocabulary beside them; never a pickle, never code.
WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
#: Copies of the weights for other programs.
UNWANTED = ("onnx/*", "openvino/*", "original/*", "coreml/*", "tflite/*")


def is_hub_name(source: str | Path) -> bool:
    """Whether it can only be a name on the hub: two parts, of which the first is no folder here.

    >>> is_hub_name("sentence-transformers/all-MiniLM-L6-v2"), is_hub_name("./runs/one"), is_hub_name("minilm")
    (True, False, False)
    """
    path = Path(str(source).partition("@")[0])
    return isinstance(source, str) and bool(_NAME.fullmatch(source)) and not path.exists() and not path.parent.is_dir()


def snapshot(name: str) -> Path:
    """The folder of that model in the hub's cache, fetched where it is not there yet.

    Offline (`--offline`, SUREFOOT_OFFLINE or HF_HUB_OFFLINE) the cache is all there is. Raises ModelError, in one
    sentence, where the hub has no such model or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    found = _NAME.fullmatch(name)
    assert found is not None
    wanted, unwanted = list(WANTED), list(UNWANTED)
    options: dict[str, Any] = {"revision": found[2], "allow_patterns": wanted, "ignore_patterns": unwanted}
    try:
        return Path(snapshot_download(found[1], local_files_only=is_offline(), **options))
    except Exception as error:
        if is_offline():
            reason, hint = "it is not in the hub's cache", "surefoot is offline: fetch it first, or give a local folder"
        else:
            reason, hint = type(error).__name__, "check the spelling and the connection"
        raise ModelError(f"{name}: neither a folder here nor to be had from the hub ({reason}): {hint}") from error
