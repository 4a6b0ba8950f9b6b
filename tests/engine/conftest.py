"""Small paired latents with structure, and a registry that contains the components under test."""

from __future__ import annotations

import pytest
import torch

from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.adapters.mlp import MlpAdapter
from fusemix_core.aligners import gradient
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.interfaces import Aligner, PairedLatents, ResidentLatents
from fusemix_core.mixups.fusemix import FuseMixMixup
from fusemix_core.mixups.none import NoMixup
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.registry import Registry


class TrueMap(Aligner):
    """A closed-form start: the pseudo-inverse of the map that made each modality."""

    def fit(self, train, validation, recipe, context):
        adapters = {}
        for modality, table in train.tables.items():
            z = latent_causes(len(table))
            solution = torch.linalg.lstsq(table.latents, z).solution
            adapters[modality] = LinearAdapter(table.dim, z.shape[1]).requires_grad_(False)
            adapters[modality].out.weight.copy_(solution.T)
            adapters[modality].out.bias.zero_()
        return adapters


@pytest.fixture(autouse=True)
def components(monkeypatch):
    registry = Registry(entry_points=lambda: [])
    registry.add_component(
        "adapter", "mlp", MlpAdapter, blocks=4, expansion=4.0, dropout=0.0, bias=True
    )
    registry.add_component("adapter", "linear", LinearAdapter, bias=True)
    registry.add_component(
        "mixup", "fusemix", FuseMixMixup, alpha=1.0, alpha_max=1.0, schedule="constant"
    )
    registry.add_component("mixup", "none", NoMixup)
    registry.add_component(
        "objective", "infonce", InfoNCE, temperature=0.07, learnable=True, mask_shared=False
    )
    registry.add_component("aligner", "true-map", TrueMap)
    monkeypatch.setattr(gradient, "registry", registry)
    return registry


def latent_causes(n):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(7))


def make_latents(n, widths=(12, 9), missing=0.0, first=0, rows=None):
    """Rows `first` to `first + rows` of n items a modality, all made from the same causes."""
    g = torch.Generator().manual_seed(8)
    tables = {}
    for i, width in enumerate(widths):
        x = latent_causes(n) @ torch.randn(5, width, generator=g)
        tables[f"m{i}"] = ResidentLatents(x + 0.2 * torch.randn(n, width, generator=g))
    links = torch.arange(n)[:, None].repeat(1, len(widths))
    absent = torch.rand(links.shape, generator=g) < missing
    absent &= torch.arange(n)[:, None] % len(widths) == torch.arange(len(widths))
    links[absent] = -1
    return PairedLatents(tables, links[first : n if rows is None else first + rows])


@pytest.fixture
def split():
    """A function (training rows, validation rows, widths, missing share) → both splits."""

    def make(n, validation, **options):
        train = make_latents(n + validation, rows=n, **options)
        return train, make_latents(n + validation, first=n, **options)

    return make


@pytest.fixture
def recipe():
    """A function of settings that differ → a recipe."""
    return make_recipe


def make_recipe(**training):
    """A small FuseMix with everything on that could break a resumption."""
    adapter = training.pop("adapter", Part("mlp", {"blocks": 1, "expansion": 2.0, "dropout": 0.2}))
    start = training.pop("start", None)
    mixup = training.pop("mixup", Part("fusemix", {"schedule": "cosine", "alpha_max": 0.5}))
    dim = training.pop("dim", 6)
    settings = {"epochs": 4, "batch_size": 8, "lr": 3e-3, "warmup_steps": 2} | training
    return Recipe(
        name="small",
        aligner=Part("gradient"),
        dim=dim,
        start=start,
        adapter=adapter,
        mixup=mixup,
        objective=Part("infonce"),
        training=Training(**settings),
    )
