import pytest
import torch
from torch import nn

from fusemix_core.aligners.recalls import KS, mean_recall, recalls
from fusemix_core.engine.randomness import at_most
from fusemix_core.interfaces import PairedLatents, ResidentLatents


def naive_recalls(adapters, latents):
    """Each query's nearest targets, one by one."""
    found = {}
    names = latents.modalities
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            if i == j:
                continue
            links = {(r[i], r[j]) for r in latents.links.tolist() if r[i] >= 0 and r[j] >= 0}
            queries, targets = sorted({q for q, _ in links}), sorted({t for _, t in links})
            if min(len(queries), len(targets)) < 2:
                continue
            x, y = (
                {k: adapters[m](latents.tables[m].latents[k]).tolist() for k in ids}
                for m, ids in ((a, queries), (b, targets))
            )
            right = dict.fromkeys(KS, 0)
            for q in queries:
                best = sorted(targets, key=lambda t: -cosine(x[q], y[t]))
                for k in KS:
                    right[k] += any((q, t) in links for t in best[:k])
            found[a, b] = tuple(right[k] / len(queries) for k in KS)
    return found


def cosine(u, v):
    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    return dot(u, v) / (dot(u, u) * dot(v, v)) ** 0.5


def random_latents(links, widths=(4, 3), seed=0):
    g = torch.Generator().manual_seed(seed)
    n = int(links.max()) + 1
    tables = {f"m{i}": torch.randn(n, w, generator=g) for i, w in enumerate(widths)}
    for x in tables.values():
        x[:, 0] += 2 * torch.randn(n, generator=torch.Generator().manual_seed(5))
    return PairedLatents({m: ResidentLatents(x) for m, x in tables.items()}, links)


@pytest.mark.parametrize("seed", range(4))
def test_recall_with_several_positives(seed):
    g = torch.Generator().manual_seed(seed)
    links = torch.stack([torch.randint(12, (30,), generator=g), torch.arange(30) + 2], 1)
    links[5] = links[6]
    latents = random_latents(links, seed=seed)
    torch.manual_seed(seed)
    adapters = {"m0": nn.Linear(4, 5), "m1": nn.Linear(3, 5)}
    want = naive_recalls(adapters, latents)
    found = recalls(adapters, latents, chunk=7)
    assert found.keys() == want.keys()
    assert all(found[d] == pytest.approx(want[d]) for d in want)
    mean = sum(map(sum, want.values())) / 6
    assert mean_recall(recalls(adapters, latents)) == pytest.approx(mean)


def test_recall_of_three_modalities_with_missing_entries():
    g = torch.Generator().manual_seed(1)
    links = torch.randint(8, (25, 3), generator=g)
    links[torch.arange(25), torch.randint(3, (25,), generator=g)] = -1
    latents = random_latents(links, widths=(4, 3, 6))
    torch.manual_seed(0)
    adapters = {f"m{i}": nn.Linear(w, 5) for i, w in enumerate((4, 3, 6))}
    want = naive_recalls(adapters, latents)
    assert len(want) == 6
    found = recalls(adapters, latents, chunk=3)
    assert found.keys() == want.keys()
    assert all(found[d] == pytest.approx(want[d]) for d in want)


def test_pairs_of_modalities_without_a_choice_are_left_out():
    links = torch.tensor([[0, 0, -1], [1, 1, -1], [2, 2, 3]])
    latents = random_latents(links, widths=(4, 3, 6))
    adapters = {f"m{i}": nn.Linear(w, 5) for i, w in enumerate((4, 3, 6))}
    assert set(recalls(adapters, latents)) == {("m0", "m1"), ("m1", "m0")}
    nothing = latents.select(torch.tensor([2]))
    assert mean_recall(recalls(adapters, nothing)) is None
    assert (
        mean_recall(recalls(adapters, latents.select(torch.tensor([], dtype=torch.int64)))) is None
    )


def test_adapters_are_scored_in_eval_mode_and_left_as_they_were():
    links = torch.arange(10)[:, None].repeat(1, 2)
    adapters = {
        "m0": nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.9)),
        "m1": nn.Linear(3, 5).eval(),
    }
    latents = random_latents(links)
    assert recalls(adapters, latents) == recalls(adapters, latents)
    assert adapters["m0"].training and not adapters["m1"].training


def test_a_large_split_is_sampled_with_the_seed():
    links = torch.arange(100)[:, None].repeat(1, 2)
    latents = random_latents(links)
    assert at_most(latents, 100, 0) is latents
    few = at_most(latents, 10, 0).links
    assert len(few.unique(dim=0)) == 10
    assert torch.equal(few, at_most(latents, 10, 0).links)
    assert not torch.equal(few, at_most(latents, 10, 1).links)
