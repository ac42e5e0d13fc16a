"""Talking Models: a student that asks its teacher in a language of their own."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.compress.compressor import Compressor
from surefoot.compress.joined import joined
from surefoot.compress.training import train
from surefoot.models.layers import keep_layers
from surefoot.models.model import Model
from surefoot.progress import Progress
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction, positive
from surefoot.tune.selections import whole
from surefoot.tune.selections.all import All
from surefoot.tune.step import Batch

if TYPE_CHECKING:
    from surefoot.data.examples import Examples


@register(
    "talking_models",
    kind="compressor",
    family="distillation",
    papers=[
        Paper(
            "Talking Models: Distill Pre-trained Knowledge to Downstream Models via Interactive Communication",
            "Zhao et al.",
            2023,
            arxiv="2310.03188",
        )
    ],
)
class TalkingModels(Compressor):
    """A student of fewer layers learns the task and to foresee what the teacher would answer it, state by state.

    question m = E_s(h_s),  reply r = E_t(upper_t(D_t(m))),  L = CE + interact ||D_s(r) - H_s||^2
        + message ||E_s(h_s) - E_t(h_t)||^2 + state (||D_s(E_s(h_s)) - h_s||^2 + ||D_t(E_t(h_t)) - h_t||^2)

    h, H (B, T, D): states after half of a model's layers and after all; E, D: linear encoders to messages of `size` numbers
    and decoders back, one each for student and teacher, trained and then thrown away; upper_t: the teacher's upper half,
    which is frozen and passes gradients on. Squared distances are means over numbers of tokens that are there. The student
    starts as round(share L) of the teacher's own layers, evenly spread, with its embeddings and head.

    share: 0.5. interact, message, state: 1 each; size: 128; one exchange a step. epochs: 3; lr: 5e-5 of AdamW. What the losses
    are called and that message and state add little is the paper's; their exact forms and weights were not seen.
    share 1 and no epochs change nothing. Raises RecipeError for options out of range or without data, ModelError for
    models without blocks. Reference: Zhao et al. 2023.

    >>> TalkingModels(share=0.34).interact
    1.0
    """

    needs_data = True
    needs_blocks = True
    nothing: ClassVar[Mapping[str, Any]] = {"share": 1.0, "epochs": 0}

    def __init__(
        self,
        *,
        share: float = 0.5,
        interact: float = 1.0,
        message: float = 1.0,
        state: float = 1.0,
        size: int = 128,
        epochs: float = 3,
        lr: float = 5e-5,
    ) -> None:
        self.share = fraction("share", positive("share", share), one=True)
        self.interact = positive("interact", interact, zero=True)
        self.message = positive("message", message, zero=True)
        self.state = positive("state", state, zero=True)
        self.size = whole("size", size, least=1)
        self.epochs = positive("epochs", epochs, zero=True)
        self.lr = positive("lr", lr)

    def apply(self, model: Model, train_set: Examples | None, *, seed: int, progress: Progress) -> Model:
        teacher = deepcopy(model).eval()
        leave_layers(model, max(1, round(self.share * len(model.layers))))
        recipe = {"name": "talking-models", "optimizer": {"name": "adamw", "lr": self.lr}, "epochs": self.epochs}
        return train(model, train_set, recipe, selection=Talking(self, teacher), seed=seed, progress=progress)


def leave_layers(model: Model, count: int) -> list[int]:
    """Leave so many layers of a model, evenly spread from the first; returns which."""
    kept = [int(i * len(model.layers) / count) for i in range(count)]
    keep_layers(model.backbone, model.stack, kept)
    return kept


class Communication(nn.Module):
    """The four maps between states and messages."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.student_encoder, self.teacher_encoder = nn.Linear(width, size), nn.Linear(width, size)
        self.student_decoder, self.teacher_decoder = nn.Linear(size, width), nn.Linear(size, width)


class Talking(All):
    """Everything trains, and the communication with the teacher joins the loss on the student's last layer."""

    def __init__(self, method: TalkingModels, teacher: Model) -> None:
        self.method, self.teacher = method, teacher
        self._handles: list[Any] = []
        self._batch: Batch | None = None
        self._lower: Tensor | None = None

    def apply(self, model: Model) -> None:
        method, layers = self.method, model.layers
        if method.interact or method.message or method.state:
            self.teacher.freeze(max(1, len(self.teacher.layers) // 2))
            for parameter in self.teacher.parameters():
                parameter.requires_grad_(False)
            width = int(model.backbone.config.hidden_size)  # type: ignore[union-attr,arg-type]
            model.communication = Communication(width, method.size).to(model.device)
            lower = layers[max(0, len(layers) // 2 - 1)]
            self._handles = [
                model.register_forward_pre_hook(self._hear),
                lower.register_forward_hook(self._remember),
                layers[-1].register_forward_hook(lambda *seen: self._talk(model, *seen)),
            ]
        super().apply(model)

    def finish(self, model: Model) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._batch, self._lower = [], None, None
        if hasattr(model, "communication"):
            del model.communication

    def _hear(self, model: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._batch = arguments[0]

    def _remember(self, layer: nn.Module, arguments: Any, output: Any) -> None:
        self._lower = output[0] if isinstance(output, tuple) else output

    def _talk(self, model: Model, layer: nn.Module, arguments: Any, output: Any) -> Any:
        upper = output[0] if isinstance(output, tuple) else output
        batch, lower = self._batch, self._lower
        if not (model.training and torch.is_grad_enabled()) or batch is None or lower is None:
            return output
        found = joined(upper, self.loss(model.communication, batch, lower, upper))  # type: ignore[arg-type]
        return (found, *output[1:]) if isinstance(output, tuple) else found

    def loss(self, talk: Communication, batch: Batch, lower: Tensor, upper: Tensor) -> Tensor:
        """What the communication adds to the loss: a scalar."""
        method, teacher = self.method, self.teacher
        mask = batch.inputs.get("attention_mask")
        mask = torch.ones(lower.shape[:2], device=lower.device) if mask is None else mask.float()
        plain = Batch(batch.inputs, batch.labels, batch.index)
        question = talk.student_encoder(lower)
        total = lower.new_zeros((), dtype=torch.float32)
        if method.interact:
            asked = Batch(batch.inputs, batch.labels, batch.index, prefix=talk.teacher_decoder(question))
            states = teacher(asked, hidden_states=True).hidden_states or (lower,)
            reply = talk.teacher_encoder(states[-1])
            total = total + method.interact * distance(talk.student_decoder(reply), upper, mask)
        if method.message or method.state:
            theirs = teacher.run_prefix(plain, teacher.frozen)
            said = talk.teacher_encoder(theirs)
            total = total + method.message * distance(question, said, mask)
            own = distance(talk.student_decoder(question), lower, mask)
            total = total + method.state * (own + distance(talk.teacher_decoder(said), theirs, mask))
        return total


def distance(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference over the numbers of tokens that `mask` (B, T) counts."""
    each = F.mse_loss(first.float(), second.float(), reduction="none").mean(2)
    return (each * mask).sum() / mask.sum()
