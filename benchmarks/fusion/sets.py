"""The labelled sets: where each lies below --data, what is read of it, and what is predicted.

`openstax/` has `manifest.jsonl`; `mfeat/` six tables in one order; `tcga/` the tables of PORPOISE
(`tcga_NAME_all_clean.csv.zip`), of which each patient's first row is kept; `esol/` and `tox21/`
those of DeepChem.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_LEAK = "ESOL predicted log solubility in mols per litre"
_SOLUBILITY = "measured log solubility in mols per litre"
_MFEAT = ("fac", "fou", "kar", "mor", "pix", "zer")
_ROWS = 1_000
"""Of the 2,000 digits."""


@dataclass(frozen=True)
class Labelled:
    """One set: the arguments of `fusemix_core.fuse`, but for the folds."""

    encoders: Mapping[str, str]
    data: Mapping[str, Any]
    target: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)


def openstax(data: Path) -> Labelled:
    """Figures and their alternative texts → the book that they are in."""
    return Labelled(
        {"image": "efficientnet-lite0", "text": "minilm"},
        {
            "source": (str(data / "openstax" / "manifest.jsonl"),),
            "columns": {"text": "alt"},
            "group_by": "module",
        },
        {"target": "book"},
    )


def mfeat(data: Path) -> Labelled:
    """Six descriptions of a handwritten digit, 1,000 rows → the digit."""
    tables = {name: _read(data / "mfeat" / f"mfeat-{name}.csv") for name in _MFEAT}
    target = next(iter(tables.values()))[1:]
    rows = np.sort(np.random.default_rng(0).permutation(len(target))[:_ROWS])
    columns: dict[str, list[str]] = {"digit": [target[i][-1] for i in rows]}
    names = {}
    for name, table in tables.items():
        names[name] = [f"{name}{k}" for k in range(len(table[0]) - 1)]
        for k, column in enumerate(names[name]):
            columns[column] = [table[1:][i][k] for i in rows]
    return Labelled(
        dict.fromkeys(names, "columns"),
        {"source": columns, "columns": {m: ",".join(own) for m, own in names.items()}},
        {"target": "digit:class"},
    )


def esol(data: Path) -> Labelled:
    """A molecule and six descriptors → its solubility. The column that leaks it is left out."""
    return Labelled(
        {"molecule": "chemnet", "table": "columns"},
        {
            "source": (str(data / "esol" / "delaney-processed.csv"),),
            "columns": {"molecule": "smiles"},
            "drop": {"table": f"{_LEAK},Compound ID"},
        },
        {"target": _SOLUBILITY},
    )


def tox21(data: Path) -> Labelled:
    """A molecule and eight descriptors → twelve assays, 17% of which are missing."""
    from rdkit import Chem, RDLogger
    from rdkit.Chem import Crippen, Descriptors, rdMolDescriptors

    RDLogger.DisableLog("rdApp.*")
    measured = {
        "weight": Descriptors.MolWt,
        "logp": Crippen.MolLogP,
        "polar": rdMolDescriptors.CalcTPSA,
        "donors": rdMolDescriptors.CalcNumHBD,
        "acceptors": rdMolDescriptors.CalcNumHBA,
        "rotatable": rdMolDescriptors.CalcNumRotatableBonds,
        "rings": rdMolDescriptors.CalcNumRings,
        "aromatic": rdMolDescriptors.CalcNumAromaticRings,
    }
    with gzip.open(data / "tox21" / "tox21.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    assays = [name for name in rows[0] if name not in ("mol_id", "smiles")]
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    molecules = [Chem.MolFromSmiles(row["smiles"]) for row in rows]
    for name, function in measured.items():
        columns[name] = [None if m is None else f"{function(m):g}" for m in molecules]
    return Labelled(
        {"molecule": "chemnet", "table": "columns"},
        {
            "source": columns,
            "columns": {"molecule": "smiles", "table": ",".join(measured)},
            "max_bad": 0.02,
        },
        {"target": [f"{name}:class" for name in assays]},
    )


def tcga(name: str) -> Callable[[Path], Labelled]:
    """RNA, copy numbers, mutations and two clinical columns → survival."""

    def read(data: Path) -> Labelled:
        table = _read(data / "tcga" / f"tcga_{name}_all_clean.csv.zip")
        header, at = table[0], {column: k for k, column in enumerate(table[0])}
        patients = {row[at["case_id"]]: row for row in reversed(table[1:])}
        rows = list(patients.values())
        groups = {
            "rna": [c for c in header if c.endswith("_rnaseq")],
            "cnv": [c for c in header if c.endswith("_cnv")],
            "mutation": [c for c in header if c.endswith("_mut")],
            "clinical": ["age", "is_female"],
        }
        columns = {c: [row[at[c]] for row in rows] for own in groups.values() for c in own}
        columns["months"] = [row[at["survival_months"]] for row in rows]
        columns["died"] = [f"{1 - float(row[at['censorship']]):g}" for row in rows]
        present = {m: ",".join(own) for m, own in groups.items() if own}
        return Labelled(
            dict.fromkeys(present, "columns"),
            {"source": columns, "columns": present},
            {"time": "months", "event": "died"},
        )

    return read


SETS: Mapping[str, Callable[[Path], Labelled]] = {
    "gbmlgg": tcga("gbmlgg"),
    "kirc": tcga("kirc"),
    "blca": tcga("blca"),
    "mfeat": mfeat,
    "openstax": openstax,
    "esol": esol,
    "tox21": tox21,
}


def _read(path: Path) -> list[list[str]]:
    """The cells of a CSV, or of the one in a zip archive, header first."""
    if path.suffix != ".zip":
        return list(csv.reader(io.StringIO(path.read_text())))
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        return list(csv.reader(io.TextIOWrapper(file)))
