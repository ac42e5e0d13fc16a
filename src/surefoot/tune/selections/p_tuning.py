"""P-tuning: a prompt whose embeddings a small net makes of one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surefoot.registry import Paper, register
from surefoot.tune.selections import whole
from surefoot.tune.selections.prompt_tuning import NAME, Prompt, Prompted, put, words

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Encoded(Prompt):
    """The prompt as an LSTM in both directions and a net of two layers make it of `rows`."""

    def __init__(self, rows: Tensor, width: int) -> None:
        super().__init__(rows)
        d = rows.shape[1]
        self.lstm = nn.LSTM(d, width, num_layers=2, bidirectional=True, batch_first=True)
        self.net = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, d))

    def made(self) -> Tensor:
        found: Tensor = self.net(self.lstm(self.rows[None])[0])[0]
        return found


@register(
    "p_tuning",
    kind="selection",
    family="prompt",
    papers=[Paper("GPT Understands, Too", "Liu et al.", 2021, arxiv="2103.10385")],
)
class PTuning(Prompted):
    """A prompt before every text whose embeddings depend on one another while they train, and the head.

    P_i = MLP([LSTM_forward(E_1..i) ; LSTM_backward(E_i..length)]),  E (length, d) trains, MLP = W_2 ReLU(W_1 .)

    Independent embeddings change little and stay where they were drawn, the paper finds; so a net makes them, which
    `finish` leaves out: what stays are the embeddings P, used as in `prompt_tuning`, all before the text (the paper's own
    templates put some between parts of it). length: 20, as in peft's example for classification; width: of either
    direction of the LSTM, None for d / 2, the authors'. E starts as N(0, 1), as the authors' embedding does.

    The parts stay in the model (see `surefoot.models.additions`). Raises RecipeError as `prompt_tuning` does.
    Reference: Liu et al. 2021; THUDM/P-tuning, prompt_encoder.py.

    >>> PTuning(length=10)
    PTuning(length=10, width=None)
    """

    called = "p_tuning"
    title = "P-tuning"

    def __init__(self, *, length: int = 20, width: int | None = None) -> None:
        self.length = whole("length", length, least=1)
        self.width = None if width is None else whole("width", width, least=1)

    def attach(self, model: Model) -> None:
        d = words(model, asking=self.title).embedding_dim
        self.reserve(model)
        put(model, Encoded(torch.randn(self.length, d), self.width or max(d // 2, 1)))

    @torch.no_grad()
    def collapse(self, model: Model) -> None:
        """The embeddings in place of the net that made them."""
        backbone: Any = model.backbone
        part: Encoded = backbone._modules[NAME]
        if not isinstance(part, Encoded):
            return
        plain = Prompt(part.made().clone()).to(model.device).train(part.training)
        for hooks in (backbone._forward_pre_hooks, backbone._forward_hooks):
            for key, hook in list(hooks.items()):
                if getattr(hook, "__self__", None) is part:
                    hooks[key] = getattr(plain, hook.__name__)
        backbone._modules[NAME] = plain
