"""Stacked, block and plain ridge regressions of several modalities."""

from dataclasses import replace

import pytest
import torch
from fusers.rows import WIDTHS, labelled, latents_of

from fusemix_core.context import FitContext
from fusemix_core.errors import ConfigError
from fusemix_core.fusers.block import BlockRidge, ConcatRidge
from fusemix_core.fusers.features import Features
from fusemix_core.fusers.linear import subsets
from fusemix_core.fusers.products import ProductRidge
from fusemix_core.fusers.stack import Stack, non_negative

CLOSED = [Stack, BlockRidge, ConcatRidge, ProductRidge]


def fitted(kind, rows, task):
    return kind.fit(rows, rows, task, FitContext())


@pytest.mark.parametrize("kind", CLOSED)
@pytest.mark.parametrize("task", ["classify", "regress"])
def test_all_modalities_together_are_better_than_each(kind, task):
    rows, made = labelled(400, task)
    new, _ = labelled(400, task, seed=1)
    fuser = fitted(kind, rows, made).fuser
    together = made.score(fuser(latents_of(new), new.present), new.targets)
    for k in range(3):
        own = torch.zeros_like(new.present)
        own[:, k] = True
        assert made.score(fuser(latents_of(new), own), new.targets) < together - 0.02


@pytest.mark.parametrize("kind", CLOSED)
def test_scores_of_rows_left_out_are_as_good_as_those_of_new_rows(kind):
    rows, task = labelled(300, missing=0.2)
    new, _ = labelled(300, missing=0.2, seed=1)
    done = fitted(kind, rows, task)
    fresh = task.metrics(done.fuser(latents_of(new), new.present), new.targets)
    own = task.metrics(done.scores, rows.targets)
    assert abs(fresh["log_loss"] - own["log_loss"]) < 0.12
    seen = task.metrics(done.fuser(latents_of(rows), rows.present), rows.targets)
    assert seen["log_loss"] < own["log_loss"]


@pytest.mark.parametrize("kind", CLOSED)
def test_what_is_absent_changes_nothing(kind):
    rows, task = labelled(100, missing=0.4)
    fuser = fitted(kind, rows, task).fuser
    given = latents_of(rows)
    want = fuser(given, rows.present)
    for k, m in enumerate(WIDTHS):
        gone = ~rows.present[:, k]
        given[m] = given[m].masked_fill(gone[:, None], torch.nan)
    assert torch.equal(fuser(given, rows.present), want) and want.isfinite().all()


def test_rows_are_predicted_one_by_one_as_together_and_in_any_order():
    rows, task = labelled(60, missing=0.4)
    fuser = fitted(BlockRidge, rows, task).fuser
    given, order = latents_of(rows), torch.arange(60).flip(0)
    want = fuser(given, rows.present)
    moved = fuser({m: x[order] for m, x in given.items()}, rows.present[order])
    torch.testing.assert_close(moved, want[order], rtol=1e-5, atol=1e-5)
    one = fuser({m: x[7:8] for m, x in given.items()}, rows.present[7:8])
    torch.testing.assert_close(one, want[7:8], rtol=1e-5, atol=1e-5)


def test_a_block_fit_of_a_subset_is_a_fit_to_that_subset():
    rows, task = labelled(150, "regress")
    fuser = fitted(BlockRidge, rows, task).fuser
    narrow = rows.only(["image"])
    alone = fitted(BlockRidge, narrow, task).fuser
    own = torch.tensor([[True, False, False]]).expand(150, 3)
    got = fuser(latents_of(rows), own)
    want = alone(latents_of(narrow), narrow.present)
    # The penalties differ: those of the subset were chosen with the others.
    assert torch.corrcoef(torch.cat([got, want], dim=1).T)[0, 1] > 0.999


@pytest.mark.parametrize("kind", CLOSED)
def test_parts_of_the_modalities_sum_to_the_scores(kind):
    rows, task = labelled(50, missing=0.3)
    fuser = fitted(kind, rows, task).fuser
    parts = fuser.parts(latents_of(rows), rows.present)
    number = (rows.present * torch.tensor([1, 2, 4])).sum(dim=1)
    total = sum(parts.values()) + fuser.offsets[number]
    torch.testing.assert_close(total, fuser(latents_of(rows), rows.present))
    assert all((parts[m][~rows.present[:, k]] == 0).all() for k, m in enumerate(WIDTHS))


