"""What an objective reads of a step: trust, facts, followers; and what it may not read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fusemix_core.aligners import gradient
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part, to_dict
from fusemix_core.copied import Copied
from fusemix_core.data.facts import TRUST, Fact
from fusemix_core.engine import checkpoint
from fusemix_core.engine.feed import feed
from fusemix_core.engine.plan import plan_steps
from fusemix_core.engine.state import TrainState, mixed, train_step
from fusemix_core.errors import ContractError
from fusemix_core.interfaces import Batch, Callback, FitContext, Followers, Step
from fusemix_core.mixups.fusemix import FuseMixMixup
from fusemix_core.mixups.none import NoMixup
from fusemix_core.objectives.infonce import InfoNCE

CPU = torch.device("cpu")


class Asks(InfoNCE):
    """Remembers what it reads; what it reads has a part in the loss."""

    uses = ("trust", "adapters")

    def __init__(self):
        super().__init__()
        self.given = []
        self.register_buffer("sum", torch.zeros(()))

    def start(self, adapters, train, validation, context):
        self.followers = Followers(adapters, 0.75)

    def forward(self, step):
        self.followers.follow(step.adapters)
        averaged = step.through(self.followers)
        self.given.append({"links": step.links, "trust": step.trust, "averaged": averaged})
        pulls = [
            (x - averaged[m]).square().mean(1) @ step.trust for m, x in step.embeddings.items()
        ]
        self.sum += sum(pulls).detach()
        return super().forward(step) + self.sum * sum(pulls)


def started(adapters):
    objective = Asks()
    objective.start(adapters, None, None, FitContext())
    return objective


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


def test_followers_move_before_each_step_and_are_part_of_the_objective(split, recipe):
    pairs, adapter = split(8, 2)[0], torch.nn.Linear
    adapters = {m: adapter(t.dim, 4) for m, t in pairs.tables.items()}
    objective = started(adapters)
    state = TrainState.new(Alignment(dict(adapters), objective), recipe().training, seed=0)
    batch = pairs.batch(torch.arange(8))
    follower = {m: a.weight.detach().clone() for m, a in adapters.items()}
    for step in range(3):
        for m, a in adapters.items():
            follower[m] = 0.75 * follower[m] + 0.25 * a.weight.detach()
        train_step(state, batch, NoMixup(), lr=0.1)
        for m, x in objective.given[step]["averaged"].items():
            assert not x.requires_grad
            own = objective.followers[m]
            torch.testing.assert_close(x, batch.latents[m] @ follower[m].T + own.bias)
            assert not torch.equal(own.weight, adapters[m].weight)
    optimised = {id(p) for g in state.optimiser.param_groups for p in g["params"]}
    assert not optimised & {id(p) for p in objective.followers.parameters()}
    assert any(name.startswith("followers.") for name in objective.state_dict())


def test_followers_stay_in_eval_mode_and_take_over_buffers():
    modules = {"a": torch.nn.BatchNorm1d(3)}
    followers = Followers(modules, 0.5)
    owner = torch.nn.ModuleDict({"followers": followers}).train()
    modules["a"](torch.randn(8, 3))
    followers.follow(modules)
    assert owner.training and not followers["a"].training
    assert torch.equal(followers["a"].running_mean, modules["a"].running_mean)


def test_what_is_fixed_has_no_followers_and_goes_through_its_own_adapter(split, recipe):
    pairs = split(8, 2)[0]
    adapters = {m: torch.nn.Linear(t.dim, 4) for m, t in pairs.tables.items()}
    fixed = {"m1": adapters.pop("m1").requires_grad_(False)}
    objective = started(adapters)
    state = TrainState.new(Alignment(adapters, objective, fixed=fixed), recipe().training, seed=0)
    assert set(objective.followers) == {"m0"}
    batch = pairs.batch(torch.arange(8))
    train_step(state, batch, NoMixup(), lr=0.1)
    got = objective.given[0]["averaged"]
    torch.testing.assert_close(got["m1"], fixed["m1"](batch.latents["m1"]))
    assert objective.given[0]["trust"].tolist() == [1.0] * 8


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
        checkpoint.run_digest(to_dict(recipe()), t, validation, FitContext())
        for t in (train, trusted(train), with_trust(train, torch.ones(10) / 2))
    }
    assert len(digests) == 3


@pytest.mark.parametrize("name", ["latents", "facts", "trust", "unpaired", "adapters", "through"])
def test_what_is_not_declared_can_not_be_read(name, split):
    pairs = split(8, 2)[0]
    adapters = {m: torch.nn.Linear(t.dim, 4) for m, t in pairs.tables.items()}
    step = Step(pairs.batch(torch.arange(8)), adapters, uses=(), reader="The objective Mine")
    assert step.embeddings and step.links.shape == (8, 1, 2) and step.present.all()
    declared = "adapters" if name == "through" else name
    for rows in (step, step.own):
        with pytest.raises(ContractError, match=f"Mine broke its contract: expected '{declared}'"):
            rows.through({}) if name == "through" else getattr(rows, name)
    step = Step(pairs.batch(torch.arange(8)), adapters, uses=(declared,))
    step.through({}) if name == "through" else getattr(step, name)


def test_embeddings_are_made_once_and_have_a_gradient_whoever_reads_them_first(split):
    pairs, calls = split(8, 2)[0], []

    class Counted(torch.nn.Linear):
        def forward(self, latents):
            calls.append(self)
            return super().forward(latents)

    adapters = {m: Counted(t.dim, 4) for m, t in pairs.tables.items()}
    step = Step(pairs.batch(torch.arange(8)), adapters, fixed=["m1"])
    assert not calls
    with torch.no_grad():
        assert step.embeddings["m0"].requires_grad and not step.embeddings["m1"].requires_grad
    assert step.own.embeddings["m0"] is step.embeddings["m0"] and len(calls) == 2


def test_the_rows_of_some_modalities_are_those_of_a_mask(split):
    batch = split(20, 2, widths=(4, 3, 2), missing=0.5)[0].batch(torch.arange(20))
    step = Step(batch, {})
    for columns in ((0,), (1, 2), (0, 1, 2)):
        wanted = step.present[:, columns].all(dim=1).nonzero()[:, 0]
        assert 0 < len(wanted) < 20
        assert torch.equal(step.rows_with(*columns), wanted)
    complete = Step(split(20, 2)[0].batch(torch.arange(20)), {})
    assert complete.rows_with(0, 1) is None


def test_links_that_change_after_they_were_copied_are_not_taken_for_the_old_ones():
    there = torch.arange(6).reshape(3, 1, 2)
    copied = Copied.of(there, there.clone())
    assert copied.is_of(there) and not copied.is_of(there.clone())
    there[0] = -1
    assert not copied.is_of(there)


def test_facts_of_mixed_rows_are_those_of_each_source(split):
    pairs = split(20, 2, missing=0.2)[0]
    facts = {
        "label": Fact("class", np.arange(20) % 3, ("a", "b", "c")),
        "box": Fact("box", np.arange(80, dtype=np.float32).reshape(20, 4)),
        TRUST: Fact("number", np.where(np.arange(20) % 4, 0.5, np.nan).astype(np.float32)),
    }
    batch = replace(pairs, facts=facts).batch(torch.arange(20))
    step = Step(FuseMixMixup()(batch, torch.Generator().manual_seed(0), 0.0), {})
    assert step.facts["label"].shape == (10, 2) and step.facts["label"].dtype == torch.int64
    assert step.facts["box"].shape == (10, 2, 4)
    rows = (step.facts["box"][..., 0] / 4).long()
    assert torch.equal(step.facts["label"], rows % 3)
    assert torch.equal(batch.links[rows, 0], step.links)
    wanted = torch.where(rows % 4 == 0, 1.0, 0.5).amin(dim=1)  # a missing trust counts as 1
    assert torch.equal(step.trust, wanted)


def test_a_mixup_that_loses_facts_is_found_out(split):
    class Loses(NoMixup):
        def __call__(self, batch, generator, progress):
            return Batch(batch.latents, batch.links)

    pairs = trusted(split(8, 2)[0])
    with pytest.raises(ContractError, match="The mixup Loses"):
        mixed(pairs.batch(torch.arange(8)), Loses(), torch.Generator(), 0.0)


def test_facts_that_nobody_reads_do_not_go_with_batches(components, recipe, split, monkeypatch):
    seen = []
    monkeypatch.setattr(gradient, "Trainer", lambda *args, **more: seen.append(args[1]) or Fitted())

    class Fitted:
        def run(self):
            return {"m0": None, "m1": None}

    train, validation = split(48, 8)
    facts = {"label": Fact("class", np.zeros(48, np.int64), ("a",)), **trusted(train).facts}
    for uses in ((), ("trust",), ("facts",)):
        components.add_component("objective", "asks", type("Some", (InfoNCE,), {"uses": uses}))
        wanted = replace(recipe(), objective=Part("asks"))
        GradientAligner().fit(replace(train, facts=facts), validation, wanted, FitContext())
    assert [set(pairs.facts) for pairs in seen] == [set(), {TRUST}, {"label", TRUST}]


def test_an_objective_whose_spec_says_less_than_it_uses_is_found_out(components, recipe, split):
    components.add_component("objective", "asks", Asks)
    components.add_component("objective", "around", Around)
    with pytest.raises(ContractError, match="a spec with 'trust' in `uses`"):
        GradientAligner().fit(
            *split(48, 8), replace(recipe(), objective=Part("around")), FitContext()
        )


class Around(InfoNCE):
    """Builds another objective, which its spec does not say."""

    def __init__(self):
        super().__init__()
        self.uses = Asks.uses
