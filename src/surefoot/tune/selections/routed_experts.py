"""Routed experts: one model for several domains, whose feed-forward layers are chosen by the word that a text begins with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import ModelError, RecipeError
from surefoot.models.additions import Addition
from surefoot.registry import Paper, register
from surefoot.tune.selections import linear_layers, whole
from surefoot.tune.selections.kept import Kept
from surefoot.tune.selections.sites import is_attention

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Router(Addition):
    """Sees which domain each text of a batch begins with: `route` (B,), the number of its expert, -1 for none.

    tokens: the domains' ids; place: how many marks a text begins with.
    """

    def __init__(self, tokens: Sequence[int], place: int) -> None:
        super().__init__()
        self.tokens = list(tokens)
        self.place = place
        self.route: Tensor | None = None

    def see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Hook on the backbone. A pass over input embeddings goes by the words of the pass before it."""
        ids = kwargs.get("input_ids", args[0] if args else None)
        if not isinstance(ids, Tensor):
            return
        mask = kwargs.get("attention_mask")
        first = mask.long().argmax(1) if isinstance(mask, Tensor) and mask.ndim == 2 else ids.new_zeros(len(ids))
        word = ids.gather(1, (first + self.place).clamp(max=ids.shape[1] - 1)[:, None])
        found = word == torch.tensor(self.tokens, device=ids.device)
        self.route = torch.where(found.any(1), found.long().argmax(1), -1)


class RoutedLinear(Addition):
    """A linear layer's experts: y = W_e x + b_e with e the text's expert, the layer's own W x + b where it has none.

    weight (N, d_out, d_in), bias (N, d_out): at the start the layer's own, N times. A text costs one product, as without.
    """

    def __init__(self, layer: nn.Linear, experts: int, router: Router) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().clone().repeat(experts, 1, 1))
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone().repeat(experts, 1))
        # Not a part of this one: registered, it would be saved with every layer.
        self.__dict__["router"] = router
        self._x: Tensor | None = None

    @property
    def route(self) -> Tensor:
        router: Router = self.__dict__["router"]
        if router.route is None:
            raise ModelError(
                "routed experts go by a text's first word, and none has been read: give the model token ids"
            )
        return router.route

    def before(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Hook on the layer: it computes what has no expert alone."""
        x, route = args[0], self.route
        if len(x) != len(route):
            raise ModelError(
                f"routed experts are chosen text by text, and this model joins a batch's {len(route)} texts to one: load it with another attention"
            )
        self._x = x
        return (x[route < 0],)

    def after(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Hook on the layer: what has an expert is computed by that."""
        x, self._x = self._x, None
        assert x is not None
        route = self.route
        found = output.new_empty(*x.shape[:-1], output.shape[-1])
        found[route < 0] = output
        for expert in sorted(set(route[route >= 0].tolist())):
            rows = route == expert
            bias = None if self.bias is None else self.bias[expert]
            found[rows] = F.linear(x[rows], self.weight[expert], bias).to(found.dtype)
        return found


@register(
    "routed_experts",
    kind="selection",
    family="adapter",
    papers=[
        Paper(
            "Contrastive Learning and Mixture of Experts Enables Precise Vector Embeddings",
            "Hallee et al.",
            2024,
            arxiv="2401.15713",
        )
    ],
)
class RoutedExperts(Kept):
    """One expert a domain: copies of the feed-forward layers, of which a text runs through those of its domain.

    y = W_e x + b_e in every linear layer of a block's feed-forward part, e = the domain that the text begins with

    x (T, d) the layer's input; W_e, b_e start as copies of the pretrained W, b, so that training starts from the pretrained
    model. No gate is learned: the first word decides ("science The reaction of ..."), as the paper's special token does,
    and a text costs what it costs the dense model. A text that begins with no domain runs through the pretrained layers.
    `surefoot.data.domains.marked` writes the column `domain` before each text, for training and for use.

    domains: the words, each one token of the model's vocabulary; the default stands for an example. Numbers are token ids.
    layers: only the so many top blocks; None for all, as in the paper, which gets about 85% of the gain from one.
    The experts train, and the head; attention, which the paper trains too, stays pretrained: the parts stay in the model (see
    `surefoot.models.additions`), N times the feed-forward layers large. The loss is any for pairs, `infonce` the paper's.

    Raises RecipeError for a model without transformer blocks or with fewer than `layers`, without feed-forward layers, or
    for fewer than two domains, the same one twice, or one that is no single token. Reference: Hallee et al. 2024.

    >>> RoutedExperts(domains=["physics", "biology", "law"], layers=1)
    RoutedExperts(domains=['physics', 'biology', 'law'], layers=1)
    """

    # Experts go by the first word, which is lost where embeddings are given in its place.
    withholds = frozenset({"inputs"})

    called = "routed_experts"
    title = "routed experts"

    def __init__(self, *, domains: Sequence[str | int] = ("science", "news"), layers: int | None = None) -> None:
        kinds = isinstance(domains, Sequence) and not isinstance(domains, str)
        if not kinds or len(domains) < 2 or not all(type(each) in (str, int) for each in domains):
            raise RecipeError(
                f"`domains` is {domains!r}: it must be a list of two words or more, such as [science, news]"
            )
        if len(set(domains)) < len(domains):
            raise RecipeError(f"`domains` is {list(domains)!r}: a domain is in it twice: leave one out")
        self.domains = list(domains)
        self.layers = None if layers is None else whole("layers", layers, least=1)

    def attach(self, model: Model) -> None:
        blocks = self.blocks(model, self.layers)
        layers = {
            name: layer
            for block in blocks
            for name, layer in linear_layers(model, [block]).items()
            if isinstance(layer, nn.Linear) and not is_attention(name, block)
        }
        if not layers:
            raise RecipeError(
                f"`{model.name}` has no feed-forward layers to make experts of: choose an encoder of text"
            )
        tokens, place = self._tokens(model)
        router = Router(tokens, place)
        model.backbone.add_module("router", router)
        model.backbone.register_forward_pre_hook(router.see, with_kwargs=True)
        for layer in layers.values():
            part = RoutedLinear(layer, len(tokens), router).train(layer.training)
            layer.add_module("experts", part)
            layer.register_forward_pre_hook(part.before)
            layer.register_forward_hook(part.after)

    def _tokens(self, model: Model) -> tuple[list[int], int]:
        """Ids of the domains, and how many marks the tokenizer puts before a text."""
        tokenizer: Any = getattr(model.processor, "tokenizer", None)
        found, place = [], 0
        for domain in self.domains:
            if isinstance(domain, int):
                found.append(domain)
                continue
            if tokenizer is None:
                raise RecipeError(f"routed experts go by words, and `{model.name}` reads none: choose a model of text")
            ids = tokenizer(domain, add_special_tokens=False)["input_ids"]
            if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
                raise RecipeError(
                    f"domain `{domain}` is {len(ids)} tokens of `{model.name}` or unknown to it: choose a common word that is one"
                )
            found.append(int(ids[0]))
            place = tokenizer(domain)["input_ids"].index(ids[0])
        if len(set(found)) < len(found):
            raise RecipeError(
                f"`domains` is {self.domains!r}: two of them are one token of `{model.name}`: choose others"
            )
        return found, place
