import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Batch, Padded
from fusemix_core.mixups.fusemix import FuseMixMixup, alpha_at, pairing
from fusemix_core.mixups.none import NoMixup


def make_batch(present):
    """A batch whose latents tell their row and modality; `present` is a list of rows of 0 and 1."""
    present = torch.tensor(present, dtype=torch.bool)
    n, k = present.shape
    links = torch.where(present, torch.arange(n)[:, None] + 100 * torch.arange(k), -1)
    latents = {}
    for j in range(k):
        x = torch.randn(n, 3 + j, dtype=torch.float64)
        latents[f"m{j}"] = x.masked_fill(~present[:, j, None], 0)
    return Batch(latents, links[:, None, :])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_complete_rows_are_halved_and_mixed_alike():
    batch = make_batch([[1, 1]] * 6)
    mixed = FuseMixMixup().mix(batch, 0.3)
    for m, x in batch.latents.items():
        torch.testing.assert_close(mixed.latents[m], 0.3 * x[:3] + 0.7 * x[3:])
    assert mixed.links.shape == (3, 2, 2)
    assert mixed.links[:, :, 0].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_an_odd_row_is_left_out():
    assert FuseMixMixup().mix(make_batch([[1, 1]] * 5), 0.5).links[:, :, 0].tolist() == [
        [0, 2],
        [1, 3],
    ]


def test_the_draw_comes_from_the_generator_alone():
    batch = make_batch([[1, 1]] * 4)
    mixup = FuseMixMixup()
    before = torch.get_rng_state()
    first = mixup(batch, generator(1), 0.0).latents["m0"]
    torch.manual_seed(99)
    again = mixup(batch, generator(1), 0.0).latents["m0"]
    other = mixup(batch, generator(2), 0.0).latents["m0"]
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.set_rng_state(before)
    mixup(batch, generator(3), 0.0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_lambdas_are_beta_distributed(alpha):
    mixup, g = FuseMixMixup(alpha=alpha), generator()
    draws = torch.tensor([mixup.draw(g, 0.0) for _ in range(2000)])
    assert draws.mean().item() == pytest.approx(0.5, abs=0.03)
    assert draws.var().item() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.1)


def test_alpha_moves_with_progress():
    assert alpha_at(0.9, 2.0, 5.0, "constant") == 2.0
    assert alpha_at(0.5, 2.0, 8.0, "cosine") == pytest.approx(5.0)
    assert alpha_at(0.5, 2.0, 8.0, "exponential") == pytest.approx(4.0)


@given(
    st.lists(st.sampled_from([(1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)]), min_size=2, max_size=40)
)
def test_missing_entries_are_mixed_with_rows_like_them(rows):
    batch = make_batch(rows)
    first, second = pairing(batch.present())
    used = torch.cat([first, second]).tolist()
    assert len(first) == len(second) == len(rows) // 2
    assert len(set(used)) == len(used)
    unlike = sum(rows[i] != rows[j] for i, j in zip(first.tolist(), second.tolist(), strict=True))
    assert unlike <= len(set(rows)) // 2

    mixed = FuseMixMixup().mix(batch, 0.25)
    for r, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        for k, (m, x) in enumerate(batch.latents.items()):
            both = rows[i][k] and rows[j][k]
            want = 0.25 * x[i] + 0.75 * x[j] if both else torch.zeros_like(x[i])
            torch.testing.assert_close(mixed.latents[m][r], want)
            assert bool(mixed.present()[r, k]) == bool(both)


def test_nothing_switches_mixing_off_silently():
    with pytest.raises(ConfigError, match="above 0") as error:
        FuseMixMixup(alpha=0.0)
    assert "mixup=none" in error.value.hint
    with pytest.raises(ConfigError, match="schedule"):
        FuseMixMixup(schedule="linear")


def test_none_leaves_the_batch():
    batch = make_batch([[1, 1]] * 3)
    assert NoMixup()(batch, generator(), 0.0) is batch and NoMixup().rows_per_pair == 1


def test_a_mixed_item_has_the_tokens_of_both():
    batch = make_batch([[1, 1], [1, 1], [0, 1], [1, 1], [1, 1], [0, 1]])
    values = torch.randn(6, 3, 4, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]]).bool()
    batch.latents["m0"] = Padded(values, mask)
    mixed = FuseMixMixup().mix(batch, 0.3)
    assert mixed.links[:, :, 1].tolist() == [[102, 105], [100, 103], [101, 104]]
    x = mixed.latents["m0"]
    assert x.mask.tolist() == [[False] * 3, [True] * 3, [True, True, False]]
    torch.testing.assert_close(x.values[1, 0], 0.3 * values[0, 0] + 0.7 * values[3, 0])
    torch.testing.assert_close(x.values[1, 2], 0.3 * values[0, 2])  # the other has none there
    torch.testing.assert_close(x.values[2, 1], 0.7 * values[4, 1])
    assert not x.values[~x.mask].any()


def test_tokens_are_mixed_as_one_row_with_zeros_is():
    batch = make_batch([[1, 1], [1, 0]] * 4)
    values = torch.randn(8, 5, 3, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([5, 1, 2, 3, 1, 4, 4, 2])[:, None]
    tokens = Padded(values, mask)
    rows = {**batch.latents, "m0": tokens.filled().flatten(1)}
    wanted = FuseMixMixup().mix(Batch(rows, batch.links), 0.4)
    mixed = FuseMixMixup().mix(Batch({**rows, "m0": tokens}, batch.links), 0.4)
    assert torch.equal(mixed.links, wanted.links)
    assert torch.equal(mixed.latents["m0"].filled().flatten(1), wanted.latents["m0"])
    assert torch.equal(mixed.latents["m1"], wanted.latents["m1"])


def test_halves_that_make_a_zero_token_keep_it():
    x = torch.tensor([[[1.0, -2.0]], [[-1.0, 2.0]]])
    batch = Batch({"a": Padded(x, torch.ones(2, 1).bool())}, torch.tensor([[[0]], [[1]]]))
    mixed = FuseMixMixup().mix(batch, 0.5).latents["a"]
    assert not mixed.values.any() and mixed.mask.all()
