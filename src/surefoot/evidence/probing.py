"""Quantities that take passes of their own: sharpness, smoothness, alignment with label texts."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from surefoot.data.examples import Examples
from surefoot.evidence.quantities import quantity
from surefoot.evidence.trained import Trained
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs, predict
from surefoot.models.shallow_decoder import WordHead
from surefoot.tune.entities import Entities
from surefoot.tune.masking import WordMasking
from surefoot.tune.objectives.cutout import Cutout
from surefoot.tune.objectives.globally_smooth import distances, steepest
from surefoot.tune.objectives.i_star import isoscore
from surefoot.tune.objectives.learnable_consistency import mixed_style, sites
from surefoot.tune.objectives.masked_lm import MaskedLM
from surefoot.tune.objectives.noise_mask import spread
from surefoot.tune.objectives.vanishing_gradient import gradient_ratios
from surefoot.tune.step import Batch

#: Training examples that passes with gradient look at, and the radius of the step uphill (SAM's default).
EXAMPLES, RHO = 128, 0.05
#: Deviation of the noise on embeddings (SMART's default), and its seed.
SIGMA, SEED = 1e-5, 0


def _batch(trained: Trained, examples: Examples | None = None) -> Batch:
    """The first examples, of the training set if nothing else is given; their order is the seed's."""
    chosen = trained.world.train if examples is None else examples
    chosen = chosen.take(np.arange(min(EXAMPLES, len(chosen))))
    encoded = encode_inputs(trained.model, chosen.inputs, chosen.modality)
    index = np.arange(len(chosen))
    labels = torch.from_numpy(np.asarray(chosen.labels))
    return Batch(inputs=encoded.collate(index), labels=labels, index=torch.from_numpy(index))


@quantity
def sharpness(trained: Trained) -> float:
    """rise of the training loss after a step of length 0.05 along its gradient."""
    batch, model = _batch(trained), deepcopy(trained.model).eval()
    known = dict(model.named_parameters())
    weights = [known[name] for name in trained.fit.trained if name in known]

    def loss() -> Tensor:
        return F.cross_entropy(model(batch).logits, batch.labels)

    before = loss()
    gradients = torch.autograd.grad(before, weights)
    length = _length(list(gradients))
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.add_(gradient, alpha=float(RHO / length))
        return float(loss() - before)


@quantity
def first_order_flatness(trained: Trained) -> float:
    """0.05 times the gradient norm 0.05 away in the direction in which it grows fastest, training set."""
    batch, model = _batch(trained), deepcopy(trained.model).eval()
    known = dict(model.named_parameters())
    weights = [known[name] for name in trained.fit.trained if name in known]
    start = [weight.detach().clone() for weight in weights]

    def gradient(direction: list[Tensor], radius: float) -> list[Tensor]:
        """At start + radius * direction / ||direction||."""
        length = float(_length(direction)) or 1.0
        with torch.no_grad():
            for weight, origin, step in zip(weights, start, direction, strict=True):
                weight.copy_(origin + radius / length * step)
        return list(torch.autograd.grad(F.cross_entropy(model(batch).logits, batch.labels), weights))

    here = gradient(start, 0.0)
    uphill = gradient(here, RHO / 10)
    there = gradient([after - before for after, before in zip(uphill, here, strict=True)], RHO)
    return RHO * float(_length(there))


