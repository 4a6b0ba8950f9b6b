"""Morgan fingerprints (Rogers and Hahn, 2010) by RDKit: what surrounds each atom, counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from rdkit.Chem import rdFingerprintGenerator
from torch import Tensor

from fusemix_chem.smiles import MOLECULES, molecule
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.specs import EncoderSpec


class Morgan(Encoder):
    """SMILES strings; the latent is log(1 + count) of each environment, hashed to 1,024 places.

    Option `radius`: how many bonds away an environment reaches.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        if spec.options["radius"] < 0:
            raise ConfigError(
                f"{spec.name} can't have the radius {spec.options['radius']}.", "2 is usual."
            )

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """There are no weights; fingerprints are always made on the CPU, in float32."""
        return cls(spec)

    def collate(self, items: Sequence[str]) -> Tensor:
        """float32 `[n, 1024]`, the counts.

        Raises ValueError if one is not a molecule.
        """
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"{self.spec.name} takes str, not {type(item).__name__}")
        width = self.spec.dim or 1024
        maker = rdFingerprintGenerator.GetMorganGenerator(self.spec.options["radius"], fpSize=width)
        counts = [maker.GetCountFingerprintAsNumPy(molecule(item)) for item in items]
        return torch.from_numpy(np.array(counts, np.float32).reshape(-1, width))

    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        """float32 `[n, 1024]`."""
        if view not in self.spec.views:
            raise ConfigError(f"{self.spec.name} has no view '{view}'.", "It has: pooled.")
        return batch.log1p()

    @classmethod
    def sample_items(cls, spec: EncoderSpec) -> Sequence[str]:
        """Molecules small and large."""
        return MOLECULES
