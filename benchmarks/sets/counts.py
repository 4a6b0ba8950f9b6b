"""Latents of molecules: counts of their Morgan environments, in the logarithm.

    python -m benchmarks.sets.counts molecules.jsonl OUT.npy

Needs rdkit, which fusemix-chem brings.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

RADIUS, DIM = 2, 1024


def morgan_counts(smiles: Sequence[str]) -> np.ndarray:
    """float16 `[n, 1024]`: log(1 + count) of each molecule's environments; zeros where a SMILES
    can't be read."""
    from rdkit import Chem, rdBase
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    generator = GetMorganGenerator(radius=RADIUS, fpSize=DIM)
    out = np.zeros((len(smiles), DIM), np.float16)
    with rdBase.BlockLogs():  # for this call only: others hear of theirs
        for row, text in zip(out, smiles, strict=True):
            molecule = Chem.MolFromSmiles(text)
            if molecule is not None:
                row[:] = np.log1p(generator.GetCountFingerprintAsNumPy(molecule))
    return out


def write_latents(source: Path, out: Path) -> None:
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    np.save(out, morgan_counts([row["smiles"] for row in rows]))


if __name__ == "__main__":
    write_latents(*map(Path, sys.argv[1:3]))
