"""`surefoot doctor`: what this machine has, what is cached, what is missing and how to get it."""

from __future__ import annotations

import importlib.util

from surefoot.cli.app import command
from surefoot.cli.options import Json

EXTRAS = {
    "peft": ("lora", "LoRA"),
    "torchao": ("compress", "int8 and int4"),
    "onnxruntime": ("onnx", "models exported to ONNX"),
    "gguf": ("gguf", "SmolLM2 from its GGUF file"),
    "PIL": ("images", "images"),
    "datasets": ("datasets", "Hugging Face data sets"),
    "gensim": ("words", "skip-gram"),
}


@command("doctor")
def doctor(json: Json = False) -> None:
    """Versions, processor, threads, cached assets and missing extras."""
    import os

    from surefoot.assets import ASSETS, cache_folder, cached
    from surefoot.cli.show import out, print_json
    from surefoot.environment import environment

    facts = environment()
    facts["cache"] = str(cache_folder())
    facts["assets"] = {name: cached(name) is not None for name in ASSETS}
    facts["extras"] = {extra: importlib.util.find_spec(module) is not None for module, (extra, _) in EXTRAS.items()}
    facts["data"] = os.environ.get("SUREFOOT_DATA")
    if json:
        print_json(facts)
        return
    out(f"python {facts['python']} on {facts['system']} {facts['machine']}: {facts['processor']}")
    out(
        f"{facts['cores']} cores, {facts['threads']} threads; bfloat16 in hardware: {'yes' if facts['bfloat16'] else 'no'}; CUDA: {facts['cuda'] or 'none'}"
    )
    out("packages: " + ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if version))
    out(
        f"cache: {facts['cache']}; fetched: "
        + (", ".join(name for name, there in facts["assets"].items() if there) or "nothing yet")
    )
    for module, (extra, why) in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            out(f"missing: {why} needs `{module}`: pip install 'surefoot[{extra}]'")
    out(f"SUREFOOT_DATA: {facts['data'] or 'not set (clinc150, banking77, cad_imdb and cifar10 are read from there)'}")
