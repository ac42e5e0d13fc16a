"""Domain adapters of sentence encoders: one base model, a small part a domain."""

from __future__ import annotations

from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction, one_of
from surefoot.tune.selections import whole
from surefoot.tune.selections.adapter import Adapter


@register(
    "sentence_adapter",
    kind="selection",
    family="adapter",
    papers=[
        Paper(
            "Efficient Domain Adaptation of Sentence Embeddings using Adapters",
            "Schopf, Schneider and Matthes",
            2023,
            arxiv="2307.03104",
        )
    ],
)
class SentenceAdapter(Adapter):
    """A bottleneck after each sub-layer of a sentence encoder trains on a domain, and the encoder itself stays for all.

    h <- h + W_up ReLU(W_down h + b_down) + b_up,  after attention and after the feed-forward layers (Houlsby's places)

    `adapter` in that design. One base model then serves any number of domains:

        save_additions(model, "domains/law")     # of surefoot.models.additions: this domain's part alone, safetensors
        load_additions(base, "domains/law")      # in place of whatever part `base` has
        remove(base)                             # the base model again

    width: 88, which makes 3.6 % of MiniLM's weights, the paper's share. site: `both`; `feed_forward` is Pfeiffer's place. dropout: of the inner numbers, 0.
    layers: only the so many top blocks; None for all. Any objective trains it; the paper's are contrastive on pairs of
    the domain (see `flyp`, `clp`, `isogclr`). Raises RecipeError where `adapter` does.
    Reference: Schopf, Schneider and Matthes 2023, by its abstract: 3.6 % of the parameters, within 1 % of tuning all.

    >>> SentenceAdapter(width=24)
    SentenceAdapter(width=24, site='both', dropout=0.0, layers=None)
    """

    called = "sentence_adapter"
    title = "a sentence adapter"

    def __init__(self, *, width: int = 88, site: str = "both", dropout: float = 0.0, layers: int | None = None) -> None:
        super().__init__(
            insertion="sequential",
            site=one_of("site", site, ["attention", "feed_forward", "both"]),
            width=whole("width", width, least=1),
            scale=1.0,
            dropout=fraction("dropout", dropout),
            layers=layers,
        )

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"width": Space(4, 256, log=True, integer=True)}
