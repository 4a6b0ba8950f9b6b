"""What a fit by gradient gives, from two pairs to thousands."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from fusemix_core.aligners import alignment
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.aligners.recalls import mean_recall, recalls
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.engine import checkpoint, loop, saver
from fusemix_core.engine.state import TrainState, ema_momentum, train_step
from fusemix_core.errors import (
    ConfigError,
    DataError,
    DivergedError,
    FusemixError,
    UnknownNameError,
)
from fusemix_core.followers import Followers
from fusemix_core.interfaces import (
    Adapter,
    Batch,
    Callback,
    FitContext,
    Objective,
    PairedLatents,
    ResidentLatents,
)
from fusemix_core.mixups.none import NoMixup
from fusemix_core.recipes.fusemix import fusemix


class Record(Callback):
    def __init__(self):
        self.told = []

    def on_start(self, total_steps):
        self.told.append(("start", total_steps))

    def on_step(self, step, metrics):
        self.told.append(("step", step, dict(metrics)))

    def on_evaluation(self, step, metrics):
        self.told.append(("evaluation", step, dict(metrics)))

    def on_end(self):
        self.told.append(("end",))

    def all(self, what):
        return [t[1:] for t in self.told if t[0] == what]


def fit(recipe, data, **context):
    return GradientAligner().fit(*data, recipe, FitContext(**context))


def weights_of(adapters):
    return [p for a in adapters.values() for p in a.state_dict().values()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(weights_of(a), weights_of(b), strict=True))


def test_a_fit_learns_the_shared_causes(split, recipe):
    data = split(400, 60)
    adapters = fit(recipe(epochs=12, lr=1e-2, batch_size=32), data)
    assert mean_recall(recalls(adapters, data[1])) > 0.5
    for adapter in adapters.values():
        assert isinstance(adapter, Adapter) and not adapter.training
        assert all(p.device.type == "cpu" for p in adapter.parameters())


def test_three_modalities_with_missing_entries_are_learnt(split, recipe):
    data = split(400, 60, widths=(12, 9, 7), missing=0.5)
    assert bool((data[0].links < 0).any())
    adapters = fit(recipe(epochs=12, lr=1e-2, batch_size=32), data)
    assert mean_recall(recalls(adapters, data[1])) > 0.4


def bridged_recall(recipe, broken):
    """a-c recall after training on a-b and b-c pairs only; `broken` shuffles which b goes with c.

    Seen over five seeds: 0.17 to 0.48 whole, 0 to 0.08 broken.
    """
    g = torch.Generator().manual_seed(2)
    z = torch.randn(360, 4, generator=g)
    tables = {m: ResidentLatents(z @ torch.randn(4, 8, generator=g)) for m in "abc"}
    links = torch.arange(360)[:, None].repeat(1, 3)
    train, validation = links[:300].clone(), links[300:].clone()
    train[:150, 2] = train[150:, 0] = validation[:, 1] = -1
    if broken:
        train[150:, 2] = train[150:, 2][torch.randperm(150, generator=g)]
    data = PairedLatents(tables, train), PairedLatents(tables, validation)
    settings = recipe(epochs=10, lr=1e-2, batch_size=16, adapter=Part("linear"))
    return mean_recall(recalls(fit(settings, data, seed=2), data[1]))


def test_modalities_that_never_meet_are_joined_by_a_third(recipe):
    assert bridged_recall(recipe, broken=False) > 4 * bridged_recall(recipe, broken=True)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(split, recipe):
    data = split(60, 20)
    first = fit(recipe(), data, seed=1)
    torch.manual_seed(1234)
    assert same(first, fit(recipe(), data, seed=1))
    assert not same(first, fit(recipe(), data, seed=2))


def test_the_users_generators_are_left_alone(split, recipe):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    fit(recipe(), split(60, 20))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("pairs", range(4, 11))
def test_tiny_datasets_train(pairs, split, recipe):
    record = Record()
    fit(recipe(), split(pairs, 4), callbacks=[record])
    assert record.all("start") == [(4,)] and len(record.all("step")) == 4


@pytest.mark.parametrize("pairs", [2, 3])
def test_two_pairs_train_without_mixing_but_not_with(pairs, split, recipe):
    fit(recipe(mixup=Part("none")), split(pairs, 2))
    with pytest.raises(DataError, match=f"{pairs} row.*4 or more"):
        fit(recipe(), split(pairs, 2))


def test_the_paper_recipe_takes_a_step_an_epoch_of_what_there_is(split, recipe, components):
    paper = fusemix()
    for kind in ("aligner", "scorer"):
        assert getattr(paper, kind).name in ("gradient", "cosine")
    for kind in ("adapter", "mixup", "objective"):
        components.check(kind, getattr(paper, kind))
    small = Recipe(
        name="paper",
        aligner=paper.aligner,
        dim=6,
        adapter=Part("mlp", {**paper.adapter.options, "blocks": 1}),
        mixup=paper.mixup,
        objective=paper.objective,
        training=Training(**{**vars(paper.training), "epochs": 3}),
    )
    record = Record()
    fit(small, split(50, 10), callbacks=[record])
    rates = [m["lr"] for _, m in record.all("step")]
    assert len(rates) == 3 and rates[0] == 1e-6 and rates[1] > rates[2] > 1e-6


def test_without_validation_the_last_weights_are_kept(split, recipe):
    train, validation = split(60, 20)
    none = validation.select(torch.tensor([], dtype=torch.int64))
    record = Record()
    adapters = fit(recipe(), (train, none), callbacks=[record])
    assert all("recall_at_1" not in m for _, m in record.all("evaluation"))
    assert not same(adapters, fit(recipe(lr=1e-9), (train, none)))


def test_callbacks_are_told_in_order(split, recipe):
    record = Record()
    fit(recipe(evaluate_every=3, clip_norm=1.0), split(70, 20), callbacks=[record])
    assert record.told[0] == ("start", 16) and record.told[-1] == ("end",)
    assert [s for s, _ in record.all("step")] == list(range(1, 17))
    assert [s for s, _ in record.all("evaluation")] == [12, 16]
    assert set(record.all("step")[0][1]) == {"loss", "lr", "temperature", "epoch", "grad_norm"}
    step, metrics = record.all("evaluation")[0]
    losses = [m["loss"] for _, m in record.all("step")[:12]]
    assert metrics["loss"] == pytest.approx(sum(losses) / 12)
    assert metrics["recall_at_1"] == pytest.approx(
        (metrics["recall_at_1/m0-m1"] + metrics["recall_at_1/m1-m0"]) / 2
    )


def scripted_scores(monkeypatch, scores):
    """Have every evaluation of a fit give the next of `scores`."""
    scores = iter(scores)
    monkeypatch.setattr(alignment, "recalls", lambda *_, **__: {("m0", "m1"): (next(scores),) * 3})


def test_the_best_weights_are_kept_and_ties_go_to_the_earlier(split, recipe, tmp_path, monkeypatch):
    scripted_scores(monkeypatch, [0.1, 0.3, 0.3, 0.2])
    monkeypatch.setattr(checkpoint, "KEEP", 9)
    monkeypatch.setattr(saver, "SHARE", 1e9)
    adapters = fit(recipe(), split(70, 20), checkpoints=tmp_path)
    then = load_file(tmp_path / "step-8" / "state.safetensors")
    for modality, adapter in adapters.items():
        for name, value in adapter.state_dict().items():
            assert torch.equal(value, then[f"modules/{modality}/{name}"])
    values = checkpoint.latest(tmp_path).values
    assert (values["step"], values["best_step"], values["best_score"]) == (16, 8, 0.3)


def test_an_undefined_score_is_worse_than_any_other(split, recipe, monkeypatch):
    scripted_scores(monkeypatch, [float("nan"), 0.3, float("nan"), 0.2])
    record = Record()
    fit(recipe(), split(70, 20), callbacks=[record])
    assert [m["best"] for _, m in record.all("evaluation")][1:] == [0.3, 0.3, 0.3]


def test_patience_counts_evaluations_without_a_better_score(split, recipe, monkeypatch):
    scripted_scores(monkeypatch, [0.1, 0.1, 0.2, 0.2, 0.1, 0.9])
    record = Record()
    fit(recipe(epochs=20, patience=2), split(70, 20), callbacks=[record])
    assert [m["epoch"] for _, m in record.all("evaluation")] == [1, 2, 3, 4, 5]


def test_a_start_is_kept_where_training_only_harms(split, recipe):
    data, record = split(200, 40), Record()
    harm = recipe(adapter=Part("linear"), start=Part("true-map"), dim=None, lr=10.0)
    adapters = fit(harm, data, callbacks=[record])
    evaluations = record.all("evaluation")
    assert evaluations[0][0] == 0 and "loss" not in evaluations[0][1]
    scores = [m["score"] for _, m in evaluations]
    assert scores[0] == max(scores) > 0.8
    assert mean_recall(recalls(adapters, data[1])) == scores[0]
    assert all(a.out.out_features == 5 for a in adapters.values())


def test_a_start_gives_the_width_and_trains_on(split, recipe):
    data = split(200, 40)
    settings = recipe(adapter=Part("linear"), start=Part("true-map"), dim=64, evaluate_every=100)
    adapters = fit(settings, (data[0], data[1].select(torch.tensor([], dtype=torch.int64))))
    assert all(a.out.out_features == 5 and a.out.weight.requires_grad for a in adapters.values())


def test_an_adapter_that_cannot_start_is_a_config_error(split, recipe):
    with pytest.raises(ConfigError, match="'mlp' can't start from the map of 'true-map'"):
        fit(recipe(start=Part("true-map")), split(40, 10))


@pytest.mark.parametrize("part", ["adapter", "objective"])
def test_a_recipe_without_its_parts_is_a_config_error(part, split, recipe):
    incomplete = Recipe(**{**vars(recipe()), part: None})
    with pytest.raises(ConfigError, match=f"names no {part}"):
        fit(incomplete, split(40, 10))


def test_rows_can_be_together_by_a_modality_that_is_there_only(split, recipe):
    fit(recipe(together="m1"), split(40, 10))
    with pytest.raises(UnknownNameError, match="'m7'"):
        fit(recipe(together="m7"), split(40, 10))


def test_a_modality_without_training_pairs_is_a_data_error(split, recipe):
    train, validation = split(40, 10, widths=(12, 9, 7))
    train.links[:, 2] = -1
    with pytest.raises(DataError, match="modality 'm2'"):
        fit(recipe(), (train, validation))
    with pytest.raises(DataError, match="empty"):
        fit(recipe(), (train.select(torch.tensor([], dtype=torch.int64)), validation))


def test_a_loss_that_is_not_a_number_says_where_and_what_to_do(split, recipe, tmp_path):
    train, validation = split(70, 10)
    train.tables["m0"].latents[3] = torch.nan
    record = Record()
    with pytest.raises(FusemixError, match=r"nan at step \d") as error:
        fit(recipe(), (train, validation), checkpoints=tmp_path, callbacks=[record])
    assert "training.lr" in error.value.hint
    assert record.told[-1] == ("end",)


def test_weights_that_are_no_numbers_are_not_saved(split, recipe, tmp_path, monkeypatch):
    """As after a gradient that is not finite, of a loss that is."""
    real = loop.train_step

    def spoilt(state, *rest):
        metrics = real(state, *rest)
        if state.step == 4:
            next(state.fit.modules["m0"].parameters()).data.fill_(torch.nan)
        return metrics

    monkeypatch.setattr(loop, "train_step", spoilt)
    with pytest.raises(DivergedError, match="Weights became NaN"):
        fit(recipe(), split(70, 24), checkpoints=tmp_path)
    assert not checkpoint.checkpoint_folders(tmp_path)


def test_float64_latents_are_trained_on_in_float64(split, recipe):
    data = split(60, 12)
    for table in data[0].tables.values():
        table.latents = table.latents.double()
    for table in data[1].tables.values():
        table.latents = table.latents.double()
    adapters = fit(recipe(), data)
    assert all(p.dtype == torch.float64 for a in adapters.values() for p in a.parameters())


class Quadratic(Objective):
    """Its gradient is known: the embeddings are the parameters themselves."""

    def forward(self, step):
        return sum((x**2).sum() for x in step.embeddings.values()) / 2


class Vector(Adapter):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, latents):
        self.count += 1
        return self.w


def test_clipping_scales_the_gradient_to_its_norm():
    state = TrainState.new(Alignment({"a": Vector()}, Quadratic()), Training(lr=0.0), 0)
    batch = Batch({"a": torch.zeros(1, 1)}, torch.zeros(1, 1, 1, dtype=torch.int64))
    metrics = train_step(state, batch, NoMixup(), lr=0.0, clip_norm=1.0)
    assert metrics["grad_norm"] == pytest.approx(5.0)
    torch.testing.assert_close(state.fit.modules["a"].w.grad, torch.tensor([[0.6, 0.8]]))


def test_the_average_follows_the_weights():
    current = {"a": Vector()}
    averaged = Followers(current, momentum=0.5)
    with torch.no_grad():
        current["a"].w.fill_(1.0)
    current["a"].count += 7
    averaged.follow(current, ema_momentum(0.5, step=1))
    share = 1 - 2 / 11
    want = torch.tensor([[3.0, 4.0]]) * (1 - share) + share
    torch.testing.assert_close(averaged["a"].w.detach(), want)
    assert averaged["a"].count == 7
    averaged.follow(current, ema_momentum(0.5, step=1000))
    torch.testing.assert_close(averaged["a"].w.detach(), want / 2 + 0.5)


def test_averaged_weights_are_the_ones_scored_and_kept(split, recipe):
    data, record = split(60, 20), Record()
    adapters = fit(recipe(ema=0.95, epochs=6, lr=2e-2), data, callbacks=[record])
    scores = [m["score"] for _, m in record.all("evaluation")]
    assert mean_recall(recalls(adapters, data[1])) == max(scores)
    plain = fit(recipe(epochs=6, lr=2e-2), data)
    assert not same(adapters, plain)
    assert all(p.requires_grad for a in adapters.values() for p in a.parameters())
