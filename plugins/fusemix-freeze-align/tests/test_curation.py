"""Concept-balanced curation gives the original's: see `parity/freeze_align/README.md`."""

import json
from pathlib import Path

import pytest
import torch
from fusemix_freeze_align.curation import (
    ConceptBalanced,
    assign,
    find_concepts,
    keep_best,
    poorest_first,
)
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents
from fusemix_core.testing import check_selector

FOLDER = Path(__file__).parent / "parity/freeze_align"
HYPER = json.loads((FOLDER / "meta.json").read_text())["hyper"]
V = load_file(FOLDER / "vectors.safetensors")


def kept(batch):
    ids, cosine = V["curate.in.sample_ids"].long(), V["curate.in.cosine"]
    return keep_best(zip(ids.split(batch), cosine.split(batch), strict=True), HYPER["max_amount"])


@pytest.mark.parametrize("batch", [HYPER["batch"], 1, 7, 64])
@pytest.mark.parametrize("order", ["last", "mean"])
def test_the_originals_curation_whatever_the_batches(order, batch):
    scores, best = kept(batch)
    assert torch.equal(scores, V["curate.out.top_scores"])
    assert torch.equal(best, V["curate.out.top_ids"].long())
    found = poorest_first(scores, order)
    assert torch.equal(found, V[f"curate.out.{order}.class_order"])
    taken = assign(best, found, HYPER["per_class"])
    assert torch.equal(taken, V[f"curate.out.{order}.assigned_ids"].long())


def pairs_of(latents):
    return PairedLatents({"image": ResidentLatents(latents)}, torch.arange(len(latents))[:, None])


def clustered(sizes, dim=12, seed=0):
    """Latents around as many directions as there are sizes, and which each is of."""
    draw = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(len(sizes), dim, generator=draw), dim=1)
    of = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    of = of[torch.randperm(len(of), generator=draw)]
    return centres[of] + 0.03 * torch.randn(len(of), dim, generator=draw), of, centres


def test_the_selector_is_the_curation_of_its_prototypes(tmp_path):
    latents, _, centres = clustered([40, 30, 20, 10])
    save_file({"prototypes": centres * 3}, tmp_path / "p.safetensors")
    path = str(tmp_path / "p.safetensors")
    rows = ConceptBalanced(prototypes=path, spare=2.0).select(pairs_of(latents), 18, FitContext())
    cosine = normalize(latents, dim=1) @ normalize(centres, dim=1).T
    scores, best = keep_best([(torch.arange(100), cosine)], 11)
    order = poorest_first(scores, "last")
    taken = assign(best, order, 5)[order]
    wanted = [int(i) for turn in taken.T for i in turn if i >= 0][:18]
    assert rows.tolist() == wanted


def test_rare_concepts_get_as_many():
    latents, of, _ = clustered([800, 100, 60, 40])
    rows = ConceptBalanced(concepts=4).select(pairs_of(latents), 80, FitContext(seed=1))
    assert of[rows].bincount().tolist() == [20] * 4


def test_concepts_are_clusters_and_none_is_empty():
    latents, of, centres = clustered([400, 30, 30, 30, 30, 30])
    table = ResidentLatents(latents)
    found = find_concepts(table, torch.arange(len(latents)), 6, FitContext(seed=2))
    assert torch.allclose(found.norm(dim=1), torch.ones(6))
    assert (found @ centres.T).max(dim=0).values.min() > 0.97


def test_of_few_candidates_all_but_the_last_kept_are_taken():
    latents = clustered([5, 5])[0]
    rows = ConceptBalanced(concepts=2).select(pairs_of(latents), 10, FitContext())
    assert 8 <= len(rows) == len(rows.unique())
    assert ConceptBalanced().select(pairs_of(latents[:1]), 1, FitContext()).tolist() == [0]


@pytest.mark.parametrize(
    "options", [{"order": "first"}, {"concepts": 0}, {"spare": 0.5}, {"prototypes": "none"}]
)
def test_what_can_not_be_is_refused(options):
    with pytest.raises(ConfigError):
        ConceptBalanced(**options).select(pairs_of(torch.eye(4)), 2, FitContext())


@pytest.mark.parametrize("tensors", [{"other": torch.eye(4)}, {"prototypes": torch.eye(3)}])
def test_prototypes_of_another_width_are_refused(tensors, tmp_path):
    save_file(tensors, tmp_path / "p.safetensors")
    selector = ConceptBalanced(prototypes=str(tmp_path / "p.safetensors"))
    with pytest.raises(ConfigError, match="prototypes"):
        selector.select(pairs_of(torch.eye(4)), 2, FitContext())


@pytest.mark.parametrize("options", [{}, {"order": "mean", "concepts": 3}])
def test_conforms(options):
    report = check_selector("concept-balanced", options=options)
    report.raise_if_failed(least=report.ran)
