"""The training loop: determinism, resuming, the cached prefix, weight zero, and recipes that cannot work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import examples
from surefoot import Recipe, load
from surefoot.data.examples import Examples
from surefoot.errors import RecipeError, RunError, SurefootError
from surefoot.models.additions import inside
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs, predict
from surefoot.registry import get, methods
from surefoot.tune.checkpoint import Checkpoint
from surefoot.tune.fit import Fit
from surefoot.tune.folder import claim
from surefoot.tune.identity import identity
from tiny_models import images, save_gpt2, save_vit

SMALL = {"epochs": 2, "batch_size": 8, "precision": "float32", "optimizer": {"name": "adamw", "lr": 1e-3}}


def small(**changes: object) -> Recipe:
    return Recipe(**{**SMALL, **changes})


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: Model, b: Model) -> bool:
    return all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())


def test_it_learns_and_leaves_the_model_it_was_given_alone(tiny_bert: Model) -> None:
    before = weights(tiny_bert)
    run = small(epochs=6).fit(tiny_bert, examples(240))
    assert run.evaluate({"test": examples(200, 1)})["test"].accuracy.value > 0.9
    assert all(
        torch.equal(value, before[name]) for name, value in weights(tiny_bert).items() if name.startswith("backbone")
    )


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tiny_bert: Model) -> None:
    first, second, other = (small().fit(tiny_bert, examples(), seed=seed).model for seed in (3, 3, 4))
    assert same(first, second)
    assert not same(first, other)


OBJECTIVES = [method.name for method in methods("objective") if method.name != "cross_entropy"]


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(save_vit(tmp_path_factory.mktemp("vit")))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_of_weight_zero_is_plain_training_to_the_bit(tiny_bert: Model, name: str) -> None:
    plain = small(epochs=1).fit(tiny_bert, examples(32)).model
    assert same(small(epochs=1, objectives={"cross_entropy": 1.0, name: 0.0}).fit(tiny_bert, examples(32)).model, plain)


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Model:
    return load(save_gpt2(tmp_path_factory.mktemp("gpt2"), bert_folder))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_survives_a_resume_and_ends_with_finite_weights(
    tiny_bert: Model, tiny_vit: Model, tiny_gpt2: Model, name: str, tmp_path: Path
) -> None:
    needs = get("objective", name).make().needs
    model, train = (tiny_gpt2, examples(32)) if "causal" in needs else (tiny_bert, examples(40))
    options = {"steps": 1} if name.startswith("c_adv") else {}  # each is a pass of its own
    options = {"layers": 1} if name == "denosent" else options  # of its decoder's sixteen
    if "answers" in needs:
        train = replace(train, label_texts=train.classes)
    if "entities" in needs:
        entities = np.empty(40, dtype=object)
        entities[:] = [((0, 4),)] * 40
        train = replace(train, entities=entities)
    if "pairs" in needs:
        train = replace(train, positive=np.array(examples(40, 1).inputs), negative=np.array(examples(40, 2).inputs))
        train = replace(train, score=np.linspace(0, 1, 40))
    if "pixels" in needs:
        pixels, labels = images(40)
        model, train = tiny_vit, Examples(pixels, labels, ("dark", "bright"), modality="image", source="made")
    recipe = small(
        epochs=1,
        objectives={"cross_entropy": 1.0, name: {"weight": 0.1, **options}},
        optimizer={"name": "sam", "inner": {"name": "adamw", "lr": 1e-3}},
    )
    whole = Fit(recipe, model, train).run()
    assert all(torch.isfinite(value).all() for value in whole.state_dict().values() if value.is_floating_point())
    assert same(whole, resumed_at(3, recipe, model, tmp_path, train=train))


#: A plain and a two-pass optimizer for every selection, a plain and a wrapping selection for every optimizer; that all of
#: them go together is in test_together.
RESUMED = {(each.name, optimizer) for each in methods("selection") for optimizer in ("adamw", "sam")}
RESUMED |= {(selection, each.name) for each in methods("optimizer") for selection in ("all", "lora")}


@pytest.mark.parametrize(("selection", "optimizer"), sorted(RESUMED))
def test_every_selection_and_every_optimizer_resumes_to_the_same_bytes(
    tiny_bert: Model, selection: str, optimizer: str, tmp_path: Path
) -> None:
    options = {
        "top_layers": {"k": 1},
        "robust_critical": {"epochs": 1, "examples": 6},
        "routed_experts": {"domains": ["good", "bad"]},
    }.get(selection, {})
    recipe = small(epochs=1, selection={"name": selection, **options}, optimizer={"name": optimizer})
    whole = Fit(recipe, tiny_bert, examples(40)).run()
    assert same(whole, resumed_at(2, recipe, tiny_bert, tmp_path))
    added = inside(whole, whole.state_dict())
    assert [name for name in whole.state_dict() if name not in added] == list(tiny_bert.state_dict())


def resumed_at(step: int, recipe: Recipe, model: Model, folder: Path, *, train: Examples | None = None) -> Model:
    """Train to `step`, keep the checkpoint, forget everything, go on from the file."""
    train = examples(40) if train is None else train

    class Stop(Exception):
        pass

    class Once(Checkpoint):
        def tick(self, fit: Fit) -> None:
            if fit.history.steps == step:
                self.save(fit)
                raise Stop

    with pytest.raises(Stop):
        Fit(recipe, model, train).run(checkpoint=Once(folder / "checkpoint"))
    fit = Fit(recipe, model, train)
    trained = fit.run(checkpoint=Checkpoint(folder / "checkpoint"))
    assert fit.history.resumed_at == step
    return trained


def test_a_checkpoint_of_another_training_is_not_used(tiny_bert: Model, tmp_path: Path) -> None:
    resumed_at(2, small(epochs=1), tiny_bert, tmp_path)
    fit = Fit(small(epochs=1), tiny_bert, examples(40), seed=1)
    fit.run(checkpoint=Checkpoint(tmp_path / "checkpoint"))
    assert fit.history.resumed_at == 0


def test_a_damaged_checkpoint_starts_over(tiny_bert: Model, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "state.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{broken")
    fit = Fit(small(epochs=1), tiny_bert, examples(40))
    fit.run(checkpoint=Checkpoint(path))
    assert fit.history.resumed_at == 0


@pytest.mark.parametrize("selection", ["head", {"name": "top_layers", "k": 1}])
def test_the_cache_changes_nothing_but_rounding(tiny_bert: Model, selection: object) -> None:
    from surefoot.models import prefix

    cached = small(selection=selection).fit(tiny_bert, examples()).model
    prefix._memory.clear()  # the second one reads the file
    assert same(cached, small(selection=selection).fit(tiny_bert, examples()).model)
    uncached = small(selection=selection, cache=False).fit(tiny_bert, examples()).model
    for name, value in weights(cached).items():
        torch.testing.assert_close(value, weights(uncached)[name], atol=2e-4, rtol=1e-2)


def test_the_cache_is_keyed_by_what_it_depends_on(tiny_bert: Model) -> None:
    from surefoot.models.prefix import _key

    encoded = encode_inputs(tiny_bert, examples().inputs, "text")
    key = _key(tiny_bert, encoded, 1, torch.float32)
    assert key == _key(tiny_bert, encode_inputs(tiny_bert, examples().inputs, "text"), 1, torch.float32)
    assert key != _key(tiny_bert, encoded, 2, torch.float32)
    assert key != _key(tiny_bert, encoded, 1, torch.bfloat16)
    assert key != _key(tiny_bert, encode_inputs(tiny_bert, examples(seed=1).inputs, "text"), 1, torch.float32)
    assert key != _key(tiny_bert, encode_inputs(tiny_bert, examples().inputs, "text", max_length=5), 1, torch.float32)
    parameter = tiny_bert.layers[1].attention.self.query.weight
    with torch.no_grad():
        parameter.add_(1)
        assert key == _key(tiny_bert, encoded, 1, torch.float32), "a layer above the prefix does not matter"
        parameter.sub_(1)
        tiny_bert.layers[0].attention.self.query.weight.add_(1)
        changed = _key(tiny_bert, encoded, 1, torch.float32)
        tiny_bert.layers[0].attention.self.query.weight.sub_(1)
    assert key != changed


def test_objectives_that_change_the_inputs_run_without_the_cache_and_say_so(tiny_bert: Model) -> None:
    run = small(epochs=1, selection={"name": "top_layers", "k": 1}, objectives={"cross_entropy": 1, "smart": 1}).fit(
        tiny_bert, examples(16)
    )
    assert any("`smart`" in note and "not cached" in note for note in run.history.notes)


def test_predictions_do_not_depend_on_the_company_of_a_batch(tiny_bert: Model) -> None:
    texts = examples(64).inputs
    together = predict(tiny_bert, encode_inputs(tiny_bert, texts, "text"), precision="float32").features
    alone = np.concatenate(
        [predict(tiny_bert, encode_inputs(tiny_bert, [text], "text"), precision="float32").features for text in texts]
    )
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_linear_probe_keeps_the_backbone_and_wise_ft_lies_between(tiny_bert: Model) -> None:
    train = examples(96)
    probe, tuned, wise = (
        Recipe.named(name, precision="float32", batch_size=16, epochs=epochs).fit(tiny_bert, train).model
        for name, epochs in (("linear_probe", 0), ("lp_ft", 2), ("wise_ft", 2))
    )
    for name, value in weights(probe).items():
        if name.startswith("backbone"):
            assert torch.equal(value, weights(tiny_bert)[name])
        torch.testing.assert_close(weights(wise)[name], torch.lerp(value, weights(tuned)[name], 0.75))


CANNOT_WORK = [
    ({"objectives": {"focl": 1.0}}, "did you mean `focal`"),
    ({"objectives": {"focal": -1.0}}, "`weight` is -1.0"),
    ({"objectives": {"focal": {"weight": 1, "gama": 2}}}, "did you mean `gamma`"),
    ({"objectives": {"focal": {"gamma": -2}}}, "`gamma` is -2"),
    ({"objectives": {}}, "name at least one"),
    ({"objectives": {"cross_entropy": 0.0}}, "every objective has weight 0"),
    ({"head": "random", "objectives": {"cross_entropy": 1, "kl_reference": 1}}, "use head: probe or keep"),
    ({"reducer": "group_dro", "objectives": {"l2_sp": 1.0}}, "add cross_entropy"),
    ({"selection": "tops"}, "unknown selection `tops`"),
    ({"selection": {"name": "top_layers", "k": -1}}, "`k` is -1"),
    ({"optimizer": {"name": "adamw", "lr": -1.0}}, "`lr` is -1.0"),
    ({"optimizer": {"name": "sam", "rh": 1.0}}, "did you mean `rho`"),
    ({"optimizer": 3}, "does not name a method"),
    ({"epochs": -1}, "`epochs` is -1"),
    ({"epocs": 2}, "did you mean `epochs`"),
    ({"batch_size": 0}, "`batch_size` is 0"),
    ({"schedule": "linar"}, "`schedule` is 'linar'"),
    ({"after": [{"name": "wise_ft", "alpha": 2}]}, "`alpha` is 2"),
]


@pytest.mark.parametrize(("fields", "message"), CANNOT_WORK, ids=[message for _, message in CANNOT_WORK])
def test_recipes_that_cannot_work_fail_when_made(fields: dict, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(**fields)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_recipes_read_back_what_they_write(tmp_path: Path) -> None:
    for method in methods("recipe"):
        recipe = Recipe.named(method.name)
        path = tmp_path / f"{method.name}.yaml"
        path.write_text(recipe.to_yaml())
        assert Recipe.load(path) == recipe


def test_a_loss_that_is_not_finite_names_objective_and_rows(tiny_bert: Model) -> None:
    train = examples(16)
    with torch.no_grad():
        broken = Fit(small(epochs=1), tiny_bert, train)
        broken.model.head.weight.fill_(float("nan"))
    with pytest.raises(SurefootError, match=r"objective `cross_entropy` is not finite at training rows \d+"):
        broken.run()


def test_an_unfinished_run_is_not_overwritten_by_another(tiny_bert: Model, tmp_path: Path) -> None:
    recipe, other = small(epochs=1), small(epochs=1, batch_size=4)
    fit = Fit(recipe, tiny_bert, examples(40))
    out = tmp_path / "run"
    assert not claim(out, identity(fit))
    (out / "recipe.yaml").write_text(recipe.to_yaml())
    checkpoint = Checkpoint(out / "checkpoint")
    checkpoint.restore(fit)
    checkpoint.save(fit)
    with pytest.raises(RunError, match="not finished"):
        other.fit(tiny_bert, examples(40), out=out)
    assert (out / "recipe.yaml").read_text() == recipe.to_yaml()
    assert recipe.fit(tiny_bert, examples(40), out=out).folder == out


def test_l2_sp_holds_the_backbone_and_not_the_head(tiny_bert: Model) -> None:
    fit = Fit(small(epochs=1, objectives={"l2_sp": {"weight": 1, "alpha": 2.0, "beta": 0.5}}), tiny_bert, examples(16))
    with torch.no_grad():
        for parameter in fit.trained.values():
            parameter.add_(0.1)
    fit._closure(np.arange(8), 0)(True)
    head = fit.trained["head.weight"]
    torch.testing.assert_close(head.grad, 0.5 * head.detach())
    layer = fit.trained["backbone.encoder.layer.0.output.dense.weight"]
    start = tiny_bert.state_dict()["backbone.encoder.layer.0.output.dense.weight"]
    torch.testing.assert_close(layer.grad, 2.0 * (layer.detach() - start))


def test_scores_are_added_to_a_run_and_labels_fit_its_logits(tiny_bert: Model, tmp_path: Path) -> None:
    import json
    from dataclasses import replace

    import pyarrow.parquet as pq

    recipe = small(epochs=1)
    run = recipe.fit(tiny_bert, examples(40), out=tmp_path / "run")
    run.evaluate({"first": examples(20, 1)})
    second = examples(20, 2)
    # The same sentences, from a source that lists its classes the other way round.
    turned = replace(second, classes=("positive", "negative"), labels=1 - second.labels)
    again = recipe.fit(tiny_bert, examples(40), out=tmp_path / "run")
    assert again.history.steps == run.history.steps
    again.evaluate({"second": turned})
    again.evaluate({})
    assert set(json.loads((tmp_path / "run" / "metrics.json").read_text())) == {"first", "second"}
    table = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pandas()
    rows = table[table["split"] == "second"]
    assert (rows["label"].to_numpy() == second.labels).all()
    assert len(table) == 40


def test_somebodys_recipe_is_not_taken_for_a_run(tiny_bert: Model, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("epochs: 1  # mine\n")
    with pytest.raises(RunError, match="holds no run"):
        small(epochs=1).fit(tiny_bert, examples(16), out=tmp_path)
    assert (tmp_path / "recipe.yaml").read_text() == "epochs: 1  # mine\n"


def test_frozen_layers_stay_in_eval_mode_also_without_the_cache(tiny_bert: Model) -> None:
    fit = Fit(
        small(epochs=1, selection={"name": "top_layers", "k": 1}, objectives={"cross_entropy": 1, "smart": 1}),
        tiny_bert,
        examples(16),
    )
    fit.model.train()
    assert not any(module.training for module in fit.model.layers[0].modules())
    assert fit.model.layers[1].training


def test_example_weights_reach_the_probe(tiny_bert: Model) -> None:
    plain, weighted = examples(64), examples(64, weight=np.linspace(0.0, 2.0, 64))
    heads = [
        Recipe.named("linear_probe", precision="float32").fit(tiny_bert, each).model.head.weight
        for each in (plain, weighted)
    ]
    assert not torch.allclose(*heads)


def test_modules_of_equal_weights_and_other_code_do_not_share_features() -> None:
    from torch import nn

    from surefoot.data.examples import Examples

    rng = np.random.default_rng(0)
    train = Examples(rng.normal(size=(40, 3)), rng.integers(0, 2, 40), ("a", "b"), modality="features", source="made")
    heads = []
    for activation in (nn.ReLU(), nn.Tanh()):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 5), activation, nn.Linear(5, 4))
        heads.append(Recipe.named("linear_probe").fit(Model.from_module(module, dim=4), train).model.head.weight)
    assert not torch.allclose(*heads)
