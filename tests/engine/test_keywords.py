"""What the engine gives an objective that asks: how far rows are trusted, averaged embeddings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part
from fusemix_core.data.facts import TRUST, Fact
from fusemix_core.engine import checkpoint
from fusemix_core.engine.feed import feed
from fusemix_core.engine.plan import plan_steps
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.interfaces import Callback, FitContext
from fusemix_core.mixups.fusemix import FuseMixMixup
from fusemix_core.mixups.none import NoMixup
from fusemix_core.objectives.infonce import InfoNCE

CPU = torch.device("cpu")


class Asks(InfoNCE):
    """Remembers what it is given; what it is given has a part in the loss."""

    takes_trust = True
    momentum = 0.75

    def __init__(self):
        super().__init__()
        self.given = []
        self.register_buffer("sum", torch.zeros(()))

    def forward(self, embeddings, links, trust, averaged):
        self.given.append({"links": links, "trust": trust, "averaged": averaged})
        pulls = [(x - averaged[m]).square().mean(1) @ trust for m, x in embeddings.items()]
        self.sum += sum(pulls).detach()
        return super().forward(embeddings, links) + self.sum * sum(pulls)


def trusted(pairs):
    return with_trust(pairs, torch.arange(len(pairs)) / len(pairs))


def with_trust(pairs, values):
    return replace(pairs, facts={TRUST: Fact("number", values.numpy())})


@pytest.fixture
def asks(components, recipe):
    """A function of training settings → a recipe whose objective asks."""
    components.add_component("objective", "asks", Asks)
    return lambda **training: replace(recipe(**training), objective=Part("asks"))


@pytest.mark.parametrize("mixup", [NoMixup(), FuseMixMixup()])
def test_a_row_is_trusted_as_the_least_of_those_it_was_made_of(mixup, split):
    pairs = trusted(split(20, 2, missing=0.2)[0])
    batch = pairs.batch(torch.arange(20).flip(0))
    mixed = mixup(batch, torch.Generator().manual_seed(0), 0.0)
    trust = pairs.facts[TRUST].values.tolist()
    rows = dict(zip(map(tuple, pairs.links.tolist()), trust, strict=True))
    wanted = [min(rows[tuple(one)] for one in sources) for sources in mixed.links.tolist()]
    assert mixed.trust().tolist() == wanted
    assert replace(mixed, facts={}).trust().tolist() == [1.0] * len(wanted)


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_trust_stays_with_its_row_all_the_way_to_the_batch(blocks, held, split, recipe):
    pairs = trusted(split(40, 2)[0])
    if not held:
        tables = {m: NotResident(t) for m, t in pairs.tables.items()}
        pairs = replace(pairs, tables=tables)
    plan = plan_steps(40, 1, recipe(epochs=2).training)
    for batch in feed(pairs, plan, 0, CPU, blocks=blocks):
        assert torch.equal(batch.trust(), batch.links[:, 0, 0] / 40)


class NotResident:
    def __init__(self, table):
        self.table, self.dim, self.shape = table, table.dim, table.shape

    def __len__(self):
        return len(self.table)

    def rows(self, index):
        return self.table.rows(index)


def test_selecting_keeps_trust_with_its_rows(split):
    pairs = trusted(split(12, 2, widths=(4, 3, 2))[0])
    chosen = pairs.select(torch.tensor([7, 2])).only(["m2", "m0"])
    assert chosen.facts[TRUST].values.tolist() == (torch.tensor([7, 2]) / 12).tolist()


def test_averaged_embeddings_are_those_of_copies_that_follow_before_each_step(split, recipe):
    pairs, adapter = split(8, 2)[0], torch.nn.Linear
    adapters = {m: adapter(t.dim, 4) for m, t in pairs.tables.items()}
    objective = Asks()
    state = TrainState.new(dict(adapters), objective, recipe().training, seed=0)
    batch = pairs.batch(torch.arange(8))
    follower = {m: a.weight.detach().clone() for m, a in adapters.items()}
    for step in range(3):
        for m, a in adapters.items():
            follower[m] = 0.75 * follower[m] + 0.25 * a.weight.detach()
        train_step(state, batch, NoMixup(), lr=0.1)
        for m, x in objective.given[step]["averaged"].items():
            assert not x.requires_grad
            bias = state.followers[m].bias
            torch.testing.assert_close(x, batch.latents[m] @ follower[m].T + bias)
            assert not torch.equal(state.followers[m].weight, adapters[m].weight)
    optimised = {id(p) for g in state.optimiser.param_groups for p in g["params"]}
    assert not optimised & {id(p) for a in state.followers.values() for p in a.parameters()}


def test_followers_of_what_is_fixed_are_itself(split, recipe):
    pairs = split(8, 2)[0]
    adapters = {m: torch.nn.Linear(t.dim, 4) for m, t in pairs.tables.items()}
    fixed = {"m1": adapters.pop("m1").requires_grad_(False)}
    state = TrainState.new(adapters, Asks(), recipe().training, seed=0, fixed=fixed)
    assert set(state.followers) == {"m0"}
    batch = pairs.batch(torch.arange(8))
    train_step(state, batch, NoMixup(), lr=0.1)
    got = state.objective.given[0]["averaged"]
    torch.testing.assert_close(got["m1"], fixed["m1"](batch.latents["m1"]))
    assert state.objective.given[0]["trust"].tolist() == [1.0] * 8


class StopAt(Callback):
    def on_step(self, step, metrics):
        if step == 5:
            raise KeyboardInterrupt


def test_stopped_and_resumed_is_never_stopped(asks, split, tmp_path):
    data = trusted(split(48, 8)[0]), split(48, 8)[1]
    recipe = asks(ema=0.9)

    def fit(folder, **context):
        context = FitContext(seed=3, checkpoints=tmp_path / folder, **context)
        return GradientAligner().fit(*data, recipe, context)

    whole = fit("whole")
    with pytest.raises(KeyboardInterrupt):
        fit("stopped", callbacks=[StopAt()])
    resumed = fit("stopped", resume=True)
    for modality, adapter in whole.items():
        for name, value in adapter.state_dict().items():
            assert torch.equal(value, resumed[modality].state_dict()[name])


def test_another_trust_is_another_run(split, recipe):
    train, validation = split(10, 2)
    digests = {
        checkpoint.run_digest(recipe(), t, validation, FitContext())
        for t in (train, trusted(train), with_trust(train, torch.ones(10) / 2))
    }
    assert len(digests) == 3


def test_a_batch_without_trust_stays_one_for_objectives_that_do_not_ask(split, recipe):
    pairs = trusted(split(8, 2)[0])
    adapters = {m: torch.nn.Linear(t.dim, 4) for m, t in pairs.tables.items()}
    state = TrainState.new(adapters, InfoNCE(), recipe().training, seed=0)
    assert state.followers is None
    train_step(state, pairs.batch(torch.arange(8)), FuseMixMixup(), lr=0.1)
