"""`images`: CIFAR-10 photographs, and the same corrupted; a small residual network, pretrained once.

    python -m surefoot.evidence.tracks.images    # pretrain: some minutes, kept in the cache as safetensors

Half of CIFAR-10's training images pretrain; arms are tuned on 1,000 of the other half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.assets import cache_folder
from surefoot.data.examples import Examples
from surefoot.data.images import decode
from surefoot.data.tasks.cifar10 import CLASSES
from surefoot.data.tasks.stored import stored
from surefoot.evidence import corruptions
from surefoot.evidence.classification import Classification, World
from surefoot.evidence.corruptions import Corruption
from surefoot.files import atomic_folder
from surefoot.models.model import Model
from surefoot.models.precision import autocast, resolve

TRAIN_SIZE, TEST_SIZE, VALIDATION_SIZE = 1000, 400, 500
SHIFTS: Mapping[str, tuple[Corruption, float]] = {
    "noise": (corruptions.noise, 0.06),
    "strong_noise": (corruptions.noise, 0.12),
    "blur": (corruptions.blur, 0.8),
    "strong_blur": (corruptions.blur, 1.2),
    "contrast": (corruptions.contrast, 0.5),
    "strong_contrast": (corruptions.contrast, 0.3),
}
#: Pretraining: passes over 25,000 images, and SGD's largest learning rate.
EPOCHS, BATCH, RATE, SEED = 6, 128, 0.1, 0
MEAN, DEVIATION = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
#: Order of the training images: the stored one is by class, and each half is to hold them all.
ORDER = 0
#: What is left for tuning, counted in half images: an eighth of an epoch changes a model enough to tell it apart.
_EPOCHS = (2, 0.25, 0.5, 1, 3, 4)


class Network(nn.Module):
    """transformers' ResNet of three stages on images of twice their size: (B, 32, 32, 3) in [0, 1] to (B, 128)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        scaled = (images.permute(0, 3, 1, 2) - self.mean) / self.deviation
        pooled: Tensor = self.backbone(F.interpolate(scaled, scale_factor=2.0)).pooler_output
        return pooled.flatten(1)


class Photographs(Classification):
    """LP-FT of the whole network on 1,000 photographs, two epochs."""

    name = "images"
    generation = 2
    summary = "CIFAR-10: a small ResNet pretrained on one half, tuned on 1,000 of the other, six corruptions of 400"
    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": {"name": "adamw", "lr": 2e-4},
        "selection": "all",
        "epochs": 2,
    }
    family: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"epochs": each} for each in _EPOCHS)

    def check(self) -> None:
        stored("cifar10")

    def world(self, seed: int) -> World:
        rng = np.random.default_rng(seed)
        held = 25_000 + rng.permutation(25_000)[: TRAIN_SIZE + VALIDATION_SIZE]
        train, validation = (photographs("train", part) for part in np.split(held, [TRAIN_SIZE]))
        clean = photographs("test", rng.permutation(10_000)[:TEST_SIZE])
        tests = {"photographs": clean}
        for number, (name, (corruption, severity)) in enumerate(SHIFTS.items()):
            inputs = corruption(np.asarray(clean.inputs), severity, np.random.default_rng([seed, number]))
            tests[name] = replace(clean, inputs=inputs, source=f"images/{name}")
        model = Model.from_module(pretrained(), dim=128, classes=CLASSES, name="small-resnet")
        return World(model, train, tests, "photographs", validation)


@lru_cache(maxsize=1)
def _rows() -> dict[str, tuple[list[bytes], np.ndarray]]:
    import pyarrow.parquet as pq

    table = pq.read_table(stored("cifar10"))
    split, labels = np.array(table["split"].to_pylist()), np.array(table["label"].to_pylist(), dtype=np.int64)
    cells = table["image"]
    found = {}
    for name in ("train", "test"):
        where = np.flatnonzero(split == name)
        if name == "train":
            where = np.random.default_rng(ORDER).permutation(where)
        found[name] = (cells.take(where).to_pylist(), labels[where])
    return found


def photographs(split: str, index: np.ndarray) -> Examples:
    """Those images of a split as an array (N, 32, 32, 3) of floats in [0, 1]."""
    cells, labels = _rows()[split]
    pixels = np.stack([np.asarray(decode(cells[i])) for i in index]).astype(np.float32) / 255
    return Examples(pixels, labels[index], CLASSES, modality="features", source=f"images/{split}")


def pretrained() -> Network:
    """The network, from the cache; pretrained on the first call."""
    from transformers import ResNetModel

    folder = cache_folder() / "models" / f"resnet-cifar10-{EPOCHS}-{SEED}-{ORDER}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "config.json").is_file():
            _pretrain(folder)
    return Network(ResNetModel.from_pretrained(folder)).eval()


def _pretrain(folder: Path) -> None:
    """SGD with momentum, one cycle of the learning rate, mirrored and moved images."""
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(SEED)
    sizes: dict[str, Any] = {"embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1]}
    network = Network(ResNetModel(ResNetConfig(**sizes, layer_type="basic"))).train()
    head = nn.Linear(128, len(CLASSES))
    train = photographs("train", np.arange(25_000))
    images, labels = torch.from_numpy(train.inputs), torch.from_numpy(np.asarray(train.labels))
    steps = len(labels) // BATCH
    weights = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(weights, lr=RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    run = autocast(resolve("auto", "cpu"), "cpu")
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        right = 0
        order = torch.randperm(len(labels))
        for index in order[: steps * BATCH].view(steps, BATCH):
            with run():
                logits = head(network(_varied(images[index])))
            loss = F.cross_entropy(logits.float(), labels[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            right += int((logits.argmax(1) == labels[index]).sum())
        print(f"epoch {epoch + 1} of {EPOCHS}: {right / steps / BATCH:.3f} right in training", flush=True)
    with atomic_folder(folder) as partial:
        network.backbone.save_pretrained(partial)  # type: ignore[operator]


def _varied(images: Tensor) -> Tensor:
    """Half of them mirrored, all moved by up to three pixels."""
    mirrored = torch.rand(len(images)) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(2), images)
    down, right = (int(torch.randint(-3, 4, ())) for _ in range(2))
    return images.roll((down, right), dims=(1, 2))


if __name__ == "__main__":
    pretrained()
TRACK = Photographs()