def _length(tensors: list[Tensor]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(torch.stack([each.norm() for each in tensors]))
    return length


@quantity
def roughness(trained: Trained) -> float:
    """symmetric KL between two training passes, one with noise of 1e-5 on the embeddings (nats)."""
    batch, model = _batch(trained), deepcopy(trained.model).train()
    generator = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    with torch.no_grad():
        embeddings = model.embed_inputs(batch)
        noise = SIGMA * torch.randn(embeddings.shape, generator=generator)
        log_p = F.log_softmax(model(batch).logits, dim=1)
        log_q = F.log_softmax(model(batch, embeddings=embeddings + noise).logits, dim=1)
        return float(((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1).mean())


@quantity
def bend(trained: Trained) -> float:
    """distance of the features halfway from the middle of those before and after training, over how far they moved."""
    batch = _batch(trained, trained.world.tests[trained.world.home])
    halfway = [deepcopy(trained.model).eval() for _ in range(3)]
    features = []
    with torch.no_grad():
        for share, model in zip((0.0, 0.5, 1.0), halfway, strict=True):
            for name, value in model.named_parameters():
                start = trained.start.get(name)  # parts beside the weights move away from zero
                value.copy_(share * value + (0 if start is None else (1 - share) * start))
            features.append(model(batch).features.double())
    before, between, after = features
    moved = (after - before).norm()
    return float((between - (before + after) / 2).norm() / moved.clamp_min(1e-12))


@quantity
def style_gap(trained: Trained) -> float:
    """distance of the features from those under mixed styles, over their length, home test."""
    batch, model = _batch(trained, trained.world.tests[trained.world.home]), deepcopy(trained.model).eval()
    with torch.no_grad():
        plain = model(batch).features
        with mixed_style(sites(model), batch, torch.Generator().manual_seed(SEED)):
            other = model(batch).features
    return float(((other - plain).norm(dim=1) / plain.norm(dim=1)).mean())


@quantity
def occlusion_loss(trained: Trained) -> float:
    """by how much cross-entropy rises where cutout hides a quarter of the input, home test (nats)."""
    batch, model = _batch(trained, trained.world.tests[trained.world.home]), deepcopy(trained.model).eval()
    hidden = replace(batch, inputs=Cutout().hide(batch.inputs, torch.Generator().manual_seed(SEED)))
    with torch.no_grad():
        before, after = (F.cross_entropy(model(each).logits, each.labels) for each in (batch, hidden))
    return float(after - before)


@quantity
def masked_loss(trained: Trained) -> float:
    """by how much cross-entropy rises where images are multiplied with blurred uniform noise, home test (nats)."""
    batch, model = _batch(trained, trained.world.tests[trained.world.home]), deepcopy(trained.model).eval()
    images = batch.inputs["features"]
    cells = torch.rand(len(images), 8, 8, generator=torch.Generator().manual_seed(SEED))
    mask = spread(cells, (images.shape[1], images.shape[2])).movedim(1, -1)
    noisy = replace(batch, inputs={"features": images * mask})
    with torch.no_grad():
        before, after = (F.cross_entropy(model(each).logits, each.labels) for each in (batch, noisy))
    return float(after - before)


@quantity
def slope(trained: Trained) -> float:
    """largest change of the probabilities over the distance in pretrained features, mean over home test examples."""
    home = trained.world.home
    p = torch.from_numpy(trained.home.logits).softmax(1)
    return float(steepest(p, distances(torch.from_numpy(trained.at_start[home].features))).mean())


@quantity
def replaced_token_auroc(trained: Trained) -> float:
    """how well a linear probe of the last token states finds tokens that were swapped for another text's."""
    batch, model = _batch(trained), deepcopy(trained.model).eval()
    ids, seen = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
    generator = torch.Generator().manual_seed(SEED)
    other = ids[torch.randperm(len(ids), generator=generator)]
    swapped = seen & (other != ids) & (other != 0) & (torch.rand(ids.shape, generator=generator) < 0.15)
    corrupted = replace(batch, inputs={**batch.inputs, "input_ids": torch.where(swapped, other, ids)})
    with torch.no_grad():
        layers = model(corrupted, hidden_states=True).hidden_states
    assert layers is not None
    half = len(ids) // 2
    parts = [
        (layers[-1][where][seen[where]].numpy(), swapped[where][seen[where]].numpy())
        for where in (slice(half), slice(half, None))
    ]
    probe = LogisticRegression(max_iter=1000).fit(*parts[0])
    return float(roc_auc_score(parts[1][1], probe.decision_function(parts[1][0])))


@quantity
def hidden_word_loss(trained: Trained) -> float:
    """cross-entropy of hidden words, home test (nats)."""
    examples = trained.world.tests[trained.world.home]
    batch, model = (
        _batch(trained, replace(examples, labels=np.zeros(len(examples), dtype=np.int64))),
        deepcopy(trained.model).eval(),
    )
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    term = trained.fit.loss.terms.get("masked_lm")
    head = term.head if isinstance(term, MaskedLM) else WordHead(trained.world.model)
    masking, generator = WordMasking("hidden_word_loss", model), torch.Generator().manual_seed(SEED)
    hidden = masking.draw(ids, mask, 0.15, generator)[:, 0]
    read = replace(batch, inputs={**batch.inputs, "input_ids": ids.masked_fill(hidden, masking.mask_id)})
    with torch.no_grad():
        layers = model(read, hidden_states=True).hidden_states
        assert layers is not None
        return float(F.cross_entropy(head(model, layers[-1][hidden]), ids[hidden]))


@quantity
def entity_auroc(trained: Trained) -> float:
    """how well a linear probe of the last token states finds the tokens of entities, training examples."""
    examples = trained.world.train.take(np.arange(min(EXAMPLES, len(trained.world.train))))
    batch, model = _batch(trained), deepcopy(trained.model).eval()
    seen = batch.inputs["attention_mask"].bool()
    encoded = encode_inputs(model, examples.inputs, examples.modality)
    inside = Entities.of(model, examples, encoded).batch(batch.index, seen.shape[1]) > 0
    with torch.no_grad():
        layers = model(batch, hidden_states=True).hidden_states
    assert layers is not None
    half = len(seen) // 2
    parts = [
        (layers[-1][where][seen[where]].numpy(), inside[where][seen[where]].numpy())
        for where in (slice(half), slice(half, None))
    ]
    probe = LogisticRegression(max_iter=1000).fit(*parts[0])
    return float(roc_auc_score(parts[1][1], probe.decision_function(parts[1][0])))


@quantity
def isotropy(trained: Trained) -> float:
    """IsoScore* of the token states of all layers on training examples."""
    batch, model = _batch(trained), deepcopy(trained.model).eval()
    with torch.no_grad():
        layers = model(batch, hidden_states=True).hidden_states
    assert layers is not None
    states = torch.stack([each.double() for each in layers[1:]])
    return float(isoscore(states[:, batch.inputs["attention_mask"].bool()].flatten(0, 1).T.cov()))


@quantity
def gradient_norm_change(trained: Trained) -> float:
    """sum over blocks of (ratio of the error's norms below and above - 1)^2, training examples."""
    batch, model = _batch(trained), deepcopy(trained.model).eval()
    ratios = gradient_ratios(model, lambda: model(batch).logits, batch.labels).detach()
    return float((ratios - 1).square().sum(0).mean())


@quantity
def text_alignment(trained: Trained) -> float:
    """cosine with the own label's text, less that with the nearest other one, home test."""
    texts = _label_features(trained.model, trained)
    features = torch.from_numpy(trained.home.features)
    cosines = (F.normalize(features, dim=1) @ F.normalize(texts, dim=1).T).numpy()
    rows = np.arange(len(cosines))
    own = cosines[rows, trained.home_labels]
    cosines[rows, trained.home_labels] = -np.inf
    return float((own - cosines.max(1)).mean())


def _label_features(model: Model, trained: Trained) -> Tensor:
    train = trained.world.train
    encoded = encode_inputs(model, list(train.label_texts or train.classes), "text")
    return torch.from_numpy(predict(model, encoded).features)
