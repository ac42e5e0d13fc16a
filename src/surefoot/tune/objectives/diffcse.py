"""DiffCSE: SimCSE whose vectors also say what an edited text has that the text has not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.models.additions import remove
from surefoot.models.model import Model
from surefoot.models.pretrained import from_pretrained, open_tokenizer, refuse_random
from surefoot.models.shallow_decoder import WordHead
from surefoot.models.vocabulary import vocabulary, word_embeddings
from surefoot.registry import Paper, register
from surefoot.tune.masking import WordMasking
from surefoot.tune.objective import Context, Space, fraction, one_of, positive
from surefoot.tune.objectives.masked_lm import choose
from surefoot.tune.objectives.views import DropoutViews, contrast, started
from surefoot.tune.step import Step


class BatchNorm(nn.BatchNorm1d):
    """Batch norm by the batch's own statistics, which a batch of one has none of: it passes."""

    def __init__(self, dim: int, *, affine: bool = True) -> None:
        super().__init__(dim, affine=affine, track_running_stats=False)

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values) if len(values) > 1 else values


@register(
    "diffcse",
    kind="objective",
    family="contrastive",
    papers=[
        Paper(
            "DiffCSE: Difference-based Contrastive Learning for Sentence Embeddings",
            "Chuang et al.",
            2022,
            arxiv="2204.10298",
        )
    ],
)
class DiffCSE(DropoutViews):
    """Unsupervised SimCSE, and replaced tokens that are told by the text's vector: L = L_contrast + lambda L_RTD.

    L_contrast: that of `simcse`, on z = BN(W_2 ReLU(BN(W_1 f))), (D,), W_1 (2D, D), the last norm without weights of its
    own; the norms are over the 2B vectors of both passes. L_RTD: of each pass's text a share is masked anew; a frozen
    language model fills the places with its likeliest tokens, x'; a discriminator, another encoder with weights of its own
    that start as the encoder's, reads x' with z in place of what its first block would receive at the first token, and
    L_RTD = the mean over tokens, padding left out, of the cross-entropy (nats) of whether x'_t is not x_t. What the words
    of x' do not say themselves has to come from z, through which the gradient reaches the encoder. Gives a scalar in nats.

    temperature: 0.05; dropout: None, the model's own (see `simcse`); lambda_rtd: lambda, 0.005; share: of tokens, 0.3; the
    authors' for BERT. generator: the frozen language model, a folder or a Hugging Face name with an output layer for masked
    words and the encoder's own vocabulary; the authors take DistilBERT for BERT. Without one (None, the default) it is the
    encoder as it is at the start, with its checkpoint's output layer, or where that has none the product with its word
    embeddings alone, which guesses badly. fill: "masked" (default), the paper's edits, or "all": the likeliest token at every place, as the authors'
    code has it, which differs where the language model does not copy what it reads. Their loss counts padding as tokens
    that were not replaced; here it is left out.

    Costs two passes of discriminator and generator each beside those of `simcse`. Needs no labels. State: weights of
    projector, discriminator and its output, dropped at the end. Raises RecipeError for values out of range, a model
    without mask token or dropout, a generator of another vocabulary; ModelError where it cannot be opened.
    Reference: Chuang et al. 2022, section 3; voidism/DiffCSE, diffcse/models.py and run_diffcse.sh.

    >>> DiffCSE(lambda_rtd=0.05).share
    0.3
    """

    needs = frozenset({"inputs", "hidden_states", "tokens", "layers"})
    name = "diffcse"

    def __init__(
        self,
        *,
        temperature: float = 0.05,
        dropout: float | None = None,
        lambda_rtd: float = 0.005,
        share: float = 0.3,
        generator: str | None = None,
        fill: Literal["masked", "all"] = "masked",
    ) -> None:
        super().__init__(temperature=temperature, dropout=dropout)
        self.lambda_rtd = positive("lambda_rtd", lambda_rtd, zero=True)
        self.share = fraction("share", positive("share", share))
        self.generator = generator
        self.fill = one_of("fill", fill, ["masked", "all"])

    def setup(self, context: Context) -> None:
        model = context.model
        self.masking_ = WordMasking("diffcse", model)
        super().setup(context)
        self.discriminator = deepcopy(model)
        remove(self.discriminator)  # parts that a selection has put into the encoder are the encoder's
        self.discriminator.requires_grad_(True)
        self.discriminator.frozen = 0
        self.tell = started(nn.Sequential(nn.Linear(model.dim, 2)))
        # In a tuple, because it is no part of the state: it neither trains nor is saved.
        self.frozen_ = (_own(model) if self.generator is None else _opened(self.generator, model),)

    def make_projector(self, dim: int) -> nn.Module:
        layers = [nn.Linear(dim, 2 * dim, bias=False), BatchNorm(2 * dim), nn.ReLU()]
        layers += [nn.Linear(2 * dim, dim, bias=False), BatchNorm(dim, affine=False)]
        return started(nn.Sequential(*layers))

    def forward(self, step: Step) -> Tensor:
        first, second = self.views(step)
        loss = contrast(first, second, self.temperature).mean()
        if not self.lambda_rtd:
            return loss
        return loss + self.lambda_rtd * self.telling(step, torch.cat([first, second]))

    def telling(self, step: Step, vectors: Tensor) -> Tensor:
        """L_RTD from the projected vectors (2B, D) of both passes."""
        ids, seen = (torch.cat([step.batch.inputs[name]] * 2) for name in ("input_ids", "attention_mask"))
        inputs = {name: torch.cat([each] * 2) for name, each in step.batch.inputs.items()}
        edited = torch.cat([self.edited(step) for _ in range(2)])
        with first_state(self.discriminator, vectors):
            output = step.again(inputs={**inputs, "input_ids": edited}, model=self.discriminator)
        assert output.hidden_states is not None, "`needs` holds hidden_states"
        where = seen.bool()
        scores = self.tell(output.hidden_states[-1].float()[where])
        return F.cross_entropy(scores, (edited != ids).long()[where])

    @torch.no_grad()
    def edited(self, step: Step) -> Tensor:
        """The batch's texts with the language model's guesses: (B, T)."""
        ids, mask = step.batch.inputs["input_ids"], step.batch.inputs["attention_mask"]
        chosen = choose(self.masking_, step, self.share)
        read = self.masking_.hide(ids, chosen, step.generator, vocabulary=len(word_embeddings(step.model)))
        places = chosen if self.fill == "masked" else self.masking_.words(ids, mask)
        if not places.any():
            return ids
        (language_model,) = self.frozen_
        language_model.to(ids.device)
        with step._autocast():
            guesses = language_model(read, mask, places).argmax(1)
        return ids.masked_scatter(places, guesses)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {
            "temperature": Space(0.01, 0.2, log=True),
            "lambda_rtd": Space(1e-3, 0.1, log=True),
            "share": Space(0.15, 0.45),
        }


