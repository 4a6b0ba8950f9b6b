"""The encoders of an extraction: loaded when first needed, one a device, in chosen numbers."""

from __future__ import annotations

import gc
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fusemix_core.config import ComputeDtype, Dtype
from fusemix_core.devices import as_current
from fusemix_core.errors import ConfigError
from fusemix_core.hub import without_waiting
from fusemix_core.interfaces import Encoder
from fusemix_core.latents import half
from fusemix_core.latents.backends import PROBE_ITEMS
from fusemix_core.latents.cutting import BatchSize
from fusemix_core.latents.encoding import empty_cache
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.latents.pipeline import Pipeline
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec

if TYPE_CHECKING:
    from fusemix_core.data.items import Items

_TRIED = 8
"""Groups of `PROBE_ITEMS` that are looked through for one that can be read."""


class Held:
    """The encoders, one a device, loaded when first asked for.

    Args:
        spec: what is loaded.
        devices: where.
        dtype: what they compute in; `auto` until `settle` has chosen.
        given: used in place of the spec's.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        devices: list[torch.device],
        dtype: Dtype,
        given: Encoder | None,
    ) -> None:
        self.spec, self.given = spec, given
        # One that was given computes in what it is in: float32 as far as anybody knows.
        self.dtype: Dtype = "float32" if given is not None and dtype == "auto" else dtype
        self.devices = devices if given is None else devices[:1]
        self.loaded: list[Encoder] = []

    def settle(self, items: Items, view: str, home: Path) -> list[str]:
        """Choose what the encoder computes in if that is open; what the user should know."""
        known = fingerprint(self.spec, "float32") if self.dtype == "auto" else None
        found = half.planned(self.dtype, self.devices[0].type, home, known, view)
        if found is None and known is None:  # only its weights tell which encoder it is
            known = fingerprint(self.spec, "float32", self._load("float32").weights_digest)
            found = half.recall(home, known, view)
            if found and found != "float32":
                self.free()
        if found:
            self.dtype = found
            return []
        assert known is not None  # or the type was given
        return self._choose(items, view, home, known)

    def _choose(self, items: Items, view: str, home: Path, known: str) -> list[str]:
        batch = first_batch(self.spec, items, self._load("float32"))
        if batch is None:  # no item can be read, which has its own error
            self.dtype = "float32"
            return []

        def latents(encoder: Encoder) -> Any:
            with torch.no_grad(), as_current(self.devices[0]):
                return encoder.encode(batch, view)

        choice = half.choose(self._load, latents, self.devices[0])
        self._load(choice.dtype)
        half.remember(home, known, view, choice.dtype)
        return [choice.sentence(self.spec.name)]

    @property
    def compute_dtype(self) -> ComputeDtype:
        """What the encoder computes in; `settle` chooses it."""
        assert self.dtype != "auto"
        return self.dtype

    def _load(self, dtype: Dtype) -> Encoder:
        """The encoder of the first device in this type, in place of one in another."""
        if self.loaded and self.dtype != dtype:
            self.free()
        self.dtype = dtype
        return self.get()[0]

    def get(self, most: int = 1) -> list[Encoder]:
        """Of at most `most` devices, and of one at least."""
        if self.given is not None:
            return [self.given]
        if self.spec.unfitted:
            raise ConfigError(
                f"{self.spec.name} learns from training items before it encodes any.",
                "In Python: fusemix_core.runs.fitting.fit_encoders gives the spec to encode with.",
            )
        for device in self.devices[len(self.loaded) : most]:
            target = registry.target_of(self.spec)
            with without_waiting(self.spec):
                self.loaded.append(target.load(self.spec, device, getattr(torch, self.dtype)))
        return self.loaded

    def fingerprint(self) -> tuple[str, str | None]:
        """The encoder's, and the digest of its weights where only the loaded encoder tells that."""
        if known := fingerprint(self.spec, self.dtype):
            return known, None
        digest = self.get()[0].weights_digest
        return fingerprint(self.spec, self.dtype, digest), digest

    def free(self) -> None:
        """Let go of the encoders and of the device memory that they took."""
        if self.loaded:
            self.loaded = []
            gc.collect()
            for device in self.devices:
                empty_cache(device)


def first_batch(spec: EncoderSpec, items: Items, encoder: Encoder) -> Any | None:
    """The first `PROBE_ITEMS` that can be read, collated; None if none of the first many can."""
    with Pipeline(spec, items, encoder) as pipeline:
        some = range(min(len(items), _TRIED * PROBE_ITEMS))
        with closing(pipeline.batches(some, BatchSize(PROBE_ITEMS), PROBE_ITEMS)) as batches:
            return next((one.batch for _, one in batches if one.index), None)
