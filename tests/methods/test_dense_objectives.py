"""`infonce`, `multi-positive`, `siglip` against dense forms in float64: value and all gradients."""

from functools import partial
from itertools import combinations

import pytest
import torch
from batches import batch_of
from torch.nn.functional import normalize, softplus

from fusemix_core.errors import ConfigError
from fusemix_core.objectives import siglip, tiles
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.objectives.multi_positive import MultiPositive
from fusemix_core.objectives.siglip import SigLIP
from fusemix_core.step import Step

SIZES = (1, 2, 3, 130)


@pytest.fixture(autouse=True)
def many_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", 1 << 12)


def share_an_item(ids):
    """bool `[n, n]`: whether rows have a source in common, for ids `[n, S, 2]`."""
    same = (ids[:, None, :, None] == ids[None, :, None]).any(dim=(2, 3, 4))
    return same | torch.eye(len(ids), dtype=torch.bool)


def dense_pairs(embeddings, links, least):
    rows = [normalize(x.double(), dim=1) for x in embeddings.values()]
    for a, b in combinations(range(len(rows)), 2):
        both = (links[:, :, [a, b]] >= 0).all(dim=2).all(dim=1)
        if both.sum() >= least:
            ids = links[both][:, :, [a, b]]
            yield rows[a][both] @ rows[b][both].T, share_an_item(ids)


def dense_softmax(embeddings, links, temperature, shared):
    losses = []
    for cosines, together in dense_pairs(embeddings, links, 2):
        s = cosines / temperature
        n, own = len(s), torch.eye(len(s), dtype=torch.bool)
        if shared == "masked":
            s = s.masked_fill(together & ~own, -torch.inf)
        right = together if shared == "positive" else own
        for t in (s, s.T):
            wanted = (t.masked_fill(~right, 0).sum(1) / right.sum(1)).sum()
            losses.append((t.logsumexp(1).sum() - wanted) / n)
    return torch.stack(losses).mean() if losses else temperature * 0


def dense_sigmoid(embeddings, links, log_scale, bias, shared):
    losses = []
    for cosines, together in dense_pairs(embeddings, links, 1):
        z = cosines * log_scale.exp() + bias
        own = torch.eye(len(z), dtype=torch.bool)
        right = together if shared == "positive" else own
        terms = torch.where(right, softplus(-z), softplus(z))
        if shared == "masked":
            terms = terms.masked_fill(together & ~own, 0)
        losses.append(terms.sum() / len(z))
    return torch.stack(losses).mean() if losses else bias * 0


def near(got, wanted, tolerance, least=1e-3):
    wanted = torch.zeros(()) if wanted is None else wanted
    got = torch.zeros(()) if got is None else got.double()
    scale = wanted.abs().max().clamp(min=least)
    assert ((got - wanted).abs().max() / scale).item() < tolerance


def compare(objective, dense, embeddings, links, tolerance):
    value = objective(Step.of(embeddings, links))
    value.backward()
    double = {m: x.detach().double().requires_grad_() for m, x in embeddings.items()}
    own = [p.detach().double().requires_grad_() for p in objective.parameters()]
    wanted = dense(double, links, *own)
    wanted.backward()
    near(value, wanted, tolerance)
    for m, x in double.items():
        near(embeddings[m].grad, x.grad, tolerance)
    for got, other in zip(objective.parameters(), own, strict=True):
        near(got.grad, other.grad, tolerance, least=1.0)  # a sum over all rows, which may cancel


def softmax_objective(temperature, shared):
    if shared == "positive":
        return MultiPositive(temperature=temperature)
    return InfoNCE(temperature=temperature, mask_shared=shared == "masked")


@pytest.mark.parametrize("shared", ["negative", "masked", "positive"])
@pytest.mark.parametrize("temperature", [0.001, 0.07, 0.5])
@pytest.mark.parametrize("n", SIZES)
def test_softmax_forms(n, temperature, shared):
    objective = softmax_objective(temperature, shared).double()
    dense = partial(dense_softmax, shared=shared)
    compare(objective, dense, *batch_of(n), 1e-9)


@pytest.mark.parametrize("shared", ["negative", "masked", "positive"])
@pytest.mark.parametrize("temperature", [0.001, 0.1, 0.5])
@pytest.mark.parametrize("n", SIZES)
def test_sigmoid_forms(n, temperature, shared):
    objective = SigLIP(scale=1 / temperature, shared=shared).double()
    dense = partial(dense_sigmoid, shared=shared)
    compare(objective, dense, *batch_of(n), 1e-9)


@pytest.mark.parametrize("shared", ["negative", "masked", "positive"])
@pytest.mark.parametrize(("temperature", "tolerance"), [(0.001, 3e-3), (0.07, 5e-5), (0.5, 5e-5)])
def test_float32(temperature, tolerance, shared):
    softmax, sigmoid = softmax_objective(temperature, shared), SigLIP(scale=1 / temperature)
    sigmoid.shared = shared
    batch = partial(batch_of, 130, dtype=torch.float32)
    compare(softmax, partial(dense_softmax, shared=shared), *batch(), tolerance)
    compare(sigmoid, partial(dense_sigmoid, shared=shared), *batch(), tolerance)


@pytest.mark.parametrize("shared", ["negative", "masked", "positive"])
@pytest.mark.parametrize("n", [2, 5, 67])
@pytest.mark.parametrize("sources", [1, 2])
def test_four_modalities_with_gaps_mixed_or_not(sources, n, shared):
    batch = partial(batch_of, n, modalities=4, sources=sources, gaps=True)
    softmax, sigmoid = softmax_objective(0.07, shared).double(), SigLIP(shared=shared).double()
    compare(softmax, partial(dense_softmax, shared=shared), *batch(), 1e-9)
    compare(sigmoid, partial(dense_sigmoid, shared=shared), *batch(), 1e-9)


def test_where_no_rows_share_an_item_the_forms_are_one():
    embeddings, _ = batch_of(40)
    links = torch.arange(40)[:, None, None].repeat(1, 1, 2)
    assert torch.equal(
        InfoNCE()(Step.of(embeddings, links)), MultiPositive()(Step.of(embeddings, links))
    )
    values = [SigLIP(shared=s)(Step.of(embeddings, links)) for s in siglip.SHARED]
    assert all(torch.equal(v, values[0]) for v in values)


def test_siglip_starts_at_the_published_values_and_logs_them():
    objective = SigLIP()
    assert objective.log() == {"scale": pytest.approx(10), "bias": -10}
    assert not any(p.requires_grad for p in SigLIP(learnable=False).parameters())


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"scale": -1.0}, {"shared": "yes"}])
def test_siglip_refuses_what_it_has_not(options):
    with pytest.raises(ConfigError, match="siglip"):
        SigLIP(**options)
