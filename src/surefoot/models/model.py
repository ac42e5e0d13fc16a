"""The model: a pretrained backbone, a pooling and a linear head, for text, images and plain modules alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import ModelError
from surefoot.models.additions import PREFIX_ATTENTION, parts
from surefoot.models.latent import LATENT
from surefoot.models.layers import Pass, find_layers
from surefoot.models.modes import evaluating
from surefoot.models.pooling import PoolingSpec, make_pooling
from surefoot.models.precision import Precision
from surefoot.models.processor import POOL_MASK, FeatureProcessor, Processor
from surefoot.tune.step import Batch, Output


class Model(nn.Module):
    """A backbone with a linear head: features f (B, D) = pool(backbone(x)), logits (B, C) = W f + b.

    backbone: a `transformers` model, or any module that maps a tensor to (B, D) (see `from_module`).
    normalize: whether f is scaled to unit length before the head.
    frozen: how many of the lowest layers do not train; they run in eval mode without gradient, and their output may
    come from a cache. `len(layers) + 1` means the whole backbone: then what is cached is f.
    precision: of matrix products where nothing else is asked for; training sets it to the recipe's.
    The head always runs in float32: in bfloat16 two logits that differ by less than a percent would tie.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        dim: int,
        processor: Processor,
        pool: PoolingSpec = "mean",
        normalize: bool = False,
        classes: Sequence[str] = (),
        name: str = "",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.processor = processor
        self.pool = pool
        self.normalize = normalize
        self.name = name
        #: What `load` opens it by again; None for one that it did not open.
        self.source: str | None = None
        #: Selections whose parts stay in it (see `additions.py`), as recipes name them.
        self.additions: list[dict[str, Any]] = []
        #: What made it smaller and how it is stored (see `compressed.py`); empty for a model with weights of its own.
        self.compression: dict[str, Any] = {}
        self.dim = dim
        self.frozen = 0
        self.precision: Precision = "auto"
        self._stack = find_layers(backbone)
        self.pooling = make_pooling(pool)
        self.pooling.bind(layers=len(self.layers))
        self._tuples = False
        self.set_classes(classes)

    @classmethod
    def from_module(cls, module: nn.Module, *, dim: int, classes: Sequence[str] = (), name: str = "module") -> Model:
        """A model around a plain module that maps a float tensor (B, ...) to features (B, dim)."""
        return cls(module, dim=dim, processor=FeatureProcessor(), classes=classes, name=name)

    # --- structure

    def set_classes(self, classes: Sequence[str]) -> None:
        """Name the classes and give the model a fresh head of zeros for them: every class equally likely."""
        self.classes = tuple(classes)
        self.head = nn.Linear(self.dim, max(len(self.classes), 1), device=self.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def layers(self) -> list[nn.Module]:
        """The transformer blocks, lowest first; none for other architectures."""
        return list(self._stack[2]) if self._stack else []

    @property
    def stack(self) -> nn.ModuleList:
        """The list that holds them, itself: who takes layers out has to count them anew in the configuration."""
        return self._stack[2] if self._stack else nn.ModuleList()

    @property
    def layer_names(self) -> list[str]:
        """Their names as parameters begin with: `backbone.encoder.layer.0`."""
        if not self._stack:
            return []
        return [f"backbone.{self._stack[0]}.{i}" for i in range(len(self._stack[2]))]

    def height(self, name: str) -> int:
        """How far below the top the parameter called `name` runs: 0 for the head and what follows the layers, 1 for the
        topmost layer, `len(layers)` for the lowest, one more for what runs before."""
        layers = self.layer_names
        for i, layer in enumerate(reversed(layers)):
            if name.startswith(f"{layer}."):
                return i + 1
        if not name.startswith("backbone."):
            return 0
        names = list(self.state_dict())
        last = max(
            (i for i, each in enumerate(names) if layers and each.startswith(f"{layers[-1]}.")), default=len(names)
        )
        return 0 if name in names[last:] and "embed" not in name else len(layers) + 1

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters(), torch.empty(0)).device

    @property
    def unreached(self) -> list[str]:
        """Names of parameters that no feature depends on: a pooler, since features are pooled from the last states."""
        return [f"backbone.{name}" for name, _ in self.backbone.named_parameters() if name.startswith("pooler.")]

    @property
    def has_prefixes(self) -> bool:
        """Whether its attention looks at more than the text (see `prefix_tuning` and `prompt_tuning`)."""
        attention = getattr(getattr(self.backbone, "config", None), "_attn_implementation", None)
        return attention == PREFIX_ATTENTION or any(part.lengthens for part in parts(self.backbone).values())

    def lowest_trained(self) -> int:
        """How many of the lowest layers hold nothing that trains: what `frozen` may be set to."""
        trained = [name for name, parameter in self.backbone.named_parameters() if parameter.requires_grad]
        if not trained and not self.pooling.learns:
            return len(self.layers) + 1
        if not self._stack or self.pooling.every_layer or any(part.spans for part in parts(self.backbone).values()):
            return 0
        prefix = f"{self._stack[0]}."
        names = [name for name, _ in self.backbone.named_parameters()]
        last = max(i for i, name in enumerate(names) if name.startswith(prefix))
        inside = [int(name[len(prefix) :].split(".")[0]) for name in trained if name.startswith(prefix)]
        # What is registered after the layers runs after them (a final norm, a pooler) unless it is an embedding
        # that the layers share (relative positions): then no layer's output is fixed.
        outside = [name for name in trained if not name.startswith(prefix)]
        if any(names.index(name) < last or "embed" in name for name in outside):
            return 0
        return min(inside, default=len(self._stack[2]) - 1)

    def freeze(self, depth: int) -> None:
        """Run the lowest `depth` layers in eval mode and without gradient from now on, or from a cache."""
        self.frozen = depth
        if 0 < depth <= len(self.layers):
            self._tuples = self._layers_return_tuples()

    def train(self, mode: bool = True) -> Model:
        """Train mode for what trains. A frozen prefix, and what runs below it, stays in eval mode."""
        super().train(mode)
        if mode and self.frozen > len(self.layers):
            self.backbone.eval()
        elif mode and self.frozen and self._stack:
            for layer in self.layers[: self.frozen]:
                layer.eval()
            for name, module in self.backbone.named_modules():
                if name == self._stack[0]:
                    break
                if not self._stack[0].startswith(f"{name}." if name else ""):
                    module.eval()
        return self

    # --- forward

    def forward(
        self, batch: Batch, *, embeddings: Tensor | None = None, hidden_states: bool = False, attentions: bool = False
    ) -> Output:
        """One pass. `embeddings` (B, T, D) replaces the input embeddings; then nothing comes from the cache."""
        prefix = batch.prefix
        # An objective that asks how the loss changes with the inputs needs gradients through the frozen layers too.
        wanted = any(value.requires_grad for value in batch.inputs.values())
        if prefix is None and self.frozen and embeddings is None and not (hidden_states or attentions or wanted):
            prefix = self.run_prefix(batch, self.frozen)
        if prefix is not None and self.frozen > len(self.layers):
            features, extra = prefix, None
        else:
            features, extra = self._features(batch, prefix, embeddings, hidden_states, attentions)
        with torch.autocast(self.device.type, enabled=False):
            features = features.float()
            if self.normalize:
                features = F.normalize(features, dim=-1)
            logits = self.head(features)
        return Output(features, logits, getattr(extra, "hidden_states", None), getattr(extra, "attentions", None))

    def _features(
        self, batch: Batch, prefix: Tensor | None, embeddings: Tensor | None, hidden_states: bool, attentions: bool
    ) -> tuple[Tensor, Any]:
        inputs: dict[str, Any] = dict(batch.inputs)
        if "features" in inputs:
            return self.backbone(inputs["features"] if embeddings is None else embeddings), None
        inputs.pop(POOL_MASK, None)
        hidden_states = hidden_states or self.pooling.every_layer
        if embeddings is not None:
            inputs.pop("input_ids")
            inputs["inputs_embeds"] = embeddings
        if hidden_states or attentions:
            inputs |= {"output_hidden_states": hidden_states, "output_attentions": attentions}
        with self._injected(prefix):
            output = self.backbone(**inputs)
        pooled = self._pooled(output, batch)
        latent = getattr(self.backbone, LATENT, None)
        return pooled if latent is None else latent(pooled), output

    def features_of(self, states: Tensor, batch: Batch) -> Tensor:
        """Features (B, D) pooled from another layer's states (B, T, D) of the batch, by a pooling of one layer's."""
        with torch.autocast(self.device.type, enabled=False):
            features = self.pooling(states.float(), self._pool_mask(states, batch))
            return F.normalize(features, dim=-1) if self.normalize else features

    def _pool_mask(self, states: Tensor, batch: Batch) -> Tensor:
        mask = batch.inputs.get(POOL_MASK, batch.inputs.get("attention_mask"))
        return torch.ones(states.shape[:2], device=states.device) if mask is None else mask

    def _pooled(self, output: Any, batch: Batch) -> Tensor:
        # In float32: a sum of thirty bfloat16 states in bfloat16 loses a percent.
        hidden = output.last_hidden_state.float()
        if hidden.ndim == 4:  # A convolutional map (B, D, H, W): its mean is what `transformers` pools to.
            return torch.mean(hidden, (2, 3))
        states = output.hidden_states if self.pooling.every_layer else hidden
        return self.pooling(states, self._pool_mask(hidden, batch))

    def embed_inputs(self, batch: Batch) -> Tensor:
        """The input embeddings (B, T, D) that `forward(embeddings=...)` takes; for plain modules the input itself."""
        if "features" in batch.inputs:
            return batch.inputs["features"]
        if "input_ids" not in batch.inputs:
            raise ModelError(f"`{self.name}` reads pixels: objectives that perturb word embeddings do not apply to it")
        embed: nn.Module = self.backbone.get_input_embeddings()  # type: ignore[operator]
        return cast(Tensor, embed(batch.inputs["input_ids"]))

    # --- the frozen prefix

    def run_prefix(self, batch: Batch, depth: int) -> Tensor:
        """Output of the lowest `depth` layers (B, T, D), in eval mode and without gradient; of everything: features (B, D)."""
        with torch.no_grad(), evaluating(self.backbone):
            if depth > len(self.layers):
                return self._features(batch, None, None, False, False)[0]
            return self._states_entering(
                depth, {name: each for name, each in batch.inputs.items() if name != POOL_MASK}
            )

    def _states_entering(self, depth: int, inputs: dict[str, Tensor]) -> Tensor:
        """What layer number `depth` receives, without running it or anything above."""
        seen: list[Tensor] = []

        class Stop(BaseException):
            pass

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(args[0] if args else kwargs["hidden_states"])
            raise Stop

        hook = self.layers[depth].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.backbone(**inputs)
        except Stop:
            pass
        finally:
            hook.remove()
        return seen[0]

    @contextmanager
    def _injected(self, prefix: Tensor | None) -> Iterator[None]:
        """Within, the frozen layers pass `prefix` on instead of running; the rest of the forward is the model's own."""
        if prefix is None or not self._stack:
            yield
            return
        path, parent, layers = self._stack
        attribute = path.split(".")[-1]
        skipped = [Pass(prefix, self._tuples, layer) for layer in layers[: self.frozen]]
        parent._modules[attribute] = nn.ModuleList([*skipped, *layers[self.frozen :]])
        try:
            yield
        finally:
            parent._modules[attribute] = layers

    def _layers_return_tuples(self) -> bool:
        """Whether the architecture's layers return tuples, seen on one token (or one grey image)."""
        kinds: list[bool] = []
        hook = self.layers[0].register_forward_hook(
            lambda module, args, output: kinds.append(isinstance(output, tuple))
        )
        if self.processor.modality == "text":
            token = torch.ones((1, 1), dtype=torch.long, device=self.device)
            inputs = {"input_ids": token, "attention_mask": token}
        else:
            config: Any = self.backbone.config
            size = (1, getattr(config, "num_channels", 3), config.image_size, config.image_size)
            inputs = {"pixel_values": torch.zeros(size, device=self.device)}
        try:
            # In eval mode, so that no dropout draws from the random state of whoever asks.
            with torch.no_grad(), evaluating(self.backbone):
                self.backbone(**inputs)
        finally:
            hook.remove()
        return kinds[0]
