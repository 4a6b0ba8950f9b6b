"""Unpaired items: drawn by the seed, given to an objective that asks, resumed bit for bit."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part
from fusemix_core.engine.feed import feed, unpaired_draws
from fusemix_core.engine.plan import plan_steps
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Callback, FitContext, ResidentLatents
from fusemix_core.objectives.infonce import InfoNCE

CPU = torch.device("cpu")


class Apart(InfoNCE):
    """Spreads the unpaired items of each modality; remembers what it was given."""

    uses = ("unpaired",)

    def __init__(self):
        super().__init__()
        self.given, self.pairs = [], 0

    def start(self, adapters, train, validation, context):
        self.pairs = len(train)

    def forward(self, step):
        self.given.append({m: behind for m, (_, behind) in step.unpaired.items()})
        spread = [normalize(x, dim=1).mean(0).square().sum() for x, _ in step.unpaired.values()]
        return super().forward(step) + sum(spread)


class Stop(Callback):
    def on_step(self, step, metrics):
        if step == 5:
            raise KeyboardInterrupt


@pytest.fixture
def data(split):
    """Pairs of the first 41 items, validation on the next 10; the rest of both have no partner."""
    train, validation = split(32, 10)
    tables = {
        m: ResidentLatents(torch.cat([t.latents, torch.randn(n, t.dim)]))
        for (m, t), n in zip(train.tables.items(), (7, 4), strict=True)
    }
    unpaired = {m: torch.arange(42, len(t)) for m, t in tables.items()}
    return replace(train, tables=tables, unpaired=unpaired), replace(validation, tables=tables)


@pytest.fixture
def fit(data, recipe, components):
    components.add_component("objective", "apart", Apart)

    def run(unpaired=3, objective="apart", data=data, **context):
        wanted = replace(recipe(unpaired=unpaired), objective=Part(objective))
        return GradientAligner().fit(*data, wanted, FitContext(**context))

    return run


def test_each_pass_has_every_item_at_most_once_and_any_step_can_be_the_first():
    ids = torch.arange(100, 111)
    draws = torch.stack(list(islice(unpaired_draws(ids, 3, 5, 0), 12)))
    assert draws.shape == (12, 3)
    for one in draws.split(3):
        assert len(one.unique()) == 9 and set(one.flatten().tolist()) <= set(ids.tolist())
    assert not torch.equal(draws[:3], draws[3:6])
    for step in range(9):
        assert torch.equal(next(unpaired_draws(ids, 3, 5, step)), draws[step])
    assert not torch.equal(next(unpaired_draws(ids, 3, 6, 0)), draws[0])
    assert len(next(unpaired_draws(ids, 50, 5, 0))) == 11


def test_a_batch_has_latents_of_unpaired_items_alone(data, recipe):
    plan = plan_steps(len(data[0]), 2, recipe(unpaired=3).training)
    batches = list(feed(data[0], plan, 1, CPU, blocks=False))
    assert len(batches) == plan.total_steps
    for modality, table in data[0].tables.items():
        own = table.latents[data[0].unpaired[modality]]
        for batch in batches:
            rows = batch.unpaired[modality]
            assert rows.shape == (3, table.dim)
            assert (rows[:, None] == own).all(2).any(1).all()
    later = next(feed(data[0], plan, 1, CPU, blocks=False, epoch=1, index=1))
    same = batches[plan.steps_per_epoch + 1].unpaired
    assert all(torch.equal(x, same[m]) for m, x in later.unpaired.items())
    none = plan_steps(len(data[0]), 2, recipe().training)
    assert next(feed(data[0], none, 1, CPU, blocks=False)).unpaired == {}


def test_they_take_part_and_a_modality_may_have_none(fit, data):
    ones, others = fit(), fit(unpaired=0)
    assert any(not torch.equal(x, y) for x, y in weights(ones, others))
    train = replace(data[0], unpaired={"m0": data[0].unpaired["m0"], "m1": torch.arange(0)})
    fit(data=(train, data[1]))


def test_the_objective_is_fitted_before_the_first_step(fit, components, monkeypatch):
    made = []
    monkeypatch.setattr(Apart, "train", lambda self, mode=True: made.append(self) or self)
    fit()
    assert made[0].pairs == 32 and made[0].given[0].keys() == {"m0", "m1"}


def test_resumed_is_never_stopped(fit, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoints=tmp_path, callbacks=[Stop()])
    resumed = fit(checkpoints=tmp_path, resume=True)
    assert all(torch.equal(x, y) for x, y in weights(fit(), resumed))


def test_other_unpaired_items_are_another_run(fit, data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoints=tmp_path, callbacks=[Stop()])
    fewer = {m: ids[:-1] for m, ids in data[0].unpaired.items()}
    with pytest.raises(ArtefactError):
        fit(data=(replace(data[0], unpaired=fewer), data[1]), checkpoints=tmp_path, resume=True)


def test_an_objective_that_takes_none_is_told(fit):
    with pytest.raises(ConfigError, match="uses no unpaired"):
        fit(objective="infonce")
    with pytest.raises(ConfigError, match="training.unpaired is -1"):
        fit(unpaired=-1)


def weights(a, b):
    states = [
        {f"{m}/{n}": x for m, d in f.items() for n, x in d.state_dict().items()} for f in (a, b)
    ]
    return [(states[0][name], states[1][name]) for name in states[0]]
