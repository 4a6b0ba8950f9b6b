"""Toy encoders, adapters and a registry of their own, so that the tests need no plugin."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fusemix_core.config import Part
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.interfaces import Adapter, Encoder, Scorer
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import Registry
from fusemix_core.scorers.cosine import CosineScorer
from fusemix_core.scorers.csls import CSLSScorer
from fusemix_core.specs import EncoderSpec


class Toy(Encoder):
    """A seeded linear map of a few statistics of an item. Counts its loads."""

    loads = 0

    def __init__(self, spec: EncoderSpec, dtype: torch.dtype) -> None:
        self.spec = spec
        self.net = nn.Linear(4, spec.dim)
        generator = torch.Generator().manual_seed(spec.options.get("seed", 0))
        with torch.no_grad():
            self.net.weight.normal_(generator=generator)
            self.net.bias.normal_(generator=generator)
        self.net.to(dtype)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Toy:
        Toy.loads += 1
        return cls(spec, dtype)

    def collate(self, items) -> Tensor:
        return torch.tensor([_statistics(item) for item in items])

    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        with torch.no_grad():
            return self.net(batch.to(self.net.weight.dtype))


def _statistics(item) -> list[float]:
    if isinstance(item, str):
        values = np.frombuffer(item.encode(), dtype=np.uint8)
    else:
        values = np.asarray(getattr(item, "samples", item), dtype=np.float32).ravel()
    return [float(f(values)) / 100 for f in (np.mean, np.std, np.max)] + [len(values) / 1000]


class ToyAdapter(Adapter):
    """Two layers; `power` has no weights, so only its option tells it."""

    def __init__(self, dim_in: int, dim_out: int, *, hidden: int = 6, power: float = 1.0) -> None:
        super().__init__()
        self.options = {"hidden": hidden, "power": power}
        self.power = power
        self.first = nn.Linear(dim_in, hidden)
        self.second = nn.Linear(hidden, dim_out)
        self.register_buffer("mean", torch.zeros(dim_in))

    def forward(self, latents: Tensor) -> Tensor:
        x = self.first(latents - self.mean).tanh()
        return self.second(x.sign() * x.abs() ** self.power)


DIMS = {"image": 5, "text": 7, "audio": 3}


@pytest.fixture
def toys() -> SimpleNamespace:
    """A registry with toy components, and what builds models of them."""
    Toy.loads = 0
    registry = Registry(entry_points=lambda: [])
    registry.add_component("adapter", "toy", ToyAdapter, hidden=6, power=1.0)
    registry.add_component("scorer", "cosine", CosineScorer)
    registry.add_component("scorer", "csls", CSLSScorer, neighbours=10, bank_size=4096)
    specs = {
        modality: EncoderSpec(
            name=f"toy-{modality}",
            modality=modality,
            target="none:Toy",
            dim=dim,
            takes=modality,
            sample_rate=8000 if modality == "audio" else None,
            licence="MIT",
            options={"seed": dim},
        )
        for modality, dim in DIMS.items()
    }

    def add(spec: EncoderSpec) -> None:
        registry.add(type("Toy", (Toy,), {"spec": spec}))

    def info(modality: str, **changes) -> EncoderInfo:
        spec = specs[modality]
        digest = Toy(spec, torch.float32).weights_digest
        facts = {
            "modality": modality,
            "dim": spec.dim,
            "fingerprint": fingerprint(spec, "float32", digest),
            "view": "pooled",
            "registry": registry,
        }
        return EncoderInfo.of(spec, **(facts | changes))

    def model(modalities=("image", "text"), scorer: Scorer | None = None, **more) -> FusedModel:
        torch.manual_seed(1)
        adapters = {m: ToyAdapter(DIMS[m], 4) for m in modalities}
        infos = {m: info(m) for m in modalities}
        more = {"registry": registry, "device": "cpu"} | more
        return FusedModel(adapters, infos, scorer or CosineScorer(), **more)

    def csls(modalities=("image", "text"), n: int = 20) -> CSLSScorer:
        scorer = CSLSScorer(neighbours=3, bank_size=16)
        generator = torch.Generator().manual_seed(3)
        rows = {m: torch.randn(n, 4, generator=generator) for m in modalities}
        scorer.fit({m: nn.functional.normalize(r, dim=1) for m, r in rows.items()})
        return scorer

    for spec in specs.values():
        add(spec)
    return SimpleNamespace(
        registry=registry,
        specs=specs,
        add=add,
        info=info,
        model=model,
        csls=csls,
        Toy=Toy,
        ToyAdapter=ToyAdapter,
        Part=Part,
        dims=DIMS,
    )


@pytest.fixture
def items() -> dict[str, list]:
    """Six items of each modality."""
    from PIL import Image

    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, size=(6, 8, 9, 3), dtype=np.uint8)
    clips = generator.uniform(-0.5, 0.5, size=(6, 80)).astype(np.float32)
    return {
        "image": [Image.fromarray(p) for p in pixels],
        "text": ["a cat", "two dogs", "the sea at night", "a red hat", "a map", "snow"],
        "audio": [(clip, 8000) for clip in clips],
    }
