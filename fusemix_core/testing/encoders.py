"""Checks that an encoder keeps its contract. The first part of the conformance kit."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fusemix_core.data.media import Audio
from fusemix_core.devices import resolve_device
from fusemix_core.errors import ContractError
from fusemix_core.interfaces import Encoder
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import EncoderSpec


@dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it passed, and what went wrong."""

    name: str
    passed: bool
    detail: str = ""


def sample_items(spec: EncoderSpec) -> list[Any]:
    """Eight different items of the form that the encoder takes, sizes and lengths mixed."""
    if spec.takes == "image":
        noise = np.random.default_rng(0)
        sizes = [(32, 32), (200, 100), (64, 300), (1, 1), (224, 224), (500, 400), (90, 90), (7, 80)]
        return [
            Image.fromarray(noise.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes
        ]
    if spec.takes == "audio":
        rate = spec.sample_rate or 16_000
        seconds = [0.1, 0.5, 1, 2, 0.3, 1.5, 3, 0.7]
        tones = [
            np.sin(2 * np.pi * 110 * (i + 1) * np.arange(int(s * rate)) / rate)
            for i, s in enumerate(seconds)
        ]
        return [Audio(t.astype(np.float32), rate) for t in tones]
    if spec.takes == "text" and spec.modality == "text":
        return [
            "a",
            "A dog runs.",
            "Two cats sleep on a warm red sofa.",
            "日本語の文",
            "3 + 4 = 7",
            "naïve café",
            "word " * 60,
            "🙂",
        ]
    raise ContractError(
        f"The check of '{spec.name}'", f"sample items of {spec.modality}", "none: pass `items`"
    )


def check_encoder(
    spec: EncoderSpec,
    *,
    items: Sequence[Any] | None = None,
    device: str = "auto",
    encoder: Encoder | None = None,
    tolerance: float = 1e-3,
    registry: Registry = registry,
) -> list[CheckResult]:
    """Load an encoder and check it on `items` (by default made-up ones, see `sample_items`).

    tolerance: the largest difference, relative to the largest latent, that another batch size may
    make. Errors of the checks are results; errors of loading are raised.
    """
    spec.check_requirements()
    target = registry.target_of(spec) if encoder is None else type(encoder)
    if items is None:
        items = target.sample_items(spec) or sample_items(spec)
    items = list(items)
    if encoder is None:
        encoder = target.load(spec, resolve_device(device), torch.float32)
    checks = _Checks(spec, encoder, items, tolerance)
    return [checks.run(name, check) for name, check in checks.all().items()]


class _Checks:
    def __init__(
        self, spec: EncoderSpec, encoder: Encoder, items: list[Any], tolerance: float
    ) -> None:
        self.spec, self.encoder, self.items, self.tolerance = spec, encoder, items, tolerance
        self.latents = self._encode(items)

    def _encode(self, items: list[Any]) -> Tensor:
        return self.encoder.encode(self.encoder.collate(items), self.spec.views[0]).float().cpu()

    def all(self) -> dict[str, Callable[[], None]]:
        return {
            "one row an item, of the declared width": self.shape,
            "finite": self.finite,
            "different items differ": self.different,
            "no gradient": self.no_grad,
            "deterministic": self.deterministic,
            "row i is item i": self.order,
            "independent of batch size": self.batch_size,
            "a wrong type is a TypeError": self.wrong_type,
            "collate works in a worker": self.worker,
            "leaves the global random state alone": self.random_state,
        }

    def run(self, name: str, check: Callable[[], None]) -> CheckResult:
        try:
            check()
        except Exception as error:
            return CheckResult(name, False, f"{type(error).__name__}: {error}".rstrip(": "))
        return CheckResult(name, True)

    def _near(self, got: Tensor, wanted: Tensor) -> None:
        apart = (got - wanted).abs().max().item() / max(wanted.abs().max().item(), 1e-12)
        if not apart <= self.tolerance:
            raise AssertionError(f"latents differ by {apart:.2g} of the largest")

    def shape(self) -> None:
        wanted = (len(self.items), self.spec.dim or self.latents.shape[1])
        if tuple(self.latents.shape) != wanted:
            raise AssertionError(f"{tuple(self.latents.shape)} instead of {wanted}")

    def finite(self) -> None:
        if not self.latents.isfinite().all():
            raise AssertionError("NaN or infinity")

    def different(self) -> None:
        if len(self.latents.unique(dim=0)) < len(self.items):
            raise AssertionError("two different items have the same latent")

    def no_grad(self) -> None:
        raw = self.encoder.encode(self.encoder.collate(self.items[:1]), self.spec.views[0])
        if raw.requires_grad:
            raise AssertionError("the latents require a gradient")

    def deterministic(self) -> None:
        if not torch.equal(self._encode(self.items), self.latents):
            raise AssertionError("the same batch gave other latents")

    def order(self) -> None:
        self._near(self._encode(self.items[::-1]), self.latents.flip(0))

    def batch_size(self) -> None:
        self._near(torch.cat([self._encode([item]) for item in self.items]), self.latents)

    def wrong_type(self) -> None:
        try:
            self.encoder.collate([object()])
        except TypeError:
            return
        raise AssertionError("collate took an object()")

    def worker(self) -> None:
        collate = pickle.loads(pickle.dumps(self.encoder.collate))  # noqa: S301  our own bytes
        batch = collate(self.items)
        self._near(self.encoder.encode(batch, self.spec.views[0]).float().cpu(), self.latents)

    def random_state(self) -> None:
        before = torch.get_rng_state()
        self._encode(self.items[:2])
        if not torch.equal(before, torch.get_rng_state()):
            raise AssertionError("encode drew from torch's global generator")
