"""The objective `hammer` against a form in loops; its queue, its state, its options."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from fusemix_hammer.objective import HammerObjective
from torch.nn.functional import normalize

from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part
from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Callback, FitContext
from fusemix_core.runs.config import find_recipe
from fusemix_core.step import Step
from fusemix_core.testing import check_objective
from fusemix_core.testing.pairs import toy_pairs


def batch_of(n, modalities=2, seed=0, gaps=False):
    """(embeddings, averaged ones, links, trust) in float64."""
    draw = torch.Generator().manual_seed(seed)

    def rows():
        return {
            f"m{k}": torch.randn(n, 5, generator=draw, dtype=torch.float64)
            for k in range(modalities)
        }

    links = torch.arange(n * modalities).reshape(n, 1, modalities)
    if gaps:
        links[::3, 0, 0] = links[1::4, 0, -1] = -1
    return rows(), rows(), links, torch.rand(n, generator=draw)


def made(modalities=2, **options):
    """An objective in float64, whose followers copy latents: those of a step are the averages."""
    objective = HammerObjective(**options).double()
    adapters = {f"m{k}": IdentityAdapter(5, 5) for k in range(modalities)}
    objective.start(adapters, None, None, FitContext())
    return objective


def step_of(embeddings, averaged, links, trust):
    adapters = {m: IdentityAdapter(5, 5) for m in embeddings}
    return Step.of(embeddings, links, latents=averaged, trust=trust, adapters=adapters)


def naive(batches, temperature, alpha, size):
    """The loss of the last of the batches, one entry at a time."""
    queue = []
    for embeddings, averaged, links, trust in batches:
        names, losses = list(embeddings), []
        there = [
            [bool((links[i, :, k] >= 0).all()) for k in range(len(names))]
            for i in range(len(links))
        ]
        unit = [normalize(embeddings[m]) for m in names]
        mean = [normalize(averaged[m]) for m in names]
        own = [([m[i] for m in mean], there[i]) for i in range(len(links))]
        for a, b in combinations(range(len(names)), 2):
            rows = [i for i in range(len(links)) if there[i][a] and there[i][b]]
            keys = [own[i][0] for i in rows] + [x for x, t in queue if t[a] and t[b]]
            terms = []
            for x, y in ((a, b), (b, a)):
                for at, i in enumerate(rows):
                    across = torch.stack([unit[x][i] @ key[y] for key in keys]) / temperature
                    within = torch.stack([unit[x][i] @ key[x] for key in keys]) / temperature
                    taught = torch.stack([mean[x][i] @ key[y] for key in keys]) / temperature
                    target = alpha * taught.softmax(0)
                    target[at] += (1 - alpha) * trust[i]
                    terms += [-(target * across.log_softmax(0)).sum(), -within.log_softmax(0)[at]]
            if rows:
                losses.append(sum(terms) / (4 * len(rows)))
        queue = (queue + own)[-size:] if size else []
    return sum(losses) / len(losses)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize(("size", "alpha"), [(0, 0.0), (4, 0.4), (7, 0.0), (11, 1.0), (30, 0.3)])
def test_batches_in_a_row_have_the_naive_forms_losses(modalities, size, alpha):
    objective = made(modalities, temperature=0.2, alpha=alpha, queue=size)
    batches = [batch_of(6, modalities, seed, gaps=modalities == 3) for seed in range(4)]
    for last in range(1, 5):
        loss = objective(step_of(*batches[last - 1]))
        torch.testing.assert_close(loss, naive(batches[:last], 0.2, alpha, size))


def test_a_row_that_is_not_trusted_pulls_nothing_together_and_stays_a_negative():
    embeddings, averaged, links, _ = batch_of(6)
    rows = {m: x.requires_grad_() for m, x in embeddings.items()}
    trust = torch.tensor([1.0, 1, 0, 1, 1, 1])

    def loss(averaged):
        return made(alpha=0.0, queue=0)(step_of(rows, averaged, links, trust))

    moved = {m: x.clone() for m, x in averaged.items()}
    moved["m1"][2] += 1  # what row 2 would be pulled to
    one, other = (torch.autograd.grad(loss(x), rows["m0"])[0] for x in (averaged, moved))
    torch.testing.assert_close(one[2], other[2])
    assert ((one - other).abs().amax(1) > 1e-6).tolist() == [True, True, False, True, True, True]


def test_without_trust_all_rows_are_trusted():
    embeddings, averaged, links, _ = batch_of(6)
    bare = made()(step_of(embeddings, averaged, links, None))
    torch.testing.assert_close(bare, made()(step_of(embeddings, averaged, links, torch.ones(6))))


def test_more_rows_than_the_queue_holds_leave_the_last_ones():
    objective = made(queue=4)
    _, averaged, links, trust = batch_of(11)
    objective(step_of(averaged, averaged, links, trust))
    kept = {tuple(row) for row in objective.queue[:, 0].tolist()}
    assert kept == {tuple(row) for row in normalize(averaged["m0"])[-4:].tolist()}
    assert objective.queued.all()


def test_alpha_warms_up():
    batch = batch_of(6)
    objective = made(temperature=0.2, alpha=0.4, warmup=2, queue=0)
    for alpha in (0.0, 0.2, 0.4, 0.4):
        loss = objective(step_of(*batch))
        torch.testing.assert_close(loss, naive([batch], 0.2, alpha, 0))


def test_no_row_with_two_modalities_has_no_loss():
    embeddings, averaged, links, trust = batch_of(4)
    links[:, 0, 0] = -1
    rows = {m: x.requires_grad_() for m, x in embeddings.items()}
    loss = made()(step_of(rows, averaged, links, trust))
    loss.backward()
    assert loss == 0


class Stop(Callback):
    def on_step(self, step, metrics):
        if step == 17:
            raise KeyboardInterrupt


def test_stopped_and_resumed_is_never_stopped(tmp_path):
    pairs = toy_pairs(train=120)
    trust = (torch.arange(120) % 4 > 0).float().numpy()
    train = replace(pairs.train, facts={"trust": Fact("number", trust)})
    recipe = find_recipe("hammer", ["dim=8", "objective.queue=70", "training.batch_size=32"])
    recipe = replace(recipe, training=replace(recipe.training, epochs=10))

    def fit(folder, **context):
        context = FitContext(checkpoints=tmp_path / folder, **context)
        return GradientAligner().fit(train, pairs.validation, recipe, context)

    whole = fit("whole")
    with pytest.raises(KeyboardInterrupt):
        fit("stopped", callbacks=[Stop()])
    resumed = fit("stopped", resume=True)
    for modality, adapter in whole.items():
        for name, value in adapter.state_dict().items():
            assert torch.equal(value, resumed[modality].state_dict()[name])


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"alpha": 1.1}, {"momentum": 1.0}, {"warmup": -1}, {"queue": -1}],
)
def test_wrong_options_are_told(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        HammerObjective(**wrong)


@pytest.mark.slow
def test_contract_and_recipe():
    check_objective("hammer").raise_if_failed()
    assert find_recipe("hammer", []).objective == Part("hammer", {"queue": 1024, "warmup": 100})
