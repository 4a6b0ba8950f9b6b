"""Closed forms on a GPU give the embeddings of a CPU."""

import pytest
import torch

from fusemix_core.config import Part, Recipe
from fusemix_core.interfaces import FitContext
from fusemix_core.registry import registry

pytestmark = pytest.mark.cuda
FORMS = {
    "linear cca": Part("cca", {"landmarks": 0, "dim": 8}),
    "kernel cca": Part("cca", {"landmarks": 64, "dim": 8}),
    "csa": Part("csa"),
    "procrustes": Part("procrustes"),
    "ridge": Part("ridge"),
    "asif": Part("asif"),
}


def similarities(part, pairs, validation, device):
    """Of the training items of the first modality with those of the second, in float64."""
    aligner, recipe = registry.build("aligner", part), Recipe("closed", part)
    adapters = aligner.fit(pairs, validation, recipe, FitContext(device=device))
    ids = torch.arange(100)
    rows = [a(pairs.tables[m].rows(ids)).double() for m, a in adapters.items()]
    assert all(p.device.type == "cpu" for a in adapters.values() for p in a.parameters())
    first, second = (torch.nn.functional.normalize(x, dim=1) for x in rows[:2])
    return first @ second.T


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("name", FORMS)
def test_embeddings_are_those_of_a_cpu(device, pairs, name, missing):
    data, validation = pairs(300, missing), pairs(60)
    if name not in ("linear cca", "kernel cca"):
        data, validation = data.only(["image", "text"]), validation.only(["image", "text"])
        data = data.select((data.links >= 0).all(1).nonzero()[:, 0])
    there = similarities(FORMS[name], data, validation, device)
    here = similarities(FORMS[name], data, validation, torch.device("cpu"))
    torch.testing.assert_close(there, here, rtol=0, atol=2e-3)


def test_tf32_does_not_enter(device, pairs):
    """Its products err by 5e-4: a hundred times more than a closed form may."""
    data, validation = pairs(300), pairs(60)
    part = FORMS["kernel cca"]
    exact = similarities(part, data, validation, device)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        allowed = similarities(part, data, validation, device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    torch.testing.assert_close(allowed, exact, rtol=0, atol=1e-5)
