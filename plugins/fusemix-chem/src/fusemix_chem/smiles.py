"""SMILES strings as molecules, and as ChemNet reads them: canonical, in 35 symbols, 350 of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from rdkit import Chem, rdBase
from torch import Tensor

SYMBOLS = (
    *("C", "N", "O", "H", "F", "Cl", "P", "B", "Br", "S", "I", "Si"),
    *("#", "(", ")", "+", "-", "1", "2", "3", "4", "5", "6", "7", "8", "=", "[", "]", "@"),
    *("c", "n", "o", "s", "X", "."),
)
"""In the order of the weights' input channels. X stands for any other; a dot ends the string."""

LENGTH = 350
"""Positions that ChemNet was trained on, the end among them. The second LSTM reads the padding
last, so that another length gives other latents."""

MOLECULES = (
    "C",
    "CCO",
    "[Na+].[Cl-]",
    "C/C=C/C",
    "C[C@H](N)C(=O)O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "CC(=O)Oc1ccccc1C(=O)O",
    "[2H]O[Si](C)(Br)Cl",
    "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "C" * 400,
)
"""Small and large: charges, rings, stereo, a salt, one atom, one too long for ChemNet."""

PAD = -1
_INDEX = {symbol: i for i, symbol in enumerate(SYMBOLS)}
_SYMBOL = re.compile("Cl|Br|Si|.", re.DOTALL)


def molecule(smiles: str) -> Chem.Mol:
    """As RDKit has it. Raises ValueError, which names it, if it is not a molecule."""
    # Blocks rdkit's own complaints on stderr for this call only; the error says it better.
    with rdBase.BlockLogs():
        found = Chem.MolFromSmiles(smiles)
    if found is None or not found.GetNumAtoms():
        raise ValueError(f"not a valid SMILES: '{smiles[:200]}'")
    return found


def canonical(smiles: str) -> str:
    """RDKit's canonical form. Raises ValueError, which names it, for what is not a molecule."""
    return Chem.MolToSmiles(molecule(smiles))


def symbols(smiles: str) -> tuple[int, ...]:
    """Indices into `SYMBOLS` of the canonical form and its end, uncut."""
    unknown = _INDEX["X"]
    found = (_INDEX.get(symbol, unknown) for symbol in _SYMBOL.findall(canonical(smiles)))
    return (*found, _INDEX["."])


def symbol_table(molecules: Sequence[str]) -> tuple[Tensor, int]:
    """(int64 `[n, 350]`: the symbols of each, padded with `PAD`; how many have more). A longer one
    is cut, but ends."""
    table, cut = torch.full((len(molecules), LENGTH), PAD), 0
    for row, smiles in zip(table, molecules, strict=True):
        found = symbols(smiles)
        if len(found) > LENGTH:
            found, cut = (*found[: LENGTH - 1], found[-1]), cut + 1
        row[: len(found)] = torch.tensor(found)
    return table, cut
