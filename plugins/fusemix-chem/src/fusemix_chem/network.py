"""ChemNet's network up to its last hidden layer, and how its weights are read.

Preuer, Renz, Unterthiner, Hochreiter, Klambauer: Fréchet ChemNet Distance, 2018 (arXiv:1803.09518).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad, selu

from fusemix_chem.smiles import SYMBOLS
from fusemix_core.errors import ArtefactError

KERNEL, STRIDE = 4, 2
LAYERS = (("Conv1d", "conv1"), ("Conv1d", "conv2"), ("LSTM", "lstm1"), ("LSTM", "lstm2"))
"""The kinds of layer in the original's file, in order, and their names here."""


class ChemNet(nn.Module):
    """Two strided convolutions, an LSTM that reads from the end, one that reads from the start."""

    def __init__(self, channels: int = 32, inner: int = 128, dim: int = 512) -> None:
        super().__init__()
        shape = {"kernel_size": KERNEL, "stride": STRIDE, "bias": False}
        self.conv1 = nn.Conv1d(len(SYMBOLS), channels, **shape)
        self.conv2 = nn.Conv1d(channels, channels, **shape)
        self.lstm1 = nn.LSTM(channels, inner, batch_first=True)
        self.lstm2 = nn.LSTM(inner, dim, batch_first=True)

    def forward(self, table: Tensor) -> Tensor:
        """The second LSTM's states `[n, 88, dim]` for symbols int64 `[n, 350]` (-1: none).

        The last state is the latent of the whole molecule.
        """
        dtype = self.conv1.weight.dtype
        x = one_hot(table + 1, len(SYMBOLS) + 1)[:, :, 1:].to(dtype) / len(SYMBOLS)
        x = x.transpose(1, 2)  # [n, 35, 350]
        x = selu(self.conv1(padded(x)))  # [n, c, 175]
        x = selu(self.conv2(padded(x)))  # [n, c, 88]
        x, _ = self.lstm1(x.transpose(1, 2).flip(1))  # [n, 88, inner], from the end
        return self.lstm2(x.flip(1))[0]


def padded(x: Tensor) -> Tensor:
    """`[n, c, t]` with zeros so that a convolution gives ⌈t / stride⌉ (TensorFlow's "same")."""
    length = x.shape[2]
    wanted = (-(-length // STRIDE) - 1) * STRIDE + KERNEL
    before = (wanted - length) // 2
    return pad(x, (before, wanted - length - before))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors for `ChemNet` in a .safetensors file, or in fcd's own file of its weights.

    fcd's is a torch file of nested lists; it is read without running code. Raises ArtefactError for
    anything else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        layers = torch.load(path, map_location="cpu", weights_only=True)
        return {
            f"{name}.{key}": tensor
            for (kind, (state, *_)), (wanted, name) in zip(layers, LAYERS, strict=True)
            for key, tensor in state.items()
            if _same(kind, wanted)
        }
    except Exception as error:  # torch, pickle, zip and safetensors each have their own
        raise ArtefactError(
            f"{path} can't be read as ChemNet's weights: {type(error).__name__}: {error}"[:400],
            "It must be the file of the package fcd, or the state dict of "
            "fusemix_chem.network.ChemNet as .safetensors.",
        ) from error


def _same(kind: str, wanted: str) -> bool:
    if kind != wanted:
        raise ValueError(f"a {kind} layer where a {wanted} should be")
    return True


def with_state(state: dict[str, Tensor], origin: object) -> ChemNet:
    """A `ChemNet` of exactly these tensors. Raises ArtefactError if they don't fit."""
    with torch.random.fork_rng(devices=[]):  # to be overwritten, so nobody's draws are spent
        network = ChemNet()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = " ".join(line.strip() for line in str(error).splitlines())
        raise ArtefactError(
            f"The weights in {origin} do not fit ChemNet: {lines[:400]}",
            "Give the weights of ChemNet itself.",
        ) from error
    return network