@contextmanager
def first_state(model: Model, vectors: Tensor) -> Iterator[None]:
    """Within, the first block of `model` receives `vectors` (B, D) as the state of the first token."""

    def put(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        states = args[0] if args else kwargs["hidden_states"]
        states = torch.cat([vectors[:, None].to(states.dtype), states[:, 1:]], 1)
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    hook = model.layers[0].register_forward_pre_hook(put, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


class LanguageModel(nn.Module):
    """A frozen model of masked words: scores (places, V) of the words at `places` (B, T) of texts that are partly hidden."""

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        raise NotImplementedError


class _Own(LanguageModel):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = deepcopy(model)
        self.head = WordHead(model)

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        states = self.model.backbone(input_ids=ids, attention_mask=mask).last_hidden_state[places]
        return self.head(self.model, states) if self.head.found else vocabulary(self.model, states)


class _Opened(LanguageModel):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        scores: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return scores[places]


def _own(model: Model) -> LanguageModel:
    return _Own(model).eval().requires_grad_(False)


def _opened(source: str, model: Model) -> LanguageModel:
    """The language model in a folder or on the hub. Raises RecipeError where its words are others than the encoder's."""
    import transformers

    opened, report = from_pretrained(
        transformers.AutoModelForMaskedLM,
        source,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
    )
    refuse_random(report, source)
    tokenizer: Any = getattr(model.processor, "tokenizer", None)
    if open_tokenizer(source).get_vocab() != tokenizer.get_vocab():
        raise RecipeError(
            f"diffcse: the words of the generator `{source}` are not those of `{model.name}`: choose one with the same vocabulary, or leave `generator` out"
        )
    return _Opened(opened).eval().requires_grad_(False)
