"""Prompt tuning: learned embeddings in front of every text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.models.additions import Addition
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, one_of
from surefoot.tune.selections import whole
from surefoot.tune.selections.kept import Kept

if TYPE_CHECKING:
    from surefoot.models.model import Model

#: What the part is called in the backbone; rates by layer know embeddings by such a name.
NAME = "prompt_embeddings"
#: Fewest tokens of a text that a prompt must leave room for.
LEAST = 4


class Prompt(Addition):
    """Embeddings (length, d) of tokens that stand before every text; nobody but the blocks sees that they are there."""

    spans = True
    lengthens = True

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)

    def made(self) -> Tensor:
        """The embeddings (length, d), in float32."""
        return self.rows

    def before(
        self, backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Hook before the backbone: puts the prompt before the text, where every token may look at it."""
        if self.silent:
            return None
        inputs = dict(kwargs)
        ids, text = inputs.pop("input_ids", None), inputs.get("inputs_embeds")
        if text is None:
            text = backbone.get_input_embeddings()(ids)  # type: ignore[operator]
        with torch.autocast(text.device.type, enabled=False):
            rows = self.made().to(text.dtype).expand(len(text), -1, -1)
        length = rows.shape[1]
        inputs["inputs_embeds"] = torch.cat([rows, text], dim=1)
        for name, value in (("attention_mask", 1), ("token_type_ids", 0)):
            if inputs.get(name) is not None:
                inputs[name] = F.pad(inputs[name], (length, 0), value=value)
        if (places := inputs.get("position_ids")) is not None:
            front = torch.arange(length, device=places.device).expand(len(places), -1)
            inputs["position_ids"] = torch.cat([front, places + length], dim=1)
        return args, inputs

    def after(self, backbone: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Hook behind the backbone: the states of the text alone, so that pooling and masks hold."""
        if self.silent:
            return None
        length = len(self.made())
        output["last_hidden_state"] = output.last_hidden_state[:, length:]
        if output.get("hidden_states") is not None:
            output["hidden_states"] = tuple(each[:, length:] for each in output.hidden_states)
        return output


def words(model: Model, *, asking: str) -> nn.Embedding:
    """The backbone's word embeddings. Raises RecipeError where it has none."""
    find = getattr(model.backbone, "get_input_embeddings", None)
    table = find() if find is not None else None
    if not isinstance(table, nn.Embedding):
        raise RecipeError(
            f"{asking} puts embeddings before those of words, and `{model.name}` has none: choose `lora`, or a transformer of texts"
        )
    return table


def put(model: Model, part: Prompt) -> None:
    """Put the prompt into the model."""
    backbone = model.backbone
    backbone.add_module(NAME, part.to(model.device).train(backbone.training))
    backbone.register_forward_pre_hook(part.before, with_kwargs=True)
    backbone.register_forward_hook(part.after)


def drawn(model: Model, table: nn.Embedding, length: int) -> Tensor:
    """Embeddings of so many words drawn from the vocabulary, without tokens that mean something to the tokenizer."""
    tokenizer = getattr(model.processor, "tokenizer", None)
    words_ = torch.ones(len(table.weight))
    words_[[each for each in getattr(tokenizer, "all_special_ids", []) if each < len(words_)]] = 0
    chosen = torch.multinomial(words_, length, replacement=length > int(words_.sum()))
    return table.weight.detach()[chosen.to(table.weight.device)].float().clone()


class Prompted(Kept):
    """What puts `length` embeddings before every text."""

    length: int
    starts_there = False

    def reserve(self, model: Model) -> None:
        places = _places(model)
        if places is None:
            return
        left = places - self.length
        if left < LEAST:
            raise RecipeError(
                f"a prompt of {self.length} tokens leaves {max(left, 0)} of the {places} places that `{model.name}` has for a text: give a smaller `length`"
            )
        processor: Any = model.processor
        if hasattr(processor, "max_length"):
            processor.max_length = min(processor.max_length, left)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"length": Space(4, 100, log=True, integer=True)}


def _places(model: Model) -> int | None:
    """How many tokens the backbone has positions for, where it has a table of them."""
    for name, module in model.backbone.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


@register(
    "prompt_tuning",
    kind="selection",
    family="prompt",
    papers=[
        Paper(
            "The Power of Scale for Parameter-Efficient Prompt Tuning",
            "Lester, Al-Rfou and Constant",
            2021,
            arxiv="2104.08691",
        )
    ],
)
class PromptTuning(Prompted):
    """Embeddings that stand before every text train, and the head; every weight of the model stays.

    h = backbone([P ; E(x)]),  P (length, d) before the embeddings E(x) (T, d) of the text; what is pooled are the states of
    the T tokens of the text

    The tokens of the text move back by `length` positions. length: 20, beyond which the paper gains little (it takes 100).
    start: `vocabulary`, embeddings of words that are drawn, or `random`, uniform in [-0.5, 0.5]; the paper's, of which
    the first is better but for its largest model. Where positions are few the text is read shorter, by `length`.
    Training does not start from the pretrained model's answers. The rate should be high: 1e-3 and more.

    The parts stay in the model (see `surefoot.models.additions`). Attention maps would show the prompt, so objectives that
    read them are refused. Raises RecipeError for models without word embeddings, and where no place is left for a text.
    Reference: Lester et al. 2021.

    >>> PromptTuning(length=10)
    PromptTuning(length=10, start='vocabulary')
    """

    called = "prompt_tuning"
    title = "prompt tuning"

    def __init__(self, *, length: int = 20, start: str = "vocabulary") -> None:
        self.length = whole("length", length, least=1)
        self.start = one_of("start", start, ["vocabulary", "random"])

    def attach(self, model: Model) -> None:
        table = words(model, asking=self.title)
        self.reserve(model)
        if self.start == "vocabulary":
            rows = drawn(model, table, self.length)
        else:
            rows = torch.rand(self.length, table.embedding_dim) - 0.5
        put(model, Prompt(rows))
