"""Corrections: what each does to embeddings, and which is chosen on validation."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.context import FitContext
from fusemix_core.corrections.auto import AutoCorrection
from fusemix_core.corrections.bank import BankCorrection
from fusemix_core.corrections.plain import NoCorrection, NormCorrection, ShiftCorrection
from fusemix_core.corrections.prior import PriorCorrection
from fusemix_core.errors import ConfigError
from fusemix_core.generation.choosing import try_corrections
from fusemix_core.interfaces import CorrectionPairs

DIM = 16


def draw(n, seed, d=DIM):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def world(n=200, gap=0.0, noise=0.0, length=3.0, seed=0):
    """Embeddings that are their latents' directions, moved by a constant, with noise."""
    latents = normalize(draw(20, 1), dim=1)[torch.arange(n) % 20] * length
    moved = normalize(latents, dim=1) + gap * normalize(draw(1, 2), dim=1)
    return normalize(moved + noise * draw(n, seed + 3), dim=1), latents


def fitted(correction, rows, latents):
    correction.fit(
        "audio", "text", CorrectionPairs(rows, latents, latents.unique(dim=0)), FitContext()
    )
    return correction


def corrected(correction, rows, **more):
    return correction(rows, "audio", "text", range(len(rows)), **more)


def cosine(a, b):
    return float((normalize(a, dim=1) * normalize(b, dim=1)).sum(1).mean())


def test_norm_gives_the_length_of_latents_and_keeps_directions():
    rows, latents = world(noise=0.2)
    found = corrected(fitted(NormCorrection(), rows, latents), rows)
    torch.testing.assert_close(found, rows * 3)


def test_shift_takes_a_constant_gap_away():
    rows, latents = world(gap=0.8)
    found = corrected(fitted(ShiftCorrection(), rows, latents), rows)
    assert cosine(rows, latents) < 0.9 < 0.98 < cosine(found, latents)
    torch.testing.assert_close(found.norm(dim=1), torch.full((len(rows),), 3.0))


def test_bank_is_the_weighted_mean_of_known_latents_by_the_definition():
    rows, latents = world(noise=0.3)
    found = corrected(fitted(BankCorrection(temperature=0.1), rows, latents), rows)
    kept = latents.unique(dim=0).half().double().numpy()
    unit = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    for row, one in zip(rows.double().numpy()[:5], found.double().numpy(), strict=False):
        shares = np.exp(unit @ row / 0.1)
        mean = (shares / shares.sum()) @ unit
        expected = mean / np.linalg.norm(mean) * np.linalg.norm(kept, axis=1).mean()
        np.testing.assert_allclose(one, expected, atol=1e-4)


def test_a_bank_of_the_generator_takes_the_place_of_the_fitted_one():
    rows, latents = world(noise=0.3)
    bank = normalize(draw(7, 9), dim=1)
    correction = BankCorrection(temperature=1e-5)
    found = corrected(correction, rows, bank=bank)
    nearest = bank[(rows @ bank.T).argmax(1)]
    torch.testing.assert_close(found, nearest, atol=1e-3, rtol=0)
    with pytest.raises(ConfigError, match="learnt nothing"):
        corrected(correction, rows)


@pytest.mark.slow
def test_prior_draws_latents_near_the_right_ones_and_others_by_seed():
    rows, latents = world(gap=0.9, noise=0.1)
    prior = fitted(PriorCorrection(steps=300, hidden=64), rows, latents)
    found = corrected(prior, rows)
    assert cosine(found, latents) > 0.85 > cosine(rows, latents)
    again = prior(rows[3:4], "audio", "text", [3])
    torch.testing.assert_close(again, found[3:4])
    assert not torch.allclose(prior(rows[3:4], "audio", "text", [4]), again)


@pytest.mark.parametrize(
    ("world_of", "expected"),
    [
        ({"noise": 0.0}, "norm"),
        ({"gap": 1.5}, "shift"),
        ({"noise": 0.15}, "bank"),
    ],
)
def test_validation_chooses_what_brings_embeddings_to_their_latents(world_of, expected):
    corrections = {"norm": NormCorrection(), "shift": ShiftCorrection()}
    if expected != "shift":
        corrections["bank"] = BankCorrection()
    for correction in corrections.values():
        fitted(correction, *world(**world_of))
    tried = try_corrections(corrections, "audio", "text", *world(seed=1, n=100, **world_of))
    assert tried.chosen == expected
    assert tried.measures[expected].length == pytest.approx(1, abs=0.02)


def test_nothing_is_chosen_from_a_handful_of_pairs():
    corrections = {"norm": NormCorrection(), "bank": BankCorrection()}
    for correction in corrections.values():
        fitted(correction, *world(noise=0.15))
    rows, latents = world(noise=0.15, n=5)
    assert try_corrections(corrections, "audio", "text", rows, latents).chosen == "norm"
    assert try_corrections(corrections, "audio", "text", rows[:0], latents[:0]).chosen == "norm"


@pytest.mark.parametrize(
    "make",
    [NormCorrection, ShiftCorrection, BankCorrection, lambda: PriorCorrection(steps=2, hidden=8)],
)
def test_tensors_carry_all_that_was_learnt(make):
    rows, latents = world(noise=0.2)
    first, second = fitted(make(), rows, latents), make()
    second.tensors = first.tensors
    torch.testing.assert_close(corrected(second, rows), corrected(first, rows))


def test_auto_says_which_for_which_pair_of_modalities():
    auto = AutoCorrection({"audio": {"text": "bank"}}, {"audio": {"text": "shift"}})
    assert auto.choice("audio", "text", None) == "bank"
    assert auto.choice("audio", "text", torch.ones(1, 2)) == "shift"
    assert auto.choice("image", "text", None) is None
    assert NoCorrection().knows("image", "text")