def test_a_group_is_left_out_as_a_whole():
    """Rows of a group that share a target and a latent of their own are not found by each other."""
    rows, task = labelled(60, groups=torch.arange(60) // 2)
    draw = torch.Generator().manual_seed(5)
    noise = torch.randn(30, 80, generator=draw).repeat_interleave(2, 0)
    rows.pairs.tables["image"].latents = noise
    rows.targets.values.copy_(torch.randint(0, 3, (30,), generator=draw).repeat_interleave(2))
    narrow = rows.only(["image"])
    grouped = task.score(fitted(BlockRidge, narrow, task).scores, narrow.targets)
    loose = replace(narrow, groups=torch.arange(60))
    leaked = task.score(fitted(BlockRidge, loose, task).scores, loose.targets)
    assert grouped < 0.5 and leaked > grouped + 0.2


def test_targets_that_are_not_known_have_no_part():
    rows, task = labelled(80)
    known = rows.targets.known.clone()
    known[::4] = False
    hidden = type(rows.targets)(rows.targets.values.where(known, 0), known)
    other = type(rows.targets)(rows.targets.values.where(known, 2), known)
    made = [
        fitted(Stack, type(rows)(rows.pairs, one, rows.groups), task).fuser
        for one in (hidden, other)
    ]
    assert torch.equal(made[0].weights, made[1].weights)


def test_a_useless_model_gets_no_weight():
    rows, task = labelled(200)
    draw = torch.Generator().manual_seed(3)
    good = torch.nn.functional.one_hot(rows.targets.values, 3) + torch.randn(200, 3, generator=draw)
    weights, _ = non_negative(
        task, [good, -good, torch.randn(200, 3, generator=draw)], rows.targets
    )
    assert weights[0] > 0.5 and weights[1] == 0 and (weights >= 0).all()
    weights, offsets = non_negative(task, [-good], rows.targets)
    assert weights == 0 and torch.equal(offsets, task.baseline(rows.targets).double())


def test_an_outlier_of_the_training_rows_or_of_new_ones_stays_small():
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(200, 20, generator=draw)
    there = torch.ones(200, dtype=torch.bool)
    clean = Features.of(latents, there, 20)
    latents[0] *= 1e4
    found = Features.of(latents, there, 20)
    assert (found.scale / clean.scale).min() > 0.4
    rows = found(torch.cat([latents[:1], latents[1:] * 1e6]), there)
    assert rows.norm(dim=1).max() < 5 and found(latents, ~there).abs().max() == 0


def test_constant_columns_and_more_columns_than_rows_are_taken():
    rows, task = labelled(20)
    wide = torch.cat([rows.pairs.tables["image"].latents, torch.ones(20, 60)], dim=1)
    wide[:, 30:60] = torch.randn(20, 30, generator=torch.Generator().manual_seed(2))
    rows.pairs.tables["image"].latents = wide
    fuser = fitted(Stack, rows, task).fuser
    assert fuser.ranks["image"] <= 19 and fuser(latents_of(rows), rows.present).isfinite().all()


def test_subsets_and_too_many_modalities():
    assert subsets(3) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    with pytest.raises(ConfigError, match="8 modalities at most"):
        Stack({str(i): 2 for i in range(9)}, 2)


def test_products_tell_pairs_that_belong_together():
    rows, task = labelled(400)
    draw = torch.Generator().manual_seed(1)
    shared = torch.randn(400, 6, generator=draw)
    mixed = shared[torch.randperm(400, generator=draw)]
    same = torch.rand(400, generator=draw) < 0.5
    for m, own in (("image", shared), ("text", torch.where(same[:, None], shared, mixed))):
        noise = 0.3 * torch.randn(400, WIDTHS[m], generator=draw)
        rows.pairs.tables[m].latents = own @ torch.randn(6, WIDTHS[m], generator=draw) + noise
    rows.targets.values.copy_(same.long())
    train, new = rows.select(torch.arange(300)), rows.select(torch.arange(300, 400))
    found = {}
    for kind in (BlockRidge, ProductRidge):
        fuser = fitted(kind, train, task).fuser
        found[kind] = task.score(fuser(latents_of(new), new.present), new.targets)
    assert found[ProductRidge] > 0.75 > found[BlockRidge] + 0.15
