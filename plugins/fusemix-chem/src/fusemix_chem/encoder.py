"""`ChemNetEncoder`: SMILES strings through ChemNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from fusemix_chem.network import ChemNet, read_state, with_state
from fusemix_chem.smiles import LENGTH, MOLECULES, symbol_table, symbols
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.packaged import packaged_weights
from fusemix_core.specs import EncoderSpec

TINY = {"channels": 6, "inner": 8, "dim": 16}


class ChemNetEncoder(Encoder):
    """SMILES strings; the latent is ChemNet's last hidden state, after the whole string.

    View `time` is that state at each of the 88 steps of about four symbols, of which those past the
    end of a short molecule have read padding, as ChemNet was trained to.
    """

    def __init__(
        self, spec: EncoderSpec, network: ChemNet, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.spec = spec
        self.device = device
        self.model = network.requires_grad_(False).eval().to(device, dtype)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """ChemNet with the weights of the package `fcd`, or with those at `chemnet@PATH`.

        Raises ArtefactError for weights that are missing, changed or do not fit.
        """
        path = Path(spec.weights) if spec.local else packaged_weights(spec)
        return cls(spec, with_state(read_state(path), path), device, dtype)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A narrow ChemNet with random weights."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(0)
            network = ChemNet(**TINY)
            for weight in network.parameters():  # torch's own are so small that latents are alike
                weight.uniform_(-0.5, 0.5) if weight.dim() == 1 else weight.normal_()
        spec = replace(spec, dim=TINY["dim"], weights="", sha256="", revision="", parameters=None)
        return cls(spec, network, torch.device("cpu"), torch.float32)

    def collate(self, items: Sequence[str]) -> Tensor:
        """SMILES strings, made canonical, as int64 `[n, 350]`; see `symbol_table`.

        Raises ValueError if one is not a molecule.
        """
        return self.collated(items)[0]

    def collated(self, items: Sequence[str]) -> tuple[Tensor, int]:
        """The batch, and how many of the molecules were cut: each is read once."""
        self._check(items)
        return symbol_table(items)

    @torch.inference_mode()
    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        """float32 of a batch `[n, 350]`: `pooled [n, 512]`, `time [n, 88, 512]`."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        if not len(batch):  # torch's LSTM refuses an empty batch
            steps = (88,) if view == "time" else ()
            return torch.empty(0, *steps, self.model.lstm2.hidden_size)
        states = self.model(batch.to(self.device))
        return (states if view == "time" else states[:, -1]).float()

    def truncated(self, items: Sequence[str]) -> int:
        """How many of the molecules have more than 350 symbols, the end counted."""
        self._check(items)
        return sum(len(symbols(item)) > LENGTH for item in items)

    @classmethod
    def sample_items(cls, spec: EncoderSpec) -> Sequence[str]:
        """Molecules small and large: charges, rings, stereo, a salt, one atom, one too long."""
        return MOLECULES

    def _check(self, items: Sequence[str]) -> None:
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"{self.spec.name} takes str, not {type(item).__name__}")
