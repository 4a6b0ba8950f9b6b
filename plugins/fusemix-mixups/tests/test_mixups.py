"""The augmentations: their contract, and their formulae against naive ones."""

import math

import pytest
import torch
from fusemix_mixups.mixing import GeodesicMixup, PermutedMixup, PerSampleMixup
from fusemix_mixups.noise import GaussianNoise, RandomQuantisation

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Batch, Padded
from fusemix_core.testing import check_mixup

NAMES = ("per-sample", "permuted", "geodesic", "gaussian", "quantised")


def batch_of(n=12, dims=(5, 3), missing=()):
    draw = torch.Generator().manual_seed(n)
    links = torch.arange(n * len(dims)).reshape(n, 1, len(dims))
    latents = {f"m{k}": torch.randn(n, d, generator=draw) for k, d in enumerate(dims)}
    for row, k in missing:
        links[row, 0, k] = -1
        latents[f"m{k}"][row] = 0
    return Batch(latents, links)


def run(mixup, batch, seed=0):
    return mixup(batch, torch.Generator().manual_seed(seed), 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    check_mixup(name).raise_if_failed()


def test_each_row_has_a_lambda_of_its_own_alike_in_every_modality():
    batch = batch_of()
    mixed = run(PerSampleMixup(), batch)
    weights = []
    for m, x in batch.latents.items():
        first, second = x[:6], x[6:]
        way = first - second
        weight = ((mixed.latents[m] - second) * way).sum(1) / way.square().sum(1)
        naive = torch.stack(
            [w * a + (1 - w) * b for w, a, b in zip(weight, first, second, strict=True)]
        )
        torch.testing.assert_close(mixed.latents[m], naive)
        weights.append(weight)
    torch.testing.assert_close(*weights)
    assert len(weights[0].mul(1e4).round().unique()) == 6


def test_a_permutation_keeps_the_batch_and_says_whom_it_mixed():
    batch = batch_of()
    mixed = run(PermutedMixup(), batch)
    rows = {tuple(r): i for i, r in enumerate(batch.links[:, 0].tolist())}
    first, second = ([rows[tuple(r)] for r in mixed.links[:, s].tolist()] for s in (0, 1))
    assert first == list(range(12)) and sorted(second) == first != second
    x = batch.latents["m0"]
    free = next(i for i in range(12) if first[i] != second[i])
    way = x[free] - x[second[free]]
    weight = ((mixed.latents["m0"][free] - x[second[free]]) @ way / (way @ way)).item()
    torch.testing.assert_close(mixed.latents["m0"], weight * x + (1 - weight) * x[second])


def test_permuted_partners_have_the_same_modalities():
    batch = batch_of(missing=[(0, 0), (3, 0), (4, 1), (7, 1), (9, 1)])
    mixed = run(PermutedMixup(), batch)
    assert torch.equal(mixed.present(), batch.present())


def test_geodesic_rows_lie_on_the_great_circle():
    batch = batch_of()
    mixed, again = run(GeodesicMixup(), batch), run(PerSampleMixup(), batch)
    weight = GeodesicMixup().draw(1, torch.Generator().manual_seed(0)).item()
    for m, x in batch.latents.items():
        for i in range(6):
            a, b = x[i].double(), x[i + 6].double()
            u, v = a / a.norm(), b / b.norm()
            angle = math.acos((u @ v).item())
            direction = math.sin(weight * angle) * u + math.sin((1 - weight) * angle) * v
            want = direction / math.sin(angle) * (weight * a.norm() + (1 - weight) * b.norm())
            torch.testing.assert_close(mixed.latents[m][i].double(), want, rtol=1e-4, atol=1e-5)
    assert torch.equal(mixed.links, again.links)


def test_geodesic_between_equal_and_opposite_rows_is_finite():
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [-3.0, 0.0]])
    batch = Batch({"a": x, "b": x.clone()}, torch.arange(8).reshape(4, 1, 2))
    mixed = run(GeodesicMixup(), batch)
    assert mixed.latents["a"].isfinite().all()
    torch.testing.assert_close(mixed.latents["a"][0], torch.tensor([1.0, 0.0]))


def test_noise_has_the_scale_asked_for_and_differs_between_modalities():
    batch = batch_of(2000, (8, 8))
    batch.latents["m1"] = batch.latents["m0"].clone()
    mixed = run(GaussianNoise(scale=0.3), batch)
    first, second = (mixed.latents[m] - batch.latents[m] for m in ("m0", "m1"))
    rms = batch.latents["m0"].square().mean().sqrt()
    assert abs(first.std() / rms - 0.3) < 0.01
    assert abs((first * second).mean() / (first.std() * second.std())) < 0.05
    assert torch.equal(mixed.links, batch.links)


def test_quantised_features_have_so_many_values_in_their_order_and_range():
    batch = batch_of(500, (4, 3), missing=[(5, 0)])
    mixed = run(RandomQuantisation(bins=7), batch).latents["m0"]
    assert not mixed[5].any()
    keep = torch.arange(500) != 5
    for x, q in zip(batch.latents["m0"][keep].T, mixed[keep].T, strict=True):
        assert 1 < len(q.unique()) <= 7
        assert x.min() <= q.min() and q.max() <= x.max()
        order = x.argsort()
        assert (q[order].diff() >= 0).all()  # a bin below has the lower value


def of_tokens(n=400, longest=6, width=4, fill=0.0):
    """Items of 1 to 6 tokens, the first one of item 0 all zero; row 1 lacks the modality."""
    batch = batch_of(n, (3, width), missing=[(1, 1)])
    draw = torch.Generator().manual_seed(1)
    values = 2 * torch.randn(n, longest, width, generator=draw)
    values[0, 0] = 0
    count = torch.randint(1, longest + 1, (n, 1), generator=draw)
    count[1] = 0
    mask = torch.arange(longest) < count
    batch.latents["m1"] = Padded(values.masked_fill(~mask[..., None], fill), mask)
    return batch


@pytest.mark.parametrize("mixup", [GaussianNoise(scale=0.3), RandomQuantisation(bins=7)])
def test_padding_gets_no_noise_and_has_no_part_in_it(mixup):
    batch = of_tokens()
    mixed = run(mixup, batch).latents["m1"]
    assert torch.equal(mixed.mask, batch.latents["m1"].mask)
    assert not mixed.values[~mixed.mask].any()
    assert mixed.values[0, 0].any()  # a token of zeros is a token
    for fill in (1e3, math.nan):
        assert torch.equal(run(mixup, of_tokens(fill=fill)).latents["m1"].values, mixed.values)


def test_noise_is_scaled_by_the_tokens_that_there_are():
    batch = of_tokens(4000)
    x, mixed = batch.latents["m1"], run(GaussianNoise(scale=0.3), batch).latents["m1"]
    noise = (mixed.values - x.values)[x.mask]
    rms = x.values[x.mask].square().mean().sqrt()
    assert abs(noise.std() / rms - 0.3) < 0.01


def test_a_feature_of_tokens_has_the_same_bins_in_all_of_them():
    batch = of_tokens()
    x, mixed = batch.latents["m1"], run(RandomQuantisation(bins=7), batch).latents["m1"]
    for own, q in zip(x.values[x.mask].T, mixed.values[x.mask].T, strict=True):
        assert 1 < len(q.unique()) <= 7
        assert (q[own.argsort()].diff() >= 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: PerSampleMixup(alpha=0.0),
        lambda: GaussianNoise(scale=-1.0),
        lambda: RandomQuantisation(bins=1),
    ],
)
def test_wrong_options_are_told(wrong):
    with pytest.raises(ConfigError):
        wrong()
