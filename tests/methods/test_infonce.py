import math

import pytest
import torch

from fusemix_core.errors import ConfigError
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.step import Step


def naive_loss(embeddings, links, temperature, mask_shared=False):
    """The loss in Python floats, row by row."""
    names = list(embeddings)
    links = links.tolist()
    losses = []
    for i, a in enumerate(names):
        for j in range(i + 1, len(names)):
            rows = [
                r
                for r, sources in enumerate(links)
                if all(s[i] >= 0 and s[j] >= 0 for s in sources)
            ]
            if len(rows) < 2:
                continue
            x = {r: unit(embeddings[a][r].tolist()) for r in rows}
            y = {r: unit(embeddings[names[j]][r].tolist()) for r in rows}

            def shares(r, s, i=i, j=j):
                return any({t[k] for t in links[r]} & {t[k] for t in links[s]} for k in (i, j))

            total = 0.0
            for r in rows:
                others = [s for s in rows if s == r or not (mask_shared and shares(r, s))]
                for query, target in ((x, y), (y, x)):
                    logits = {s: dot(query[r], target[s]) / temperature for s in others}
                    top = max(logits.values())
                    partition = sum(math.exp(v - top) for v in logits.values())
                    total += top + math.log(partition) - logits[r]
            losses.append(total / len(rows) / 2)
    return sum(losses) / len(losses)


def unit(row):
    norm = max(math.sqrt(dot(row, row)), 1e-12)
    return [v / norm for v in row]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def embeddings_of(n, modalities, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        m: torch.randn(n, 4, dtype=torch.float64, generator=g, requires_grad=True)
        for m in modalities
    }


def own_items(n, k, sources=1):
    return torch.arange(n * sources).reshape(n, sources, 1).expand(n, sources, k).clone()


SHARED = own_items(7, 2)
SHARED[1, 0, 0] = SHARED[4, 0, 0] = 0  # rows 0, 1 and 4 are captions of one image
SHARED[6, 0, 1] = 2  # rows 2 and 6 have one caption


@pytest.mark.parametrize("mask", [False, True])
def test_two_modalities_with_shared_items(mask):
    x = embeddings_of(7, "ab")
    loss = InfoNCE(temperature=0.25, mask_shared=mask).double()
    assert loss(Step.of(x, SHARED)).item() == pytest.approx(
        naive_loss(x, SHARED, 0.25, mask), rel=1e-9
    )


def test_rows_mixed_from_a_shared_item_are_masked():
    x = embeddings_of(5, "ab", seed=1)
    links = own_items(5, 2, sources=2)
    links[0, 1, 0] = links[3, 0, 0]
    links[2, 0, 1] = links[4, 0, 1]
    links[1, 0, 0] = links[1, 1, 0]  # one row, mixed from two captions of one image
    masked = InfoNCE(temperature=0.25, mask_shared=True).double()(Step.of(x, links)).item()
    assert masked == pytest.approx(naive_loss(x, links, 0.25, True), rel=1e-9)
    assert masked < InfoNCE(temperature=0.25).double()(Step.of(x, links)).item()


def test_a_row_whose_negatives_are_all_masked_costs_nothing():
    x = embeddings_of(3, "ab")
    links = own_items(3, 2)
    links[:, 0, 0] = 0
    loss = InfoNCE(mask_shared=True).double()(Step.of(x, links))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert all(torch.isfinite(v.grad).all() for v in x.values())


@pytest.mark.parametrize("mask", [False, True])
def test_three_modalities_with_missing_entries(mask):
    x = embeddings_of(8, "abc", seed=2)
    links = own_items(8, 3)
    links[[0, 3], 0, 2] = -1
    links[[1, 5, 6], 0, 1] = -1
    links[7, 0, 0] = -1
    links[4, 0, 0] = links[2, 0, 0]
    got = InfoNCE(temperature=0.375, mask_shared=mask).double()(Step.of(x, links))
    assert got.item() == pytest.approx(naive_loss(x, links, 0.375, mask), rel=1e-9)


def test_absent_rows_get_no_gradient():
    x = embeddings_of(5, "abc", seed=3)
    links = own_items(5, 3)
    links[2, 0, 1] = -1
    InfoNCE().double()(Step.of(x, links)).backward()
    assert not x["b"].grad[2].any() and x["a"].grad[2].any() and x["c"].grad[2].any()


def test_a_pair_of_modalities_with_one_row_says_nothing():
    x = embeddings_of(4, "abc", seed=4)
    links = own_items(4, 3)
    links[:, 0, 2] = -1
    links[3, 0, 2] = 9
    two = {m: x[m] for m in "ab"}
    got = InfoNCE().double()(Step.of(x, links)).item()
    assert got == pytest.approx(InfoNCE().double()(Step.of(two, links[:, :, :2])).item(), rel=1e-12)


def test_nothing_to_contrast_is_zero_with_gradient():
    x = embeddings_of(1, "ab")
    loss = InfoNCE().double()(Step.of(x, own_items(1, 2)))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("mask", [False, True])
def test_gradients_are_those_of_finite_differences(mask):
    objective = InfoNCE(temperature=0.375, mask_shared=mask).double()

    def loss(a, b, c, temperature):
        step = Step.of({"a": a, "b": b, "c": c}, links)
        return torch.func.functional_call(objective, {"temperature": temperature}, step)

    links = own_items(7, 3)
    links[:, :, :2] = SHARED
    links[3, 0, 2] = links[5, 0, 0] = -1
    inputs = [*embeddings_of(7, "abc").values(), torch.tensor(0.375).double().requires_grad_()]
    assert torch.autograd.gradcheck(loss, inputs)


def test_half_precision_embeddings_are_compared_in_float32():
    x = {m: v.detach().bfloat16() for m, v in embeddings_of(6, "ab").items()}
    loss = InfoNCE()(Step.of(x, own_items(6, 2)))
    want = InfoNCE()(Step.of({m: v.float() for m, v in x.items()}, own_items(6, 2)))
    assert loss.dtype == torch.float32 and torch.equal(loss, want)


def test_the_temperature_is_clamped_in_place_and_may_be_fixed():
    objective = InfoNCE(learnable=False)
    assert not objective.temperature.requires_grad
    with torch.no_grad():
        objective.temperature.fill_(3.0)
    objective(Step.of(embeddings_of(3, "ab"), own_items(3, 2)))
    assert objective.log() == {"temperature": 0.5}


@pytest.mark.parametrize("temperature", [0.0, 0.6, -1.0])
def test_a_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ConfigError, match="temperature"):
        InfoNCE(temperature=temperature)
